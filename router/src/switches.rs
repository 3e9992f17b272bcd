//! What the benches may switch off, to learn what it costs. In the product nothing can be: without
//! the feature `bench` the answer is known when the program is compiled.

/// Something with a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Counters and histograms of requests.
    Metrics = 1,
    /// Verdicts on peers, their latency, the retry budget.
    Health = 2,
    /// The `X-Forwarded-…` fields.
    Forwarded = 4,
    /// The request's id.
    RequestId = 8,
}

#[cfg(feature = "bench")]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Feature;

    static OFF: AtomicU8 = AtomicU8::new(0);

    /// Switches a feature off by its name, for good; `false`: there is none of that name.
    pub fn switch_off(name: &str) -> bool {
        let feature = match name {
            "metrics" => Feature::Metrics,
            "health" => Feature::Health,
            "forwarded" => Feature::Forwarded,
            "id" => Feature::RequestId,
            _ => return false,
        };
        OFF.fetch_or(feature as u8, Ordering::Relaxed);
        true
    }

    /// Whether a feature is on.
    pub(crate) fn on(feature: Feature) -> bool {
        OFF.load(Ordering::Relaxed) & feature as u8 == 0
    }
}

#[cfg(not(feature = "bench"))]
mod switch {
    use super::Feature;

    /// Whether a feature is on: always.
    pub(crate) const fn on(_: Feature) -> bool {
        true
    }
}

pub(crate) use switch::on;
#[cfg(feature = "bench")]
pub use switch::switch_off;
