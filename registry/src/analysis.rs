//! Is a candidate worse than its baseline? Pure: windows of live figures in, a verdict out.
//!
//! Two things are asked, which share the chance to err that is allowed ([`Limits::alpha`]), four fifths and one:
//! - **errors**: has the candidate a larger share of 5xx?
//! - **slowness**: is a larger share of its requests slower than the baseline's P99 – as it was in the
//!   windows *before*, so that what counts as slow does not depend on what is counted? Ranks alone
//!   matter, whatever the distribution and its tail; histograms are merged, never quantiles.
//!
//! What counts as evidence, and why looking again and again is no harm, is in [`evidence`]. A
//! difference that is real but too small to matter ([`Limits::tolerated_errors`],
//! [`Limits::tolerated_p99`]) rolls nothing back, and nothing is said before there is a sample.
//!
//! What is assumed: requests fail, or are slow, independently of one another within a window. Where they
//! come in clusters (one caller that repeats a broken request ten times at one group) there is less
//! evidence than is counted.

pub mod evidence;

use cardea_registry_api::figures::Figures;
use serde::{Deserialize, Serialize};

use evidence::{Evidence, Part};

/// The part of the chance to err that errors get: they have to be found sooner.
const ERRORS: f64 = 0.8;

/// When a candidate is called worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The share of clean candidates that may be called worse by mistake, over all looks.
    pub alpha: f64,
    /// Requests that candidate and baseline each must have had.
    pub least_requests: u64,
    /// A share of errors that is larger by less than this is no reason: 0.005 is half a percentage point.
    pub tolerated_errors: f64,
    /// A P99 that is less than so many times the baseline's is no reason.
    pub tolerated_p99: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            least_requests: 50,
            tolerated_errors: 0.005,
            tolerated_p99: 1.2,
        }
    }
}

/// What is known of a candidate and its baseline so far. Kept with the release that it belongs to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Comparison {
    errors: Evidence,
    slowness: Evidence,
    baseline: Figures,
    candidate: Figures,
}

/// What a look leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not enough was seen to say anything.
    TooFew,
    /// There is no sound reason to call the candidate worse.
    NotWorse,
    /// It has more errors.
    MoreErrors,
    /// It is slower.
    Slower,
}

impl Comparison {
    /// Adds a window's figures of both groups, each window once.
    pub fn add(&mut self, baseline: &Figures, candidate: &Figures) {
        let errors = |figures: &Figures| Part {
            of: figures.requests(),
            have: figures.errors(),
        };
        self.errors.add(errors(baseline), errors(candidate));
        // Of what came before this window.
        if let Some(slow) = self.baseline.latency.quantile(0.99) {
            let slower = |figures: &Figures| Part {
                of: figures.latency.count(),
                have: figures.latency.longer_than(slow),
            };
            self.slowness.add(slower(baseline), slower(candidate));
        }
        self.baseline.merge(baseline);
        self.candidate.merge(candidate);
    }

    /// What all windows so far say.
    pub fn verdict(&self, limits: &Limits) -> Verdict {
        let requests = [self.baseline.requests(), self.candidate.requests()];
        if requests.iter().any(|n| *n < limits.least_requests) {
            return Verdict::TooFew;
        }
        let enough = |part: f64| 1.0 / (limits.alpha * part);
        let share = |figures: &Figures| figures.errors() as f64 / figures.requests() as f64;
        let more = share(&self.candidate) - share(&self.baseline);
        if self.errors.stake() >= enough(ERRORS) && more >= limits.tolerated_errors {
            return Verdict::MoreErrors;
        }
        let p99 = |figures: &Figures| figures.latency.quantile(0.99).map(|us| us as f64);
        let slower = p99(&self.candidate)
            .zip(p99(&self.baseline))
            .is_some_and(|(candidate, baseline)| candidate >= baseline * limits.tolerated_p99);
        if self.slowness.stake() >= enough(1.0 - ERRORS) && slower {
            return Verdict::Slower;
        }
        Verdict::NotWorse
    }

    /// The stakes of errors and of slowness, for people.
    pub fn stakes(&self) -> (f64, f64) {
        (self.errors.stake(), self.slowness.stake())
    }
}

#[cfg(test)]
mod tests;
