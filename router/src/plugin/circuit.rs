//! A circuit breaker's state: pure transitions over one number, shared by workers without a lock.
//!
//! ```text
//!            too many fail or are slow
//!   closed ────────────────────────────► open
//!     ▲                                  │   │ its time is over: the next request is a probe
//!     │ all probes went well             │   ▼
//!     └────────────────────────────── half open ──► open: a probe did not
//! ```
//!
//! As Nygard's "Release It!" and resilience4j's `CircuitBreaker` do, whose ratio of slow calls this has too.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where a circuit is. Times in milliseconds of a clock that only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Requests go on. What happened before `since` does not count.
    Closed { since: u64 },
    /// They are refused.
    Open { until: u64 },
    /// A few are tried.
    Half {
        /// Tells this time from the last one: verdicts of older probes do not count.
        round: u8,
        /// So many probes are on their way or back.
        given: u8,
        /// So many went well.
        passed: u8,
        /// When the last of them was given.
        at: u64,
    },
}

/// When a circuit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) window: u64,
    pub(super) min_requests: u64,
    /// In hundredths of a percent.
    pub(super) errors: u64,
    pub(super) slow_calls: u64,
    pub(super) open: u64,
    pub(super) probes: u8,
}

/// What a circuit makes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It goes on.
    Pass,
    /// It goes on, and decides with others whether the circuit closes.
    Probe(u8),
    /// It is refused; in so many milliseconds one may be tried.
    Refused(u64),
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

impl Outcome {
    fn bad(self) -> bool {
        self.failed || self.slow
    }
}

/// What happened in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

impl State {
    /// A request comes: what becomes of it, and the state then.
    pub(super) fn admit(self, now: u64, rules: &Rules) -> (Admission, Self) {
        match self {
            Self::Closed { .. } => (Admission::Pass, self),
            // A time that is longer than the rules say is of older ones.
            Self::Open { until } if now < until && until - now <= rules.open => {
                (Admission::Refused(until - now), self)
            }
            // Its number may be any that the last one's is not likely to be.
            Self::Open { until } => Self::probe(until.to_le_bytes()[0], 0, 0, now),
            Self::Half {
                round,
                given,
                passed,
                ..
            } if given < rules.probes => Self::probe(round, given, passed, now),
            // Probes that nothing was heard of for so long: others are given.
            Self::Half { round, at, .. } if now >= at + rules.open => {
                Self::probe(round.wrapping_add(1), 0, 0, now)
            }
            Self::Half { at, .. } => (Admission::Refused(at + rules.open - now), self),
        }
    }

    fn probe(round: u8, given: u8, passed: u8, at: u64) -> (Admission, Self) {
        let given = given + 1;
        let state = Self::Half {
            round,
            given,
            passed,
            at,
        };
        (Admission::Probe(round), state)
    }

    /// A probe of a round is back; `None`: nobody knows how it went, another one may be given.
    pub(super) fn probed(self, of: u8, outcome: Option<Outcome>, now: u64, rules: &Rules) -> Self {
        let Self::Half {
            round,
            given,
            passed,
            at,
        } = self
        else {
            return self;
        };
        if round != of {
            return self;
        }
        match outcome {
            None => Self::Half {
                round,
                given: given.saturating_sub(1).max(passed),
                passed,
                at,
            },
            Some(outcome) if outcome.bad() => Self::Open {
                until: now + rules.open,
            },
            Some(_) if passed + 1 >= rules.probes => Self::Closed { since: now },
            Some(_) => Self::Half {
                round,
                given,
                passed: passed + 1,
                at,
            },
        }
    }

    /// An ordinary request went badly, as the last of these.
    pub(super) fn went_badly(self, totals: Totals, now: u64, rules: &Rules) -> Self {
        let reaches = |part: u64, share: u64| part * 10_000 >= totals.requests * share && part > 0;
        match self {
            Self::Closed { .. }
                if totals.requests >= rules.min_requests
                    && (reaches(totals.failed, rules.errors)
                        || reaches(totals.slow, rules.slow_calls)) =>
            {
                Self::Open {
                    until: now + rules.open,
                }
            }
            _ => self,
        }
    }
}

/// Bits: 0–1 what, 2–9 round, 10–17 given, 18–25 passed, 26–63 the time (8 years of milliseconds).
const TIME: u32 = 26;

impl From<State> for u64 {
    fn from(state: State) -> Self {
        match state {
            State::Closed { since } => since << TIME,
            State::Open { until } => 1 | until << TIME,
            State::Half {
                round,
                given,
                passed,
                at,
            } => {
                2 | Self::from(round) << 2
                    | Self::from(given) << 10
                    | Self::from(passed) << 18
                    | at << TIME
            }
        }
    }
}

impl From<u64> for State {
    fn from(word: u64) -> Self {
        let time = word >> TIME;
        let byte = |at: u32| (word >> at).to_le_bytes()[0];
        match word & 3 {
            0 => Self::Closed { since: time },
            1 => Self::Open { until: time },
            _ => Self::Half {
                round: byte(2),
                given: byte(10),
                passed: byte(18),
                at: time,
            },
        }
    }
}

/// Parts of a window.
const PARTS: usize = 10;
/// Bits of a count; those above say of which part of time it is.
const COUNT: u32 = 40;

/// One number of one part of a window, with the part that it is of.
#[derive(Debug, Default)]
struct Stamped(AtomicU64);

impl Stamped {
    fn add(&self, stamp: u64) {
        let seen = self.0.load(Relaxed);
        if seen >> COUNT != stamp {
            let fresh = stamp << COUNT | 1;
            // The first of a new part empties it; whoever loses the race finds it emptied.
            if self
                .0
                .compare_exchange(seen, fresh, Relaxed, Relaxed)
                .is_ok()
            {
                return;
            }
        }
        self.0.fetch_add(1, Relaxed);
    }

    fn get(&self, stamp: u64) -> u64 {
        let seen = self.0.load(Relaxed);
        if seen >> COUNT == stamp {
            seen & ((1 << COUNT) - 1)
        } else {
            0
        }
    }
}

#[derive(Debug, Default)]
struct Part {
    requests: Stamped,
    failed: Stamped,
    slow: Stamped,
}

/// One circuit, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    word: AtomicU64,
    parts: [Part; PARTS],
    /// How often it opened.
    opened: AtomicU64,
}

impl Circuit {
    pub(super) fn state(&self) -> State {
        State::from(self.word.load(Relaxed))
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// A request comes.
    pub(super) fn admit(&self, now: u64, rules: &Rules) -> Admission {
        let mut admission = Admission::Pass;
        self.change(|state| {
            let (admitted, next) = state.admit(now, rules);
            admission = admitted;
            next
        });
        admission
    }

    /// What would become of one.
    pub(super) fn would_admit(&self, now: u64, rules: &Rules) -> Admission {
        self.state().admit(now, rules).0
    }

    /// A probe is back.
    pub(super) fn probed(&self, round: u8, outcome: Option<Outcome>, now: u64, rules: &Rules) {
        self.change(|state| state.probed(round, outcome, now, rules));
    }

    /// An ordinary request is back.
    pub(super) fn ended(&self, outcome: Outcome, now: u64, rules: &Rules) {
        let (stamp, part) = self.part(now, rules);
        part.requests.add(stamp);
        if outcome.failed {
            part.failed.add(stamp);
        }
        if outcome.slow {
            part.slow.add(stamp);
        }
        // A good one brings no ratio up.
        if outcome.bad() {
            let totals = self.totals(now, rules);
            self.change(|state| state.went_badly(totals, now, rules));
        }
    }

    /// What the window holds, without what was before the circuit closed.
    pub(super) fn totals(&self, now: u64, rules: &Rules) -> Totals {
        let width = width(rules);
        let now = now / width;
        let from = match self.state() {
            State::Closed { since } if since > 0 => since / width + 1,
            _ => 0,
        };
        let mut totals = Totals::default();
        for moment in now.saturating_sub(PARTS as u64 - 1).max(from)..=now {
            let part = &self.parts[slot(moment)];
            let stamp = stamp(moment);
            totals.requests += part.requests.get(stamp);
            totals.failed += part.failed.get(stamp);
            totals.slow += part.slow.get(stamp);
        }
        totals
    }

    fn part(&self, now: u64, rules: &Rules) -> (u64, &Part) {
        let moment = now / width(rules);
        (stamp(moment), &self.parts[slot(moment)])
    }

    fn change(&self, mut next: impl FnMut(State) -> State) {
        let mut seen = self.word.load(Relaxed);
        loop {
            let before = State::from(seen);
            let after = next(before);
            if after == before {
                return;
            }
            match self
                .word
                .compare_exchange_weak(seen, after.into(), Relaxed, Relaxed)
            {
                Ok(_) => {
                    if matches!(after, State::Open { .. }) {
                        self.opened.fetch_add(1, Relaxed);
                    }
                    return;
                }
                Err(newer) => seen = newer,
            }
        }
    }
}

fn width(rules: &Rules) -> u64 {
    (rules.window / PARTS as u64).max(1)
}

fn stamp(moment: u64) -> u64 {
    moment % (1 << (64 - COUNT))
}

fn slot(moment: u64) -> usize {
    usize::try_from(moment % PARTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
