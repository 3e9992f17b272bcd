//! This router's share of a limit that is divided among the live routers of its cluster.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long a change of the number of routers takes to count in full, in milliseconds: others hear of
/// it a little earlier or later, and none should jump.
const EASE: u64 = 10_000;
/// Parts that a router is counted in.
pub(crate) const WHOLE: u64 = 256;

/// Among how many routers a limit is divided. One number: bits 0–13 how many there are, 14–35 how many
/// there were, in parts, 36–63 when that changed, in units of 64 ms.
#[derive(Debug, Default)]
pub(crate) struct Share(AtomicU64);

const MOST: u64 = (1 << 14) - 1;
const UNIT: u64 = 64;
const TIME: u64 = 1 << 28;

impl Share {
    /// So many routers are live at `now`, in milliseconds; whether that is news.
    pub(crate) fn routers(&self, count: u64, now: u64) -> bool {
        let count = count.clamp(1, MOST);
        let word = self.0.load(Relaxed);
        if word & MOST == count {
            return false;
        }
        // The first number counts at once: there is nothing that it could differ from.
        let before = if word == 0 {
            count * WHOLE
        } else {
            at(word, now)
        };
        let next = count | before << 14 | (now / UNIT % TIME) << 36;
        self.0.store(next, Relaxed);
        true
    }

    /// How many routers share, in parts of [`WHOLE`], at `now`; never less than one.
    pub(crate) fn parts(&self, now: u64) -> u64 {
        at(self.0.load(Relaxed), now)
    }
}

/// Pure: on the way from what was to what is.
fn at(word: u64, now: u64) -> u64 {
    let to = (word & MOST).max(1) * WHOLE;
    let from = word >> 14 & ((1 << 22) - 1);
    let since = word >> 36;
    let passed = ((now / UNIT).wrapping_sub(since) % TIME) * UNIT;
    if from == 0 || passed >= EASE {
        return to;
    }
    (from * (EASE - passed) + to * passed) / EASE
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 3_600_000;

    #[test]
    fn one_router_has_all_of_it() {
        let share = Share::default();
        assert_eq!(share.parts(START), WHOLE);
        share.routers(0, START);
        assert_eq!(share.parts(START), WHOLE);
    }

    #[test]
    fn the_first_number_counts_at_once_and_changes_come_smoothly() {
        let share = Share::default();
        assert!(share.routers(4, START));
        assert!(!share.routers(4, START + 1), "it is no news");
        assert_eq!(share.parts(START), 4 * WHOLE);
        share.routers(8, START);
        let seen: Vec<u64> = (0..=11).map(|s| share.parts(START + s * 1000)).collect();
        assert!(seen.is_sorted(), "{seen:?}");
        assert!(
            seen.windows(2).all(|pair| pair[1] - pair[0] <= WHOLE / 2),
            "{seen:?}"
        );
        assert_eq!((seen[0], seen[11]), (4 * WHOLE, 8 * WHOLE));
        // A change on the way begins where it was.
        share.routers(2, START + 15_000);
        share.routers(6, START + 20_000);
        let there = share.parts(START + 20_000);
        assert!(
            (5 * WHOLE - 20..=5 * WHOLE + 20).contains(&there),
            "{there}"
        );
        assert_eq!(share.parts(START + 31_000), 6 * WHOLE);
    }

    #[test]
    fn as_many_as_there_may_be() {
        let share = Share::default();
        share.routers(u64::MAX, START);
        assert_eq!(share.parts(START), MOST * WHOLE);
        share.routers(1, START + 1);
        assert_eq!(share.parts(START + 20_000), WHOLE);
    }
}
