//! A switch: moving a cluster's requests, or those of a service, to other clusters in stages, and back.
//!
//! What is moved are the weights of [`Traffic`] objects. Each stage is watched; when a guard trips, the
//! objects are again what they were before. [`Switch`] is all that a replica needs to go on with one that
//! another replica began.

mod asked;
mod plan;
mod weights;

use serde::{Deserialize, Serialize};

pub use asked::{ErrorsGuard, Guards, MAX_STAGES, NewSwitch, P99Guard, RoutersGuard};
pub use plan::{Capacity, PlannedService, PlannedTarget, PlannedTraffic, Refusal, SwitchPlan};
pub use weights::{Move, Weights, effective, interpolated};

use crate::{
    Name,
    api::{Versioned, Written},
};

/// The most events that a switch keeps.
pub const MAX_EVENTS: usize = 100;

/// A switch as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Switch {
    /// Its name: `switch-` and a number.
    pub id: Name,
    /// What was asked for.
    pub asked: NewSwitch,
    /// Who asked: a token's name.
    pub author: String,
    /// When, Unix ms.
    pub created_at: i64,
    /// Who approved it, if somebody had to.
    #[serde(default)]
    pub approved_by: Option<String>,
    /// How it stands.
    pub state: SwitchState,
    /// Which stage was written last, from 0.
    #[serde(default)]
    pub stage: usize,
    /// When that was, Unix ms; 0: none was.
    #[serde(default)]
    pub stage_at: i64,
    /// Since when all routers have the stage, Unix ms: its watch began.
    #[serde(default)]
    pub converged_at: Option<i64>,
    /// What is moved, as it was before.
    #[serde(default)]
    pub moves: Vec<Move>,
    /// What the guards compare with: the busiest services before the switch.
    #[serde(default)]
    pub before: Vec<Sample>,
    /// Of the busiest services, whose instances do not say what they can serve: what was known before.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, Learnt>))]
    pub learnt: std::collections::BTreeMap<Name, Learnt>,
    /// Everything that happened to it, the oldest first; the first and the latest ones.
    pub events: Vec<Event>,
}

/// How a switch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SwitchState {
    /// A second person has to approve it; nothing was moved.
    Waiting,
    /// It goes on by itself.
    Running,
    /// It stays at its stage until somebody resumes or undoes it.
    Paused,
    /// Everything is where it should be.
    Done,
    /// A guard tripped: everything is as before.
    Returned,
    /// Somebody undid it: everything is as before.
    Undone,
    /// It never began.
    Cancelled,
}

impl SwitchState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Running,
        Self::Paused,
        Self::Done,
        Self::Returned,
        Self::Undone,
        Self::Cancelled,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Returned => "returned",
            Self::Undone => "undone",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it has not ended yet.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Waiting | Self::Running | Self::Paused)
    }
}

impl std::fmt::Display for SwitchState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What routers counted of a service over some time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchSample))]
pub struct Sample {
    /// Of which service; none: of all that are moved.
    pub service: Option<Name>,
    /// Requests.
    pub requests: u64,
    /// Those that were answered with 5xx.
    pub errors: u64,
    /// 99 in 100 took no longer, in microseconds.
    pub p99_us: Option<u64>,
}

impl Sample {
    /// The share of requests that were answered with 5xx, in percent.
    pub fn error_percent(&self) -> f64 {
        self.errors as f64 * 100.0 / self.requests.max(1) as f64
    }
}

/// What is known of a service whose instances do not say what they can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchLearnt))]
pub struct Learnt {
    /// What an instance is taken for, in requests a second: the most that one served within the last hour,
    /// and two fifths more.
    pub each: u64,
    /// Requests a second that the cluster's routers got. It grows meanwhile: that an instance cannot serve
    /// more than it ever had to is not known.
    pub rate: u64,
}

/// Something that happened to a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchEvent))]
pub struct Event {
    /// When, Unix ms.
    pub at: i64,
    /// Who: a token's name, or `cardea` where it happened by itself.
    pub by: String,
    /// How the switch stood after it.
    pub state: SwitchState,
    /// What, with the numbers.
    pub what: String,
}

impl Switch {
    /// Whether it moves what another one would move: the same cluster, and not two different services.
    pub fn overlaps(&self, cluster: &Name, service: Option<&Name>) -> bool {
        self.asked.cluster == *cluster
            && match (&self.asked.service, service) {
                (Some(own), Some(other)) => own == other,
                _ => true,
            }
    }

    /// How much of the way has been gone, in percent, as the last stage says.
    pub fn percent(&self) -> u8 {
        if self.stage_at == 0 {
            return 0;
        }
        self.asked.stages.get(self.stage).copied().unwrap_or(100)
    }

    /// Notes what happened; the first events and the latest ones are kept.
    pub fn note(&mut self, at: i64, by: &str, what: impl Into<String>) {
        if self.events.len() >= MAX_EVENTS {
            self.events.remove(MAX_EVENTS / 5);
        }
        self.events.push(Event {
            at,
            by: by.to_owned(),
            state: self.state,
            what: what.into(),
        });
    }
}

/// The answer to `POST /v1/switches[?dry_run=true]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Planned {
    /// What moves, and what speaks against it.
    pub plan: SwitchPlan,
    /// What was begun; none for a dry run.
    pub begun: Option<Acted>,
}

/// The answer to what is done to a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchActed))]
pub struct Acted {
    /// Where the write led.
    pub written: Written,
    /// The switch as it is now.
    pub switch: Versioned<Switch>,
    /// Routers of the cluster that have applied it.
    pub acknowledged: Vec<String>,
    /// Live routers of the cluster that had not when the time was up.
    pub pending: Vec<String>,
}

/// `POST /v1/switches/{id}/pause` and its like: why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchWord))]
pub struct Word {
    /// For the switch's events.
    #[serde(default)]
    pub reason: String,
    /// Do it although something speaks against it: a traffic object that was changed by hand is written
    /// over, a switch is approved though capacity is short.
    #[serde(default)]
    pub force: bool,
}

/// The answer to `GET /v1/switches/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchShown))]
pub struct Shown {
    /// The switch.
    #[serde(flatten)]
    pub switch: Versioned<Switch>,
    /// What it waits for, with the figures of now; empty once it has ended.
    #[serde(default)]
    pub now: String,
}

#[cfg(test)]
mod tests;
