//! What stands in for an answer that a service does not have: which requests are covered, and against
//! what. What it takes to answer is the executor's business (`pipeline/rescue.rs`).

use std::sync::Arc;

pub(crate) mod memory;

use cardea_registry_api::{
    Invalid, Name,
    fallback::Body,
    plugin::{FallbackCause, FallbackPolicy},
};

use super::{Bound, Chain, Mode, condition::Condition, decision::Case};
use crate::{
    grpc,
    plugin::asked::Asked,
    refusal::{self, Refusal},
};
use memory::Memory;

/// The header that says why the answer is another one, and, to a service that is asked instead, why
/// it is asked. A request that has it was passed on once already.
pub(crate) const HEADER: &str = "X-Cardea-Fallback";

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The service answered with this status.
    Status(u16),
    /// There was no answer to pass on.
    Cause(FallbackCause),
}

impl Trigger {
    /// For headers, logs and labels: a closed set.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Cause(FallbackCause::Unreachable) => "unreachable",
            Self::Cause(FallbackCause::Timeout) => "timeout",
            Self::Cause(FallbackCause::Limit) => "limit",
            Self::Cause(FallbackCause::Break) => "break",
        }
    }

    /// Why a refusal is the service's fault, or a protection's; none: it is the request's own.
    pub(crate) fn of(refusal: &Refusal) -> Option<Self> {
        Some(Self::Cause(match *refusal {
            refusal::ALL_FAILED | refusal::NO_PEER => FallbackCause::Unreachable,
            refusal::TIMED_OUT => FallbackCause::Timeout,
            refusal::TOO_MANY_REQUESTS => FallbackCause::Limit,
            refusal::CIRCUIT_OPEN | refusal::OVERLOADED => FallbackCause::Break,
            _ => return None,
        }))
    }
}

/// Where the answer came from: what the plugin says, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// What the service last answered well.
    LastGood,
    /// Another service, or a group.
    Service,
    /// Another route.
    Route,
    /// A stored body.
    Stored,
    /// Nowhere: the error went out.
    Failed,
}

/// What a fallback says while nothing has gone wrong yet.
pub(crate) const COVERED: usize = 5;

impl Way {
    /// By index, with [`COVERED`] behind them.
    pub(crate) const VERDICTS: [&str; 6] = [
        "last_good",
        "service",
        "route",
        "stored",
        "failed",
        "covered",
    ];

    /// For logs and labels: a closed set.
    pub(crate) const fn as_str(self) -> &'static str {
        Self::VERDICTS[self as usize]
    }
}

/// A policy, made ready.
#[derive(Debug)]
pub(crate) struct Rescue {
    when: Condition,
    methods: Box<[Box<[u8]>]>,
    grpc: bool,
    statuses: Box<[u16]>,
    causes: Box<[FallbackCause]>,
    pub(crate) body: Option<Name>,
    status: Option<u16>,
    pub(crate) memory: Option<Arc<Memory>>,
    /// Stands in for the route's prefix where somebody else is asked.
    pub(crate) prefix: Option<Box<str>>,
    pub(crate) route: Option<Name>,
    pub(crate) service: Option<Name>,
    pub(crate) group: Option<Name>,
}

impl Rescue {
    /// Makes a checked one ready.
    pub(crate) fn new(
        policy: &FallbackPolicy,
        memory: Option<Arc<Memory>>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            when: Condition::new(&policy.when)?,
            methods: policy.methods.iter().map(|m| m.as_bytes().into()).collect(),
            grpc: policy.grpc,
            statuses: policy.statuses.as_slice().into(),
            causes: policy.causes.as_slice().into(),
            body: policy.body.clone(),
            status: policy.status,
            memory,
            prefix: policy.prefix.as_ref().map(|p| p.as_str().into()),
            route: policy.route.clone(),
            service: policy.service.clone(),
            group: policy.group.clone(),
        })
    }
}

/// A route's fallback: its policy, and what that names.
#[derive(Debug, Clone)]
pub(crate) struct Fallback {
    pub(crate) bound: Arc<Bound<Rescue>>,
    pub(crate) stored: Option<Stored>,
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Fields of another service's answer that do not go on.
    pub(crate) gone: Box<[Box<[u8]>]>,
}

/// Who is asked instead.
#[derive(Debug, Clone)]
pub(crate) struct Elsewhere {
    /// The slot of another service, or of a group.
    pub(crate) slot: usize,
    pub(crate) route: Option<OtherRoute>,
}

/// The route as which is answered.
#[derive(Debug, Clone)]
pub(crate) struct OtherRoute {
    /// What a request of its own has as its host; none: it takes more than one.
    pub(crate) host: Option<Box<str>>,
    pub(crate) prefix: Box<str>,
    /// Those of its plugins that say how a request goes on; none: there are none.
    pub(crate) chain: Option<Arc<Chain>>,
}

impl Elsewhere {
    /// How an answer from there is called.
    pub(crate) fn way(&self) -> Way {
        match self.route {
            Some(_) => Way::Route,
            None => Way::Service,
        }
    }
}

/// A stored body, as it is answered.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) status: u16,
    pub(crate) content_type: Box<str>,
    pub(crate) body: Body,
}

impl Fallback {
    /// A policy whose names have not been looked up yet.
    pub(super) fn new(bound: Arc<Bound<Rescue>>) -> Self {
        Self {
            bound,
            stored: None,
            elsewhere: None,
            gone: Box::default(),
        }
    }

    /// Takes what its policy names, as far as it is there; `gone` are fields that never go on.
    pub(super) fn find(
        &mut self,
        body: Option<&Arc<cardea_registry_api::Fallback>>,
        elsewhere: Option<Elsewhere>,
        gone: &[Box<[u8]>],
    ) {
        self.stored = body.map(|body| Stored {
            status: self.bound.policy.status.or(body.status).unwrap_or(200),
            content_type: body.content_type.as_str().into(),
            body: body.body.clone(),
        });
        let other = elsewhere.as_ref().and_then(|to| to.route.as_ref());
        let chain = other.and_then(|route| route.chain.as_deref());
        let theirs = chain.map_or(&[][..], Chain::reply_gone);
        let own: Box<[u8]> = HEADER.as_bytes().into();
        self.gone = gone.iter().chain(theirs).cloned().chain([own]).collect();
        self.elsewhere = elsewhere;
    }

    /// The stage: stands ready for the requests it covers.
    pub(super) fn ask<'c>(&'c self, case: &mut Case<'_, 'c>) {
        if !self.covers(case.about.asked) {
            return;
        }
        case.decision.fallback = Some(self);
        // What it comes to is said once something goes wrong.
        if case.mode == Mode::Asking {
            case.says(&self.bound.head, COVERED);
        }
    }

    /// Whether a request is one that is answered for at all.
    fn covers(&self, asked: &Asked<'_>) -> bool {
        let policy = &self.bound.policy;
        let is_grpc = asked.header("content-type").is_some_and(grpc::is_grpc);
        let fits = if is_grpc {
            policy.grpc
        } else {
            policy.methods.iter().any(|m| **m == *asked.method)
        };
        // What was to become another protocol can be nothing else.
        fits && asked.header("upgrade").is_none() && policy.when.holds(asked)
    }

    /// Whether it answers for this.
    pub(crate) fn answers_for(&self, trigger: Trigger) -> bool {
        let policy = &self.bound.policy;
        match trigger {
            Trigger::Status(status) => policy.statuses.contains(&status),
            Trigger::Cause(cause) => policy.causes.contains(&cause),
        }
    }
}

#[cfg(test)]
mod tests;
