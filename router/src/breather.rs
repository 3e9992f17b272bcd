//! Work that takes longer than a moment on a thread that may share its core with a worker. The
//! scheduler lets whoever runs go on for some milliseconds before one who woke up gets its turn;
//! requests would wait that long. So such work offers the core now and then. Nobody starves by it:
//! who offers gets the core back after one turn of the others, and at once if there are none.

use std::time::{Duration, Instant};

/// So long a request may have to wait for it.
const TURN: Duration = Duration::from_micros(150);
/// Steps between two looks at the clock.
const STEPS: u32 = 32;

/// Offers the core to others.
#[derive(Debug)]
pub(crate) struct Breather {
    since: Instant,
    steps: u32,
}

impl Default for Breather {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            steps: 0,
        }
    }
}

impl Breather {
    /// One step of the work, of some microseconds at most, is done.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        if self.steps < STEPS {
            return;
        }
        self.steps = 0;
        self.look();
    }

    /// Many steps of the work, of some ten microseconds together at most, are done.
    pub(crate) fn look(&mut self) {
        if self.since.elapsed() >= TURN {
            std::thread::yield_now();
            self.since = Instant::now();
        }
    }
}
