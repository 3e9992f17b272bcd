//! What one worker counts for one route and service.
//!
//! With thousands of routes, nobody's counters are in the cache when a request comes. So what every request
//! counts lies together: a line here, one of durations, one of the tally's buckets. No owners are
//! counted, as that would be a line more: metrics never forget a route, so that what they count for it lives
//! as long as the process.

use std::sync::{Arc, Mutex, OnceLock};

use cardea_registry_api::Name;

use super::{Counted, Counter, RequestLabels, Summed, bucket_of, lock, micros, tally::Tally};
use crate::{ahead, metrics::BOUNDS_US};

/// How many kinds of requests have their counter beside what all count: few routes have more.
const USUAL: usize = 2;

/// The counters of a route and service, in the order of their use.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct RouteSeries {
    usual: [(OnceLock<RequestLabels>, Counter); USUAL],
    /// Of no group, for live figures.
    pub(super) tally: Tally,
    durations: Durations,
    pub(super) retries: Counter,
    /// Kinds of requests beyond the usual ones.
    pub(super) others: Mutex<Few<RequestLabels>>,
    pub(super) errors: Mutex<Few<&'static str>>,
    /// By what went wrong, and where the answer came from.
    pub(super) fallbacks: Mutex<Few<[&'static str; 2]>>,
    /// By the cluster of the peer, where that may be another one than the router's.
    pub(super) clusters: Mutex<Few<Name>>,
}

/// Counters of a few things.
pub(super) type Few<L> = Vec<(L, Arc<Counter>)>;

/// How long requests took, and how long their peers took, by the same bounds: usually they are near each
/// other.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Durations {
    sums_us: [Counter; 2],
    buckets: [[Counter; 2]; BOUNDS_US.len() + 1],
}

impl RouteSeries {
    /// Has what a request that takes about so long will count in at its end fetched.
    pub(super) fn fetch_ahead(&self, us: u64) {
        ahead::fetch(self);
        ahead::fetch(&self.durations);
        ahead::fetch(&self.durations.buckets[bucket_of(us)]);
        self.tally.fetch_ahead(us);
    }

    /// Counts a finished request, but for its labels.
    pub(super) fn count(&self, counted: &Counted) {
        for (of, took) in [counted.took, counted.upstream_took]
            .into_iter()
            .enumerate()
        {
            if let Some(took) = took {
                let us = micros(took);
                self.durations.buckets[bucket_of(us)][of].add(1);
                self.durations.sums_us[of].add(us);
            }
        }
        if counted.retries > 0 {
            self.retries.add(counted.retries);
        }
    }

    /// Counts a request by its labels if they are usual ones.
    pub(super) fn count_usual(&self, labels: RequestLabels) -> bool {
        // Only one thread sets them.
        let mut usual = self.usual.iter();
        let known = usual.find(|(known, _)| *known.get_or_init(|| labels) == labels);
        known.inspect(|(_, counter)| counter.add(1)).is_some()
    }

    /// How long requests took.
    pub(super) fn duration(&self) -> Summed {
        self.summed(0)
    }

    /// How long their peers took.
    pub(super) fn upstream_duration(&self) -> Summed {
        self.summed(1)
    }

    fn summed(&self, of: usize) -> Summed {
        let Durations { sums_us, buckets } = &self.durations;
        Summed {
            buckets: buckets.each_ref().map(|both| both[of].get()),
            sum_us: sums_us[of].get(),
        }
    }

    /// Requests by their labels.
    pub(super) fn requests(&self) -> Vec<(RequestLabels, u64)> {
        let usual = self.usual.iter();
        let usual = usual.filter_map(|(labels, n)| Some((*labels.get()?, n.get())));
        let others = lock(&self.others);
        let others = others.iter().map(|(labels, n)| (*labels, n.get()));
        usual.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// In which cache line something begins, and ends.
    const fn lines(at: usize, size: usize) -> (usize, usize) {
        (at / 64, (at + size - 1) / 64)
    }

    #[test]
    fn what_every_request_counts_is_in_few_cache_lines() {
        let tally = offset_of!(RouteSeries, tally);
        assert_eq!(lines(0, tally + Tally::USUAL), (0, 0));
        // The sums and those up to 2.5 ms, of both.
        let durations = offset_of!(RouteSeries, durations);
        let first = lines(durations, 4 * size_of::<[Counter; 2]>());
        assert_eq!(first.0, first.1);
    }
}
