//! What one worker counts for one route and service.
//!
//! With thousands of routes, nobody's counters are in the cache when a request comes. So what every request
//! counts lies together: two lines here, one of durations, one of the tally's buckets. No owners are
//! counted, as that would be a line more: metrics never forget a route, so that what they count for it lives
//! as long as the process.

use std::sync::{Arc, Mutex, OnceLock};

use cardea_registry_api::Name;

use super::{
    Counted, Counter, RequestLabels, RouteLabels, Summed, WorkerShare, bucket_of, lock, micros,
    tally::Tally,
};
use crate::{ahead, metrics::BOUNDS_US};

/// How many kinds of requests have their counter beside what all count: few routes have more.
const USUAL: usize = 2;

/// The counters of a route and service, in the order of their use.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct RouteSeries {
    /// None: of what no route took.
    pub(super) service: Option<Name>,
    usual: [(OnceLock<RequestLabels>, Counter); USUAL],
    duration_us: Counter,
    upstream_us: Counter,
    /// Of no group, for live figures.
    tally: Tally,
    durations: Durations,
    pub(super) retries: Counter,
    pub(super) route: Option<Name>,
    /// Kinds of requests beyond the usual ones.
    others: Mutex<Few<RequestLabels>>,
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
#[repr(align(64))]
struct Durations([[Counter; 2]; BOUNDS_US.len() + 1]);

impl RouteSeries {
    /// Nothing counted yet; it stays, and `share` tells of it.
    pub(super) fn new(of: Option<RouteLabels<'_>>, share: &WorkerShare) -> &'static Self {
        let series: &'static Self = Box::leak(Box::new(Self {
            service: of.map(|of| of.service.clone()),
            usual: Default::default(),
            duration_us: Counter::default(),
            upstream_us: Counter::default(),
            tally: Tally::new(of, None),
            durations: Durations::default(),
            retries: Counter::default(),
            route: of.map(|of| of.route.clone()),
            others: Mutex::default(),
            errors: Mutex::default(),
            fallbacks: Mutex::default(),
            clusters: Mutex::default(),
        }));
        lock(&share.routes).push(series);
        lock(&share.tallies).push(&series.tally);
        series
    }

    /// Has what a request that takes about so long will count in fetched.
    pub(super) fn fetch_ahead(&self, us: u64) {
        ahead::fetch(self);
        ahead::fetch(&self.durations.0[bucket_of(us)]);
        self.tally.fetch_ahead(us);
    }

    fn count(&self, counted: &Counted) {
        if let Some(took) = counted.took {
            let us = micros(took);
            self.durations.0[bucket_of(us)][0].add(1);
            self.duration_us.add(us);
        }
        if let Some(took) = counted.upstream_took {
            let us = micros(took);
            self.durations.0[bucket_of(us)][1].add(1);
            self.upstream_us.add(us);
        }
        if counted.retries > 0 {
            self.retries.add(counted.retries);
        }
    }

    /// How long requests took.
    pub(super) fn duration(&self) -> Summed {
        Summed {
            buckets: self.durations.0.each_ref().map(|both| both[0].get()),
            sum_us: self.duration_us.get(),
        }
    }

    /// How long their peers took.
    pub(super) fn upstream_duration(&self) -> Summed {
        Summed {
            buckets: self.durations.0.each_ref().map(|both| both[1].get()),
            sum_us: self.upstream_us.get(),
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

/// A series as the worker that counts has it at hand.
#[derive(Debug)]
pub(super) struct LocalRoute {
    pub(super) series: &'static RouteSeries,
    /// As in the series, which is in no cache yet when this is asked for.
    pub(super) service: Option<Name>,
    beyond: Option<Box<Beyond>>,
}

/// What few routes have.
#[derive(Debug, Default)]
struct Beyond {
    requests: Few<RequestLabels>,
    groups: Vec<&'static Tally>,
}

impl LocalRoute {
    pub(super) fn new(series: &'static RouteSeries) -> Self {
        Self {
            series,
            service: series.service.clone(),
            beyond: None,
        }
    }

    /// What is counted for live figures.
    pub(super) fn tally(
        &mut self,
        share: &WorkerShare,
        of: Option<RouteLabels<'_>>,
        group: Option<&Name>,
    ) -> &'static Tally {
        if group.is_none() {
            return &self.series.tally;
        }
        let groups = &mut self.beyond.get_or_insert_default().groups;
        if let Some(known) = groups.iter().find(|tally| tally.group.as_ref() == group) {
            return known;
        }
        let tally = Box::leak(Box::new(Tally::new(of, group)));
        groups.push(tally);
        lock(&share.tallies).push(tally);
        tally
    }

    /// Counts a finished request.
    pub(super) fn count(&mut self, counted: &Counted) {
        self.count_labels(counted.labels);
        self.series.count(counted);
    }

    fn count_labels(&mut self, labels: RequestLabels) {
        for (known, counter) in &self.series.usual {
            // Only this thread sets it.
            if *known.get_or_init(|| labels) == labels {
                counter.add(1);
                return;
            }
        }
        let others = &mut self.beyond.get_or_insert_default().requests;
        if let Some((_, counter)) = others.iter().find(|(known, _)| *known == labels) {
            counter.add(1);
            return;
        }
        let counter = Arc::new(Counter::default());
        counter.add(1);
        lock(&self.series.others).push((labels, Arc::clone(&counter)));
        others.push((labels, counter));
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
        assert_eq!(lines(0, offset_of!(RouteSeries, tally)), (0, 0));
        let tally = offset_of!(RouteSeries, tally);
        assert_eq!(lines(tally, Tally::USUAL), (1, 1));
        // Those up to 5 ms, of both.
        let durations = offset_of!(RouteSeries, durations);
        let first = lines(durations, 4 * size_of::<[Counter; 2]>());
        assert_eq!(first.0, first.1);
        assert!(size_of::<LocalRoute>() <= 32);
    }
}
