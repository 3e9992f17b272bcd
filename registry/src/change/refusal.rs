//! Why changes are not accepted.

use cardea_registry_api::Invalid;

use super::Kind;

/// Why the state does not take a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such object.
    #[error("there is no {kind} `{key}`")]
    NotFound {
        /// The object's kind.
        kind: Kind,
        /// The object's key.
        key: String,
    },
    /// The object exists, and the writer did not say which revision it saw.
    #[error("{kind} `{key}` exists at revision {current}: say which revision you are changing")]
    PreconditionRequired {
        /// The object's kind.
        kind: Kind,
        /// The object's key.
        key: String,
        /// The revision that holds.
        current: u64,
    },
    /// The writer saw another revision than the one that holds.
    #[error("{kind} `{key}` {}", match current {
        Some(current) => format!("is at revision {current}: read it again and repeat the change"),
        None => "is not there (any more)".to_owned(),
    })]
    PreconditionFailed {
        /// The object's kind.
        kind: Kind,
        /// The object's key.
        key: String,
        /// The revision that holds; none: it is not there.
        current: Option<u64>,
    },
    /// It clashes with another object.
    #[error("{why}")]
    Conflict {
        /// The object's kind.
        kind: Kind,
        /// The object's key.
        key: String,
        /// With what, and what helps.
        why: String,
    },
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Why a unit was not accepted; nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The state does not take it.
    #[error("change {index}: {rejection}")]
    Rejected {
        /// Which change of the unit, from 0.
        index: usize,
        /// Why.
        rejection: Rejection,
    },
    /// Not now: the database is away, or its history is held.
    #[error("{reason}")]
    Unavailable {
        /// What is the matter.
        reason: String,
        /// When to try again, in seconds.
        retry_after: u64,
    },
    /// The database is away, and what waits for it is as much as may wait: an instance that is not
    /// known yet has to wait itself.
    #[error("{reason}")]
    Full {
        /// What is the matter.
        reason: String,
        /// When to try again, in seconds.
        retry_after: u64,
    },
    /// The registry is stopping.
    #[error("the registry is stopping")]
    Stopping,
}
