//! Monotonic time as plain numbers, so that it fits into atomics and heaps.

use std::{sync::LazyLock, time::Instant};

/// Where the numbers begin: an hour before the first use, so that times a little before it are
/// numbers too.
static ANCHOR: LazyLock<Instant> = LazyLock::new(Instant::now);
const HEADROOM_MS: u64 = 3_600_000;

/// Milliseconds of `at` on this process's clock.
pub(crate) fn millis(at: Instant) -> u64 {
    let anchor = *ANCHOR;
    let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX >> 16);
    match at.checked_duration_since(anchor) {
        Some(after) => HEADROOM_MS + ms(after),
        None => HEADROOM_MS.saturating_sub(ms(anchor.duration_since(at))),
    }
}

/// Nanoseconds of `at` on this process's clock.
pub(crate) fn nanos(at: Instant) -> u64 {
    let after = at.saturating_duration_since(*ANCHOR);
    HEADROOM_MS * 1_000_000 + u64::try_from(after.as_nanos()).unwrap_or(u64::MAX >> 16)
}

/// Unix milliseconds, for people and disks.
pub(crate) fn unix_millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
