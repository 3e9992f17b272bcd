//! A release as the registry keeps it: how far it is, what was done when by whom, and what the figures say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ReleasePlan, Step};
use crate::{
    Invalid, Name, Plugin,
    api::{Action, Written},
    cluster::MAX_TEXT,
    plugin::Percent,
};

/// The most events of a release that are kept; the first stays, then the newest.
pub const MAX_EVENTS: usize = 100;

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    /// Its name, unique.
    pub id: Name,
    /// What is wanted, every default in place.
    pub plan: ReleasePlan,
    /// Who started it.
    pub author: String,
    /// When, Unix ms.
    pub created_at: i64,
    /// How it is.
    pub state: ReleaseState,
    /// Why it is so, where it is not as it was planned.
    #[serde(default)]
    pub why: Option<String>,
    /// Which step of the plan, from 0.
    pub step: u16,
    /// The candidate's share that was written last, in percent.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub percent: Percent,
    /// When that was, Unix ms.
    pub since: i64,
    /// From when on candidate and baseline are compared, Unix ms: since the step began, or somebody resumed.
    pub judged_from: i64,
    /// The plugin that it moves.
    pub plugin: Name,
    /// Weights of the experiment's variants before, to go back to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u16>))]
    pub weights: BTreeMap<Name, u16>,
    /// When it ended, Unix ms.
    #[serde(default)]
    pub ended_at: Option<i64>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
}

/// How a release is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseState {
    /// It goes on by itself.
    Running,
    /// It stays where it is until somebody resumes it, or says what else to do.
    Paused,
    /// All requests go to the candidate: the end.
    Finished,
    /// All requests go to the baseline again: the end.
    RolledBack,
    /// It was left where it was: the end.
    Aborted,
}

impl ReleaseState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Paused,
        Self::Finished,
        Self::RolledBack,
        Self::Aborted,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::RolledBack => "rolled-back",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing more comes of itself, ever.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::RolledBack | Self::Aborted)
    }
}

impl std::fmt::Display for ReleaseState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseEvent))]
pub struct Event {
    /// When, Unix ms.
    pub at: i64,
    /// Who: a token's name, or `system` where the release went on by itself.
    pub by: String,
    /// What.
    pub what: Happened,
    /// The candidate's share from then on, in percent.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub percent: Percent,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What can happen to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseHappened))]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It was started.
    Started,
    /// The next step came, or all of them.
    Promoted,
    /// It was made to wait.
    Paused,
    /// It goes on.
    Resumed,
    /// All requests went back.
    RolledBack,
    /// It was left where it was.
    Aborted,
    /// It came to its end.
    Finished,
}

/// What somebody can order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The next step, now.
    Promote,
    /// All requests to the candidate, now.
    PromoteFull,
    /// Stay at this share.
    Pause,
    /// Go on; what was seen so far is judged no more.
    Resume,
    /// Leave it where it is, for good.
    Abort,
    /// All requests back to the baseline; also after the end.
    Rollback,
}

/// `POST /v1/releases/{release}/{order}`: why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseOrder))]
#[serde(default)]
pub struct OrderRequest {
    /// Why; kept.
    pub reason: Option<String>,
    /// With `promote`: all requests at once, whatever steps are left.
    pub full: bool,
    /// With `rollback`, and a `reason`: also while the database is away. It holds at once, and is done in the
    /// database when it is back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub while_away: bool,
}

impl OrderRequest {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        match &self.reason {
            Some(reason) if reason.len() > MAX_TEXT => Err(Invalid::field(
                "reason",
                format!("at most {MAX_TEXT} bytes"),
            )),
            _ => Ok(()),
        }
    }
}

/// What a look at candidate and baseline leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseVerdict))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not enough was seen to say anything.
    TooFew,
    /// There is no sound reason to call the candidate worse.
    NotWorse,
    /// It has more errors.
    MoreErrors,
    /// It is slower.
    Slower,
}

/// Candidate and baseline in this step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseAnalysis))]
pub struct Analysis {
    /// What comes of it.
    pub verdict: Verdict,
    /// The candidate's figures.
    pub candidate: Shown,
    /// The baseline's; in a step that has none beside the candidate, as they were before.
    pub baseline: Shown,
    /// Up to when (Unix ms) there are figures; none: there are none.
    pub newest: Option<i64>,
    /// What the next step waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// Figures of a group in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ReleaseFigures))]
pub struct Shown {
    /// Its requests.
    pub requests: u64,
    /// Those that were answered with 5xx.
    pub errors: u64,
    /// Their share, in percent.
    pub errors_percent: f64,
    /// 99 in 100 took no longer, in microseconds.
    pub p99_us: Option<u64>,
    /// Instances that take requests, in all clusters; none: it is no group.
    pub ready: Option<u64>,
}

/// `GET /v1/releases/{release}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseInfo {
    /// The release.
    pub release: Release,
    /// Its revision.
    pub revision: u64,
    /// What the figures say of this step; none: it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
}

/// `POST /v1/releases?dry_run=true`: what would be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleasePreview {
    /// The release as it would begin.
    pub release: Release,
    /// What its first step would write.
    pub actions: Vec<Action>,
    /// The plugin at the end.
    pub at_the_end: Plugin,
    /// Instances of the candidate that take requests, by cluster.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u64>))]
    pub candidate_ready: BTreeMap<Name, u64>,
    /// Instances of the baseline that do.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u64>))]
    pub baseline_ready: BTreeMap<Name, u64>,
    /// What to know before it is started.
    pub warnings: Vec<String>,
}

/// What came of starting a release, of looking at what it would do, or of an order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseAnswer {
    /// With `dry_run`: what it would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<ReleasePreview>,
    /// The release as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseInfo>,
    /// What was written, with what to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

impl Release {
    /// The step that it is in.
    pub fn at(&self) -> Option<Step> {
        self.plan.steps.get(usize::from(self.step)).copied()
    }

    /// Whether this step is the last one.
    pub fn is_last(&self) -> bool {
        usize::from(self.step) + 1 >= self.plan.steps.len()
    }

    /// Notes something; the first event and the newest stay.
    pub fn note(&mut self, event: Event) {
        self.events.push(event);
        if self.events.len() > MAX_EVENTS {
            self.events.remove(1);
        }
    }
}
