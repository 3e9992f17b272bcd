//! `cardea-bench-upstream PORT…`: the smallest keep-alive responder: one read, one write, 1 KiB.
//!
//! It must cost less than the proxies in front of it, or it is what gets measured.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const BODY: usize = 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nDate: Fri, 20 Nov 2026 19:00:00 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: {BODY}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + BODY, b'x');
    let answer: &'static [u8] = answer.leak();
    let mut listeners = JoinSet::new();
    for port in std::env::args().skip(1) {
        let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
        listeners.spawn(accept(listener, answer));
    }
    println!("ready");
    while listeners.join_next().await.is_some() {}
    Ok(())
}

async fn accept(listener: TcpListener, answer: &'static [u8]) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, answer));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Requests are GETs without a body, sent one after another: their heads end with an empty line.
async fn serve(mut stream: TcpStream, answer: &'static [u8]) {
    drop(stream.set_nodelay(true));
    let mut buffer = vec![0; 8192];
    let mut used = 0;
    loop {
        match stream.read(&mut buffer[used..]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => used += read,
        }
        if buffer[..used].ends_with(b"\r\n\r\n") {
            used = 0;
            if stream.write_all(answer).await.is_err() {
                return;
            }
        } else if used == buffer.len() {
            return;
        }
    }
}
