//! What one worker counts for the registry's live figures, by route, service and the group that a plugin
//! chose. Numbers only ever grow (but for the requests under way); the control thread takes the
//! differences (`figures.rs`).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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
    sum_us: Counter,
    in_flight: Small,
    /// Requests by the first digit of their status.
    classes: [Small; 5],
    retries: Counter,
    fallbacks: Counter,
    limited: Counter,
    /// Durations.
    buckets: [Small; BUCKETS],
}

/// A number that one thread writes and others read. The differences matter, so that it may begin anew at
/// 2³².
#[derive(Debug)]
struct Small(AtomicU32);

impl Small {
    fn add(&self, n: u32) {
        let next = self.0.load(Relaxed).wrapping_add(n);
        self.0.store(next, Relaxed);
    }

    fn sub(&self, n: u32) {
        self.add(n.wrapping_neg());
    }

    fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// What a tally counts.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// None: what no route took.
    pub(crate) route: Option<Name>,
    pub(crate) service: Option<Name>,
    pub(crate) group: Option<Name>,
    pub(crate) tally: &'static Tally,
}

impl Told {
    pub(super) fn new(
        of: Option<RouteLabels<'_>>,
        group: Option<&Name>,
        tally: &'static Tally,
    ) -> Self {
        Self {
            route: of.map(|of| of.route.clone()),
            service: of.map(|of| of.service.clone()),
            group: group.cloned(),
            tally,
        }
    }
}

/// What tallies of several workers say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) classes: [u32; 5],
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

impl Default for Tally {
    fn default() -> Self {
        Self {
            sum_us: Counter::default(),
            in_flight: Small(AtomicU32::new(0)),
            classes: [const { Small(AtomicU32::new(0)) }; 5],
            retries: Counter::default(),
            fallbacks: Counter::default(),
            limited: Counter::default(),
            buckets: [const { Small(AtomicU32::new(0)) }; BUCKETS],
        }
    }
}

impl Tally {
    /// How many bytes at its beginning every request counts in (beside one of the buckets).
    #[cfg(test)]
    pub(super) const USUAL: usize = std::mem::offset_of!(Self, retries);

    /// Has the bucket of such a duration fetched.
    pub(super) fn fetch_ahead(&self, us: u64) {
        ahead::fetch(&self.buckets[bucket_of(us)]);
    }

    /// Counts a finished request.
    pub(super) fn count(&self, counted: &Counted) {
        if let Some(took) = counted.took {
            let us = micros(took);
            self.buckets[bucket_of(us)].add(1);
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
            *sum = sum.wrapping_add(class.get());
        }
        sum.in_flight += u64::from(self.in_flight.get());
        sum.retries += self.retries.get();
        sum.fallbacks += self.fallbacks.get();
        sum.limited += self.limited.get();
        sum.took_us = sum.took_us.wrapping_add(self.sum_us.get());
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum = sum.wrapping_add(bucket.get());
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
