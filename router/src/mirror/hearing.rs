//! Whether a target answers its copies. One that answers none of many in a row gets one from time to
//! time, and nothing is spent on the others: no connection, no wake-up, no memory.
//!
//! ```text
//!              AFTER copies in a row that nobody answers
//!   hears ───────────────────────────────────────────────► silent: one copy after FIRST, then after
//!     ▲                                                     │      twice as long each time, up to MOST
//!     └─────────────────────── an answer ◄──────────────────┘
//! ```

/// Copies in a row without an answer after which a target is silent.
const AFTER: u32 = 16;
/// How long it gets nothing then, in milliseconds.
const FIRST: u64 = 1000;
/// The longest that it gets nothing.
const MOST: u64 = 30_000;

/// What is known of a target. Times are milliseconds of the worker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// So many copies in a row were not answered.
    Hears { unanswered: u32 },
    /// The next copy goes at `next`.
    Silent { next: u64, pause: u64 },
}

impl Default for Hearing {
    fn default() -> Self {
        Self::Hears { unanswered: 0 }
    }
}

/// What of a request's copies may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    All,
    /// To see whether somebody answers.
    One,
    None,
}

impl Hearing {
    /// Copies could be sent at `now`.
    pub(super) fn turn(&mut self, now: u64) -> Turn {
        match self {
            Self::Hears { .. } => Turn::All,
            Self::Silent { next, .. } if now < *next => Turn::None,
            Self::Silent { next, pause } => {
                *pause = (*pause * 2).min(MOST);
                *next = now + *pause;
                Turn::One
            }
        }
    }

    /// A copy was answered; whether that is news.
    pub(super) fn answered(&mut self) -> bool {
        let was = std::mem::take(self);
        matches!(was, Self::Silent { .. })
    }

    /// A copy was not answered; whether the target is silent from now on.
    pub(super) fn unanswered(&mut self, now: u64) -> bool {
        let Self::Hears { unanswered } = self else {
            return false;
        };
        *unanswered += 1;
        let silent = *unanswered >= AFTER;
        if silent {
            *self = Self::Silent {
                next: now + FIRST,
                pause: FIRST,
            };
        }
        silent
    }

    /// Whether it is silent.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Silent { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn silent(now: u64) -> Hearing {
        let mut hearing = Hearing::default();
        for n in 1..=AFTER {
            assert_eq!(hearing.turn(now), Turn::All);
            assert_eq!(hearing.unanswered(now), n == AFTER);
        }
        hearing
    }

    #[test]
    fn one_that_is_silent_gets_a_copy_less_and_less_often() {
        let mut hearing = silent(0);
        let asked: Vec<u64> = (0..200_000)
            .filter(|now| hearing.turn(*now) == Turn::One)
            .collect();
        let seconds: Vec<u64> = asked.iter().map(|ms| ms / 1000).collect();
        assert_eq!(seconds, [1, 3, 7, 15, 31, 61, 91, 121, 151, 181]);
        // Copies that were on their way say nothing new.
        assert!(!hearing.unanswered(200_000));
        assert_eq!(hearing.turn(200_000), Turn::None);
        assert!(hearing.answered());
        assert_eq!(hearing.turn(200_000), Turn::All);
        assert!(!hearing.answered(), "it is no news");
    }

    #[test]
    fn one_answer_among_many_is_enough() {
        let mut hearing = Hearing::default();
        for n in 0..10 * AFTER {
            if n % (AFTER - 1) == 0 {
                hearing.answered();
            }
            assert!(!hearing.unanswered(n.into()));
        }
    }

    proptest! {
        #[test]
        fn whoever_answers_gets_everything(
            steps in proptest::collection::vec((0_u64..5000, proptest::bool::weighted(0.03)), 1..400),
        ) {
            let (mut hearing, mut now, mut in_a_row) = (Hearing::default(), 0, 0_u32);
            let mut since = None;
            for (later, answers) in steps {
                now += later;
                let turn = hearing.turn(now);
                prop_assert_eq!(turn == Turn::All, since.is_none());
                if turn == Turn::None {
                    // Never longer than it may be.
                    prop_assert!(since.is_some_and(|at| now - at < MOST));
                    continue;
                }
                if answers {
                    hearing.answered();
                    (in_a_row, since) = (0, None);
                } else {
                    hearing.unanswered(now);
                    in_a_row += 1;
                    if in_a_row >= AFTER {
                        since = Some(now);
                    }
                }
                prop_assert_eq!(hearing.is_silent(), since.is_some());
            }
        }
    }
}
