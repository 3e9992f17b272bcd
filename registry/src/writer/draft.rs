//! A draft: what a group of units would make of a state, as records of the log. Pure.

use std::sync::Arc;

use cardea_registry_api::Instance;

use crate::{
    change::{Change, Kind, Outcome, Rejection, Verb},
    record::{Digest, Point, Record},
    state::{Object, State},
};

/// What is submitted together.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// Unique; in each of the unit's rows of the log.
    pub(crate) id: Arc<str>,
    pub(crate) actor: Arc<str>,
    /// Why all of it is done, for the log; none: each change says so itself.
    pub(crate) cause: Option<Arc<str>>,
    pub(crate) changes: Vec<Change>,
}

/// What became of one unit.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) outcomes: Vec<Outcome>,
    /// The revision that has the unit.
    pub(crate) revision: u64,
}

/// What units would make of a state.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) state: State,
    pub(crate) records: Vec<Record>,
    /// One a unit.
    pub(crate) results: Vec<Result<Accepted, (usize, Rejection)>>,
}

impl Draft {
    /// Applies units to a state one by one; one that is rejected leaves no trace.
    pub(crate) fn of<'a>(
        state: &State,
        units: impl IntoIterator<Item = &'a Unit>,
        now: i64,
    ) -> Self {
        let mut draft = Self {
            state: state.clone(),
            records: Vec::new(),
            results: Vec::new(),
        };
        let mut digest = state.base.digest.clone();
        for unit in units {
            let result = draft.state.apply_all(&unit.changes, now).map(|outcomes| {
                for outcome in &outcomes {
                    draft
                        .records
                        .extend(record(outcome, unit, now, &mut digest));
                }
                Accepted {
                    outcomes,
                    revision: draft.state.revision,
                }
            });
            draft.results.push(result);
        }
        draft
    }

    /// The point of the database's history that the records lead to.
    pub(crate) fn point(&self) -> Point {
        match self.records.last() {
            Some(last) => Point {
                epoch: Arc::clone(&self.state.base.epoch),
                revision: last.revision,
                digest: last.digest.clone(),
            },
            None => self.state.base.clone(),
        }
    }
}

fn record(outcome: &Outcome, unit: &Unit, now: i64, digest: &mut Digest) -> Option<Record> {
    if matches!(outcome.verb, Verb::Unchanged | Verb::Absent) {
        return None;
    }
    let mut record = Record {
        revision: outcome.revision,
        at: now,
        actor: Arc::clone(&unit.actor),
        cause: (unit.cause.clone()).unwrap_or_else(|| outcome.cause.into()),
        kind: outcome.kind,
        key: outcome.key.clone(),
        before: outcome.before.clone(),
        after: outcome.after.clone(),
        unit: Arc::clone(&unit.id),
        digest: digest.clone(),
    };
    record.digest = digest.then(&record);
    *digest = record.digest.clone();
    Some(record)
}

/// Why rows of the log do not continue what a replica has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherHistory(pub(crate) String);

/// Follows rows of the log, which begin with the row at the state's own revision: if that one is
/// missing or another one, the database's history is not ours.
pub(crate) fn follow(state: &mut State, rows: &[Record]) -> Result<(), OtherHistory> {
    let base = state.base.clone();
    let mut rows = rows.iter();
    if base.revision > 0 {
        match rows.next() {
            Some(own) if own.revision == base.revision && own.digest == base.digest => {}
            Some(own) if own.revision == base.revision => {
                return Err(OtherHistory(format!(
                    "the database has another change at revision {}",
                    base.revision
                )));
            }
            _ => {
                return Err(OtherHistory(format!(
                    "the database no longer has revision {}",
                    base.revision
                )));
            }
        }
    }
    for row in rows {
        if row.revision != state.revision + 1 {
            return Err(OtherHistory(format!(
                "the database has no revision {}",
                state.revision + 1
            )));
        }
        follow_one(state, row);
    }
    Ok(())
}

fn follow_one(state: &mut State, row: &Record) {
    match (row.kind, &row.after) {
        (Kind::History, after) => {
            let decision = after
                .as_deref()
                .and_then(|json| serde_json::from_str::<Decision>(json).ok());
            if let Some(decision) = decision {
                state.accepted_at = decision.accepted_at;
            }
            state.touch_all(row.revision);
        }
        (Kind::Newer, _) => {
            tracing::debug!(
                key = row.key,
                revision = row.revision,
                "a change of a kind that only newer programs know"
            );
        }
        (kind, Some(json)) => {
            let set = Object::parse(kind, json)
                .map_err(|error| error.to_string())
                .and_then(|object| {
                    state
                        .set(object, row.revision)
                        .map_err(|error| error.to_string())
                });
            if let Err(error) = set {
                // A bad object never blocks the others: its last good form stays.
                tracing::error!(%kind, key = row.key, revision = row.revision, %error,
                    "a change cannot be read; the object stays as it was");
            }
        }
        (kind, None) => {
            state.unset(kind, &row.key, row.revision);
        }
    }
    state.revision = row.revision;
    state.base = Point {
        epoch: Arc::clone(&state.base.epoch),
        revision: row.revision,
        digest: row.digest.clone(),
    };
}

/// What the log says about a decision on histories.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Decision {
    pub(crate) epoch: String,
    pub(crate) supersedes: Vec<String>,
    pub(crate) accepted_at: i64,
}

/// The instance that a record or an outcome leaves, for the leases.
pub(crate) fn instance_after(after: Option<&str>) -> Option<Instance> {
    after.and_then(|json| serde_json::from_str(json).ok())
}
