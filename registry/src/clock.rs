//! The time in Unix milliseconds, which never jumps: the wall clock as it was at the start plus what
//! a monotonic clock counted since. A wall clock that is set must not let leases lapse.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    wall: i64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            wall: wall_ms(),
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.wall + i64::try_from(self.start.elapsed().as_millis()).unwrap_or_default()
    }
}

/// The wall clock, for what other machines compare.
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// A duration in whole milliseconds.
pub(crate) fn ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
