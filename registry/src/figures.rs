//! Live figures: what routers report, kept for a while and told to whoever asks any replica.
//!
//! ```text
//! report ─► taking.rs: a batch, one transaction: counted once, added up ─► database ◄─ other replicas
//!                                                                             │
//! API, guards ◄─ telling.rs ◄─ windows, those that changed read anew ◄────────┘
//! ```
//!
//! Each run of each replica writes rows of its own, one a cluster and window, and nobody else's; what is
//! told is all runs' rows added up, so that every replica says the same. None of it goes through the
//! writer or the log: connections of its own, one short transaction a batch. A report is answered when
//! it is in the database; one whose answer is lost is sent again, and is recognised
//! ([`Store::count_figures`]). While the database is away a replica counts in memory what it hears, for
//! its own answers; that is gone when the database is back.

mod counted;
mod taking;
mod telling;
pub(crate) mod window;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use cardea_registry_api::{
    Name,
    figures::{MAX_SERIES, Report, Taken, WINDOW_MS},
};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

pub(crate) use taking::Taker;
pub use telling::{Question, TellError};
pub(crate) use window::Window;

use crate::{core::StoreError, store::Store};

/// How long windows of five seconds are kept, in milliseconds.
pub(crate) const KEPT_MS: i64 = 3_600_000;
/// The length of the longer windows, in milliseconds.
pub(crate) const MINUTE_MS: i64 = 60_000;
/// How long those are kept, in milliseconds.
pub(crate) const KEPT_MINUTES_MS: i64 = 24 * KEPT_MS;
/// The most series of reports that wait to be counted.
const MOST_WAITING: usize = 100 * MAX_SERIES;
/// How many reports may wait.
const QUEUE: usize = 8192;

/// The live figures.
#[derive(Debug)]
pub(crate) struct Figures {
    /// With connections that nobody else uses.
    store: Store,
    inbox: mpsc::Sender<Incoming>,
    /// For the task that takes.
    outbox: AsyncMutex<mpsc::Receiver<Incoming>>,
    /// Series of reports that wait.
    waiting: Arc<AtomicUsize>,
    rows: Mutex<Rows>,
    memory: Mutex<Memory>,
}

/// A report that waits to be counted.
#[derive(Debug)]
struct Incoming {
    cluster: Name,
    router: String,
    report: Report,
    reply: oneshot::Sender<Result<Taken, TakeError>>,
    _place: Place,
}

/// Why a report was not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// The database did not take it: to be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too much waits: to be sent again.
    #[error("more figures wait to be counted than may; send them again in a moment")]
    Busy,
    /// There are too many clusters or routers.
    #[error("more {0} report figures than are counted (at most {1})")]
    TooMany(&'static str, usize),
    /// The registry stops.
    #[error("the registry is stopping")]
    Stopping,
}

/// Room for a report's series, given back when it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>, usize);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// The rows that were written or read last, as they are in the database.
#[derive(Debug, Default)]
struct Rows(HashMap<(Name, i64), Runs>);

/// By window and run: the version, and the figures.
type Runs = BTreeMap<(i64, Arc<str>), (i64, Arc<str>)>;

/// What was heard while the database is away.
#[derive(Debug, Default)]
struct Memory {
    windows: BTreeMap<(Name, i64), Window>,
    /// The last window of each process, by cluster and router.
    marks: HashMap<(Name, String, Name), i64>,
}

impl Figures {
    pub(crate) fn new(store: Store) -> Self {
        let (inbox, outbox) = mpsc::channel(QUEUE);
        Self {
            store,
            inbox,
            outbox: AsyncMutex::new(outbox),
            waiting: Arc::default(),
            rows: Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// Counts a checked report; returns when it is in the database, or in memory while that is away.
    pub(crate) async fn take(
        &self,
        cluster: Name,
        router: String,
        report: Report,
    ) -> Result<Taken, TakeError> {
        let size = 1 + report.series.len() + report.peers.len();
        let place = Place(Arc::clone(&self.waiting), size);
        if self.waiting.fetch_add(size, Ordering::Relaxed) > MOST_WAITING {
            return Err(TakeError::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let incoming = Incoming {
            cluster,
            router,
            report,
            reply,
            _place: place,
        };
        self.inbox.try_send(incoming).map_err(|_| TakeError::Busy)?;
        answer.await.map_err(|_| TakeError::Stopping)?
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database is back: what was counted without it is forgotten, so that replicas say the same.
    fn forget_memory(&self) {
        let mut memory = self.memory();
        if !memory.marks.is_empty() {
            tracing::info!(
                windows = memory.windows.len(),
                "the database is back; the live figures of its absence are gone"
            );
            *memory = Memory::default();
        }
    }
}

impl Rows {
    fn put(
        &mut self,
        (cluster, step): (&Name, i64),
        at: i64,
        run: &Arc<str>,
        row: (i64, Arc<str>),
    ) {
        let of = self.0.entry((cluster.clone(), step)).or_default();
        of.insert((at, Arc::clone(run)), row);
    }

    /// Forgets what is older than it is kept.
    fn forget(&mut self, now: i64) {
        self.0.retain(|(_, step), rows| {
            let kept = if *step == WINDOW_MS {
                KEPT_MS
            } else {
                KEPT_MINUTES_MS
            };
            *rows = rows.split_off(&(now - kept, Arc::from("")));
            !rows.is_empty()
        });
    }
}

impl Memory {
    /// The most series in memory: an hour's of a few hundred routes.
    const MOST: usize = 100 * MAX_SERIES;

    /// Whether a report is new; then it is counted.
    fn take(&mut self, cluster: &Name, router: &str, report: &Report) -> bool {
        let key = (cluster.clone(), router.to_owned(), report.process.clone());
        if self.marks.get(&key).is_some_and(|at| *at >= report.at) {
            return false;
        }
        self.marks.insert(key, report.at);
        let window = self
            .windows
            .entry((cluster.clone(), report.at))
            .or_default();
        window.add(report);
        true
    }

    /// Keeps to its bounds: the oldest goes first.
    fn bound(&mut self, now: i64) {
        self.windows.retain(|(_, at), _| *at >= now - KEPT_MS);
        self.marks.retain(|_, at| *at >= now - KEPT_MS);
        let mut series: usize = self.windows.values().map(|w| w.series.len()).sum();
        while series > Self::MOST {
            let oldest = self.windows.keys().min_by_key(|(_, at)| *at).cloned();
            let gone = oldest.and_then(|key| self.windows.remove(&key));
            series -= gone.map_or(series, |window| window.series.len());
        }
    }
}

#[cfg(test)]
mod tests;
