//! What can be done to the registry's objects, and why it may be refused.
//!
//! Every door turns what it got into [`Change`]s and hands them to [`crate::core::Core::submit`].
//! What applying them does to the state is decided in [`crate::state`].

use std::{borrow::Cow, fmt, sync::Arc};

use cardea_registry_api::{
    Certificate, Cluster, Fallback, InstanceKey, Invalid, Name, Plugin, Route, Service, Traffic,
    TrafficKey, api,
    api::{InstancePatch, Registration, Role, TokenInfo},
};
use serde::{Deserialize, Serialize};

/// Kinds of stored objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Cluster`], by name.
    Cluster,
    /// [`Service`], by name.
    Service,
    /// [`Route`], by id.
    Route,
    /// [`Certificate`], by name.
    Certificate,
    /// [`Fallback`], by name.
    Fallback,
    /// [`Plugin`], by name.
    Plugin,
    /// [`Traffic`], by `cluster` or `cluster/service`.
    Traffic,
    /// [`cardea_registry_api::Instance`], by `cluster/service/id`.
    Instance,
    /// [`TokenRecord`], by name; never in the feed.
    Token,
    /// A decision about which history holds; only in the change log, by its epoch.
    History,
    /// Of a newer program that writes to the same database; only read, and left alone.
    Newer,
}

impl Kind {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Service => "service",
            Self::Route => "route",
            Self::Certificate => "certificate",
            Self::Fallback => "fallback",
            Self::Plugin => "plugin",
            Self::Traffic => "traffic",
            Self::Instance => "instance",
            Self::Token => "token",
            Self::History => "history",
            Self::Newer => "newer",
        }
    }

    /// From its written form.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Cluster,
            Self::Service,
            Self::Route,
            Self::Certificate,
            Self::Fallback,
            Self::Plugin,
            Self::Traffic,
            Self::Instance,
            Self::Token,
            Self::History,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object's JSON as it may be shown: a private key leaves the registry in the routers' feed only.
pub(crate) fn shown(kind: Kind, json: &str) -> Cow<'_, str> {
    if kind != Kind::Certificate {
        return Cow::Borrowed(json);
    }
    let mut value = serde_json::from_str(json).unwrap_or_default();
    hide_key(&mut value);
    Cow::Owned(value.to_string())
}

/// A stored body's length in the place of the body, where many are shown.
pub(crate) fn hide_body(fallback: &mut serde_json::Value) {
    let Some(fields) = fallback.as_object_mut() else {
        return;
    };
    if let Some(serde_json::Value::String(body)) = fields.remove("body") {
        let padding = body.bytes().rev().take_while(|b| *b == b'=').count();
        let size = (body.len() / 4 * 3).saturating_sub(padding);
        fields.insert("size".to_owned(), size.into());
    }
}

/// Takes a certificate's private key out of its JSON.
pub(crate) fn hide_key(certificate: &mut serde_json::Value) {
    if let Some(fields) = certificate.as_object_mut() {
        fields.remove("key");
    }
}

/// A token as it is kept: its secret only as a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its name, unique: the actor in the change log.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// For role `agent`: only these services; empty: all.
    #[serde(default)]
    pub services: Vec<Name>,
    /// When it was made, Unix ms.
    pub created_at: i64,
    /// SHA-256 of the token's text, 64 lower-case hex digits.
    pub sha256: String,
}

impl TokenRecord {
    /// The token as it is listed.
    pub fn info(&self) -> TokenInfo {
        TokenInfo {
            name: self.name.clone(),
            role: self.role,
            services: self.services.clone(),
            created_at: self.created_at,
        }
    }
}

/// What a writer says about the object it saw before it writes (`If-Match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Nothing was said: fine for an object that is not there yet, refused
    /// ([`Rejection::PreconditionRequired`]) for one that is.
    None,
    /// Whatever is there, also nothing.
    Any,
    /// This revision of the object.
    Exactly(u64),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Create or replace a cluster.
    PutCluster {
        /// The whole object.
        cluster: Cluster,
        /// What the writer saw.
        expected: Expected,
    },
    /// Delete a cluster; refused while it has instances.
    DeleteCluster {
        /// Which.
        name: Name,
        /// What the writer saw.
        expected: Expected,
    },
    /// Create or replace a service.
    PutService {
        /// The whole object.
        service: Box<Service>,
        /// What the writer saw.
        expected: Expected,
    },
    /// Delete a service; refused while it has routes or instances.
    DeleteService {
        /// Which.
        name: Name,
        /// What the writer saw.
        expected: Expected,
    },
    /// Create or replace a route; its service must exist, its host and prefix be free.
    PutRoute {
        /// The whole object.
        route: Route,
        /// What the writer saw.
        expected: Expected,
    },
    /// Delete a route.
    DeleteRoute {
        /// Which.
        id: Name,
        /// What the writer saw.
        expected: Expected,
    },
    /// Create or replace a certificate. One that comes without its key keeps the key it has, if that
    /// still fits.
    PutCertificate {
        /// The whole object.
        certificate: Box<Certificate>,
        /// What the writer saw.
        expected: Expected,
    },
    /// Delete a certificate.
    DeleteCertificate {
        /// Which.
        name: Name,
        /// What the writer saw.
        expected: Expected,
    },
    /// Create or replace a stored body.
    PutFallback {
        /// The whole object.
        fallback: Fallback,
        /// What the writer saw.
        expected: Expected,
    },
    /// Delete a stored body; refused while a plugin names it.
    DeleteFallback {
        /// Which.
        name: Name,
        /// What the writer saw.
        expected: Expected,
    },
    /// Create or replace a plugin; what it names must exist.
    PutPlugin {
        /// The whole object.
        plugin: Box<Plugin>,
        /// What the writer saw.
        expected: Expected,
    },
    /// Delete a plugin.
    DeletePlugin {
        /// Which.
        name: Name,
        /// What the writer saw.
        expected: Expected,
    },
    /// Say where a cluster's requests go; every cluster and service that it names must exist.
    PutTraffic {
        /// The whole object.
        traffic: Box<Traffic>,
        /// What the writer saw.
        expected: Expected,
    },
    /// Say it no more.
    DeleteTraffic {
        /// Which.
        key: TrafficKey,
        /// What the writer saw.
        expected: Expected,
    },
    /// Create a token, or replace it.
    PutToken {
        /// The whole object.
        token: TokenRecord,
        /// What the writer saw.
        expected: Expected,
    },
    /// Delete a token.
    DeleteToken {
        /// Which.
        name: Name,
    },
    /// Register an instance, or replace what its source reports. Creates a missing cluster or
    /// service with every default. What an operator forced stays.
    Register {
        /// Which.
        key: InstanceKey,
        /// What its source reports.
        registration: Box<Registration>,
    },
    /// Change an instance's state or weight.
    Patch {
        /// Which.
        key: InstanceKey,
        /// What to change.
        patch: InstancePatch,
    },
    /// Take an instance out at once. One that is not there is no error ([`Verb::Absent`]).
    Deregister {
        /// Which.
        key: InstanceKey,
    },
    /// The lease has lapsed: as [`Change::Deregister`], with the cause `expired`.
    Expire {
        /// Which.
        key: InstanceKey,
    },
    /// The lease has lapsed, but the collapse guard keeps the instance.
    MarkStale {
        /// Which.
        key: InstanceKey,
    },
    /// A stale instance was renewed after all.
    MarkFresh {
        /// Which.
        key: InstanceKey,
    },
}

impl Change {
    /// Whose change it is, if it is one of an instance.
    pub const fn instance(&self) -> Option<&InstanceKey> {
        match self {
            Self::Register { key, .. }
            | Self::Patch { key, .. }
            | Self::Deregister { key }
            | Self::Expire { key }
            | Self::MarkStale { key }
            | Self::MarkFresh { key } => Some(key),
            _ => None,
        }
    }

    /// Whether it goes on while the database is away: what agents (and operators at 3 a.m.) do to
    /// instances. Configuration waits for the database.
    pub const fn is_runtime(&self) -> bool {
        matches!(
            self,
            Self::Register { .. } | Self::Patch { .. } | Self::Deregister { .. }
        )
    }
}

/// Who submits: what the change log shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Author(pub Arc<str>);

impl Author {
    /// A token's name.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The registry itself.
    pub fn system() -> Self {
        Self("system".into())
    }
}

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
