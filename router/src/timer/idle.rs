//! Which connections are idle, and which of them has been so for the longest: it is the one to make
//! room. To become idle costs a store; the oldest are looked for when somebody asks.

use std::{
    cell::{Cell, RefCell},
    collections::BinaryHeap,
};

use super::{BUSY, NEVER, Timers};

/// How many are found at once, so that one look does for as many newcomers.
const AT_ONCE: usize = 64;
/// Of more connections than this, a look that finds nothing is not repeated within a tick.
const CHEAP: usize = 1024;

/// The idle ones' order.
#[derive(Debug, Default)]
pub(super) struct Idle {
    turn: Cell<u64>,
    /// The oldest when they were last looked for, with their turns; the very oldest is last.
    oldest: RefCell<Vec<(u64, usize)>>,
    /// When there was none.
    none_at: Cell<Option<u64>>,
}

impl Idle {
    /// The turn of a connection that becomes idle now.
    pub(super) fn turn(&self) -> u64 {
        let turn = self.turn.get() + 1;
        self.turn.set(turn);
        turn
    }
}

impl Timers {
    /// Lets the connection go that has been idle for the longest; `false`: none is idle. It closes
    /// when its task runs, unless a request has arrived meanwhile.
    pub(crate) fn evict(&self) -> bool {
        self.evict_listed() || (self.list_oldest() && self.evict_listed())
    }

    fn evict_listed(&self) -> bool {
        let mut slots = self.slots.borrow_mut();
        let mut oldest = self.idle.oldest.borrow_mut();
        while let Some((turn, key)) = oldest.pop() {
            if let Some(slot) = slots.get_mut(key)
                && slot.turn == turn
            {
                slot.turn = BUSY;
                slot.deadline = NEVER;
                slot.fired = true;
                slot.evicted = true;
                slot.waker.wake_by_ref();
                return true;
            }
        }
        false
    }

    fn list_oldest(&self) -> bool {
        let slots = self.slots.borrow();
        if slots.len() > CHEAP && self.idle.none_at.get() == Some(self.now()) {
            return false;
        }
        let mut found = BinaryHeap::with_capacity(AT_ONCE + 1);
        for (key, slot) in slots.iter().filter(|(_, slot)| slot.turn != BUSY) {
            if found.len() < AT_ONCE || found.peek().is_some_and(|(turn, _)| slot.turn < *turn) {
                found.push((slot.turn, key));
            }
            if found.len() > AT_ONCE {
                found.pop();
            }
        }
        let mut found = found.into_sorted_vec();
        found.reverse();
        self.idle.none_at.set(found.is_empty().then(|| self.now()));
        let some = !found.is_empty();
        *self.idle.oldest.borrow_mut() = found;
        some
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{super::tests::timer, *};

    proptest! {
        /// Whoever becomes idle and busy, and in whatever order: the oldest idle one goes first, and
        /// a busy one never.
        #[test]
        fn the_oldest_idle_one_makes_room(moves in prop::collection::vec((0..3_u8, 0..100_usize), 0..600)) {
            const LONG: Duration = Duration::from_hours(1);
            let timers = Timers::new(Instant::now());
            let connections: Vec<_> = (0..100).map(|_| timer(&timers)).collect();
            let mut idle: Vec<usize> = Vec::new();
            for (what, who) in moves {
                let connection = &connections[who];
                match what {
                    0 => {
                        idle.retain(|other| *other != who);
                        connection.set(LONG);
                    }
                    1 => {
                        idle.retain(|other| *other != who);
                        idle.push(who);
                        connection.set_idle(LONG);
                        prop_assert!(!connection.fired() && !connection.evicted());
                    }
                    _ => {
                        prop_assert_eq!(timers.evict(), !idle.is_empty());
                        if !idle.is_empty() {
                            let gone = &connections[idle.remove(0)];
                            prop_assert!(gone.fired() && gone.evicted());
                        }
                    }
                }
            }
        }
    }
}
