//! What the store takes and gives, the same for both engines.

use std::sync::Arc;

use cardea_registry_api::Name;

use crate::{
    change::Kind,
    record::{Digest, Point, Record},
};

/// The head row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) point: Point,
    /// Epochs that this one took the place of, by an operator's decision.
    pub(crate) supersedes: Vec<String>,
    pub(crate) accepted_at: i64,
}

/// Everything, at one point.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) head: Head,
    /// Kind, key, revision, JSON.
    pub(crate) objects: Vec<(String, String, u64, String)>,
    /// Key, revision, JSON.
    pub(crate) instances: Vec<(String, u64, String)>,
}

/// A report of live figures, by which it is known again: a process reports each window once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) cluster: Name,
    pub(crate) router: String,
    pub(crate) process: Name,
    /// The window, Unix ms.
    pub(crate) at: i64,
}

/// One window of a cluster's live figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FigureRow {
    pub(crate) cluster: Name,
    /// Its length, ms.
    pub(crate) step: i64,
    /// Its beginning, Unix ms.
    pub(crate) at: i64,
    /// Who heard of it; empty: all together.
    pub(crate) run: Arc<str>,
    pub(crate) version: i64,
    pub(crate) body: Arc<str>,
}

/// What taking the head led to.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The head stood where the writer thought, and is moved: write the records and commit.
    Moved,
    /// It stands elsewhere; it is locked. The rows from the writer's point on, or none when there
    /// are too many to read under the lock: catch up first.
    Elsewhere(Head, Option<Vec<Record>>),
}

/// An object's current form, to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a str,
    pub(crate) revision: u64,
    /// None: it is gone.
    pub(crate) body: Option<&'a str>,
}

/// What records leave of each object. A key twice in one statement is refused by Postgres: only its
/// last form counts. The same order in every transaction.
pub(super) fn last_forms(records: &[Record]) -> Vec<Current<'_>> {
    let mut seen = std::collections::HashSet::new();
    let mut last: Vec<Current<'_>> = records
        .iter()
        .rev()
        .filter(|record| seen.insert((record.kind, record.key.as_str())))
        .map(|record| Current {
            kind: record.kind,
            key: &record.key,
            revision: record.revision,
            body: record.after.as_deref(),
        })
        .collect();
    last.sort_unstable_by_key(|row| (row.kind, row.key));
    last
}

/// Who holds a job, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) holder: String,
    pub(crate) until: i64,
}

pub(super) type HeadRow = (String, i64, String, String, i64);

pub(super) fn head(row: HeadRow) -> Head {
    let (epoch, revision, digest, supersedes, accepted_at) = row;
    Head {
        point: Point {
            epoch: epoch.into(),
            revision: unsigned(revision),
            digest: Digest(digest.into()),
        },
        supersedes: supersedes.split_whitespace().map(str::to_owned).collect(),
        accepted_at,
    }
}

pub(super) type ChangeRow = (
    i64,
    i64,
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    String,
    String,
);

pub(super) fn record(row: ChangeRow) -> Record {
    let (revision, at, actor, cause, kind, key, before, after, unit, digest) = row;
    Record {
        revision: unsigned(revision),
        at,
        actor: actor.into(),
        cause: cause.into(),
        // While replicas are upgraded one by one, the older ones must be able to follow.
        kind: Kind::parse(&kind).unwrap_or(Kind::Newer),
        key,
        before: before.map(Into::into),
        after: after.map(Into::into),
        unit: unit.into(),
        digest: Digest(Arc::from(digest)),
    }
}

/// Revisions are never negative.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// And never beyond an i64.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
