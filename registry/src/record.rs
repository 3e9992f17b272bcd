//! Rows of the change log and the digest that chains them.

use std::sync::Arc;

use cardea_registry_api::api::ChangeRecord;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::change::Kind;

/// A point of a history: what a replica remembers to notice that the database's history is another
/// one, or an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The history's name.
    pub epoch: Arc<str>,
    /// The last change's revision; 0: none yet.
    pub revision: u64,
    /// The digest of every change up to here.
    pub digest: Digest,
}

/// The chained digest of a history, as 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub(crate) Arc<str>);

impl Digest {
    /// The digest of a history in which nothing has happened yet.
    pub(crate) fn root(epoch: &str) -> Self {
        Self::of(&[epoch])
    }

    fn of(parts: &[&str]) -> Self {
        let mut text = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for part in parts {
            text.push_str(part);
            text.push('\n');
        }
        Self(format!("{:032x}", xxh3_128(text.as_bytes())).into())
    }

    /// The digest after one more change.
    pub(crate) fn then(&self, record: &Record) -> Self {
        Self::of(&[
            &self.0,
            &record.revision.to_string(),
            &record.at.to_string(),
            &record.actor,
            &record.cause,
            record.kind.as_str(),
            &record.key,
            record.after.as_deref().unwrap_or("-"),
            &record.unit,
        ])
    }
}

/// One row of the change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) revision: u64,
    pub(crate) at: i64,
    pub(crate) actor: Arc<str>,
    pub(crate) cause: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) before: Option<Arc<str>>,
    pub(crate) after: Option<Arc<str>>,
    /// What was submitted together; how a unit whose commit's outcome is unknown is found again.
    pub(crate) unit: Arc<str>,
    /// The chain up to and with this row.
    pub(crate) digest: Digest,
}

impl Record {
    pub(crate) fn api(&self) -> ChangeRecord {
        let json = |text: &Option<Arc<str>>| {
            text.as_deref()
                .and_then(|text| serde_json::from_str(text).ok())
        };
        ChangeRecord {
            revision: self.revision,
            at: self.at,
            actor: self.actor.to_string(),
            cause: self.cause.to_string(),
            kind: self.kind.as_str().to_owned(),
            key: self.key.clone(),
            before: json(&self.before),
            after: json(&self.after),
        }
    }
}
