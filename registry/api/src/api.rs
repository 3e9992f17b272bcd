//! Bodies of API calls that are no stored objects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Address, Certificate, Cluster, Fallback, Instance, InstanceKey, InstanceState, Name, Plugin,
    Route, Service, Source, Span, Traffic,
};

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

/// `PUT /v1/clusters/{cluster}/services/{service}/instances/{id}`: what a source reports.
/// Registering again replaces the report and renews the lease; what an operator forced stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registration {
    /// Where it listens.
    pub address: Address,
    /// 0–1000, default 100.
    #[serde(default = "default_weight")]
    pub weight: u16,
    /// Where it stands.
    #[serde(default)]
    pub zone: Option<Name>,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version of the program.
    #[serde(default)]
    pub version: String,
    /// How many requests a second it can serve, where that is known: what a cluster can bear is reckoned by
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Default `up`.
    #[serde(default = "default_state")]
    pub state: InstanceState,
    /// Default `agent`; `manual` instances may have no lease.
    #[serde(default = "default_source")]
    pub source: Source,
    /// How long it lives without a renewal; default 15 s; `null` (for `manual` only): for ever.
    #[serde(default = "default_lease")]
    pub lease: Option<Span>,
}

/// [`DEFAULT_WEIGHT`], for `serde`.
pub const fn default_weight() -> u16 {
    DEFAULT_WEIGHT
}

pub(crate) fn default_state() -> InstanceState {
    InstanceState::Up
}

fn default_source() -> Source {
    Source::Agent
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "serde's default has the field's type"
)]
fn default_lease() -> Option<Span> {
    Some(DEFAULT_LEASE)
}

/// `POST /v1/registrations`: many at once, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkRegistration {
    /// At most 1000.
    pub instances: Vec<KeyedRegistration>,
}

/// One of many registrations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyedRegistration {
    /// Which instance.
    pub key: InstanceKey,
    /// What it reports.
    pub registration: Registration,
}

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

/// `POST /v1/renewals`: many at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewals {
    /// At most 10,000.
    pub instances: Vec<InstanceKey>,
}

/// The answer to renewals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewed {
    /// How many leases were renewed.
    pub renewed: u64,
    /// What the registry does not know: register again.
    pub unknown: Vec<InstanceKey>,
}

/// `PATCH …/instances/{id}`. A member left out stays as it is; `null` under `forced` lifts it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstancePatch {
    /// What the source reports now (role `agent`): `starting`, `up` or `draining`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<InstanceState>,
    /// The reported weight (role `agent`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// What an operator sets over it (role `operator`); replaces what was forced before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<crate::instance::Forced>,
}

/// The answer to `DELETE …/instances/{id}?wait=8s`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deregistered {
    /// Where the write led.
    #[serde(flatten)]
    pub written: Written,
    /// Whether the instance was there.
    pub found: bool,
    /// Routers of the cluster that confirmed that they applied the revision.
    pub acknowledged: Vec<String>,
    /// Live routers of the cluster that had not when the time was up; empty: all have let go.
    pub pending: Vec<String>,
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

impl Registration {
    /// The registration with every default.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            weight: DEFAULT_WEIGHT,
            zone: None,
            labels: BTreeMap::new(),
            version: String::new(),
            capacity: None,
            state: InstanceState::Up,
            source: Source::Agent,
            lease: Some(DEFAULT_LEASE),
        }
    }

    /// The instance this registers when nothing was there before.
    pub fn into_instance(self, key: InstanceKey, now: i64) -> Instance {
        Instance {
            cluster: key.cluster,
            service: key.service,
            id: key.id,
            address: self.address,
            weight: self.weight,
            zone: self.zone,
            labels: self.labels,
            version: self.version,
            capacity: self.capacity,
            state: self.state,
            source: self.source,
            lease: self.lease,
            forced: crate::instance::Forced::default(),
            registered_at: now,
            stale_since: None,
        }
    }
}
