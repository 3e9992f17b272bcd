//! Pauses between vain tries: doubling, with jitter, so that routers do not come back all at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next pause: at least `at_least`, otherwise half to all of the doubled one.
    pub(crate) fn next(&mut self, at_least: Duration) -> Duration {
        let full = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
            .max(at_least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_with_jitter_up_to_a_ceiling() {
        let mut backoff = Backoff::default();
        for want in [100, 200, 400, 800, 1600, 3000, 3000] {
            let want = Duration::from_millis(want);
            let pause = backoff.next(Duration::ZERO);
            assert!(pause >= want / 2 && pause <= want, "{pause:?} {want:?}");
        }
        assert!(backoff.next(Duration::from_secs(9)) >= Duration::from_secs(9));
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= Duration::from_millis(100));
    }
}
