//! What workers and the control thread share: the table, and how the router stands.
//!
//! The table is swapped with one pointer. Every request loads it at its start, so from the swap on
//! no *new* request in any worker sees the old one; that is why the swap is all that must happen
//! before a revision is acknowledged to the registry. A request that has loaded the old table but
//! not yet picked its peer does not reach a peer that is gone either: after the swap the control
//! thread takes the permission off each peer that left ([`crate::Peer::takes_requests`]), and a pick
//! asks the peer itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwapOption, Guard};
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::{
    clock,
    metrics::Histogram,
    phase::Tenure,
    plugin::Lasting,
    retired::Retired,
    table::{Origin, Table},
    tls::Tickets,
};

/// What workers and the control thread share.
#[derive(Debug, Default)]
pub struct Shared {
    table: ArcSwapOption<Table>,
    draining: AtomicBool,
    /// Bumped with each table, for tasks of the control thread.
    versions: watch::Sender<u64>,
    /// When the table was last known to be the newest, Unix ms.
    confirmed_at: AtomicI64,
    pub(crate) counts: Counts,
    /// What tables before this one leave behind.
    pub(crate) retired: Retired,
    /// How far this process has come in taking over from another, or giving over to one.
    pub(crate) tenure: Tenure,
    /// Told when the source says that the table is the newest.
    news: Notify,
    /// What of plugins outlives tables.
    pub(crate) plugins: Arc<Lasting>,
    /// With what clients take up their sessions again.
    pub(crate) tickets: Arc<Tickets>,
    concerns: Mutex<Concerns>,
}

/// What the control thread has done, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) pulls_full: AtomicU64,
    pub(crate) pulls_delta: AtomicU64,
    pub(crate) pulls_unchanged: AtomicU64,
    pub(crate) pulls_refused: AtomicU64,
    pub(crate) pulls_failed: AtomicU64,
    pub(crate) reloads_refused: AtomicU64,
    pub(crate) disk_written: AtomicU64,
    pub(crate) disk_failed: AtomicU64,
    /// Of reports of live figures.
    pub(crate) figures_sent: AtomicU64,
    pub(crate) figures_failed: AtomicU64,
    pub(crate) figures_refused: AtomicU64,
    pub(crate) figures_dropped: AtomicU64,
    /// From one process to the next, since the first.
    pub(crate) upgrades_done: AtomicU64,
    pub(crate) upgrades_failed: AtomicU64,
    /// Of the last table, from the update's arrival to the swap.
    pub(crate) apply_micros: AtomicU64,
    /// Of each table, from the update's being applied to the swap.
    pub(crate) builds: Histogram,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug, Default)]
struct Concerns {
    degraded: BTreeMap<&'static str, Concern>,
    alarms: BTreeMap<String, Concern>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Concern {
    /// What, for programs: `registry_unreachable`, `disk_copy`, `retained`, `skipped_object` …
    pub code: String,
    /// What, for people, and what helps.
    pub message: String,
    /// Since when, Unix ms.
    pub since: i64,
}

/// Whether the router may be sent requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may; each concern says why it is degraded.
    Ready(Vec<Concern>),
    /// It has no table yet.
    NoTable,
    /// It is stopping.
    Draining,
}

impl Shared {
    /// The newest table; none before the first (then answer 503).
    pub fn table(&self) -> Guard<Option<Arc<Table>>> {
        self.table.load()
    }

    /// The same, to keep for longer than a moment.
    pub fn table_full(&self) -> Option<Arc<Table>> {
        self.table.load_full()
    }

    /// The router stops: not ready from now on.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether it stops.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether it may be sent requests.
    pub fn readiness(&self) -> Readiness {
        if self.is_draining() {
            Readiness::Draining
        } else if self.table.load().is_none() {
            Readiness::NoTable
        } else {
            Readiness::Ready(self.degraded())
        }
    }

    pub(crate) fn publish(&self, table: &Arc<Table>) {
        if let Some(old) = self.table.swap(Some(Arc::clone(table))) {
            self.retired.keep(old, table);
        }
        self.versions.send_modify(|version| *version += 1);
        self.news.notify_waiters();
    }

    /// Waits until there is a table.
    pub(crate) async fn has_table(&self) {
        let mut versions = self.watch();
        while self.table.load().is_none() && versions.changed().await.is_ok() {}
    }

    /// Waits until the table is the newest there is, as far as its source can tell.
    pub(crate) async fn is_confirmed(&self) {
        loop {
            let news = self.news.notified();
            let is_static = |table: &Arc<Table>| table.origin == Origin::Static;
            if self.confirmed_at() > 0 || self.table.load().as_ref().is_some_and(is_static) {
                return;
            }
            news.await;
        }
    }

    /// Tells of each new table.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// The source says that the table is the newest there is.
    pub(crate) fn confirm(&self) {
        self.confirmed_at
            .store(clock::unix_millis(), Ordering::Relaxed);
        self.news.notify_waiters();
    }

    /// When the source last said that the table is the newest, Unix ms; 0: never.
    pub fn confirmed_at(&self) -> i64 {
        self.confirmed_at.load(Ordering::Relaxed)
    }

    /// Why it is degraded, if it is.
    pub fn degraded(&self) -> Vec<Concern> {
        self.concerns().degraded.values().cloned().collect()
    }

    /// What needs somebody's attention, such as objects that were skipped.
    pub fn alarms(&self) -> Vec<Concern> {
        self.concerns().alarms.values().cloned().collect()
    }

    /// Says that it is degraded for `code`'s reason, or no longer is. Returns whether that is news.
    pub(crate) fn set_degraded(&self, code: &'static str, message: Option<String>) -> bool {
        let mut concerns = self.concerns();
        match message {
            None => concerns.degraded.remove(code).is_some(),
            Some(message) => {
                let news = !concerns.degraded.contains_key(code);
                let concern = concerns.degraded.entry(code).or_insert_with(|| Concern {
                    code: code.to_owned(),
                    message: String::new(),
                    since: clock::unix_millis(),
                });
                concern.message = message;
                news
            }
        }
    }

    /// Replaces the alarms of one kind: `key` names the object or thing, the text says what is wrong.
    pub(crate) fn set_alarms(
        &self,
        code: &str,
        alarms: impl IntoIterator<Item = (String, String)>,
    ) {
        let mut concerns = self.concerns();
        let mut old = BTreeMap::new();
        concerns.alarms.retain(|key, concern| {
            let keep = concern.code != code;
            if !keep {
                old.insert(key.clone(), concern.since);
            }
            keep
        });
        for (thing, message) in alarms {
            let key = format!("{code} {thing}");
            let since = old.get(&key).copied().unwrap_or_else(clock::unix_millis);
            let concern = Concern {
                code: code.to_owned(),
                message: format!("{thing}: {message}"),
                since,
            };
            concerns.alarms.insert(key, concern);
        }
    }

    fn concerns(&self) -> MutexGuard<'_, Concerns> {
        self.concerns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
