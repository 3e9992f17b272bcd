//! A peer: an instance as this router sees it. What is learnt about it (health, requests in flight,
//! latency) belongs to it and outlives tables; an instance that moves to another address is another
//! peer.
//!
//! Reads on the way of a request are single atomic loads of [`Peer::word`]: zero means "takes
//! requests and nothing speaks against it". Whatever changes a peer's standing takes its lock, runs
//! the state machine, counts the change in the upstream's guard and publishes a new word.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use cardea_registry_api::{Address, InstanceKey};

use crate::{
    ahead, clock,
    health::{Passive, Rules, State, Trial, guard::Guard},
    traffic::load,
};

mod latency;
mod picked;
mod report;
mod word;

pub(crate) use latency::Latency;
pub use picked::Picked;
pub use report::{PeerReport, Standing};
pub(crate) use word::Word;

/// Names a peer for this process's life; never used twice.
pub type PeerNumber = u64;

/// What went wrong with a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The connection was refused or the host unreachable.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// In the TLS handshake it did not agree on HTTP/2, which the service is asked in.
    Alpn,
    /// No connection within `timeouts.connect`.
    ConnectTimeout,
    /// No first byte within `timeouts.first_byte`.
    FirstByteTimeout,
    /// The body stood still for `timeouts.idle`.
    IdleTimeout,
    /// The connection broke in the middle of a message.
    Reset,
    /// What came was no HTTP.
    Protocol,
    /// The response had a status that `health.statuses` names.
    Status(u16),
    /// The response had a gRPC status that `health.grpc_statuses` names.
    GrpcStatus(u8),
}

impl Failure {
    /// The kind as a metric label.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Alpn => "alpn",
            Self::ConnectTimeout => "connect_timeout",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Status(_) => "status",
            Self::GrpcStatus(_) => "grpc_status",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::GrpcStatus(status) => write!(f, "gRPC status {status}"),
            other => f.write_str(other.kind()),
        }
    }
}

/// An instance as this router sees it. What every request needs comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Peer {
    word: AtomicU64,
    born: u64,
    in_flight: AtomicU32,
    requests: AtomicU64,
    latency: Latency,
    authority: Box<str>,
    number: PeerNumber,
    /// Answers and how long they took, where somebody wants to know.
    answers: AtomicU64,
    /// Of the key: the same in all routers, so that they agree on consistent hashes.
    hash: u64,
    key: InstanceKey,
    address: Address,
    guard: Arc<Guard>,
    /// Where to connect: fixed for an IP address, kept up by the resolver for a name.
    socket: ArcSwapOption<SocketAddr>,
    fixed: Option<SocketAddr>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    passive: Passive,
    /// Meant to take requests: state `up`, a weight, and in the newest table.
    takes: bool,
    /// The router's own checks say it is down.
    checks_down: bool,
    check_reason: Option<String>,
    failures: u64,
    marked: u64,
    last_failure: Option<(Failure, i64)>,
    marked_since: Option<i64>,
    /// It should be marked, but its upstream cannot spare it.
    spared: bool,
}

impl Peer {
    pub(crate) fn new(
        number: PeerNumber,
        key: InstanceKey,
        address: Address,
        guard: Arc<Guard>,
        now: Instant,
    ) -> Self {
        let fixed = address
            .host()
            .parse()
            .ok()
            .map(|ip| SocketAddr::new(ip, address.port()));
        Self {
            number,
            hash: xxhash_rust::xxh3::xxh3_64(key.to_string().as_bytes()),
            authority: address.to_string().into(),
            key,
            address,
            born: clock::millis(now),
            guard,
            socket: ArcSwapOption::empty(),
            fixed,
            word: AtomicU64::new(Word::new(false, false, State::Up, false).bits()),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            latency: Latency::default(),
            answers: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                passive: Passive::new(),
                takes: false,
                checks_down: false,
                check_reason: None,
                failures: 0,
                marked: 0,
                last_failure: None,
                marked_since: None,
                spared: false,
            }),
        }
    }

    /// What names it in this process: the key of connection pools and of `tried`.
    pub fn number(&self) -> PeerNumber {
        self.number
    }

    /// What names it everywhere.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// The address as registered.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The address as text, for logs and the Host of checks.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where to connect; none while its name has not been resolved.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.fixed
            .or_else(|| self.socket.load().as_deref().copied())
    }

    /// The resolver's finding; keeps the last good one otherwise.
    pub(crate) fn resolved(&self, to: SocketAddr) {
        self.socket.store(Some(Arc::new(to)));
    }

    /// Whether its address is a name that must be resolved.
    pub(crate) fn needs_resolving(&self) -> bool {
        self.fixed.is_none()
    }

    /// Requests (and tunnels) it has right now from this router.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the newest table still sends it new requests (health aside). Pools may close idle
    /// connections to a peer that no longer takes any.
    pub fn takes_requests(&self) -> bool {
        self.word().takes()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    pub(crate) fn word(&self) -> Word {
        Word::from(self.word.load(Ordering::Acquire))
    }

    /// Has what every request needs of it fetched.
    pub(crate) fn fetch_ahead(&self) {
        ahead::fetch(&self.word);
        ahead::fetch(&self.authority);
    }

    /// The share of its weight that a new peer gets: a tenth at first, all of it after `over`.
    pub(crate) fn warmth(&self, over_ms: u64, now: u64) -> f32 {
        let age = now.saturating_sub(self.born);
        if age >= over_ms {
            1.0
        } else {
            0.1 + 0.9 * (age as f32 / over_ms as f32)
        }
    }

    /// The table says whether it takes new requests.
    pub(crate) fn set_takes(&self, takes: bool) {
        self.change(|inner| inner.takes = takes);
    }

    /// The router's own checks changed their mind; a reason: it is down.
    pub(crate) fn set_checks(&self, down: Option<String>) {
        self.change(|inner| {
            inner.checks_down = down.is_some();
            inner.check_reason = down;
        });
    }

    /// Takes the permission to probe, if it is to be had; only one request in all workers gets it.
    pub(crate) fn try_probe(&self, rules: Rules, lease: u64, replayable: bool, now: u64) -> bool {
        let mut won = false;
        self.change(|inner| {
            won = !inner.checks_down
                && inner.takes
                && inner.passive.try_probe(now, rules, lease, replayable);
        });
        won
    }

    fn succeeded(&self, trial: Trial) {
        // The way of nearly every request: nothing to forget, nothing to lock.
        if trial == Trial::Normal && !self.word().troubled() {
            return;
        }
        self.change(|inner| {
            inner.passive.on_success(trial);
            if inner.passive.state() == State::Up {
                inner.marked_since = None;
                inner.spared = false;
            }
        });
    }

    fn failed(&self, failure: Failure, rules: Rules, percent: u8, trial: Trial, now: u64) {
        let guard = &self.guard;
        let mut inner = self.lock();
        inner.failures += 1;
        inner.last_failure = Some((failure, clock::unix_millis()));
        let before = inner.standing();
        let was = inner.passive.state();
        let mut asked = None;
        // A peer that is out by its checks, or leaving, is not one that the upstream counts on.
        let counted = inner.takes && !inner.checks_down;
        inner.passive.on_failure(now, rules, trial, || {
            let spare = !counted || guard.try_mark(percent);
            asked = Some(spare);
            spare
        });
        let after = inner.standing();
        if let Some(spare) = asked {
            inner.spared = !spare;
        }
        if was == State::Up && inner.passive.state() != State::Up {
            inner.marked += 1;
            inner.marked_since = Some(clock::unix_millis());
            // `try_mark` has counted it already.
        } else {
            guard.moved(before, after);
        }
        self.publish(&inner);
        if inner.passive.state() != was {
            guard.announce();
        }
        drop(inner);
        if asked == Some(true) {
            tracing::warn!(peer = %self.key, address = %self.address, cause = %failure, "peer marked down");
        }
    }

    fn abandoned(&self, trial: Trial, now: u64) {
        if trial == Trial::Probe {
            self.change(|inner| inner.passive.on_abandoned(now, trial));
        }
    }

    /// Runs a change under the lock, counts what it did to the upstream and publishes it.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        let (before, was) = (inner.standing(), inner.passive.state());
        change(&mut inner);
        let (after, is) = (inner.standing(), inner.passive.state());
        self.guard.moved(before, after);
        self.publish(&inner);
        // Only now: who is told to look again must find the new word.
        if before != after || was != is {
            self.guard.announce();
        }
    }

    fn publish(&self, inner: &Inner) {
        let word = Word::new(
            inner.takes,
            inner.checks_down,
            inner.passive.state(),
            inner.passive.fails() > 0,
        );
        self.word.store(word.bits(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn observe(&self, took: Duration, now: u64) {
        self.latency.observe(took, now);
    }

    fn count_answer(&self, took: Duration) {
        self.answers.fetch_add(load::pack(took), Ordering::Relaxed);
    }

    /// What it has served.
    pub(crate) fn counted(&self) -> load::Counted {
        load::Counted {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.lock().failures,
            answers: self.answers.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    /// Whether it is meant to take requests, and whether it is out.
    fn standing(&self) -> (bool, bool) {
        (self.takes, self.is_out())
    }

    fn is_out(&self) -> bool {
        self.checks_down || self.passive.state() != State::Up
    }
}

#[cfg(test)]
mod tests;
