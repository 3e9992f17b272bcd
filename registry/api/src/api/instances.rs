//! Bodies of calls on instances.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DEFAULT_LEASE, DEFAULT_WEIGHT, Written};
use crate::{Address, Instance, InstanceKey, InstanceState, Name, Source, Span};

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
