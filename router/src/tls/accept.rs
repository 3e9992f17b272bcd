//! The handshake with a client.

use std::{future::poll_fn, io, sync::Arc, task::Poll};

use rustls::server::{Acceptor, UnbufferedServerConnection};
use tokio::net::TcpStream;

use crate::{
    timer::Timer,
    tls::{
        Certificates, Facts, Failed, TlsStream,
        session::{Session, broken},
        stream::Inner,
    },
};

/// A client's first message is not longer.
const MOST_HELLO: usize = 64 << 10;

/// Agrees with a client on how to speak; it takes as long as the timer lets it.
pub(crate) async fn accept(
    tcp: TcpStream,
    certificates: &Certificates,
    timer: &Timer,
) -> Result<TlsStream, Failed> {
    let (config, asked, hello) = if certificates.asks_clients() {
        let (hello, name) = hello(&tcp, timer).await?;
        let (config, asked) = certificates.config(name.as_deref());
        (config, asked.cloned(), hello)
    } else {
        (certificates.common(), None, Vec::new())
    };
    let session = UnbufferedServerConnection::new(Arc::clone(config)).map_err(broken)?;
    let mut inner = Inner::new(tcp, Session::Server(Box::new(session)));
    if !hello.is_empty() {
        inner.offer(hello)?;
    }
    until(timer, |cx| inner.poll_handshake(cx)).await?;
    let facts = Facts::of(&inner.session, asked);
    Ok(TlsStream::new(inner, facts))
}

/// Polls until it is ready or the timer goes off.
pub(super) async fn until<T>(
    timer: &Timer,
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<io::Result<T>>,
) -> io::Result<T> {
    poll_fn(|cx| match poll(cx) {
        Poll::Pending if timer.fired() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        other => other,
    })
    .await
}

/// Reads a client's first message: it names the host. What was read is given back, to be read again
/// by the session that is chosen for it.
async fn hello(tcp: &TcpStream, timer: &Timer) -> io::Result<(Vec<u8>, Option<String>)> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::new();
    loop {
        until(timer, |cx| tcp.poll_read_ready(cx)).await?;
        let mut space = [0; 2048];
        let n = match tcp.try_read(&mut space) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        if n == 0 || bytes.len() > MOST_HELLO {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&space[..n]);
        let mut new = &space[..n];
        while !new.is_empty() {
            acceptor.read_tls(&mut new)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Ok((bytes, name));
                }
                // The session that it is given to says the same, and tells the client.
                Err(_) => return Ok((bytes, None)),
            }
        }
    }
}
