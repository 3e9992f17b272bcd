//! The handle to the registry's core: what the doors and the feed's readers call.
//!
//! A [`Core`] is cheap to clone. Reads come from the [`State`] in memory; writes go through
//! [`crate::writer`], which is the place to read how one change flows.

pub mod config;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cardea_registry_api::{
    InstanceKey, Name,
    api::{self, ChangeRecord, Keep, RouterInfo, SnapshotInfo, Status},
    feed::Coding,
};

pub use config::CoreConfig;

use crate::{
    change::{Author, Change, Rejection, SubmitError, Written},
    state::State,
};

/// The handle.
#[derive(Debug, Clone)]
pub struct Core {
    _shared: Arc<()>,
}

/// Owns everything that runs in the background.
#[derive(Debug)]
pub struct Background {}

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
    /// Who asks, if it is a router: id and version. Only then does `after` count as proof.
    pub router: Option<(String, String)>,
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
    pub async fn open(_config: CoreConfig) -> Result<(Self, Background), OpenError> {
        unimplemented!()
    }

    /// What is served now.
    pub fn state(&self) -> Arc<State> {
        unimplemented!()
    }

    /// Writes a unit: all changes or none. Units that come at the same time share a transaction.
    pub async fn submit(
        &self,
        _changes: Vec<Change>,
        _author: Author,
    ) -> Result<Written, SubmitError> {
        unimplemented!()
    }

    /// What [`Core::submit`] would do now; the error says which change would be refused.
    pub fn preview(&self, _changes: &[Change]) -> Result<Vec<api::Action>, (usize, Rejection)> {
        unimplemented!()
    }

    /// Renews leases, in memory; `false`: not known, register again.
    pub fn renew(&self, _keys: &[InstanceKey]) -> Vec<bool> {
        unimplemented!()
    }

    /// Answers a router's (long) poll.
    pub async fn feed(&self, _request: FeedRequest) -> FeedAnswer {
        unimplemented!()
    }

    /// Waits until every live router of the cluster has applied what was written, at most `wait`.
    pub async fn acknowledged(
        &self,
        _cluster: &Name,
        _written: &Written,
        _wait: Duration,
    ) -> Acknowledgements {
        unimplemented!()
    }

    /// The routers that are known, by cluster and id.
    pub async fn routers(&self, _cluster: Option<&Name>) -> Vec<RouterInfo> {
        unimplemented!()
    }

    /// A router says goodbye; whether it was known.
    pub async fn forget_router(&self, _cluster: &Name, _id: &str) -> bool {
        unimplemented!()
    }

    /// Changes after a revision, oldest first; from the database.
    pub async fn history(&self, _after: u64, _limit: u32) -> Result<Vec<ChangeRecord>, StoreError> {
        unimplemented!()
    }

    /// How the registry stands.
    pub fn status(&self) -> Status {
        unimplemented!()
    }

    /// An operator's word on which history holds.
    pub async fn decide_history(
        &self,
        _keep: Keep,
        _author: Author,
    ) -> Result<Status, SubmitError> {
        unimplemented!()
    }

    /// The disk snapshots that are kept, newest first.
    pub async fn snapshots(&self, _verify: bool) -> Vec<SnapshotInfo> {
        unimplemented!()
    }

    /// Writes a disk snapshot now.
    pub async fn write_snapshot(&self) -> std::io::Result<SnapshotInfo> {
        unimplemented!()
    }
}

impl Background {
    /// Stops everything: what was accepted is written, the last snapshot too. Bounded.
    pub async fn stop(self) {
        unimplemented!()
    }
}
