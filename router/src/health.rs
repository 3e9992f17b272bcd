//! Passive marking: what a peer's answers say about its health.
//!
//! ```text
//!            max_fails within fail_timeout, and the upstream can spare it
//!        Up ───────────────────────────────────────────────► Down { until }
//!        ▲                                                    │      ▲
//!        │ the probe is answered                 until passed,│      │ the probe fails: the next
//!        │                                 one request is let │      │ stay is twice as long,
//!        └──────────────── Probing { lease } ◄────────────────┘      │ up to eight times
//!                               └────────────────────────────────────┘
//! ```
//!
//! Pure: time is handed in as milliseconds and the upstream's consent as a closure. Workers share it
//! behind the peer's lock, which a healthy peer never takes (see [`crate::peer`]).

use std::collections::VecDeque;

use cardea_registry_api::policy;

pub(crate) mod guard;
#[cfg(test)]
mod tests;

/// The longest stay is the first one times two to the power of this.
const MAX_BACKOFF: u32 = 3;

/// When a peer is marked and for how long, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Failures that mark; 0 switches marking off.
    pub(crate) max_fails: u32,
    /// The window in which they count, and the first stay.
    pub(crate) fail_timeout: u64,
}

impl From<&policy::Health> for Rules {
    fn from(health: &policy::Health) -> Self {
        Self {
            max_fails: health.max_fails,
            fail_timeout: health.fail_timeout.as_millis(),
        }
    }
}

/// Why a request went to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The peer was up.
    Normal,
    /// The peer was down and its time over: this request decides.
    Probe,
    /// Every peer was down, so all are tried.
    LastResort,
}

/// Where a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes requests.
    Up,
    /// It takes none until then.
    Down { until: u64 },
    /// One request is finding out. Should its verdict never come, another may try from then on.
    Probing { lease: u64 },
}

/// The state machine of one peer.
#[derive(Debug)]
pub(crate) struct Passive {
    state: State,
    /// When the failures since the last success came, oldest first; at most `max_fails` of them.
    fails: VecDeque<u64>,
    backoff: u32,
}

impl Passive {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Up,
            fails: VecDeque::new(),
            backoff: 0,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Failures since the last success that may still count.
    pub(crate) fn fails(&self) -> usize {
        self.fails.len()
    }

    /// The peer failed. `spare` is asked once it is to be marked: whether the upstream can do
    /// without it. When not, it stays up and the next failure asks again.
    pub(crate) fn on_failure(
        &mut self,
        now: u64,
        rules: Rules,
        trial: Trial,
        spare: impl FnOnce() -> bool,
    ) {
        match (self.state, trial) {
            (State::Up, _) => {
                let oldest = now.saturating_sub(rules.fail_timeout);
                self.fails.retain(|at| *at >= oldest);
                if rules.max_fails == 0 {
                    return;
                }
                if self.fails.len() >= rules.max_fails as usize {
                    self.fails.pop_front();
                }
                self.fails.push_back(now);
                if self.fails.len() >= rules.max_fails as usize && spare() {
                    self.fails.clear();
                    self.backoff = 0;
                    self.go_down(now, rules);
                }
            }
            (State::Probing { .. }, Trial::Probe) => {
                self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
                self.go_down(now, rules);
            }
            // Late answers to requests sent before the marking say nothing new.
            (State::Down { .. } | State::Probing { .. }, _) => {}
        }
    }

    /// The peer answered.
    pub(crate) fn on_success(&mut self, trial: Trial) {
        let decided = match self.state {
            State::Up => true,
            // A late answer to a request sent before the marking does not shorten the stay.
            State::Down { .. } | State::Probing { .. } => trial != Trial::Normal,
        };
        if decided {
            *self = Self::new();
        }
    }

    /// Takes the one permission to probe; `lease` is how long its verdict may take. A request that
    /// cannot be sent elsewhere (not `replayable`) is risked only when none that can has come for
    /// another `fail_timeout`.
    pub(crate) fn try_probe(
        &mut self,
        now: u64,
        rules: Rules,
        lease: u64,
        replayable: bool,
    ) -> bool {
        let due = probe_due(self.state, rules, replayable).is_some_and(|due| now >= due);
        if due {
            self.state = State::Probing { lease: now + lease };
        }
        due
    }

    /// The probing request ended without a verdict, as when the client went away.
    pub(crate) fn on_abandoned(&mut self, now: u64, trial: Trial) {
        if trial == Trial::Probe && matches!(self.state, State::Probing { .. }) {
            self.state = State::Down { until: now };
        }
    }

    fn go_down(&mut self, now: u64, rules: Rules) {
        self.state = State::Down {
            until: now + (rules.fail_timeout << self.backoff),
        };
    }
}

/// From when on a request may probe.
pub(crate) fn probe_due(state: State, rules: Rules, replayable: bool) -> Option<u64> {
    let at = match state {
        State::Up => return None,
        State::Down { until } => until,
        State::Probing { lease } => lease,
    };
    Some(if replayable {
        at
    } else {
        at + rules.fail_timeout
    })
}
