//! What can be done to the registry's objects, and what comes of it.
//!
//! Every door turns what it got into [`Change`]s and hands them to [`crate::core::Core::submit`].
//! What applying them does to the state is decided in [`crate::state`]; what comes of it is told as
//! [`Outcome`]s ([`outcome`]) or as a [`Rejection`] ([`refusal`]).

mod outcome;
mod refusal;

use std::{borrow::Cow, fmt, sync::Arc};

use cardea_registry_api::{
    Certificate, Cluster, Fallback, InstanceKey, Name, Plugin, Release, Route, Service, Switch,
    Traffic, TrafficKey,
    api::{InstancePatch, Registration, Role, TokenInfo},
};
use serde::{Deserialize, Serialize};

pub use outcome::{Outcome, Verb, Written};
pub use refusal::{Rejection, SubmitError};

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
    /// [`Switch`], by id; never in the feed.
    Switch,
    /// [`Release`], by id; never in the feed.
    Release,
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
            Self::Switch => "switch",
            Self::Release => "release",
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
            Self::Switch,
            Self::Release,
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

impl Expected {
    /// Whether this is what the writer saw; `revision` is what is there.
    pub(crate) fn of(self, kind: Kind, key: &str, revision: Option<u64>) -> Result<(), Rejection> {
        let key = key.to_owned();
        match (self, revision) {
            (Self::Any, _) | (Self::None, None) => Ok(()),
            (Self::Exactly(wanted), Some(current)) if wanted == current => Ok(()),
            (Self::None, Some(current)) => {
                Err(Rejection::PreconditionRequired { kind, key, current })
            }
            (Self::Exactly(_), current) => {
                Err(Rejection::PreconditionFailed { kind, key, current })
            }
        }
    }
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
    /// Say where a cluster's requests go, or say it no more, while the database is away: on what was there,
    /// not on a revision, as it is written again on what the database then has. Where that is something
    /// else, that holds.
    MoveTraffic {
        /// Which.
        key: TrafficKey,
        /// What the writer saw.
        before: Option<Box<Traffic>>,
        /// What is to be there.
        after: Option<Box<Traffic>>,
    },
    /// Begin a switch, or its next form; one that moves what another one moves is refused.
    PutSwitch {
        /// The whole object.
        switch: Box<Switch>,
        /// What the writer saw.
        expected: Expected,
    },
    /// Forget a switch that has ended. One that is not there is no error ([`Verb::Absent`]).
    DeleteSwitch {
        /// Which.
        id: Name,
    },
    /// Begin a release, or its next form; a second one of a service is refused.
    PutRelease {
        /// The whole object.
        release: Box<Release>,
        /// What the writer saw.
        expected: Expected,
    },
    /// Send a service's requests back to a release's baseline while the database is away: decided on what the
    /// release and its plugin are when it is written, and again on what the database then has.
    RollBackRelease {
        /// Which.
        id: Name,
        /// Who says so.
        by: String,
        /// Why.
        why: String,
        /// When, Unix ms.
        at: i64,
    },
    /// Forget a release that is over. One that is not there is no error ([`Verb::Absent`]).
    DeleteRelease {
        /// Which.
        id: Name,
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
    /// instances, and what the latter say of traffic and releases expressly for that time. Other configuration
    /// waits for the database.
    pub const fn is_runtime(&self) -> bool {
        matches!(
            self,
            Self::Register { .. }
                | Self::Patch { .. }
                | Self::Deregister { .. }
                | Self::MoveTraffic { .. }
                | Self::RollBackRelease { .. }
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
