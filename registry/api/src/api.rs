//! Bodies of API calls that are no stored objects.

mod instances;

use serde::{Deserialize, Serialize};

pub(crate) use instances::default_state;
pub use instances::{
    BulkRegistration, Deregistered, InstancePatch, KeyedRegistration, Registration, Renewals,
    Renewed, default_weight,
};

use crate::{Certificate, Cluster, Fallback, Name, Plugin, Route, Service, Span, Traffic};

/// The header that carries the revision of an answer.
pub const REVISION_HEADER: &str = "cardea-revision";
/// The header that carries the epoch of an answer.
pub const EPOCH_HEADER: &str = "cardea-epoch";
/// The header in which a router's poll says which kinds of plugins it knows, separated by commas.
/// (A header, since older registries refuse parameters that they do not know.)
pub const KINDS_HEADER: &str = "cardea-plugin-kinds";
/// Of the feed's answers to routers: how many routers of the cluster are live, the asking one among
/// them.
pub const ROUTERS_HEADER: &str = "cardea-routers";
/// Where a registry is reached when nobody says.
pub const DEFAULT_REGISTRY: &str = "http://127.0.0.1:7400";
/// The default weight of an instance.
pub const DEFAULT_WEIGHT: u16 = 100;
/// The default lease of an instance.
pub const DEFAULT_LEASE: Span = Span::secs(15);

/// Where a write led: the answer to each write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Written {
    /// The history the revision belongs to.
    pub epoch: String,
    /// The revision that has this write; the previous one when nothing changed.
    pub revision: u64,
    /// Whether it is in the database; `false` while the database is away: it is then kept in memory
    /// and on disk, and written as soon as the database is back.
    pub durable: bool,
    /// What should be known about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A router that the registry knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouterInfo {
    /// Its id, unique in its cluster. A router of another cluster, which sends requests to this one's
    /// instances, has its own cluster and a `/` before its id.
    pub id: String,
    /// Its cluster.
    pub cluster: Name,
    /// Its program's version.
    pub version: String,
    /// The epoch of what it applied.
    pub epoch: String,
    /// The revision it proved to have applied.
    pub revision: u64,
    /// When it last asked, Unix ms.
    pub last_seen: i64,
    /// Whether it counts for acknowledgements.
    pub live: bool,
    /// The kinds of plugins that it knows, as it says itself to the registry that is asked; none: it
    /// does not say, or says so to another replica.
    #[serde(default)]
    pub plugin_kinds: Option<Vec<String>>,
    /// Plugins for its cluster whose kinds it does not know.
    #[serde(default)]
    pub unknown_plugins: Vec<Name>,
}

impl RouterInfo {
    /// Whether it is a router of another cluster, which only wants this one's instances.
    pub fn is_visitor(&self) -> bool {
        self.id.contains('/')
    }
}

/// A kept disk snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotInfo {
    /// Its file name.
    pub file: String,
    /// In bytes.
    pub size: u64,
    /// When it was written, Unix ms.
    pub written_at: i64,
    /// Its epoch.
    pub epoch: String,
    /// Its revision.
    pub revision: u64,
    /// How many objects it holds.
    pub objects: u64,
    /// What verification found: none when it is sound or was not verified.
    pub damage: Option<String>,
}

/// How a registry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The database is there and agrees.
    Ok,
    /// The database is away: memory serves, registrations are kept, configuration is read-only.
    DatabaseLost,
    /// The database holds another or an older history than this registry remembers: as above, until
    /// an operator confirms which one holds.
    HistoryHeld,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// This replica's id.
    pub replica: String,
    /// The epoch served.
    pub epoch: String,
    /// The revision served.
    pub revision: u64,
    /// How it stands.
    pub mode: Mode,
    /// Where the set came from at start: `database` or `snapshot`.
    pub started_from: String,
    /// Accepted changes that wait for the database.
    pub pending_changes: u64,
    /// What needs somebody's attention.
    pub alarms: Vec<Alarm>,
}

/// Something that needs somebody's attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alarm {
    /// The kind, stable: `database_lost`, `history_held`, `collapse_guard`, `snapshot_failed` …
    pub code: String,
    /// What is the matter and what helps.
    pub message: String,
    /// Since when, Unix ms.
    pub since: i64,
}

/// `POST /v1/alarms/acknowledge`: somebody has taken note of an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlarmAcknowledgement {
    /// Its code: `away_write_lost`. Others end when their cause does.
    pub code: String,
}

/// `POST /v1/history`: an operator's word on which history holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryDecision {
    /// Which one.
    pub keep: Keep,
}

/// Which history holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The database's, though it has less; accepted registrations are written on top.
    Database,
    /// This registry's memory, which is written to the database.
    Memory,
}

/// One row of the change log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeRecord {
    /// Its revision.
    pub revision: u64,
    /// When, Unix ms.
    pub at: i64,
    /// Who: a token's name, or `system`.
    pub actor: String,
    /// Why: `registered`, `deregistered`, `expired`, `applied` …
    pub cause: String,
    /// The object's kind.
    pub kind: String,
    /// The object's key.
    pub key: String,
    /// The object before; none when it was created.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<serde_json::Value>,
    /// The object after; none when it was removed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<serde_json::Value>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Register, renew, change and deregister instances (of its services, if it is bound to some).
    Agent,
    /// Read the feed.
    Router,
    /// Read everything but tokens.
    Viewer,
    /// Also write clusters, services, routes and instances, and confirm histories.
    Operator,
    /// Also manage tokens.
    Admin,
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// Its name, unique: what the change log shows as the actor.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// For role `agent`: only these services; empty: all.
    #[serde(default)]
    pub services: Vec<Name>,
}

/// A token as it is listed: never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenInfo {
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// For role `agent`: only these services; empty: all.
    pub services: Vec<Name>,
    /// When it was made, Unix ms.
    pub created_at: i64,
}

/// The answer to `POST /v1/tokens`: the only time that the secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenSecret {
    /// The token.
    #[serde(flatten)]
    pub info: TokenInfo,
    /// What goes behind `Authorization: Bearer`.
    pub token: String,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The objects, ordered by key.
    pub items: Vec<T>,
    /// Give this as `cursor` for the next page; none: this was the last.
    pub next: Option<String>,
}

/// A stored object with the revision that wrote it: its ETag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Versioned<T> {
    /// The revision that last changed it.
    pub revision: u64,
    /// The object.
    #[serde(flatten)]
    pub object: T,
}

/// `POST /v1/apply`: create or update all of these, as one change; nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyRequest {
    /// Clusters.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    /// Services.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Certificates. One that exists may come without its key.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// Stored bodies.
    #[serde(default)]
    pub fallbacks: Vec<Fallback>,
    /// Plugins.
    #[serde(default)]
    pub plugins: Vec<Plugin>,
    /// Where clusters' requests go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<Traffic>,
    /// Instances (source `manual`).
    #[serde(default)]
    pub instances: Vec<KeyedRegistration>,
}

/// What a plugin of a kind may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KindSchema {
    /// The kind.
    pub kind: String,
    /// What it is for.
    pub description: String,
    /// JSON Schema (2020-12) of a whole plugin of this kind, which refers to nothing outside of itself.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub schema: serde_json::Value,
}

/// The answer to `POST /v1/apply[?dry_run=true]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Applied {
    /// Where the write led; none for a dry run.
    pub written: Option<Written>,
    /// What was (or would be) done, object by object.
    pub actions: Vec<Action>,
}

/// What was (or would be) done to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Action {
    /// The object's kind: `cluster`, `service`, `route`, `plugin` …
    pub kind: String,
    /// The object's key.
    pub key: String,
    /// What.
    pub verb: Verb,
    /// The object before.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<serde_json::Value>,
    /// The object after.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<serde_json::Value>,
}

/// What was (or would be) done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It was not there.
    Create,
    /// It was different.
    Update,
    /// It was the same.
    Unchanged,
}
