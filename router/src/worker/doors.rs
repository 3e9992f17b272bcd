//! The listening sockets of one worker: mostly one, more after an upgrade to fewer workers.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use tokio::net::{TcpListener, TcpStream};

/// All sockets that a worker accepts from.
#[derive(Debug)]
pub(super) struct Doors {
    listeners: Vec<TcpListener>,
    /// Which is asked first, so that a busy one leaves the others their turn.
    first: usize,
}

impl Doors {
    /// Takes the sockets into this thread's event loop.
    pub(super) fn new(sockets: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let listeners: io::Result<_> = sockets.into_iter().map(TcpListener::from_std).collect();
        Ok(Self {
            listeners: listeners?,
            first: 0,
        })
    }

    /// The next connection of any of them.
    pub(super) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.listeners.len();
        for offset in 0..count {
            let at = (self.first + offset) % count;
            if let Poll::Ready(accepted) = self.listeners[at].poll_accept(cx) {
                self.first = at + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    /// The sockets themselves, out of the event loop.
    pub(super) fn into_std(self) -> impl Iterator<Item = io::Result<std::net::TcpListener>> {
        self.listeners.into_iter().map(TcpListener::into_std)
    }
}
