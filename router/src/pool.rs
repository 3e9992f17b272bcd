//! A worker's idle connections to peers.
//!
//! A peer's place is found by its number, in a line of memory of its own: where there are hundreds of peers,
//! none of what belongs to the next one is in a cache, and its place can be fetched without a look at the
//! places of others ([`Pool::fetch_ahead`]).

use std::{cell::RefCell, time::Duration};

use crate::{ahead, balance::Upcoming, peer::PeerNumber, wire::Wire};

mod places;

use places::{Place, Places};

/// Idle connections to one peer that are kept.
const MOST: usize = 512;
/// How long the place of a peer without connections is kept, in milliseconds.
const FORGET_AFTER: u64 = 60_000;

/// Idle connections, by the peers' numbers. Times are milliseconds of the worker's clock.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    places: RefCell<Places<Kept>>,
}

/// An idle connection.
#[derive(Debug)]
struct Kept {
    wire: Wire,
    until: u64,
    /// On which terms it was made; see [`crate::upstream::Security::number`].
    terms: u64,
}

// A peer with one connection or none needs one cache line.
const _: () = assert!(Place::<Kept>::FRONT <= 64);

impl Kept {
    /// Whether it may still be used, as far as is known without asking the system.
    fn lasts(&self, now: u64) -> bool {
        self.until > now && self.wire.is_silent()
    }
}

impl Pool {
    /// The connection that was used last, if there is one that the peer still holds open. `surely`:
    /// ask the system, because what is sent on it cannot be sent again. One that was made on other
    /// terms is closed.
    pub(crate) fn take(
        &self,
        peer: PeerNumber,
        terms: u64,
        now: u64,
        surely: bool,
    ) -> Option<Wire> {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(peer)?;
        while let Some(kept) = place.pop(now) {
            if kept.terms == terms && kept.lasts(now) && (!surely || kept.wire.is_surely_silent()) {
                return Some(kept.wire);
            }
        }
        None
    }

    /// Keeps a connection for a while, unless the peer has closed it or said too much.
    pub(crate) fn put(&self, peer: PeerNumber, terms: u64, wire: Wire, now: u64, keep: Duration) {
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        if keep == 0 || !wire.is_silent() {
            return;
        }
        let mut places = self.places.borrow_mut();
        let place = places.of(peer, now);
        if place.has_room(MOST) {
            let until = now.saturating_add(keep);
            place.push(Kept { wire, until, terms });
        }
    }

    /// Has what the next takes will look at fetched.
    pub(crate) fn fetch_ahead(&self, upcoming: Upcoming) {
        let places = self.places.borrow();
        if let Some(place) = upcoming.after.and_then(|peer| places.home(peer)) {
            ahead::fetch(place);
        }
        // Its place was fetched when it was the one after.
        if let Some(kept) = upcoming.next.and_then(|peer| places.get(peer)?.last()) {
            kept.wire.fetch_ahead();
        }
    }

    /// Closes what is over its time or was closed by its peer.
    pub(crate) fn sweep(&self, now: u64) {
        self.places.borrow_mut().retain(|place| {
            place.retain(now, |kept| kept.lasts(now));
            let empty_since = place.empty_since();
            empty_since.is_none_or(|since| since + FORGET_AFTER > now)
        });
    }

    /// Whether there are no idle connections.
    pub(crate) fn is_empty(&self) -> bool {
        let places = self.places.borrow();
        places.iter().all(|place| place.len() == 0)
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        *self.places.borrow_mut() = Places::default();
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
