//! A peer's standing in one number, for readers that must not wait.

use crate::health::State;

/// Bits 0–4: flags; bits 16–63: the time of `Down` or `Probing` in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

const LEFT: u64 = 1;
const CHECKS_DOWN: u64 = 1 << 1;
const DOWN: u64 = 1 << 2;
const PROBING: u64 = 1 << 3;
const HAS_FAILS: u64 = 1 << 4;
const TIME_SHIFT: u32 = 16;

impl Word {
    pub(crate) fn new(takes: bool, checks_down: bool, state: State, has_fails: bool) -> Self {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let state = match state {
            State::Up => 0,
            State::Down { until } => DOWN | (until << TIME_SHIFT),
            State::Probing { lease } => PROBING | (lease << TIME_SHIFT),
        };
        Self(
            flag(!takes, LEFT)
                | flag(checks_down, CHECKS_DOWN)
                | flag(has_fails, HAS_FAILS)
                | state,
        )
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// Meant to take requests, health aside.
    pub(crate) fn takes(self) -> bool {
        self.0 & LEFT == 0
    }

    /// Takes requests.
    pub(crate) fn usable(self) -> bool {
        self.0 & (LEFT | CHECKS_DOWN | DOWN | PROBING) == 0
    }

    pub(crate) fn checks_down(self) -> bool {
        self.0 & CHECKS_DOWN != 0
    }

    /// There is something that a success would change.
    pub(crate) fn troubled(self) -> bool {
        self.0 & (DOWN | PROBING | HAS_FAILS) != 0
    }

    pub(crate) fn state(self) -> State {
        let time = self.0 >> TIME_SHIFT;
        if self.0 & DOWN != 0 {
            State::Down { until: time }
        } else if self.0 & PROBING != 0 {
            State::Probing { lease: time }
        } else {
            State::Up
        }
    }
}

impl From<u64> for Word {
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}
