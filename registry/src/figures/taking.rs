//! Counting reports: those that come within a moment together, in one transaction.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use cardea_registry_api::{
    Name,
    figures::{AHEAD_MS, LATEST_MS, Taken, WINDOW_MS},
};
use tokio::time::sleep;

use super::{Figures, Incoming, KEPT_MINUTES_MS, KEPT_MS, MINUTE_MS, TakeError, Window};
use crate::{
    clock::wall_ms,
    core::StoreError,
    store::rows::{FigureRow, Mark},
};

/// For how long reports are gathered: routers do not report in the same moment, and each batch writes
/// its windows whole.
const GATHER: Duration = Duration::from_millis(200);
/// The most reports of one transaction.
const MOST_REPORTS: usize = 2048;
/// The most clusters whose windows are counted at a time.
const MOST_CLUSTERS: usize = 64;
/// The most router processes that are told apart at a time.
const MOST_PROCESSES: usize = 20_000;
/// A minute's windows are put together so long after its end: by then no report of it is taken.
const SETTLED_MS: i64 = LATEST_MS + MINUTE_MS;

/// Counts what is reported to this replica. There is one of it, which remembers what this run of the
/// replica has written.
#[derive(Debug)]
pub(crate) struct Taker {
    /// The rows of this run: a run that is not sure what it has written becomes another.
    run: Arc<str>,
    /// By cluster and window: which version was written.
    open: HashMap<(Name, i64), (i64, Window)>,
    processes: HashMap<(Name, String, Name), i64>,
    /// A process's next report waits until the one before it is counted.
    left: Vec<Incoming>,
}

impl Default for Taker {
    fn default() -> Self {
        Self {
            run: new_run(),
            open: HashMap::new(),
            processes: HashMap::new(),
            left: Vec::new(),
        }
    }
}

fn new_run() -> Arc<str> {
    format!("{:016x}", rand::random::<u64>()).into()
}

impl Taker {
    /// Waits for reports, and gathers for a moment. Cut off, it loses none.
    pub(crate) async fn wait(&mut self, figures: &Figures) {
        let mut outbox = figures.outbox.lock().await;
        if self.left.is_empty() {
            self.left.extend(outbox.recv().await);
        }
        sleep(GATHER).await;
    }

    /// Counts what has come; `false`: the database did not take it. `away`: it is not in use.
    pub(crate) async fn count(&mut self, figures: &Figures, away: bool) -> bool {
        let mut batch = std::mem::take(&mut self.left);
        {
            let mut outbox = figures.outbox.lock().await;
            while batch.len() < MOST_REPORTS
                && let Ok(incoming) = outbox.try_recv()
            {
                batch.push(incoming);
            }
        }
        let now = wall_ms();
        self.forget(now);
        figures.rows().forget(now);
        if away {
            remember(figures, batch);
            return true;
        }
        figures.forget_memory();
        let batch = self.admit(batch);
        if batch.is_empty() {
            return true;
        }
        match self.write(figures, &batch).await {
            Ok(new) => {
                for (incoming, counted) in batch.into_iter().zip(new) {
                    let stored = true;
                    drop(incoming.reply.send(Ok(Taken {
                        counted,
                        stored,
                        bears: Vec::new(),
                    })));
                }
                true
            }
            Err(error) => {
                // Whether it was written is not known: what is sent again is counted if it was not.
                self.run = new_run();
                self.open.clear();
                tracing::debug!(%error, reports = batch.len(), "figures were not written");
                for incoming in batch {
                    drop(incoming.reply.send(Err(error.clone().into())));
                }
                false
            }
        }
    }

    /// Whether there is something left to be counted.
    pub(crate) fn is_idle(&self) -> bool {
        self.left.is_empty()
    }

    /// Those that are counted now, in the order of their keys (in which every replica locks them).
    fn admit(&mut self, batch: Vec<Incoming>) -> Vec<Incoming> {
        let mut clusters: HashSet<Name> = self
            .open
            .keys()
            .map(|(cluster, _)| cluster.clone())
            .collect();
        let mut admitted = BTreeMap::new();
        for incoming in batch {
            let report = &incoming.report;
            let key = (
                incoming.cluster.clone(),
                incoming.router.clone(),
                report.process.clone(),
            );
            let full = self.processes.len() >= MOST_PROCESSES;
            let Entry::Vacant(place) = admitted.entry(key) else {
                self.left.push(incoming);
                continue;
            };
            let refusal =
                if clusters.len() >= MOST_CLUSTERS && !clusters.contains(&incoming.cluster) {
                    TakeError::TooMany("clusters", MOST_CLUSTERS)
                } else if full && !self.processes.contains_key(place.key()) {
                    TakeError::TooMany("routers", MOST_PROCESSES)
                } else {
                    clusters.insert(incoming.cluster.clone());
                    self.processes.insert(place.key().clone(), report.at);
                    place.insert(incoming);
                    continue;
                };
            drop(incoming.reply.send(Err(refusal)));
        }
        admitted.into_values().collect()
    }

    /// Writes a batch; which of its reports are new.
    async fn write(
        &mut self,
        figures: &Figures,
        batch: &[Incoming],
    ) -> Result<Vec<bool>, StoreError> {
        let marks: Vec<Mark> = batch
            .iter()
            .map(|incoming| Mark {
                cluster: incoming.cluster.clone(),
                router: incoming.router.clone(),
                process: incoming.report.process.clone(),
                at: incoming.report.at,
            })
            .collect();
        let all = vec![true; batch.len()];
        let mut next = self.with(batch, &all);
        let rows = self.rows(&next);
        let written = {
            let again = |new: &[bool]| {
                next = self.with(batch, new);
                self.rows(&next)
            };
            figures.store.count_figures(&marks, rows, again).await?
        };
        let mut cached = figures.rows();
        for row in self.rows(&next) {
            let body = (row.version, row.body);
            cached.put((&row.cluster, WINDOW_MS), row.at, &row.run, body);
        }
        drop(cached);
        self.open.extend(next);
        Ok(written)
    }

    /// The windows that a batch touches, with those of its reports that are new, and their versions.
    fn with(&self, batch: &[Incoming], new: &[bool]) -> BTreeMap<(Name, i64), (i64, Window)> {
        let mut touched: BTreeMap<(Name, i64), (i64, Window)> = BTreeMap::new();
        for (incoming, _) in batch.iter().zip(new).filter(|(_, new)| **new) {
            let key = (incoming.cluster.clone(), incoming.report.at);
            let (_, window) = touched.entry(key).or_insert_with_key(|key| {
                let (version, window) = self.open.get(key).cloned().unwrap_or_default();
                (version + 1, window)
            });
            window.add(&incoming.report);
        }
        touched
    }

    fn rows(&self, windows: &BTreeMap<(Name, i64), (i64, Window)>) -> Vec<FigureRow> {
        let all = windows.iter();
        all.map(|((cluster, at), (version, window))| FigureRow {
            cluster: cluster.clone(),
            step: WINDOW_MS,
            at: *at,
            run: Arc::clone(&self.run),
            version: *version,
            body: window.encode().into(),
        })
        .collect()
    }

    /// What no report can be of any more.
    fn forget(&mut self, now: i64) {
        let oldest = now - LATEST_MS - AHEAD_MS;
        self.open.retain(|(_, at), _| *at >= oldest);
        self.processes.retain(|_, at| *at >= oldest);
    }
}

/// Counts in memory, for as long as the database is away.
fn remember(figures: &Figures, batch: Vec<Incoming>) {
    let mut memory = figures.memory();
    for incoming in batch {
        let counted = memory.take(&incoming.cluster, &incoming.router, &incoming.report);
        let stored = false;
        drop(incoming.reply.send(Ok(Taken {
            counted,
            stored,
            bears: Vec::new(),
        })));
    }
    memory.bound(wall_ms());
}

impl Figures {
    /// Puts the windows of minutes together that nothing is added to any more, and removes what is too
    /// old. Done twice it leads to the same; one replica does it at a time.
    pub(crate) async fn settle(&self, now: i64) -> Result<(), StoreError> {
        let settled = (now - SETTLED_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
        for (cluster, oldest) in self.store.oldest_figures(WINDOW_MS).await? {
            let Ok(cluster) = cluster.parse::<Name>() else {
                continue;
            };
            let from = oldest.max(now - KEPT_MS - MINUTE_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
            let index = self
                .store
                .figures_index(&cluster, MINUTE_MS, (from, settled))
                .await?;
            let done: HashSet<i64> = index.into_iter().map(|(at, ..)| at).collect();
            let mut minute = from;
            while minute < settled {
                if !done.contains(&minute) {
                    self.settle_minute(&cluster, minute).await?;
                }
                minute += MINUTE_MS;
            }
        }
        self.store.drop_figures(WINDOW_MS, now - KEPT_MS).await?;
        self.store
            .drop_figures(MINUTE_MS, now - KEPT_MINUTES_MS)
            .await?;
        self.store
            .forget_reports(now - SETTLED_MS - AHEAD_MS)
            .await?;
        Ok(())
    }

    async fn settle_minute(&self, cluster: &Name, minute: i64) -> Result<(), StoreError> {
        let times = (minute, minute + MINUTE_MS);
        let rows = self.store.figures(cluster, WINDOW_MS, times).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut sum = Window::default();
        for (at, _, _, body) in rows {
            match Window::decode(&body) {
                Ok(window) => sum.merge(&window),
                Err(error) => tracing::error!(%error, %cluster, at, "a window is left out"),
            }
        }
        let row = FigureRow {
            cluster: cluster.clone(),
            step: MINUTE_MS,
            at: minute,
            run: Arc::from(""),
            version: 1,
            body: sum.encode().into(),
        };
        self.store.put_figures(&row).await
    }
}
