//! The handle to the registry's core: what the doors and the feed's readers call.
//!
//! A [`Core`] is cheap to clone. Reads come from the [`State`] in memory; writes go through
//! [`crate::writer`], which is the place to read how one change flows.

mod away;
pub mod config;
mod open;
pub(crate) mod operations;
mod releases;
mod switches;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use cardea_registry_api::{
    InstanceKey, Name,
    api::{self, ChangeRecord, Keep, RouterInfo, SnapshotInfo, Status},
    feed::Coding,
    figures::{Report, Taken, Told},
};

use tokio::{sync::oneshot, time::Instant};

pub use crate::background::Background;
pub use crate::figures::{Question, TakeError, TellError};
pub(crate) use away::AckError;
pub use config::CoreConfig;
pub(crate) use releases::{ReleaseError, release_changes};
pub(crate) use switches::{Act, SwitchError};

use crate::{
    change::{Author, Change, Rejection, SubmitError, Written},
    clock::wall_ms,
    feed::{self, Need},
    shared::Shared,
    state::State,
    writer::{Command, Unit, Waiting},
};

/// The longest that a poll waits.
const LONGEST_POLL: Duration = Duration::from_mins(1);
/// How often the table of routers is looked at while somebody waits for those of other replicas.
const ELSEWHERE: Duration = Duration::from_millis(25);

/// The handle.
#[derive(Debug, Clone)]
pub struct Core {
    shared: Arc<Shared>,
}

/// Why the core cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is wrong.
    #[error("{field}: {reason}")]
    Config {
        /// Which.
        field: &'static str,
        /// What is wrong and what helps.
        reason: String,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    DataDir {
        /// Which.
        path: std::path::PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// The database is away, and there is no disk snapshot to serve from.
    #[error("{0}; and there is no disk snapshot to serve from meanwhile")]
    NothingToServe(StoreError),
}

/// Why the database did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, does not answer in time, or is shutting down.
    #[error("the database is away: {0}")]
    Away(String),
    /// It answers, but not as it should.
    #[error("the database refuses: {0}")]
    Refused(String),
    /// A row cannot be understood.
    #[error("the database holds what cannot be read: {0}")]
    Unreadable(String),
}

/// What a router (or a curious person) asks of the feed.
#[derive(Debug, Clone)]
pub struct FeedRequest {
    /// Whose set.
    pub cluster: Name,
    /// What it has applied: epoch and revision.
    pub after: Option<(String, u64)>,
    /// How long to wait for something newer; zero: answer at once. Capped at 60 s.
    pub wait: Duration,
    /// The full set, also when a delta would do.
    pub full: bool,
    /// The best coding that the asker takes.
    pub coding: Coding,
    /// Who asks, if it is a router. Only then does `after` count as proof.
    pub router: Option<Asker>,
}

/// A router that asks.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Its id.
    pub id: String,
    /// Its program's version.
    pub version: String,
    /// The kinds of plugins that it knows; none: it does not say.
    pub kinds: Option<Arc<[String]>>,
}

/// What the feed answers.
#[derive(Debug, Clone)]
pub enum FeedAnswer {
    /// Nothing is newer: 304.
    NotModified {
        /// The epoch that holds.
        epoch: Arc<str>,
        /// The revision asked with.
        revision: u64,
    },
    /// The full set or a delta, encoded: 200.
    Body {
        /// Its epoch.
        epoch: Arc<str>,
        /// Its revision.
        revision: u64,
        /// How `bytes` are coded.
        coding: Coding,
        /// The body, shared by all who ask for the same.
        bytes: Bytes,
    },
    /// It could not be made; the log has the cause. 500.
    Failed,
}

/// Which routers have let go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acknowledgements {
    /// Live routers that proved that they applied the revision.
    pub acknowledged: Vec<String>,
    /// Live routers that had not when the time was up.
    pub pending: Vec<String>,
}

impl Core {
    /// Opens the store (or the disk snapshot when it is away) and starts the background work.
    pub async fn open(config: CoreConfig) -> Result<(Self, Background), OpenError> {
        let (shared, background) = Box::pin(open::open(config)).await?;
        Ok((Self { shared }, background))
    }

    /// What is served now.
    pub fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }

    /// Writes a unit: all changes or none. Units that come at the same time share a transaction.
    pub async fn submit(
        &self,
        changes: Vec<Change>,
        author: Author,
    ) -> Result<Written, SubmitError> {
        submit(&self.shared, changes, author, None).await
    }

    /// What [`Core::submit`] would do now; the error says which change would be refused.
    pub fn preview(&self, changes: &[Change]) -> Result<Vec<api::Action>, (usize, Rejection)> {
        let mut draft = State::clone(&self.shared.state.load());
        let outcomes = draft.apply_all(changes, self.shared.clock.now())?;
        Ok(outcomes
            .iter()
            .filter_map(crate::change::Outcome::action)
            .collect())
    }

    /// Renews leases, in memory; `false`: not known, register again.
    pub fn renew(&self, keys: &[InstanceKey]) -> Vec<bool> {
        metrics::counter!("cardea_registry_renewals_total").increment(keys.len() as u64);
        self.shared.leases.renew(keys, self.shared.clock.now())
    }

    /// Answers a router's (long) poll.
    pub async fn feed(&self, request: FeedRequest) -> FeedAnswer {
        let shared = &self.shared;
        let _poll = request.router.as_ref().map(|asker| {
            let after = request.after.as_ref();
            let program = (asker.version.as_str(), asker.kinds.as_ref());
            let routers = &shared.routers;
            routers.poll(&request.cluster, &asker.id, program, after)
        });
        let deadline = Instant::now() + request.wait.min(LONGEST_POLL);
        let mut marks = (shared.feed).watch(&request.cluster, &shared.state.load());
        loop {
            marks.borrow_and_update();
            let state = shared.state.load_full();
            let from = match feed::need(&state, &request) {
                Need::Full => None,
                Need::Delta(from) => Some(from),
                need @ (Need::Nothing | Need::Patience) => {
                    // Another cluster's change may be what this replica still lacks: look often.
                    let soon = Instant::now() + Duration::from_millis(20);
                    let patience = need == Need::Patience;
                    let until = if patience {
                        soon.min(deadline)
                    } else {
                        deadline
                    };
                    let stopping = tokio::select! {
                        moved = marks.changed() => moved.is_err(),
                        () = tokio::time::sleep_until(until) => Instant::now() >= deadline,
                        () = shared.stopping.cancelled() => true,
                    };
                    if stopping {
                        return FeedAnswer::NotModified {
                            epoch: Arc::clone(&state.epoch),
                            revision: request.after.as_ref().map_or(0, |(_, revision)| *revision),
                        };
                    }
                    continue;
                }
            };
            let now = shared.clock.now();
            return match shared.feed.body(&state, &request, from, now).await {
                Ok(body) => FeedAnswer::Body {
                    epoch: Arc::clone(&state.epoch),
                    revision: body.revision,
                    coding: body.coding,
                    bytes: body.bytes,
                },
                Err(error) => {
                    tracing::error!(%error, cluster = %request.cluster, "the feed cannot be encoded");
                    FeedAnswer::Failed
                }
            };
        }
    }

    /// Waits until every live router of the cluster has applied what was written, at most `wait`. After a
    /// start it also waits until all may have come back: who has not yet is not known to be live.
    pub async fn acknowledged(
        &self,
        cluster: &Name,
        written: &Written,
        wait: Duration,
    ) -> Acknowledgements {
        let deadline = Instant::now() + wait;
        let mut proofs = self.shared.routers.proofs();
        loop {
            proofs.borrow_and_update();
            let result =
                acknowledgements(&self.shared, cluster, (&written.epoch, written.revision));
            let now = Instant::now();
            let returning = self.shared.returning.filter(|until| now < *until);
            if now >= deadline || result.pending.is_empty() && returning.is_none() {
                return result;
            }
            let look_again = returning.map_or(deadline, |until| until.min(deadline));
            // Routers that poll another replica prove it through the table.
            let elsewhere = async {
                if self.shared.others.load(Ordering::Relaxed) {
                    tokio::time::sleep(ELSEWHERE).await;
                    if let Ok(table) = self.shared.store.routers().await {
                        self.shared.routers.learn(table);
                    }
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                _ = proofs.changed() => {}
                () = elsewhere => {}
                () = tokio::time::sleep_until(look_again) => {}
                () = self.shared.stopping.cancelled() => return acknowledgements(&self.shared, cluster, (&written.epoch, written.revision)),
            }
        }
    }

    /// How many routers of a cluster are live, as far as this replica knows. Those of other clusters serve
    /// none of its routes.
    pub fn live_routers(&self, cluster: &Name) -> u64 {
        let all = self.shared.routers.list(Some(cluster)).into_iter();
        all.filter(|router| router.live && !router.is_visitor())
            .count() as u64
    }

    /// Counts a router's checked report of live figures, once; returns when it is in the database (or in
    /// memory, while that is away).
    pub async fn take_figures(
        &self,
        cluster: Name,
        router: String,
        report: Report,
    ) -> Result<Taken, TakeError> {
        let taken = self.shared.figures.take(cluster.clone(), router, report);
        let mut taken = taken.await?;
        if taken.stored {
            taken.bears = self
                .shared
                .bearing
                .of(&self.shared, &cluster)
                .await
                .to_vec();
        }
        Ok(taken)
    }

    /// What the routers of a cluster counted lately: of all replicas, or of this one's memory while the
    /// database is away.
    pub async fn figures(&self, question: Question) -> Result<Told, TellError> {
        let away = self.shared.mode() != api::Mode::Ok;
        self.shared.figures.tell(question, wall_ms(), away).await
    }

    /// The routers that are known to any replica, by cluster and id.
    pub async fn routers(&self, cluster: Option<&Name>) -> Vec<RouterInfo> {
        if self.shared.others.load(Ordering::Relaxed)
            && let Ok(table) = self.shared.store.routers().await
        {
            self.shared.routers.learn(table);
        }
        self.shared.routers.list(cluster)
    }

    /// A router says goodbye; whether it was known.
    pub async fn forget_router(&self, cluster: &Name, id: &str) -> bool {
        let known = self.shared.routers.forget(cluster, id);
        let listed = match self.shared.mode() {
            api::Mode::Ok => self.shared.store.drop_router(cluster.as_str(), id).await,
            _ => Ok(false),
        };
        known || listed.unwrap_or(false)
    }

    /// Changes after a revision, oldest first, from the database; and whether there are more than these,
    /// which are as many as fit into a few megabytes.
    pub async fn history(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<(Vec<ChangeRecord>, bool), StoreError> {
        const MOST: usize = 16 << 20;
        let store = &self.shared.store;
        let (rows, more) = store.changes_within(after + 1, limit.into(), MOST).await?;
        Ok((rows.iter().map(crate::record::Record::api).collect(), more))
    }

    /// The oldest change that is kept; none: nothing was changed yet.
    pub async fn oldest_change(&self) -> Result<Option<u64>, StoreError> {
        let rows = self.shared.store.changes_from(0, 1).await?;
        Ok(rows.first().map(|row| row.revision))
    }

    /// How the registry stands.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// An operator's word on which history holds.
    pub async fn decide_history(&self, keep: Keep, author: Author) -> Result<Status, SubmitError> {
        let (reply, answer) = oneshot::channel();
        (self.shared.commands)
            .send(Command::Decide(keep, author.0, reply))
            .await
            .map_err(|_| SubmitError::Stopping)?;
        answer.await.map_err(|_| SubmitError::Stopping)?
    }

    /// The disk snapshots that are kept, newest first.
    pub async fn snapshots(&self, verify: bool) -> Vec<SnapshotInfo> {
        let disk = self.shared.disk.clone();
        let listed = tokio::task::spawn_blocking(move || disk.list(verify))
            .await
            .map_err(std::io::Error::other)
            .and_then(|result| result);
        listed.unwrap_or_else(|error| {
            tracing::error!(%error, "the disk snapshots cannot be listed");
            Vec::new()
        })
    }

    /// Writes a disk snapshot now.
    pub async fn write_snapshot(&self) -> std::io::Result<SnapshotInfo> {
        crate::background::write_snapshot(&self.shared).await
    }
}

/// Which live routers of a cluster have applied a revision of an epoch, as far as this replica knows.
pub(crate) fn acknowledgements(
    shared: &Shared,
    cluster: &Name,
    (epoch, revision): (&Arc<str>, u64),
) -> Acknowledgements {
    let state = shared.state.load();
    // Where nothing of this cluster changed since, its last change is proof enough.
    let needed = revision.min(state.totals(cluster).revision);
    let mut result = Acknowledgements::default();
    for router in shared.routers.list(Some(cluster)) {
        if !router.live {
            continue;
        }
        let proved = if *router.epoch == **epoch {
            router.revision >= needed
        } else {
            // The history went on under another name, with this change in it.
            *epoch != state.epoch && *router.epoch == *state.epoch
        };
        if proved {
            result.acknowledged.push(router.id);
        } else {
            result.pending.push(router.id);
        }
    }
    result
}

/// Hands a unit to the writer and waits for the answer. `cause`: why all of it is done.
pub(crate) async fn submit(
    shared: &Shared,
    changes: Vec<Change>,
    author: Author,
    cause: Option<Arc<str>>,
) -> Result<Written, SubmitError> {
    let (reply, answer) = oneshot::channel();
    let unit = Unit {
        id: format!("{:016x}", rand::random::<u64>()).into(),
        actor: author.0,
        cause,
        changes,
    };
    (shared.commands)
        .send(Command::Submit(Waiting { unit, reply }))
        .await
        .map_err(|_| SubmitError::Stopping)?;
    answer.await.map_err(|_| SubmitError::Stopping)?
}

#[cfg(test)]
mod away_tests;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod operation_tests;
#[cfg(test)]
mod outage_tests;
#[cfg(test)]
mod release_away_tests;
#[cfg(test)]
mod release_tests;
#[cfg(test)]
mod switch_tests;
#[cfg(test)]
mod tests;
