//! What a switch would do, and what speaks against it.

use serde::{Deserialize, Serialize};

use super::Weights;
use crate::{Name, TrafficKey};

/// What a switch would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SwitchPlan {
    /// Whose requests.
    pub cluster: Name,
    /// The traffic objects that are written, and their weights at each stage.
    pub traffic: Vec<PlannedTraffic>,
    /// Services that keep the traffic object of their own.
    #[serde(default)]
    pub keeps: Vec<Name>,
    /// Each service that moves, the busiest first.
    pub services: Vec<PlannedService>,
    /// What speaks against it: begun only with `force`.
    pub refusals: Vec<Refusal>,
    /// What should be known.
    pub notes: Vec<String>,
}

/// A traffic object that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedTraffic {
    /// Which.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "dc-a/search"))]
    pub key: TrafficKey,
    /// Whether it is there already.
    pub exists: bool,
    /// The weights of now.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, u8>))]
    pub from: Weights,
    /// The weights at each stage.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<std::collections::BTreeMap<String, u8>>))]
    pub stages: Vec<Weights>,
}

/// A service that moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedService {
    /// Which.
    pub service: Name,
    /// Requests a second that the cluster's routers get, over the last minute.
    pub rate: f64,
    /// The clusters that its requests go to at the end.
    pub targets: Vec<PlannedTarget>,
}

/// What a cluster has for a service, against what it will get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedTarget {
    /// Which.
    pub cluster: Name,
    /// Its share of the moved requests at the end, in percent.
    pub share: f64,
    /// Requests a second that it will get, from all clusters.
    pub load: f64,
    /// Instances that take requests, as they are registered.
    pub instances: u64,
    /// How many of them are healthy, as routers see it; none: there are no fresh figures, and all of them
    /// count.
    #[serde(default)]
    pub healthy: Option<u64>,
    /// The cluster whose routers see it so.
    #[serde(default)]
    pub seen_by: Option<Name>,
    /// Requests a second that the healthy ones can serve; none: not known.
    pub capacity: Option<f64>,
    /// How that is known.
    pub known: Capacity,
}

/// How a capacity is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Capacity {
    /// Every instance says what it can serve.
    Declared,
    /// From the most that an instance of the service served within the last hour.
    Learnt,
    /// Some instances say so, the others are taken for what was learnt.
    Mixed,
    /// Neither.
    Unknown,
}

impl Capacity {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Learnt => "learnt",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that speaks against a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchRefusal))]
pub struct Refusal {
    /// Of which service; none: of the cluster.
    pub service: Option<Name>,
    /// What, with the numbers.
    pub why: String,
}
