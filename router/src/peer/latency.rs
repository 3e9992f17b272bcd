//! Peak EWMA: a moving average of latency that believes bad news at once and good news slowly.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How fast the past is forgotten, in milliseconds.
const TAU: f32 = 10_000.0;

/// The average in microseconds (upper half, f32) and when it was taken in milliseconds (lower half,
/// wrapping). Zero: nothing observed yet.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    pub(crate) fn observe(&self, took: Duration, now: u64) {
        let sample = took.as_secs_f32() * 1e6;
        // A lost race means another worker's sample came in between: take both.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let average = match unpack(packed, now) {
                    None => sample,
                    Some((average, _)) if sample > average => sample,
                    Some((average, age)) => {
                        let keep = (-age / TAU).exp();
                        average * keep + sample * (1.0 - keep)
                    }
                };
                Some(pack(average.max(1.0), now))
            });
    }

    /// In microseconds; fades while nothing is observed, so that a peer that was slow once is tried
    /// again. None: nothing observed yet.
    pub(crate) fn micros(&self, now: u64) -> Option<f32> {
        let (average, age) = unpack(self.0.load(Ordering::Relaxed), now)?;
        Some(if age < 1.0 {
            average
        } else {
            average * (-age / TAU).exp()
        })
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the lower half wraps on purpose"
)]
fn pack(average: f32, now: u64) -> u64 {
    (u64::from(average.to_bits()) << 32) | u64::from(now as u32)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the halves are cut apart on purpose"
)]
fn unpack(packed: u64, now: u64) -> Option<(f32, f32)> {
    if packed == 0 {
        return None;
    }
    let average = f32::from_bits((packed >> 32) as u32);
    // A worker's clock reading may be a little behind another's: that is no age of 49 days.
    let age = (now as u32)
        .wrapping_sub(packed as u32)
        .cast_signed()
        .max(0);
    Some((average, age as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believes_bad_news_at_once_and_good_news_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.micros(5), None);
        latency.observe(Duration::from_millis(2), 1000);
        latency.observe(Duration::from_millis(50), 1001);
        let peak = latency.micros(1001).unwrap();
        assert!((49_000.0..=50_100.0).contains(&peak), "{peak}");
        for i in 0..100 {
            latency.observe(Duration::from_millis(2), 1001 + i * 10);
        }
        let soon = latency.micros(2001).unwrap();
        assert!(soon > 40_000.0, "{soon}");
        for i in 0..1000 {
            latency.observe(Duration::from_millis(2), 2001 + i * 100);
        }
        let later = latency.micros(102_001).unwrap();
        assert!(later < 2_300.0, "{later}");
    }

    #[test]
    fn fades_when_idle_and_survives_the_wrap() {
        let latency = Latency::default();
        let start = u64::from(u32::MAX) - 5;
        latency.observe(Duration::from_millis(100), start);
        let faded = latency.micros(start + 10_000).unwrap();
        assert!((36_000.0..38_000.0).contains(&faded), "{faded}");
        assert!(latency.micros(start - 3).unwrap() > 99_000.0);
    }
}
