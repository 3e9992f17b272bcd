//! How many requests at a time a service takes, found out from its latency: `Gradient2Limit` of
//! Netflix' concurrency-limits (<https://github.com/Netflix/concurrency-limits>, 0.5), over windows as
//! its `WindowedLimit`. Envoy's adaptive concurrency filter measures a minimum at times with few
//! requests; this needs no such times.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use cardea_registry_api::plugin::Adaptive;

/// Windows that the latency in the long run is of; as many as there are there.
const LONG: f64 = 600.0;
/// Of the first windows, the plain mean is taken.
const WARM_UP: u32 = 10;
/// How much of a new limit is taken over at a time.
const SMOOTHING: f64 = 0.2;
/// Requests that may wait at the service without its being too much.
const QUEUE: f64 = 4.0;
/// Answers in a window that say something.
const MIN_SAMPLES: u64 = 10;

/// What is known of a service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Known {
    pub(super) limit: f64,
    /// Mean latency in the long run, in microseconds; 0: unknown.
    pub(super) long: f64,
    /// Windows that it is of.
    pub(super) windows: u32,
}

/// A window's mean latency and the most requests at a time in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    pub(super) mean: f64,
    pub(super) peak: u32,
}

impl Known {
    pub(super) fn new(adaptive: &Adaptive) -> Self {
        Self {
            limit: f64::from(adaptive.initial),
            long: 0.0,
            windows: 0,
        }
    }

    /// Pure: what is known after another window.
    pub(super) fn after(self, window: Window, adaptive: &Adaptive) -> Self {
        let windows = self.windows.saturating_add(1);
        let mut long = if self.windows < WARM_UP {
            (self.long * f64::from(self.windows) + window.mean) / f64::from(windows)
        } else {
            self.long + (window.mean - self.long) * (2.0 / (LONG + 1.0))
        };
        // It was slow for long and no longer is: the mean would take too long to come down.
        if long / window.mean > 2.0 {
            long *= 0.95;
        }
        let bound = |limit: f64| limit.clamp(f64::from(adaptive.min), f64::from(adaptive.max));
        let known = Self {
            limit: bound(self.limit),
            long,
            windows,
        };
        // Fewer requests than half of the limit say nothing about it.
        if f64::from(window.peak) < self.limit / 2.0 {
            return known;
        }
        let tolerance = f64::from(adaptive.tolerance) / 100.0;
        let gradient = (tolerance * long / window.mean).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + QUEUE;
        Self {
            limit: bound(self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING),
            ..known
        }
    }
}

/// A service's latency, gathered by all workers.
#[derive(Debug, Default)]
pub(super) struct Gradient {
    /// Requests that are under way.
    running: AtomicU32,
    /// The limit's bits; 0: not begun.
    limit: AtomicU64,
    long: AtomicU64,
    windows: AtomicU32,
    micros: AtomicU64,
    samples: AtomicU64,
    peak: AtomicU32,
    /// When the window ends.
    ends: AtomicU64,
}

impl Gradient {
    pub(super) fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }

    /// How many are taken at a time.
    pub(super) fn limit(&self, adaptive: &Adaptive) -> u32 {
        let known = self.known(adaptive);
        let limit = known.limit.clamp(adaptive.min.into(), adaptive.max.into());
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between `min` and `max`"
        )]
        let limit = limit as u32;
        limit
    }

    /// Takes a request on, if there is room; it has to be given back with [`Gradient::leave`].
    pub(super) fn enter(&self, adaptive: &Adaptive) -> bool {
        // Counted first and taken back, so that two workers cannot both be the last.
        let before = self.running.fetch_add(1, Relaxed);
        if before >= self.limit(adaptive) {
            self.leave();
            return false;
        }
        self.peak.fetch_max(before + 1, Relaxed);
        true
    }

    pub(super) fn leave(&self) {
        self.running.fetch_sub(1, Relaxed);
    }

    /// An answer came after so many microseconds.
    pub(super) fn answered(&self, micros: u64, now: u64, adaptive: &Adaptive) {
        self.micros.fetch_add(micros.max(1), Relaxed);
        let samples = self.samples.fetch_add(1, Relaxed) + 1;
        let ends = self.ends.load(Relaxed);
        let next = now + adaptive.every.as_millis();
        if ends == 0 {
            // The first answer begins the first window.
            let _ = self.ends.compare_exchange(0, next, Relaxed, Relaxed);
            return;
        }
        if now < ends || samples < MIN_SAMPLES {
            return;
        }
        // One worker closes the window.
        if self
            .ends
            .compare_exchange(ends, next, Relaxed, Relaxed)
            .is_err()
        {
            return;
        }
        let (samples, micros) = (self.samples.swap(0, Relaxed), self.micros.swap(0, Relaxed));
        let window = Window {
            mean: micros as f64 / samples.max(1) as f64,
            peak: self.peak.swap(self.running(), Relaxed),
        };
        let known = self.known(adaptive).after(window, adaptive);
        self.long.store(known.long.to_bits(), Relaxed);
        self.windows.store(known.windows, Relaxed);
        self.limit.store(known.limit.to_bits(), Relaxed);
    }

    fn known(&self, adaptive: &Adaptive) -> Known {
        match self.limit.load(Relaxed) {
            0 => Known::new(adaptive),
            limit => Known {
                limit: f64::from_bits(limit),
                long: f64::from_bits(self.long.load(Relaxed)),
                windows: self.windows.load(Relaxed),
            },
        }
    }
}

#[cfg(test)]
mod tests;
