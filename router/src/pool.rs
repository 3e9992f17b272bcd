//! A worker's idle connections to peers.

use std::{cell::RefCell, time::Duration};

use crate::wire::Wire;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Idle connections to one peer that are kept.
const MOST: usize = 512;
/// How long the place of a peer without connections is kept, in milliseconds.
const FORGET_AFTER: u64 = 60_000;

/// Idle connections, by the peers' numbers. Times are milliseconds of the worker's clock.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    peers: RefCell<HashMap<u64, Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Of many peers, each has one or none as a rule.
    connections: SmallVec<[Kept; 1]>,
    used: u64,
}

/// An idle connection.
#[derive(Debug)]
struct Kept {
    wire: Wire,
    until: u64,
    /// On which terms it was made; see [`crate::upstream::Security::number`].
    terms: u64,
}

impl Pool {
    /// The connection that was used last, if there is one that the peer still holds open. `surely`:
    /// ask the system, because what is sent on it cannot be sent again. One that was made on other
    /// terms is closed.
    pub(crate) fn take(&self, peer: u64, terms: u64, now: u64, surely: bool) -> Option<Wire> {
        let mut peers = self.peers.borrow_mut();
        let idle = peers.get_mut(&peer)?;
        while let Some(Kept {
            wire,
            until,
            terms: of,
        }) = idle.connections.pop()
        {
            if of == terms
                && until > now
                && wire.is_silent()
                && (!surely || wire.is_surely_silent())
            {
                return Some(wire);
            }
        }
        None
    }

    /// Keeps a connection for a while, unless the peer has closed it or said too much.
    pub(crate) fn put(&self, peer: u64, terms: u64, wire: Wire, now: u64, keep: Duration) {
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        if keep == 0 || !wire.is_silent() {
            return;
        }
        let mut peers = self.peers.borrow_mut();
        let idle = peers.entry(peer).or_default();
        idle.used = now;
        if idle.connections.len() < MOST {
            let until = now.saturating_add(keep);
            idle.connections.push(Kept { wire, until, terms });
        }
    }

    /// Closes what is over its time or was closed by its peer.
    pub(crate) fn sweep(&self, now: u64) {
        self.peers.borrow_mut().retain(|_, idle| {
            idle.connections
                .retain(|kept| kept.until > now && kept.wire.is_silent());
            !idle.connections.is_empty() || idle.used + FORGET_AFTER > now
        });
    }

    /// Whether there are no idle connections.
    pub(crate) fn is_empty(&self) -> bool {
        let peers = self.peers.borrow();
        peers.values().all(|idle| idle.connections.is_empty())
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        self.peers.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    use tokio::net::TcpStream;

    async fn pair() -> (Wire, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (Wire::Tcp(stream), listener.accept().unwrap().0)
    }

    fn port(wire: &Wire) -> u16 {
        match wire {
            Wire::Tcp(stream) => stream.local_addr().unwrap().port(),
            Wire::Other(_) => unreachable!(),
        }
    }

    const KEEP: Duration = Duration::from_secs(4);

    #[tokio::test]
    async fn gives_back_the_last_one_while_it_lasts() {
        let pool = Pool::default();
        let (a, _a) = pair().await;
        let (b, _b) = pair().await;
        let last = port(&b);
        pool.put(7, 0, a, 0, KEEP);
        pool.put(7, 0, b, 1, KEEP);
        assert!(pool.take(8, 0, 2, false).is_none());
        assert_eq!(port(&pool.take(7, 0, 2, true).unwrap()), last);
        assert!(pool.take(7, 0, 4000, false).is_none());
    }

    #[tokio::test]
    async fn a_closed_or_talking_connection_is_not_given_out() {
        let pool = Pool::default();
        let (closed, other) = pair().await;
        drop(other);
        std::future::poll_fn(|cx| closed.poll_read_ready(cx))
            .await
            .unwrap();
        pool.put(7, 0, closed, 0, KEEP);
        let (talking, mut other) = pair().await;
        pool.put(7, 0, talking, 0, KEEP);
        other.write_all(b"x").unwrap();
        // The event may not have been seen yet; the system knows.
        assert!(pool.take(7, 0, 1, true).is_none());
    }
}
