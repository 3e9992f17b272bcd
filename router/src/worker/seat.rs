//! What a client's connection holds of what is counted, for as long as it is open.

use std::{cell::Cell, net::IpAddr, rc::Rc};

use super::Worker;
use crate::{descriptors::CROWD, seats::ClientKey};

/// An open client connection, counted.
#[derive(Debug)]
pub(super) struct Seat {
    worker: Rc<Worker>,
    /// It has one of the places there are in all.
    taken: Cell<bool>,
    client: Cell<Option<ClientKey>>,
}

impl Seat {
    /// Counts a connection; it has no place yet.
    pub(super) fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        worker.metrics.share.connections.add(1);
        Self {
            worker: Rc::clone(worker),
            taken: Cell::new(false),
            client: Cell::new(None),
        }
    }

    /// Whose it is.
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Takes a place, if there is one. A worker that stops serves whoever has come.
    pub(super) fn take(&self) -> bool {
        let seats = &self.worker.seats;
        let taken = seats.take();
        if !taken && self.worker.stopping() {
            seats.take_surely();
        }
        self.taken.set(taken || self.worker.stopping());
        self.taken.get()
    }

    /// Takes one of its client's places; `false`: it has none left. Proxies that are trusted have
    /// any number.
    pub(super) fn take_for(&self, client: IpAddr) -> bool {
        let worker = &self.worker;
        if !worker.seats.counts_clients() || worker.is_proxy(client) {
            return true;
        }
        self.client.set(worker.seats.take_client(client));
        self.client.get().is_some()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.open.set(worker.open.get().saturating_sub(1));
        worker.metrics.share.connections.sub(1);
        if let Some(client) = self.client.get() {
            worker.seats.leave_client(client);
        }
        if self.taken.get() {
            worker.seats.leave();
        }
    }
}

/// A newcomer that waits for a place.
#[derive(Debug)]
pub(super) struct Waits(Rc<Worker>);

impl Drop for Waits {
    fn drop(&mut self) {
        let Self(worker) = self;
        worker.waiting.set(worker.waiting.get().saturating_sub(1));
        worker.seats.end_waiting();
        worker.moved_on.notify_one();
    }
}

/// A newcomer that is told that there is no place.
#[derive(Debug)]
pub(super) struct Told<'w>(&'w Worker);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let Self(worker) = self;
        worker.told.set(worker.told.get().saturating_sub(1));
    }
}

impl Worker {
    /// Counts a newcomer that waits.
    pub(super) fn begin_waiting(self: &Rc<Self>) -> Waits {
        self.waiting.set(self.waiting.get() + 1);
        self.seats.begin_waiting();
        Waits(Rc::clone(self))
    }

    /// Counts a newcomer that is told; none: there are too many of them.
    pub(super) fn tell_crowded(&self) -> Option<Told<'_>> {
        let told = self.told.get();
        (told < CROWD).then(|| {
            self.told.set(told + 1);
            Told(self)
        })
    }
}

/// A place for a request of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct HeldStream(pub(crate) Rc<Worker>);

impl HeldStream {
    /// Takes one, unless there are as many as this worker may have connections: each of them needs
    /// what a busy connection does.
    pub(crate) fn take(worker: &Rc<Worker>) -> Option<Self> {
        let streams = worker.streams.get();
        (streams < worker.most_streams).then(|| {
            worker.streams.set(streams + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for HeldStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}
