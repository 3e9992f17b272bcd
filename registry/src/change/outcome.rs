//! What became of changes that were accepted.

use std::sync::Arc;

use cardea_registry_api::api;

use super::{Kind, hide_body, shown};

/// What was (or would be) done to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It was not there.
    Create,
    /// It was different.
    Update,
    /// It was the same: no revision was made.
    Unchanged,
    /// It was there and is no more.
    Delete,
    /// It was to be taken away, and was not there.
    Absent,
}

/// What was (or would be) done to one object, with both forms as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The object's kind.
    pub kind: Kind,
    /// The object's key.
    pub key: String,
    /// What was done.
    pub verb: Verb,
    /// Why, for the change log: `registered`, `deregistered`, `expired`, `applied` …
    pub cause: &'static str,
    /// The revision that now holds: of this change, or of the object where nothing changed.
    pub revision: u64,
    /// The object before.
    pub before: Option<Arc<str>>,
    /// The object after.
    pub after: Option<Arc<str>>,
}

impl Outcome {
    /// As the API shows it; none for removals, which `apply` never makes.
    pub fn action(&self) -> Option<api::Action> {
        let verb = match self.verb {
            Verb::Create => api::Verb::Create,
            Verb::Update => api::Verb::Update,
            Verb::Unchanged => api::Verb::Unchanged,
            Verb::Delete | Verb::Absent => return None,
        };
        let json = |text: &Option<Arc<str>>| {
            let mut value = text
                .as_deref()
                .and_then(|text| serde_json::from_str(&shown(self.kind, text)).ok());
            if self.kind == Kind::Fallback {
                value.iter_mut().for_each(hide_body);
            }
            value
        };
        Some(api::Action {
            kind: self.kind.as_str().to_owned(),
            key: self.key.clone(),
            verb,
            before: json(&self.before),
            after: json(&self.after),
        })
    }
}

/// A unit that was accepted, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The history the revision belongs to.
    pub epoch: Arc<str>,
    /// The revision that has this unit; the one before when nothing changed.
    pub revision: u64,
    /// Whether it is in the database.
    pub durable: bool,
    /// What was done, in the order of the changes; clusters and services that a registration
    /// implied come before it.
    pub outcomes: Vec<Outcome>,
}

impl Written {
    /// As the API shows it.
    pub fn api(&self) -> api::Written {
        api::Written {
            epoch: self.epoch.to_string(),
            revision: self.revision,
            durable: self.durable,
            warnings: Vec::new(),
        }
    }

    /// Whether anything was changed or taken away that was there (for `Deregistered::found`).
    pub fn found(&self) -> bool {
        self.outcomes
            .iter()
            .any(|outcome| outcome.verb == Verb::Delete)
    }
}
