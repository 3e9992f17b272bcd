//! A hash map whose copies share what is the same in them: a table of ten thousand routes, one of
//! which changed, costs what one route costs.
//!
//! The entries lie in shards of open addressing, a few dozen in each. A copy copies the list of
//! shards; a change copies one shard, unless nobody else has it. A lookup visits one place in the
//! list and, as a rule, one cache line of the shard, and that with the hash alone: keys are the
//! values' own, and are looked at where the hash is the same.

use std::sync::Arc;

use crate::ahead;

/// Shards are split when there are more entries to each than this, and joined below an eighth of it.
const FULL: usize = 64;

/// Values by their hashes.
#[derive(Debug, Clone)]
pub(super) struct Shards<V> {
    /// A power of two of them.
    shards: Box<[Shard<V>]>,
    len: usize,
}

/// A power of two of places, at least one of them empty.
type Shard<V> = Arc<[Option<(u64, V)>]>;

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self {
            shards: [empty(1)].into(),
            len: 0,
        }
    }
}

impl<V> Shards<V> {
    /// The value with this hash that is the one.
    pub(super) fn get(&self, hash: u64, is: impl Fn(&V) -> bool) -> Option<&V> {
        let shard = &self.shards[which(hash, self.shards.len())];
        let mut at = place(hash, shard.len());
        while let Some((other, value)) = &shard[at] {
            if *other == hash && is(value) {
                return Some(value);
            }
            at = next(at, shard.len());
        }
        None
    }

    /// Has the place fetched where a value with this hash would be looked for first.
    pub(super) fn fetch_ahead(&self, hash: u64) {
        let shard = &self.shards[which(hash, self.shards.len())];
        ahead::fetch_ends(&shard[place(hash, shard.len())]);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &V> {
        let places = self.shards.iter().flat_map(|shard| shard.iter());
        places.flatten().map(|(_, value)| value)
    }
}

impl<V: Clone> Shards<V> {
    /// Puts a value in, in the place of the one that `is` it, which is given back.
    pub(super) fn set(&mut self, hash: u64, value: V, is: impl Fn(&V) -> bool) -> Option<V> {
        let count = self.shards.len();
        let shard = &mut self.shards[which(hash, count)];
        let mut at = place(hash, shard.len());
        while let Some((other, there)) = &shard[at] {
            if *other == hash && is(there) {
                let (_, there) = Arc::make_mut(shard)[at].as_mut()?;
                return Some(std::mem::replace(there, value));
            }
            at = next(at, shard.len());
        }
        let taken = shard.iter().flatten().count();
        if (taken + 1) * 3 > shard.len() * 2 {
            *shard = filled((taken + 1) * 2, shard.iter().flatten().cloned());
            at = vacant(shard, hash);
        }
        Arc::make_mut(shard)[at] = Some((hash, value));
        self.len += 1;
        if self.len > count * FULL {
            self.part(count * 2);
        }
        None
    }

    /// Takes the value out that `is` the one.
    pub(super) fn remove(&mut self, hash: u64, is: impl Fn(&V) -> bool) -> Option<V> {
        let count = self.shards.len();
        let shard = &mut self.shards[which(hash, count)];
        let mut at = place(hash, shard.len());
        while let Some((other, value)) = &shard[at] {
            if *other == hash && is(value) {
                let shard = Arc::make_mut(shard);
                let gone = shard[at].take();
                close(shard, at);
                self.len -= 1;
                if count > 1 && self.len < count * FULL / 8 {
                    self.part(count / 2);
                }
                return gone.map(|(_, value)| value);
            }
            at = next(at, shard.len());
        }
        None
    }

    /// Lays the entries out anew, in so many shards.
    fn part(&mut self, count: usize) {
        let mut parts: Vec<Vec<(u64, V)>> = (0..count).map(|_| Vec::new()).collect();
        for entry in self.shards.iter().flat_map(|shard| shard.iter()).flatten() {
            parts[which(entry.0, count)].push(entry.clone());
        }
        let shards = parts.into_iter().map(|part| filled(part.len(), part));
        self.shards = shards.collect();
    }
}

/// A shard with so many entries, and room for some more.
fn filled<V>(count: usize, entries: impl IntoIterator<Item = (u64, V)>) -> Shard<V> {
    let mut shard = empty((count * 3 / 2 + 1).next_power_of_two());
    if let Some(places) = Arc::get_mut(&mut shard) {
        for (hash, value) in entries {
            let at = vacant(places, hash);
            places[at] = Some((hash, value));
        }
    }
    shard
}

fn empty<V>(places: usize) -> Shard<V> {
    (0..places).map(|_| None).collect()
}

fn vacant<V>(shard: &[Option<(u64, V)>], hash: u64) -> usize {
    let mut at = place(hash, shard.len());
    while shard[at].is_some() {
        at = next(at, shard.len());
    }
    at
}

/// Moves entries up that would no longer be found past the place that has become empty.
fn close<V>(shard: &mut [Option<(u64, V)>], mut hole: usize) {
    let mask = shard.len() - 1;
    let mut at = hole;
    loop {
        at = next(at, shard.len());
        let Some((hash, _)) = &shard[at] else {
            return;
        };
        let home = place(*hash, shard.len());
        if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
            shard[hole] = shard[at].take();
            hole = at;
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the bits that are kept are far below"
)]
fn which(hash: u64, shards: usize) -> usize {
    (hash >> 32) as usize & (shards - 1)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the bits that are kept are far below"
)]
fn place(hash: u64, places: usize) -> usize {
    hash as usize & (places - 1)
}

fn next(at: usize, places: usize) -> usize {
    (at + 1) & (places - 1)
}

#[cfg(test)]
mod tests;
