//! How much of its requests a part bears, as this router has learnt from its own: windows of what its
//! instances served go in, the share that the part keeps comes out. No clock, no I/O.
//!
//! What an instance served at most is only a lower bound of what it can serve. So nothing is kept from a
//! part because it gets more than ever: a service that grows is left alone, and its peak grows with it.
//! Requests leave when more *hurts*: a window near the peak or beyond it has failures, or takes much longer
//! than usual. Then the part gets what it was known to bear ([`Load::step`]); after a while without trouble
//! a little more with each window, until it has all again or it hurts again. Trouble far below the peak is
//! not load's: others would not bear it better.

/// How long a window is, in milliseconds.
pub(crate) const WINDOW: u64 = 5_000;
/// What took longer is none: hardly anybody asked.
pub(super) const LONGEST: u64 = 30_000;
/// A window of fewer requests says nothing.
const LEAST: u64 = 100;
/// So many windows without trouble must be known before anything is judged by them.
const KNOWN: u32 = 12;
/// Peaks are remembered for this long, and up to twice as long.
const REMEMBERED: u64 = 1_800_000;
/// Trouble below this part of the peak is not load's.
const NEAR_PEAK: f64 = 0.8;
/// What is kept after trouble, of what was served in it: what the peak says, between these.
const CUT: [f64; 2] = [0.5, 0.9];
/// For how long it stays so after the last trouble.
const HOLD: u64 = 60_000;
/// How much more it is given with each window after that.
const GROWTH: f64 = 1.05;
/// Something always stays, to learn from.
const LEAST_KEPT: f64 = 0.05;
/// Failures that are trouble.
const FAILED: f64 = 0.05;
/// Trouble is what takes longer than usual, by this factor and by so many microseconds: as a switch's
/// guard has it.
const LONGER: (f64, f64) = (2.0, 50_000.0);

/// What a part's instances served in some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    /// Requests that were sent to them.
    pub(crate) requests: u64,
    /// The same of one healthy instance in a second.
    pub(crate) rate: f64,
    /// How many of them failed, 0 to 1.
    pub(crate) failed: f64,
    /// How long the others took on the average, in microseconds.
    pub(crate) mean_us: Option<f64>,
}

/// What has been learnt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// The most that an instance served a second without trouble: in this time, and in the one before.
    peaks: [f64; 2],
    turned: u64,
    /// How long a request takes on the average, usually, in microseconds.
    usual_us: Option<f64>,
    /// Windows without trouble, as far as they are counted.
    windows: u32,
    bound: Option<Bound>,
    /// How much of what it would get the part keeps, 0 to 1.
    pub(crate) kept: f64,
}

/// What an instance is given at most.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound {
    /// Requests a second.
    rate: f64,
    /// Until when it stays so, in the clock's milliseconds.
    until: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            peaks: [0.0; 2],
            turned: 0,
            usual_us: None,
            windows: 0,
            bound: None,
            kept: 1.0,
        }
    }
}

impl Load {
    /// What an instance is known to bear, in requests a second.
    pub(crate) fn peak(&self) -> f64 {
        self.peaks[0].max(self.peaks[1])
    }

    /// A window has ended.
    pub(crate) fn step(mut self, window: Window, now: u64) -> Self {
        if now.saturating_sub(self.turned) >= REMEMBERED {
            self.peaks = [0.0, self.peaks[0]];
            self.turned = now;
        }
        let enough = window.requests >= LEAST;
        let trouble = enough && self.is_trouble(&window);
        let peak = self.peak();
        let loaded = window.rate >= NEAR_PEAK * peak;
        if trouble && loaded && self.windows >= KNOWN {
            let [least, most] = CUT.map(|part| part * window.rate);
            let rate = peak.clamp(least, most);
            self.bound = Some(Bound {
                rate: self.bound.map_or(rate, |bound| bound.rate.min(rate)),
                until: now + HOLD,
            });
        } else if let Some(bound) = &mut self.bound
            && now >= bound.until
        {
            bound.rate *= GROWTH;
        }
        if enough && !trouble {
            self.windows = self.windows.saturating_add(1);
            self.peaks[0] = self.peaks[0].max(window.rate);
        }
        // What is slow for another reason becomes what is usual.
        if let Some(mean) = window.mean_us
            && enough
            && !(trouble && loaded)
        {
            let usual = self.usual_us.get_or_insert(mean);
            *usual += (mean - *usual) / 8.0;
        }
        self.keep(window.rate, now);
        self
    }

    /// What it keeps, after what it got in the last window.
    fn keep(&mut self, got: f64, now: u64) {
        let Some(bound) = self.bound else {
            return;
        };
        let asked = got / self.kept;
        self.kept = if asked > bound.rate {
            (bound.rate / asked).max(LEAST_KEPT)
        } else {
            1.0
        };
        if self.kept >= 1.0 && now >= bound.until {
            self.bound = None;
        }
    }

    fn is_trouble(&self, window: &Window) -> bool {
        let slow = self
            .usual_us
            .zip(window.mean_us)
            .is_some_and(|(usual, mean)| mean > (usual * LONGER.0).max(usual + LONGER.1));
        slow || window.failed > FAILED
    }
}

/// What was counted of a part's instances since they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// Answers and how long they took, as [`pack`] has it.
    pub(crate) answers: u64,
}

/// Of which the lower bits are microseconds, the upper ones answers. Sums may run over: differences over
/// a window are exact nevertheless.
const COUNT_BIT: u32 = 40;

/// An answer that took so long.
pub(crate) fn pack(took: std::time::Duration) -> u64 {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    (1 << COUNT_BIT) + us.min((1 << COUNT_BIT) - 1)
}

impl Counted {
    /// Adds what was counted of another instance.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests = self.requests.wrapping_add(other.requests);
        self.failures = self.failures.wrapping_add(other.failures);
        self.answers = self.answers.wrapping_add(other.answers);
    }

    /// What lies between: in so many milliseconds, of so many healthy instances.
    pub(crate) fn since(&self, before: &Self, ms: u64, instances: f64) -> Window {
        let requests = self.requests.saturating_sub(before.requests);
        let failures = self.failures.saturating_sub(before.failures);
        let answers = self.answers.wrapping_sub(before.answers);
        let (count, us) = (answers >> COUNT_BIT, answers & ((1 << COUNT_BIT) - 1));
        Window {
            requests,
            rate: requests as f64 * 1000.0 / ms.max(1) as f64 / instances,
            failed: failures as f64 / requests.max(1) as f64,
            mean_us: (count > 0).then(|| us as f64 / count as f64),
        }
    }
}
