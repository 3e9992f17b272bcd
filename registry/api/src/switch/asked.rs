//! What is asked of a switch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Invalid, Name, Span,
    invalid::Check,
    traffic::{MAX_CLUSTERS, MAX_WEIGHT},
};

/// The most stages.
pub const MAX_STAGES: usize = 20;
/// The longest reason, in bytes.
const MAX_REASON: usize = 1000;

/// `POST /v1/switches`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewSwitch {
    /// Whose requests are moved: those that this cluster's routers get.
    pub cluster: Name,
    /// Only those of this service; none: of all but those that have a traffic object of their own.
    #[serde(default)]
    pub service: Option<Name>,
    /// With `service` left out: also services that have a traffic object of their own.
    #[serde(default)]
    pub narrower: bool,
    /// Whereto: each cluster's share of the requests at the end, 0–100, of what the others have.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u8>))]
    pub to: BTreeMap<Name, u8>,
    /// How much of the way is gone at each stage, in percent; the last one is 100. `[100]`: at once.
    /// Default 10, 50, 100.
    #[serde(default = "default_stages")]
    pub stages: Vec<u8>,
    /// How long each stage is watched once all routers have it. Default 1m; 0s: not at all.
    #[serde(default = "default_watch")]
    pub watch: Span,
    /// What sends everything back when it is seen.
    #[serde(default)]
    pub guards: Guards,
    /// Why: it is kept with the switch.
    pub reason: String,
    /// Begin although something speaks against it (`reason` says why); the guard `capacity` is off then.
    #[serde(default)]
    pub force: bool,
    /// A second person, with another token, has to approve it before it begins.
    #[serde(default)]
    pub approval: bool,
}

fn default_stages() -> Vec<u8> {
    vec![10, 50, 100]
}

const fn default_watch() -> Span {
    Span::secs(60)
}

/// What is watched while a switch runs, each thing with a limit; `null` turns it off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Guards {
    /// The share of requests that are answered with 5xx.
    pub errors: Option<ErrorsGuard>,
    /// How long 99 in 100 requests take at most.
    pub p99: Option<P99Guard>,
    /// The clusters that requests go to at the end have healthy capacity for them. Default on.
    pub capacity: bool,
    /// All live routers have each stage, in time.
    pub routers: Option<RoutersGuard>,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            errors: Some(ErrorsGuard::default()),
            p99: Some(P99Guard::default()),
            capacity: true,
            routers: Some(RoutersGuard::default()),
        }
    }
}

/// When there are too many errors. Each of the hundred busiest services is looked at, and all of them
/// together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ErrorsGuard {
    /// So many points of 5xx more than before the switch are too many, in hundredths of a percent.
    /// Default 100: one point.
    pub above: u32,
    /// Fewer requests than this say nothing. Default 100.
    pub least_requests: u64,
}

impl Default for ErrorsGuard {
    fn default() -> Self {
        Self {
            above: 100,
            least_requests: 100,
        }
    }
}

/// When requests take too long: longer than `percent` of what they took before, and by `margin` at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct P99Guard {
    /// Of what it was before the switch. Default 200: twice as long.
    pub percent: u32,
    /// And by so much longer. Default 50ms.
    pub margin: Span,
    /// Fewer requests than this say nothing. Default 100.
    pub least_requests: u64,
}

impl Default for P99Guard {
    fn default() -> Self {
        Self {
            percent: 200,
            margin: Span::millis(50),
            least_requests: 100,
        }
    }
}

/// When routers are too slow to follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct RoutersGuard {
    /// How long they may take to apply a stage. Default 1m.
    pub within: Span,
}

impl Default for RoutersGuard {
    fn default() -> Self {
        Self {
            within: Span::secs(60),
        }
    }
}

impl NewSwitch {
    /// With every default.
    pub fn new(cluster: Name, service: Option<Name>, to: BTreeMap<Name, u8>) -> Self {
        Self {
            cluster,
            service,
            narrower: false,
            to,
            stages: default_stages(),
            watch: default_watch(),
            guards: Guards::default(),
            reason: String::new(),
            force: false,
            approval: false,
        }
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            (1..=MAX_CLUSTERS).contains(&self.to.len()),
            "to",
            format!("1 to {MAX_CLUSTERS} clusters with their shares, such as {{\"dc-b\": 100}}"),
        );
        for (cluster, weight) in &self.to {
            check.ensure(
                *weight <= MAX_WEIGHT,
                &format!("to.{cluster}"),
                format!("a cluster's share is 0 to {MAX_WEIGHT}"),
            );
        }
        check.ensure(
            self.to.is_empty() || self.to.values().any(|weight| *weight > 0),
            "to",
            "at least one above 0: requests must go somewhere",
        );
        check.ensure(
            (1..=MAX_STAGES).contains(&self.stages.len())
                && self.stages.is_sorted_by(|a, b| a < b)
                && self.stages.first().is_some_and(|first| *first > 0)
                && self.stages.last() == Some(&100),
            "stages",
            format!(
                "1 to {MAX_STAGES} percentages that grow up to 100, such as [10, 50, 100]; [100]: at once"
            ),
        );
        check.ensure(self.watch <= Span::secs(3600), "watch", "at most 1h");
        let reason = self.reason.trim();
        check.ensure(
            !reason.is_empty() && self.reason.len() <= MAX_REASON,
            "reason",
            format!("say why, in at most {MAX_REASON} bytes: it is kept with the switch"),
        );
        check.ensure(
            !(self.narrower && self.service.is_some()),
            "narrower",
            "is for a whole cluster: leave `service` out, or this",
        );
        check.merge("guards", self.guards.check());
        check.finish()
    }
}

impl Guards {
    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let least = "1 to 1000000000 requests";
        let fits = |n: u64| (1..=1_000_000_000).contains(&n);
        if let Some(errors) = &self.errors {
            check.ensure(
                errors.above <= 10_000,
                "errors.above",
                "hundredths of a percent, 0 to 10000",
            );
            check.ensure(fits(errors.least_requests), "errors.least_requests", least);
        }
        if let Some(p99) = &self.p99 {
            check.ensure(
                (100..=10_000).contains(&p99.percent),
                "p99.percent",
                "a percentage of what it was before, 100 to 10000",
            );
            check.ensure(p99.margin <= Span::secs(60), "p99.margin", "at most 1m");
            check.ensure(fits(p99.least_requests), "p99.least_requests", least);
        }
        if let Some(routers) = &self.routers {
            check.ensure(
                (Span::secs(1)..=Span::secs(3600)).contains(&routers.within),
                "routers.within",
                "1s to 1h",
            );
        }
        check.finish()
    }
}
