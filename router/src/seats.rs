//! How many client connections there may be, in all and of each client. All workers share the count:
//! shares of their own would refuse clients at one worker while another has room. It is touched when
//! a connection comes and when it goes, never by a request.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::config::Limits;

mod clients;

pub(crate) use clients::ClientKey;
use clients::Clients;

/// The places of all workers.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: AtomicUsize,
    /// Newcomers that wait for one.
    waiting: AtomicUsize,
    /// How many of them no idle connection has been found for.
    wishes: AtomicUsize,
    freed: Notify,
    /// Each worker's: it is asked to look for an idle connection.
    asked: Box<[Notify]>,
    clients: Option<Clients>,
}

impl Seats {
    /// So many places, for the connections of so many workers.
    pub(crate) fn new(limits: &Limits, most: usize, workers: usize) -> Self {
        Self {
            most,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            wishes: AtomicUsize::new(0),
            freed: Notify::new(),
            asked: (0..workers).map(|_| Notify::new()).collect(),
            clients: limits.connections_per_client.map(Clients::new),
        }
    }

    /// How many there are.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self) -> bool {
        let more = |taken| (taken < self.most).then_some(taken + 1);
        let taken = (self.taken).fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        taken.is_ok()
    }

    /// Takes a place for a connection that is to be served in any case.
    pub(crate) fn take_surely(&self) {
        self.taken.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
        self.freed.notify_one();
    }

    /// Told when a place is free again.
    pub(crate) const fn freed(&self) -> &Notify {
        &self.freed
    }

    /// Counts a connection of a client; none: it has as many as it may have.
    pub(crate) fn take_client(&self, address: IpAddr) -> Option<ClientKey> {
        let key = ClientKey::of(address);
        let counted = self.clients.as_ref()?.take(key);
        counted.then_some(key)
    }

    /// Whether the connections of each client are limited.
    pub(crate) const fn counts_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// Gives a client's place back.
    pub(crate) fn leave_client(&self, key: ClientKey) {
        if let Some(clients) = &self.clients {
            clients.leave(key);
        }
    }

    /// A newcomer begins to wait.
    pub(crate) fn begin_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// A newcomer waits no longer. What the last of them wished for is nobody's wish any more.
    pub(crate) fn end_waiting(&self) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wishes.store(0, Ordering::Release);
        }
    }

    /// Asks the other workers for an idle connection to make room.
    pub(crate) fn wish(&self, worker: usize) {
        if self.asked.len() < 2 {
            return;
        }
        // Never more than there are newcomers: they ask again and again.
        let most = self.waiting.load(Ordering::Acquire);
        let more = |wishes| (wishes < most).then_some(wishes + 1);
        let _ = (self.wishes).fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        for (other, asked) in self.asked.iter().enumerate() {
            if other != worker {
                asked.notify_one();
            }
        }
    }

    /// Waits until the worker is asked for an idle connection.
    pub(crate) async fn asked(&self, worker: usize) {
        self.asked[worker].notified().await;
    }

    /// Takes a wish, to fulfil it; `false`: there is none.
    pub(crate) fn take_wish(&self) -> bool {
        let less = |wishes: usize| wishes.checked_sub(1);
        let taken = (self.wishes).fetch_update(Ordering::AcqRel, Ordering::Relaxed, less);
        taken.is_ok()
    }

    /// Gives one back that could not be fulfilled.
    pub(crate) fn return_wish(&self) {
        self.wishes.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(most: usize, per_client: Option<u32>, workers: usize) -> Seats {
        let limits = Limits {
            connections_per_client: per_client,
            ..Limits::default()
        };
        Seats::new(&limits, most, workers)
    }

    #[test]
    fn there_are_as_many_as_there_are() {
        let seats = seats(2, None, 1);
        assert!(seats.take() && seats.take() && !seats.take());
        seats.take_surely();
        seats.leave();
        assert!(!seats.take());
        seats.leave();
        assert!(seats.take());
    }

    #[test]
    fn a_wish_is_fulfilled_once_and_ends_with_the_last_newcomer() {
        let seats = seats(1, None, 2);
        seats.begin_waiting();
        seats.wish(0);
        seats.wish(0);
        assert!(seats.take_wish() && !seats.take_wish());
        seats.return_wish();
        seats.end_waiting();
        assert!(!seats.take_wish());
    }

    #[test]
    fn each_client_has_its_own_count() {
        let seats = seats(9, Some(1), 1);
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = seats.take_client(a).unwrap();
        assert!(seats.take_client(a).is_none());
        assert!(seats.take_client(b).is_some());
        seats.leave_client(first);
        assert!(seats.take_client(a).is_some());
    }
}
