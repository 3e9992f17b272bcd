//! The retry budget: retries may add a share to the requests of the last ten seconds, and a few are
//! always allowed. Without it, an upstream in trouble gets its load multiplied just then.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::clock;

const SECONDS: usize = 10;
/// Retries in ten seconds that are allowed whatever the traffic.
const ALWAYS: u64 = 10;

/// Requests and retries of the last ten seconds, shared by all workers, one bucket a second. A
/// bucket is one number: the second it is for (20 bits), retries (20 bits), requests (24 bits).
#[derive(Debug, Default)]
pub struct Budget {
    buckets: [AtomicU64; SECONDS],
}

const REQUEST: u64 = 1;
const RETRY: u64 = 1 << 24;
const SECOND: u64 = 1 << 44;

impl Budget {
    /// Counts a request (not its retries).
    pub fn on_request(&self, now: Instant) {
        self.count(clock::millis(now) / 1000, REQUEST);
    }

    /// Asks for a retry of a request that was sent; on `true` it is counted. Two workers that ask
    /// for the last one at once may both get it.
    pub fn try_retry(&self, percent: u8, now: Instant) -> bool {
        let second = clock::millis(now) / 1000;
        let (requests, retries) = self.totals(second);
        let allowed = retries < ALWAYS.max(requests * u64::from(percent) / 100);
        if allowed {
            self.count(second, RETRY);
        }
        allowed
    }

    /// Requests and retries of the last ten seconds.
    pub(crate) fn usage(&self, now: Instant) -> (u64, u64) {
        self.totals(clock::millis(now) / 1000)
    }

    fn count(&self, second: u64, what: u64) {
        let stamp = second % (1 << 20);
        let Some(bucket) = usize::try_from(second)
            .ok()
            .and_then(|s| self.buckets.get(s % SECONDS))
        else {
            return;
        };
        let seen = bucket.load(Ordering::Relaxed);
        if seen / SECOND == stamp {
            bucket.fetch_add(what, Ordering::Relaxed);
            return;
        }
        // The first of a new second empties the bucket; whoever loses the race finds it emptied.
        let fresh = stamp * SECOND + what;
        if bucket
            .compare_exchange(seen, fresh, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            bucket.fetch_add(what, Ordering::Relaxed);
        }
    }

    fn totals(&self, second: u64) -> (u64, u64) {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .filter(|seen| (second % (1 << 20)).wrapping_sub(seen / SECOND) % (1 << 20) < 10)
            .fold((0, 0), |(requests, retries), seen| {
                (
                    requests + seen % RETRY,
                    retries + (seen / RETRY) % (SECOND / RETRY),
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn granted(budget: &Budget, percent: u8, now: Instant) -> usize {
        (0..100_000)
            .take_while(|_| budget.try_retry(percent, now))
            .count()
    }

    #[test]
    fn a_few_always_and_a_share_of_the_traffic() {
        let now = Instant::now();
        let budget = Budget::default();
        assert_eq!(granted(&budget, 20, now), 10);

        let budget = Budget::default();
        for _ in 0..1000 {
            budget.on_request(now);
        }
        assert_eq!(granted(&budget, 20, now), 200);
        assert_eq!(budget.usage(now), (1000, 200));
    }

    #[test]
    fn forgets_after_ten_seconds() {
        let now = Instant::now();
        let budget = Budget::default();
        for second in 0..10 {
            for _ in 0..100 {
                budget.on_request(now + Duration::from_secs(second));
            }
        }
        let last = now + Duration::from_secs(9);
        assert_eq!(budget.usage(last).0, 1000);
        assert_eq!(budget.usage(now + Duration::from_secs(14)).0, 500);
        assert_eq!(budget.usage(now + Duration::from_secs(19)), (0, 0));
        assert_eq!(granted(&budget, 20, now + Duration::from_secs(40)), 10);
    }

    #[test]
    fn counts_from_many_threads() {
        let now = Instant::now();
        let budget = Budget::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| budget.on_request(now)));
            }
        });
        assert_eq!(budget.usage(now).0, 40_000);
    }
}
