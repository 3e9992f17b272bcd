//! One try on one peer, from the pick to its verdict.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock,
    health::Trial,
    peer::{Failure, Peer, PeerNumber},
    upstream::Upstream,
};

/// A picked peer. While it lives, the peer counts it as in flight: keep it until the response's last
/// byte (or the tunnel's end), then drop it.
///
/// Verdicts: [`Picked::responded`] when a response head with a status that is no failure came,
/// [`Picked::finished`] when the whole response did, [`Picked::failed`] for everything that is the
/// peer's fault. Dropped without a verdict (the client went away) it says nothing about the peer.
#[derive(Debug)]
pub struct Picked {
    upstream: Arc<Upstream>,
    member: usize,
    trial: Trial,
    settled: bool,
}

impl Picked {
    pub(crate) fn new(upstream: Arc<Upstream>, member: usize, trial: Trial) -> Self {
        upstream.members()[member].peer.begin();
        Self {
            upstream,
            member,
            trial,
            settled: false,
        }
    }

    /// Whom to ask.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.upstream.members()[self.member].peer
    }

    /// The peer's number.
    pub fn number(&self) -> PeerNumber {
        self.upstream.members()[self.member].number()
    }

    /// The upstream it was picked from: the newest one this worker has seen, which may be newer than
    /// the one of the request's table.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Why this peer is asked.
    pub fn trial(&self) -> Trial {
        self.trial
    }

    /// A response head came whose status is no failure, `took` after the request was sent. Decides a
    /// probe; does not yet reset the count of failures, since the body may still break.
    pub fn responded(&mut self, took: Duration, now: Instant) {
        let peer = self.peer();
        peer.observe(took, clock::millis(now));
        if self.upstream.is_measured() {
            peer.count_answer(took);
        }
        if self.trial != Trial::Normal {
            peer.succeeded(self.trial);
            self.trial = Trial::Normal;
            self.settled = true;
        }
    }

    /// The whole response came.
    pub fn finished(&mut self) {
        self.peer().succeeded(self.trial);
        self.settled = true;
    }

    /// The peer failed. Never call it for what the client did.
    pub fn failed(&mut self, failure: Failure, now: Instant) {
        let policy = self.upstream.policy();
        self.peer().failed(
            failure,
            policy.rules,
            policy.health.max_ejected_percent,
            self.trial,
            clock::millis(now),
        );
        self.settled = true;
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        let peer = self.peer();
        peer.end();
        if !self.settled && self.trial == Trial::Probe {
            peer.abandoned(self.trial, clock::millis(Instant::now()));
        }
    }
}
