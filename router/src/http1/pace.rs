//! How fast a client has to be: so many bytes a second, over each stretch of time in which the router
//! waits for it. Time in which it is the peer that is waited for does not count against the client.

/// The pace that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Bytes a second; 0: any pace will do.
    pub(crate) least: u64,
    /// Over how much waiting it is judged, in milliseconds.
    pub(crate) window: u64,
    /// How long a KiB may take, in milliseconds.
    a_kib: u64,
}

impl Rate {
    /// Any pace will do.
    pub(crate) const ANY: Self = Self::new(0, 0);

    /// So many bytes a second, over windows of so many milliseconds.
    pub(crate) const fn new(least: u64, window: u64) -> Self {
        let a_kib = match (1024_u64 * 1000).checked_div(least) {
            Some(time) => time,
            None => 0,
        };
        Self {
            least,
            window,
            a_kib,
        }
    }

    /// How many milliseconds so many bytes may take, with a window's grace. There is no division in
    /// it: it is asked once a request.
    pub(crate) const fn time_for(self, bytes: usize) -> u64 {
        self.window
            .saturating_add((bytes as u64 >> 10).saturating_mul(self.a_kib))
    }
}

/// A client's pace with one body. Times are milliseconds of the worker's clock.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Pace {
    /// When the present stretch began; none: it was never waited for.
    since: Option<u64>,
    /// What had been moved then.
    moved: u64,
    /// Since when somebody else is waited for.
    stopped: Option<u64>,
}

/// What a client's pace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Good enough so far; judged again at this time.
    Until(u64),
    TooSlow,
}

impl Pace {
    /// The client is waited for; so many bytes have been moved in all.
    pub(crate) fn waits(&mut self, now: u64, moved: u64, rate: Rate) -> Verdict {
        let Some(mut since) = self.since else {
            return self.begin(now, moved, rate);
        };
        if let Some(stopped) = self.stopped.take() {
            since += now.saturating_sub(stopped);
            self.since = Some(since);
        }
        let waited = now.saturating_sub(since);
        if waited < rate.window {
            return Verdict::Until(since + rate.window);
        }
        let got = moved.saturating_sub(self.moved);
        if got.saturating_mul(1000) >= rate.least.saturating_mul(waited) {
            return self.begin(now, moved, rate);
        }
        Verdict::TooSlow
    }

    /// Somebody else is waited for.
    pub(crate) fn stop(&mut self, now: u64) {
        if self.since.is_some() {
            self.stopped.get_or_insert(now);
        }
    }

    fn begin(&mut self, now: u64, moved: u64, rate: Rate) -> Verdict {
        *self = Self {
            since: Some(now),
            moved,
            stopped: None,
        };
        Verdict::Until(now.saturating_add(rate.window))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate::new(100, 10_000);

    #[test]
    fn sips_are_too_slow_at_the_windows_end() {
        let mut pace = Pace::default();
        assert_eq!(pace.waits(5, 0, RATE), Verdict::Until(10_005));
        assert_eq!(pace.waits(9_000, 900, RATE), Verdict::Until(10_005));
        assert_eq!(pace.waits(10_005, 999, RATE), Verdict::TooSlow);
        assert_eq!(pace.waits(10_005, 1000, RATE), Verdict::Until(20_005));
    }

    #[test]
    fn time_for_others_does_not_count() {
        let mut pace = Pace::default();
        pace.stop(1);
        assert_eq!(pace.waits(5, 0, RATE), Verdict::Until(10_005));
        pace.stop(1_000);
        pace.stop(2_000);
        assert_eq!(pace.waits(90_000, 0, RATE), Verdict::Until(99_005));
        assert_eq!(pace.waits(99_005, 0, RATE), Verdict::TooSlow);
    }

    #[test]
    fn times_for_bytes() {
        assert_eq!(RATE.time_for(1000), 10_000);
        assert_eq!(RATE.time_for(10_240), 10_000 + 102_400);
    }

    proptest! {
        /// Whoever moves at the pace asked for, in whatever steps, is never too slow; and whoever
        /// moves at half of it is found out within two windows.
        #[test]
        fn the_pace_is_what_decides(steps in prop::collection::vec(1..9_000_u64, 1..60)) {
            let (mut fast, mut slow) = (Pace::default(), Pace::default());
            let (mut now, mut found) = (0, None);
            fast.waits(now, 0, RATE);
            slow.waits(now, 0, RATE);
            for step in steps {
                now += step;
                prop_assert_ne!(fast.waits(now, now / 9, RATE), Verdict::TooSlow);
                if slow.waits(now, now / 20, RATE) == Verdict::TooSlow {
                    found.get_or_insert(now);
                }
            }
            prop_assert!(now < 2 * RATE.window || found.is_some());
        }
    }
}
