//! Is a candidate worse than its baseline? Pure: windows of live figures in, a verdict out.
//!
//! Two things are asked, which share the chance to err that is allowed ([`Spend`]):
//! - **errors**: has the candidate a larger share of 5xx? Twice: with all sharpness over the first looks
//!   ([`early`]), and as long as one likes ([`evidence`]).
//! - **slowness**: is a larger share of its requests slower than the baseline's P99 – as it was in the
//!   windows *before*, so that what counts as slow does not depend on what is counted? Ranks alone
//!   matter, whatever the distribution and its tail; histograms are merged, never quantiles.
//!
//! A difference that is real but too small to matter ([`Limits::tolerated_errors`],
//! [`Limits::tolerated_p99`]) rolls nothing back, and nothing is said before there is a sample.
//!
//! What is assumed: requests fail, or are slow, independently of one another within a window. Where they
//! come in clusters (one caller that repeats a broken request ten times at one group) there is less
//! evidence than is counted.

pub mod early;
pub mod evidence;

use cardea_registry_api::{
    figures::Figures,
    release::{Limits, Verdict},
};

use early::Early;
use evidence::{Evidence, Part};

/// Requests that a group has failed: those that were answered with 5xx, or that somebody else answered in its
/// place. Whoever answers may say 5xx, too, so that they are not added up: it is at least so many.
pub fn failed(figures: &Figures) -> u64 {
    figures
        .errors()
        .max(figures.fallbacks.min(figures.requests()))
}

/// How the chance to call a clean release worse is spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spend {
    /// On errors at the first looks.
    pub early: f64,
    /// On errors at all looks.
    pub errors: f64,
    /// On slowness.
    pub slowness: f64,
}

impl Spend {
    /// Of a release's whole chance, what one step of so many may spend in one spell after another. All
    /// together is the whole at most: errors of the first step get most, as they are to be found soonest.
    pub fn of(alpha: f64, step: usize, steps: usize, spell: u32) -> Self {
        // In twentieths: of the first step, and of all others together.
        const FIRST: [f64; 3] = [11.0, 2.0, 2.0];
        const OTHERS: [f64; 3] = [2.0, 2.0, 1.0];
        let (parts, among) = if step == 0 {
            (FIRST, 1.0)
        } else {
            (OTHERS, steps.saturating_sub(1).max(1) as f64)
        };
        // 3/4 for the first spell; 1/4 · (1/2 + 1/6 + 1/12 + …) for all others.
        let k = f64::from(spell);
        let lasting = if spell == 0 {
            0.75
        } else {
            0.25 / (k * (k + 1.0))
        };
        let [early, errors, slowness] = parts.map(|part| alpha * part / 20.0 / among);
        Self {
            early: if spell == 0 { early } else { 0.0 },
            errors: errors * lasting,
            slowness: slowness * lasting,
        }
    }
}

/// What is known of a candidate and its baseline so far. Made anew, by whoever looks, from the windows.
#[derive(Debug, Clone)]
pub struct Comparison {
    limits: Limits,
    spend: Spend,
    early: Early,
    errors: Evidence,
    slowness: Evidence,
    baseline: Figures,
    candidate: Figures,
    /// The baseline's P99 before this window.
    slow: Option<u64>,
    /// Something was compared in this window.
    compared: bool,
    verdict: Verdict,
}

impl Comparison {
    /// Of nothing yet.
    pub fn new(limits: Limits, spend: Spend) -> Self {
        Self {
            limits,
            spend,
            early: Early::default(),
            errors: Evidence::default(),
            slowness: Evidence::default(),
            baseline: Figures::default(),
            candidate: Figures::default(),
            slow: None,
            compared: false,
            verdict: Verdict::TooFew,
        }
    }

    /// Adds figures of both groups that were counted side by side: in one window, in one cluster, since
    /// windows and clusters may differ in what goes wrong there.
    pub fn add(&mut self, baseline: &Figures, candidate: &Figures) {
        let errors = |figures: &Figures| Part {
            of: figures.requests(),
            have: failed(figures),
        };
        let (others, own) = (errors(baseline), errors(candidate));
        self.compared |= others.of > 0 && own.of > 0;
        self.early.add(others, own);
        self.errors.add(others, own);
        if let Some(slow) = self.slow {
            let slower = |figures: &Figures| Part {
                of: figures.latency.count(),
                have: figures.latency.longer_than(slow),
            };
            self.slowness.add(slower(baseline), slower(candidate));
        }
        self.baseline.merge(baseline);
        self.candidate.merge(candidate);
    }

    /// A window has ended: looks.
    pub fn end_window(&mut self) {
        self.slow = self.baseline.latency.quantile(0.99);
        if std::mem::take(&mut self.compared) && !self.is_worse() {
            self.verdict = self.look();
        }
    }

    /// What the looks so far say; once worse, it stays so.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether it was called worse.
    pub fn is_worse(&self) -> bool {
        matches!(self.verdict, Verdict::MoreErrors | Verdict::Slower)
    }

    /// The baseline's figures, and the candidate's.
    pub fn figures(&self) -> (&Figures, &Figures) {
        (&self.baseline, &self.candidate)
    }

    fn look(&mut self) -> Verdict {
        // Looks that are too soon to say anything are looks all the same.
        let early = self.early.look(self.spend.early);
        let requests = [self.baseline.requests(), self.candidate.requests()];
        if requests.iter().any(|n| *n < self.limits.least_requests) {
            return Verdict::TooFew;
        }
        let enough = |chance: f64| 1.0 / chance.max(f64::MIN_POSITIVE);
        let found = early || self.errors.stake() >= enough(self.spend.errors);
        let share = |figures: &Figures| failed(figures) as f64 / figures.requests() as f64;
        let more = share(&self.candidate) - share(&self.baseline);
        if found && more >= f64::from(self.limits.tolerated_errors.hundredths()) / 10_000.0 {
            return Verdict::MoreErrors;
        }
        let p99 = |figures: &Figures| figures.latency.quantile(0.99).map(|us| us as f64);
        let tolerated = 1.0 + f64::from(self.limits.tolerated_p99) / 100.0;
        let slower = p99(&self.candidate)
            .zip(p99(&self.baseline))
            .is_some_and(|(candidate, baseline)| candidate >= baseline * tolerated);
        if slower && self.slowness.stake() >= enough(self.spend.slowness) {
            return Verdict::Slower;
        }
        Verdict::NotWorse
    }

    /// The stakes of errors and of slowness.
    #[cfg(test)]
    fn stakes(&self) -> (f64, f64) {
        (self.errors.stake(), self.slowness.stake())
    }
}

#[cfg(test)]
pub(crate) mod tests;
