//! The backend's WebSocket: answers each text with `NAME TEXT`.

use std::{
    io::Write,
    sync::{Arc, atomic::Ordering},
};

use tokio::net::TcpStream;
use tungstenite::{Message, WebSocket, handshake::derive_accept_key, protocol::Role};

use super::State;

/// Takes the connection over, on a thread of its own that ends with the connection.
pub(super) fn serve(stream: TcpStream, key: &str, state: Arc<State>) {
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    std::thread::spawn(move || {
        state.websockets.fetch_add(1, Ordering::SeqCst);
        drop(run(stream, &head, &state));
        state.websockets.fetch_sub(1, Ordering::SeqCst);
    });
}

fn run(stream: TcpStream, head: &str, state: &State) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.write_all(head.as_bytes())?;
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    loop {
        if let Message::Text(text) = socket.read()? {
            socket.send(Message::text(format!("{} {text}", state.name())))?;
        }
    }
}
