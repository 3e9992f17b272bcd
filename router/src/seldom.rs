//! Log lines about what clients do, which may happen any number of times a second.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How long to keep quiet after a line.
const QUIET: Duration = Duration::from_secs(10);

/// Lets a line through from time to time, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    quiet_until: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// How many lines were kept back before this one; none: keep it back too.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        if self.quiet_until.get().is_some_and(|until| now < until) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.quiet_until.set(Some(now + QUIET));
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_now_and_then_tells_of_the_others() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(start), Some(0));
        assert_eq!(seldom.due(start), None);
        assert_eq!(seldom.due(start + QUIET / 2), None);
        assert_eq!(seldom.due(start + QUIET), Some(2));
        assert_eq!(seldom.due(start + QUIET), None);
    }
}
