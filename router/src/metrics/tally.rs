//! What one worker counts for the registry's live figures, by route, service and the group that a plugin
//! chose. Numbers only ever grow (but for the requests under way); the control thread takes the
//! differences (`figures.rs`).

use std::sync::atomic::{AtomicU32, Ordering};

use cardea_registry_api::{
    Name,
    figures::{BUCKETS, bucket_of},
};

use super::{Counted, Counter, RouteLabels, micros};
use crate::ahead;

/// The counters of a route, service and group. Those of every request come first, in one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Tally {
    in_flight: Counter,
    sum_us: Counter,
    /// Requests by the first digit of their status.
    classes: [Counter; 5],
    retries: Counter,
    fallbacks: Counter,
    limited: Counter,
    /// None: of what no route took.
    pub(crate) route: Option<Name>,
    pub(crate) service: Option<Name>,
    pub(crate) group: Option<Name>,
    /// Durations; the differences matter, so that it may begin anew at 2³².
    buckets: [AtomicU32; BUCKETS],
}

/// What tallies of several workers say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) classes: [u64; 5],
    pub(crate) in_flight: u64,
    pub(crate) retries: u64,
    pub(crate) fallbacks: u64,
    pub(crate) limited: u64,
    pub(crate) took_us: u64,
    pub(crate) buckets: [u32; BUCKETS],
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            classes: [0; 5],
            in_flight: 0,
            retries: 0,
            fallbacks: 0,
            limited: 0,
            took_us: 0,
            buckets: [0; BUCKETS],
        }
    }
}

impl Tally {
    /// How many bytes at its beginning every request counts in (beside one of the buckets).
    #[cfg(test)]
    pub(super) const USUAL: usize = std::mem::offset_of!(Self, retries);

    pub(super) fn new(of: Option<RouteLabels<'_>>, group: Option<&Name>) -> Self {
        Self {
            route: of.map(|of| of.route.clone()),
            service: of.map(|of| of.service.clone()),
            group: group.cloned(),
            classes: Default::default(),
            in_flight: Counter::default(),
            retries: Counter::default(),
            fallbacks: Counter::default(),
            limited: Counter::default(),
            sum_us: Counter::default(),
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }

    /// Has the bucket of such a duration fetched.
    pub(super) fn fetch_ahead(&self, us: u64) {
        ahead::fetch(&self.buckets[bucket_of(us)]);
    }

    /// Counts a finished request.
    pub(super) fn count(&self, counted: &Counted) {
        if let Some(took) = counted.took {
            let us = micros(took);
            let bucket = &self.buckets[bucket_of(us)];
            // Only this thread writes it.
            let next = bucket.load(Ordering::Relaxed).wrapping_add(1);
            bucket.store(next, Ordering::Relaxed);
            self.sum_us.add(us);
        }
        let class = usize::from(counted.labels.code / 100).clamp(1, 5) - 1;
        self.classes[class].add(1);
        if counted.retries > 0 {
            self.retries.add(counted.retries);
        }
    }

    /// Adds what it says to a sum.
    pub(crate) fn add_to(&self, sum: &mut Sum) {
        for (sum, class) in sum.classes.iter_mut().zip(&self.classes) {
            *sum += class.get();
        }
        sum.in_flight += self.in_flight.get();
        sum.retries += self.retries.get();
        sum.fallbacks += self.fallbacks.get();
        sum.limited += self.limited.get();
        sum.took_us = sum.took_us.wrapping_add(self.sum_us.get());
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum = sum.wrapping_add(bucket.load(Ordering::Relaxed));
        }
    }
}

/// A request under way: it is counted as one until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Option<&'static Tally>);

impl UnderWay {
    /// One more.
    pub(super) fn begin(tally: &'static Tally) -> Self {
        tally.in_flight.add(1);
        Self(Some(tally))
    }

    pub(super) const fn tally(&self) -> Option<&'static Tally> {
        self.0
    }

    /// A plugin refuses it, as there are too many.
    pub(crate) fn is_limited(&self) {
        if let Some(tally) = self.tally() {
            tally.limited.add(1);
        }
    }

    /// A fallback answers for a failure.
    pub(crate) fn falls_back(&self) {
        if let Some(tally) = self.tally() {
            tally.fallbacks.add(1);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(tally) = self.0 {
            tally.in_flight.sub(1);
        }
    }
}
