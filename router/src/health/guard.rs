//! How many peers an upstream can spare.
//!
//! One guard a service, shared by its peers and surviving table swaps. Counting and consenting
//! happen in one critical section, so that two workers never mark the last two peers at once. Only
//! changes of health come here, never a request to a healthy peer.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[derive(Debug, Default)]
pub(crate) struct Guard {
    counts: Mutex<Counts>,
    /// Grows with each change, so that workers know when to look at parked peers again.
    generation: AtomicU64,
    /// Others can take over all that these peers have: then none of them has to be spared.
    backed: AtomicBool,
}

/// Peers that are meant to take requests, and those of them that are out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) takers: u32,
    pub(crate) out: u32,
}

impl Counts {
    /// Whether one more may be marked: not the last usable one, and not more than `percent` of the
    /// takers (but one, where there is another, unless `percent` is 0).
    pub(crate) fn can_spare_one(self, percent: u8) -> bool {
        if percent == 0 || self.out + 1 >= self.takers {
            return false;
        }
        let share = u64::from(self.takers) * u64::from(percent) / 100;
        u64::from(self.out) < share.max(1)
    }
}

impl Guard {
    pub(crate) fn counts(&self) -> Counts {
        *self.lock()
    }

    /// Whether peers of other clusters can take over: then all of these may be marked, as they must be for
    /// their requests to leave.
    pub(crate) fn set_backed(&self, backed: bool) {
        self.backed.store(backed, Ordering::Relaxed);
    }

    /// Bumped whenever a peer goes out, comes back, joins or leaves.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks to mark one taker; on `true` it is already counted as out.
    pub(crate) fn try_mark(&self, percent: u8) -> bool {
        let mut counts = self.lock();
        let spare = if self.backed.load(Ordering::Relaxed) {
            percent > 0
        } else {
            counts.can_spare_one(percent)
        };
        if spare {
            counts.out += 1;
        }
        spare
    }

    /// Counts one peer's change of standing: (takes requests, is out) before and after.
    pub(crate) fn moved(&self, before: (bool, bool), after: (bool, bool)) {
        let count = |(takes, out): (bool, bool)| (u32::from(takes), u32::from(takes && out));
        let (old, new) = (count(before), count(after));
        if old != new {
            let mut counts = self.lock();
            counts.takers = counts.takers + new.0 - old.0;
            counts.out = counts.out + new.1 - old.1;
        }
    }

    /// Tells the workers to look again, after a peer's new word is published.
    pub(crate) fn announce(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
