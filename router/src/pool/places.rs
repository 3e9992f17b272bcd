//! Places for peers' connections: a table with open addressing, so that where a peer's place is can be told
//! without reading any.

use crate::peer::PeerNumber;

/// The fewest places of a table that has any.
const FEWEST: usize = 16;
/// 2⁶⁴ over the golden ratio: numbers that follow one another come to lie apart, and evenly (Fibonacci
/// hashing; Knuth, The Art of Computer Programming, volume 3, 6.4).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Places by peers' numbers; at most half of them are taken, so that a peer's is at its home or near.
#[derive(Debug)]
pub(super) struct Places<K> {
    /// As many as a power of two, or none.
    all: Vec<Option<Place<K>>>,
    taken: usize,
}

/// One peer's idle connections. Where it has one or none, as most of many peers do, nobody looks beyond the
/// first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Place<K> {
    peer: PeerNumber,
    last: Last<K>,
    /// Those that were used before, the oldest first.
    before: Vec<K>,
}

/// The connection that was used last.
#[derive(Debug)]
enum Last<K> {
    Idle(K),
    /// It was taken, or closed, at this time.
    Gone(u64),
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            taken: 0,
        }
    }
}

impl<K> Places<K> {
    fn home_of(&self, peer: PeerNumber) -> Option<usize> {
        // Of no places there is none.
        let bits = self.all.len().checked_ilog2()?;
        let spread = peer.wrapping_mul(SPREAD) >> (u64::BITS - bits);
        usize::try_from(spread).ok()
    }

    /// Where a peer's place is, or would be.
    fn position(&self, peer: PeerNumber) -> Option<usize> {
        let mut at = self.home_of(peer)?;
        while self.all[at]
            .as_ref()
            .is_some_and(|place| place.peer != peer)
        {
            at = (at + 1) & (self.all.len() - 1);
        }
        Some(at)
    }

    /// Where to look for a peer's place first; nothing is read to tell it.
    pub(super) fn home(&self, peer: PeerNumber) -> Option<&Option<Place<K>>> {
        self.home_of(peer).map(|at| &self.all[at])
    }

    pub(super) fn get(&self, peer: PeerNumber) -> Option<&Place<K>> {
        self.all[self.position(peer)?].as_ref()
    }

    pub(super) fn get_mut(&mut self, peer: PeerNumber) -> Option<&mut Place<K>> {
        let at = self.position(peer)?;
        self.all[at].as_mut()
    }

    /// A peer's place, a new one if it has none.
    pub(super) fn of(&mut self, peer: PeerNumber, now: u64) -> &mut Place<K> {
        let mut at = self.position(peer);
        if at.is_none_or(|at| self.all[at].is_none()) {
            if (self.taken + 1) * 2 > self.all.len() {
                self.make_anew(self.taken + 1);
                at = self.position(peer);
            }
            self.taken += 1;
        }
        let place = &mut self.all[at.unwrap_or_default()];
        place.get_or_insert_with(|| Place {
            peer,
            last: Last::Gone(now),
            before: Vec::new(),
        })
    }

    /// Gives up the places that `keep` does not want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Place<K>) -> bool) {
        let before = self.taken;
        for place in &mut self.all {
            if place.as_mut().is_some_and(|place| !keep(place)) {
                *place = None;
                self.taken -= 1;
            }
        }
        if self.taken < before {
            self.make_anew(self.taken);
        }
    }

    /// Everybody has their place in a table for so many.
    fn make_anew(&mut self, wanted: usize) {
        let length = match wanted {
            0 => 0,
            _ => (wanted * 2).next_power_of_two().max(FEWEST),
        };
        let old = std::mem::take(&mut self.all);
        self.all.resize_with(length, || None);
        for place in old.into_iter().flatten() {
            if let Some(at) = self.position(place.peer) {
                self.all[at] = Some(place);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Place<K>> {
        self.all.iter().flatten()
    }
}

impl<K> Place<K> {
    /// How many bytes a peer's number and the connection that was used last take.
    pub(super) const FRONT: usize = std::mem::offset_of!(Self, before);

    /// The connection that was used last.
    pub(super) fn last(&self) -> Option<&K> {
        match &self.last {
            Last::Idle(kept) => Some(kept),
            Last::Gone(_) => None,
        }
    }

    /// Takes the connection that was used last.
    pub(super) fn pop(&mut self, now: u64) -> Option<K> {
        match std::mem::replace(&mut self.last, Last::Gone(now)) {
            Last::Idle(kept) => Some(kept),
            Last::Gone(_) => self.before.pop(),
        }
    }

    pub(super) fn push(&mut self, kept: K) {
        if let Last::Idle(before) = std::mem::replace(&mut self.last, Last::Idle(kept)) {
            self.before.push(before);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.before.len() + usize::from(self.last().is_some())
    }

    /// Whether it has fewer connections than so many.
    pub(super) fn has_room(&self, most: usize) -> bool {
        self.last().is_none() || self.len() < most
    }

    /// Closes the connections that `keep` does not want.
    pub(super) fn retain(&mut self, now: u64, keep: impl Fn(&K) -> bool) {
        if self.last().is_some_and(|last| !keep(last)) {
            self.last = Last::Gone(now);
        }
        self.before.retain(keep);
    }

    /// Since when it has had no connection; none: it has one.
    pub(super) fn empty_since(&self) -> Option<u64> {
        match self.last {
            Last::Gone(at) if self.len() == 0 => Some(at),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
