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
    /// A peer answered with this status, so long after it was asked.
    pub(crate) fn answered(&mut self, status: u16, took: Duration, now: u64) {
        let breaking = &self.guarded.bound.policy;
        let outcome = Outcome {
            failed: breaking.statuses.contains(&status),
            slow: breaking.slow.is_some_and(|slow| took >= slow),
        };
        if let Some(adaptive) = &breaking.adaptive
            && self.entered
        {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 16);
            let gradient = &self.guarded.standing.gradient;
            gradient.answered(micros, now / 1_000_000, adaptive);
        }
        self.hear(outcome, now);
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
