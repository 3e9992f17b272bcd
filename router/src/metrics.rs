//! Counters of the request path. Each worker counts for itself, with plain loads and stores on
//! numbers that only it writes; they are added up when somebody asks.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cardea_registry_api::Name;

use crate::{
    ahead,
    arrival::Reason,
    http1::request::Method,
    switches::{Feature, on},
    tls::{self, Version},
};

mod places;
mod render;
mod series;
mod tally;

use places::Places;
use render::Summed;
use series::{Few, RouteSeries};

pub(crate) use tally::{Sum, Tally, Told, UnderWay};

/// The bounds of the duration histograms, in microseconds.
pub(crate) const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// The label of what no route took.
pub(crate) const NONE: &str = "none";

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only ever called by the thread that owns the counter.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Takes away; only ever called by the thread that owns the counter.
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(n),
            Ordering::Relaxed,
        );
    }

    /// The number now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations in buckets.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    sum_us: Counter,
    buckets: [Counter; BOUNDS_US.len() + 1],
}

impl Histogram {
    /// Counts one.
    pub(crate) fn observe(&self, took: Duration) {
        let us = micros(took);
        self.buckets[bucket_of(us)].add(1);
        self.sum_us.add(us);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Which bucket of [`BOUNDS_US`] so many microseconds belong to.
fn bucket_of(us: u64) -> usize {
    let bucket = BOUNDS_US.iter().position(|bound| us <= *bound);
    bucket.unwrap_or(BOUNDS_US.len())
}

/// The labels of a request that are not its route's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestLabels {
    pub(crate) code: u16,
    pub(crate) method: Method,
    pub(crate) protocol: Protocol,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
    /// WebSocket and whatever else a client upgraded to.
    Upgrade,
}

impl Protocol {
    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Upgrade => "upgrade",
        }
    }
}

/// What one worker counted of TLS with clients.
#[derive(Debug, Default)]
pub(crate) struct TlsCounts {
    /// By version, and whether an earlier session was taken up again.
    pub(crate) handshakes: [[Counter; 2]; Version::ALL.len()],
    /// By reason.
    pub(crate) failed: [Counter; tls::Reason::ALL.len()],
}

/// Why an HTTP/2 connection or stream was ended from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http2Refusal {
    /// Too many frames, or given-up requests, that lead to nothing.
    Flood,
    /// No HTTP/2, or a request that cannot be passed on beyond doubt.
    Malformed,
    /// A header block that did not end in time.
    SlowHead,
    /// The client did not answer a ping.
    Silent,
    /// The worker has as many requests as it may have.
    Overload,
    /// A client that did not take what it had asked for.
    SlowReader,
}

impl Http2Refusal {
    /// Every one, in the order of its number.
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Flood, "flood"),
        (Self::Malformed, "malformed"),
        (Self::SlowHead, "slow_head"),
        (Self::Silent, "silent"),
        (Self::Overload, "overload"),
        (Self::SlowReader, "slow_reader"),
    ];
}

/// Why idle connections were closed before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleClosed {
    /// A newcomer needed the place.
    Limit,
    /// The system had no descriptors or memory left.
    Descriptors,
}

impl IdleClosed {
    /// Every one, in the order of its number.
    pub(crate) const ALL: [(Self, &'static str); 2] =
        [(Self::Limit, "limit"), (Self::Descriptors, "descriptors")];
}

/// What a client was too slow with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slow {
    /// A request's head.
    Head,
    /// A request's body.
    Body,
    /// Taking an answer.
    Answer,
}

impl Slow {
    /// Every one, in the order of its number.
    pub(crate) const ALL: [(Self, &'static str); 3] = [
        (Self::Head, "head"),
        (Self::Body, "body"),
        (Self::Answer, "answer"),
    ];
}

/// What one worker shares with those who ask.
#[derive(Debug, Default)]
pub(crate) struct WorkerShare {
    series: Mutex<Vec<Opened>>,
    /// For live figures; one that is there stays where it is.
    tallies: Mutex<Vec<Told>>,
    pub(crate) connections: Counter,
    pub(crate) http2_connections: Counter,
    /// By [`Http2Refusal`].
    pub(crate) http2_refused: [Counter; Http2Refusal::ALL.len()],
    pub(crate) tunnels: Counter,
    pub(crate) log_dropped: Counter,
    /// Connections that were closed before they were served, by reason.
    refused: [Counter; Reason::ALL.len()],
    /// By [`IdleClosed`].
    idle_closed: [Counter; IdleClosed::ALL.len()],
    /// By [`Slow`].
    slow: [Counter; Slow::ALL.len()],
    /// How often no connection could be accepted.
    pub(crate) accept_pauses: Counter,
    pub(crate) tls: TlsCounts,
}

/// A series, with its route and service; none: of what no route took.
type Opened = (Option<[Name; 2]>, &'static RouteSeries);

impl WorkerShare {
    /// What is counted for live figures, from a place on; what is new is behind what was there.
    pub(crate) fn tallies(&self, from: usize) -> Vec<Told> {
        let all = lock(&self.tallies);
        all.get(from..).unwrap_or_default().to_vec()
    }

    /// The connections refused for a reason.
    pub(crate) fn refused(&self, reason: Reason) -> &Counter {
        &self.refused[reason as usize]
    }

    /// The idle connections closed for a reason.
    pub(crate) fn idle_closed(&self, why: IdleClosed) -> &Counter {
        &self.idle_closed[why as usize]
    }

    /// The clients that were too slow with something.
    pub(crate) fn slow(&self, what: Slow) -> &Counter {
        &self.slow[what as usize]
    }
}

/// The request path's counters of all workers.
#[derive(Debug)]
pub(crate) struct Metrics {
    cluster: Box<str>,
    workers: Box<[Arc<WorkerShare>]>,
    /// How many client connections there may be.
    connections: usize,
    /// Log lines that the writer could not write.
    pub(crate) log_failed: AtomicU64,
}

impl Metrics {
    /// Nothing counted yet.
    pub(crate) fn new(cluster: &str, workers: usize, connections: usize) -> Arc<Self> {
        Arc::new(Self {
            cluster: cluster.into(),
            connections,
            workers: (0..workers).map(|_| Arc::default()).collect(),
            log_failed: AtomicU64::new(0),
        })
    }

    /// Every worker's part.
    pub(crate) fn workers(&self) -> &[Arc<WorkerShare>] {
        &self.workers
    }

    /// A worker's own part.
    pub(crate) fn of_worker(&self, index: usize) -> Arc<WorkerShare> {
        Arc::clone(&self.workers[index])
    }
}

/// A worker's view of its own counters.
#[derive(Debug)]
pub(crate) struct LocalMetrics {
    pub(crate) share: Arc<WorkerShare>,
    places: RefCell<Places>,
    /// How long the last request took, in microseconds: the next one will take about as long.
    last: Cell<u64>,
}

/// Which route's counters: its id and service, and the number that is theirs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteLabels<'a> {
    pub(crate) index: u32,
    pub(crate) route: &'a Name,
    pub(crate) service: &'a Name,
}

/// A finished request, for counting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) labels: RequestLabels,
    /// None: it does not count as a duration, as with tunnels.
    pub(crate) took: Option<Duration>,
    pub(crate) upstream_took: Option<Duration>,
    pub(crate) retries: u64,
}

impl LocalMetrics {
    /// The counters of the worker that `share` belongs to.
    pub(crate) fn new(share: Arc<WorkerShare>) -> Self {
        Self {
            share,
            places: RefCell::default(),
            last: Cell::new(0),
        }
    }

    /// Has what a request of the route with this number counts in at its beginning fetched.
    pub(crate) fn fetch_first(&self, number: u32) {
        if on(Feature::Metrics)
            && let Some(series) = self.places.borrow().get(Some(number))
        {
            ahead::fetch(series);
        }
    }

    /// Has what it counts in at its end fetched.
    pub(crate) fn fetch_last(&self, number: u32) {
        if on(Feature::Metrics)
            && let Some(series) = self.places.borrow().get(Some(number))
        {
            series.fetch_ahead(self.last.get());
        }
    }

    /// A request that a route took, and a group of its service if a plugin chose one, is under way.
    pub(crate) fn begin(&self, route: RouteLabels<'_>, group: Option<&Name>) -> UnderWay {
        let series = self.series(Some(route));
        UnderWay::begin(match group {
            None => &series.tally,
            Some(group) => self.places.borrow_mut().group(route, group, &self.share),
        })
    }

    /// Counts a finished request; none is under way where no route took it.
    pub(crate) fn request(
        &self,
        route: Option<RouteLabels<'_>>,
        under_way: Option<&UnderWay>,
        counted: Counted,
    ) {
        if let Some(took) = counted.took {
            self.last.set(micros(took));
        }
        let series = self.series(route);
        series.count(&counted);
        if !series.count_usual(counted.labels) {
            let number = route.map(|route| route.index);
            let mut places = self.places.borrow_mut();
            places.count_unusual(number, series, counted.labels);
        }
        let tally = under_way.and_then(UnderWay::tally);
        tally.unwrap_or(&series.tally).count(&counted);
    }

    /// Counts a failed try.
    pub(crate) fn upstream_error(&self, route: RouteLabels<'_>, kind: &'static str) {
        add_to(&self.series(Some(route)).errors, &kind, |kind| kind);
    }

    /// Counts a failure that a fallback answered for: what it was, and where the answer came from.
    pub(crate) fn fallback(&self, route: RouteLabels<'_>, of: [&'static str; 2]) {
        add_to(&self.series(Some(route)).fallbacks, &of, |of| *of);
    }

    /// Counts a request that may have left the router's cluster: where its last peer is.
    pub(crate) fn went_to(&self, route: RouteLabels<'_>, cluster: &Name) {
        add_to(&self.series(Some(route)).clusters, cluster, Name::clone);
    }

    fn series(&self, of: Option<RouteLabels<'_>>) -> &'static RouteSeries {
        let known = self.places.borrow().get(of.map(|of| of.index));
        known.unwrap_or_else(|| self.places.borrow_mut().open(of, &self.share))
    }
}

/// Counts one of a few that seldom happen.
fn add_to<L: PartialEq>(counters: &Mutex<Few<L>>, label: &L, own: impl Fn(&L) -> L) {
    let mut counters = lock(counters);
    if let Some((_, counter)) = counters.iter().find(|(known, _)| known == label) {
        counter.add(1);
        return;
    }
    let counter = Arc::new(Counter::default());
    counter.add(1);
    counters.push((own(label), counter));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
