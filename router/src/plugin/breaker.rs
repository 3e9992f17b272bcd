//! Circuit breakers and adaptive concurrency: the stage, and what is heard of a request afterwards.

use std::{sync::Arc, time::Duration};

use cardea_registry_api::plugin::{Adaptive, Break};
use serde::Serialize;

use super::{
    Bound,
    circuit::{Admission, Circuit, Outcome, Rules, State},
    decision::Case,
    gradient::Gradient,
    said::Mode,
};
use crate::{http1::render::line, refusal};

/// A breaker's rules, made ready.
#[derive(Debug)]
pub(super) struct Breaking {
    rules: Rules,
    statuses: Box<[u16]>,
    grpc_statuses: Box<[u8]>,
    slow: Option<Duration>,
    adaptive: Option<Adaptive>,
}

/// What is known of a service through a breaker. It outlives tables, so that a change elsewhere
/// forgets nothing.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    circuit: Circuit,
    gradient: Gradient,
}

/// How a service stands, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// `closed`, `open` or `half-open`.
    pub(crate) state: &'static str,
    /// How often it opened.
    pub(crate) opened: u64,
    /// Requests at a time that are taken; none: not bounded.
    pub(crate) limit: Option<u32>,
    /// Requests that are under way, where they are bounded.
    pub(crate) running: u32,
}

/// A breaker at one service.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) bound: Arc<Bound<Breaking>>,
    pub(super) standing: Arc<Standing>,
}

/// A request that a breaker let go on, until it is heard how it went. Dropped before, it says nothing.
#[derive(Debug)]
pub(crate) struct Ticket {
    guarded: Arc<Guarded>,
    probe: Option<u8>,
    entered: bool,
    heard: bool,
    /// What came of it unless the trailer says otherwise, which has not come yet.
    awaits: Option<Outcome>,
}

/// What an answer's head says about a call of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It is none.
    No,
    /// Its status is in the trailer.
    Running,
    /// Its status.
    Ended(u8),
}

/// The states, as they are written.
pub(crate) const STATES: [&str; 3] = ["closed", "open", "half-open"];

/// The verdicts.
pub(super) const VERDICTS: [&str; 4] = ["passed", "probed", "open", "overloaded"];
const PASSED: usize = 0;
const PROBED: usize = 1;
const OPEN: usize = 2;
const OVERLOADED: usize = 3;

impl From<&Break> for Breaking {
    fn from(policy: &Break) -> Self {
        Self {
            rules: Rules {
                window: policy.window.as_millis(),
                min_requests: policy.min_requests.into(),
                errors: policy.errors.hundredths().into(),
                slow_calls: policy.slow_calls.hundredths().into(),
                open: policy.open.as_millis(),
                probes: u8::try_from(policy.probes).unwrap_or(u8::MAX),
            },
            statuses: policy.statuses.as_slice().into(),
            grpc_statuses: policy.grpc_statuses.as_slice().into(),
            slow: policy.slow.map(cardea_registry_api::Span::duration),
            adaptive: policy.adaptive.clone(),
        }
    }
}

impl Standing {
    /// How it stands with these rules.
    fn report(&self, breaking: &Breaking) -> Report {
        let adaptive = breaking.adaptive.as_ref();
        Report {
            state: match self.circuit.state() {
                State::Closed { .. } => STATES[0],
                State::Open { .. } => STATES[1],
                State::Half { .. } => STATES[2],
            },
            opened: self.circuit.opened(),
            limit: adaptive.map(|adaptive| self.gradient.limit(adaptive)),
            running: self.gradient.running(),
        }
    }
}

impl Guarded {
    /// How the service stands.
    pub(super) fn report(&self) -> Report {
        self.standing.report(&self.bound.policy)
    }

    /// The stage: refuses while the service is in trouble.
    pub(super) fn ask(self: &Arc<Self>, case: &mut Case<'_, '_>) {
        let now = case.now / 1_000_000;
        let breaking = &self.bound.policy;
        let (circuit, gradient) = (&self.standing.circuit, &self.standing.gradient);
        let real = case.mode == Mode::Real;
        let admission = if real {
            circuit.admit(now, &breaking.rules)
        } else {
            circuit.would_admit(now, &breaking.rules)
        };
        let shadow = self.bound.head.shadow;
        let probe = match admission {
            Admission::Pass => None,
            Admission::Probe(round) => Some(round),
            Admission::Refused(ms) => {
                case.says(&self.bound.head, OPEN);
                if !shadow {
                    let mut number = itoa::Buffer::new();
                    let after = number.format(ms.div_ceil(1000).max(1)).as_bytes();
                    line(&mut case.scratch.reply, b"Retry-After", after);
                    case.refuse(refusal::CIRCUIT_OPEN);
                }
                return;
            }
        };
        let mut ticket = Ticket {
            guarded: Arc::clone(self),
            probe: probe.filter(|_| real),
            entered: false,
            heard: false,
            awaits: None,
        };
        let room = match &breaking.adaptive {
            None => true,
            Some(adaptive) if real => {
                ticket.entered = gradient.enter(adaptive);
                ticket.entered
            }
            Some(adaptive) => gradient.running() < gradient.limit(adaptive),
        };
        if room {
            let verdict = if probe.is_some() { PROBED } else { PASSED };
            case.says(&self.bound.head, verdict);
        } else {
            case.says(&self.bound.head, OVERLOADED);
            if !shadow {
                case.refuse(refusal::OVERLOADED);
                return;
            }
        }
        case.decision.ticket = real.then_some(ticket);
    }
}

impl Ticket {
    /// Whether it matters how calls of gRPC end.
    pub(crate) fn heeds_calls(&self) -> bool {
        !self.guarded.bound.policy.grpc_statuses.is_empty()
    }

    /// A peer answered with this status, so long after it was asked.
    pub(crate) fn answered(&mut self, status: u16, call: Call, took: Duration, now: u64) {
        let breaking = &self.guarded.bound.policy;
        let broken = match call {
            Call::Ended(status) => breaking.grpc_statuses.contains(&status),
            Call::No | Call::Running => false,
        };
        let outcome = Outcome {
            failed: breaking.statuses.contains(&status) || broken,
            slow: breaking.slow.is_some_and(|slow| took >= slow),
        };
        if let Some(adaptive) = &breaking.adaptive
            && self.entered
        {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 16);
            let gradient = &self.guarded.standing.gradient;
            gradient.answered(micros, now / 1_000_000, adaptive);
        }
        if call == Call::Running && !outcome.failed {
            self.awaits = Some(outcome);
        } else {
            self.hear(outcome, now);
        }
    }

    /// The answer has come to its end, with this status of gRPC in its trailer.
    pub(crate) fn ended(&mut self, status: Option<u8>, now: u64) {
        if let Some(mut outcome) = self.awaits.take() {
            let statuses = &self.guarded.bound.policy.grpc_statuses;
            outcome.failed = status.is_some_and(|status| statuses.contains(&status));
            self.hear(outcome, now);
        }
    }

    /// The answer broke off; `by_client`: its reader went away.
    pub(crate) fn broke_off(&mut self, by_client: bool, now: u64) {
        if self.awaits.take().is_some() && !by_client {
            self.failed(now);
        }
    }

    /// No peer answered as it should.
    pub(crate) fn failed(&mut self, now: u64) {
        let outcome = Outcome {
            failed: true,
            slow: false,
        };
        self.hear(outcome, now);
    }

    fn hear(&mut self, outcome: Outcome, now: u64) {
        self.heard = true;
        let rules = &self.guarded.bound.policy.rules;
        let circuit = &self.guarded.standing.circuit;
        let now = now / 1_000_000;
        match self.probe {
            Some(round) => circuit.probed(round, Some(outcome), now, rules),
            None => circuit.ended(outcome, now, rules),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let standing = &self.guarded.standing;
        if self.entered {
            standing.gradient.leave();
        }
        if let Some(round) = self.probe
            && !self.heard
        {
            let rules = &self.guarded.bound.policy.rules;
            standing.circuit.probed(round, None, 0, rules);
        }
    }
}

#[cfg(test)]
mod tests;
