//! What a load saw.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    time::Duration,
};

const EXAMPLES: usize = 3;

/// Failures of one kind.
#[derive(Debug, Clone, Default)]
pub struct FailureCount {
    /// How many.
    pub count: u64,
    /// The first few, with when they happened.
    pub examples: Vec<String>,
}

/// The outcome of a load.
#[derive(Debug, Clone)]
pub struct Report {
    /// The load's label.
    pub label: String,
    /// How long it ran.
    pub elapsed: Duration,
    /// Requests with an outcome.
    pub sent: u64,
    /// Those without the right answer.
    pub failed: u64,
    /// GETs among them.
    pub failed_gets: u64,
    /// By method and kind.
    pub failures: BTreeMap<String, FailureCount>,
    /// Right answers by instance.
    pub instances: BTreeMap<String, u64>,
    /// The ids of POSTs with a right answer.
    pub answered_posts: Vec<String>,
    /// From when a request was due to its answer, microseconds, ascending; failures left out.
    pub latencies: Vec<u32>,
}

impl Report {
    /// The latency, in milliseconds, that `per_mille` of a thousand answers kept.
    pub fn percentile(&self, per_mille: usize) -> f64 {
        percentile(&self.latencies, per_mille) / 1000.0
    }

    /// # Panics
    /// When a request failed or none was sent.
    pub fn assert_clean(&self) {
        assert!(self.sent > 0, "no request was sent");
        assert!(self.failed == 0, "{self}");
    }
}

/// The value below which `per_mille` of a thousand values lie (nearest rank); 0 of none.
pub fn percentile(ascending: &[u32], per_mille: usize) -> f64 {
    let rank = (ascending.len() * per_mille).div_ceil(1000);
    f64::from(ascending.get(rank.saturating_sub(1)).copied().unwrap_or(0))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        write!(
            f,
            "{}: {} requests in {seconds:.1} s ({:.0}/s), {} failed; from due to answer p50 {:.2} ms, \
             p99 {:.2} ms, max {:.1} ms; {} instances answered",
            self.label,
            self.sent,
            self.sent as f64 / seconds,
            self.failed,
            self.percentile(500),
            self.percentile(990),
            self.percentile(1000),
            self.instances.len(),
        )?;
        for (kind, failure) in &self.failures {
            let mut examples = String::new();
            for example in &failure.examples {
                write!(examples, "\n      {example}")?;
            }
            write!(f, "\n    {} × {kind}{examples}", failure.count)?;
        }
        Ok(())
    }
}

/// Collects outcomes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: u64,
    failed: u64,
    failed_gets: u64,
    failures: BTreeMap<String, FailureCount>,
    instances: BTreeMap<String, u64>,
    answered_posts: Vec<String>,
    latencies: Vec<u32>,
}

impl Tally {
    pub(super) fn add(
        &mut self,
        method: &str,
        id: String,
        outcome: Result<String, (String, String)>,
        latency: Duration,
        at: Duration,
    ) {
        self.sent += 1;
        match outcome {
            Ok(instance) => {
                *self.instances.entry(instance).or_default() += 1;
                self.latencies
                    .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                if method == "POST" {
                    self.answered_posts.push(id);
                }
            }
            Err((kind, example)) => {
                self.failed += 1;
                self.failed_gets += u64::from(method == "GET");
                let failure = self
                    .failures
                    .entry(format!("{method}: {kind}"))
                    .or_default();
                failure.count += 1;
                if failure.examples.len() < EXAMPLES {
                    let at = at.as_secs_f64();
                    failure
                        .examples
                        .push(format!("after {at:.3} s, {id}: {}", example.trim()));
                }
            }
        }
    }

    pub(super) fn report(&self, label: &str, elapsed: Duration) -> Report {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        Report {
            label: label.to_owned(),
            elapsed,
            sent: self.sent,
            failed: self.failed,
            failed_gets: self.failed_gets,
            failures: self.failures.clone(),
            instances: self.instances.clone(),
            answered_posts: self.answered_posts.clone(),
            latencies,
        }
    }
}
