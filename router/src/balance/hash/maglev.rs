//! Filling a Maglev table: each peer has its own permutation of the slots and takes the next free
//! one whenever it is its turn; turns come in proportion to weight.

use crate::breather::Breather;

/// Slots that are filled in some microseconds.
const AT_ONCE: usize = 1024;
/// Primes; the first that has a hundred slots for each peer is taken, or else the last that builds
/// fast enough.
const SIZES: [usize; 3] = [16_411, 65_537, 262_147];
const LARGEST: usize = 1_048_583;

fn size(peers: usize) -> usize {
    let roomy = SIZES.into_iter().find(|size| *size >= peers * 100);
    roomy.unwrap_or(if peers <= 20_000 { SIZES[2] } else { LARGEST })
}

/// For each slot the position in `peers` (hash, weight ≥ 1) of its peer. The order of `peers` matters
/// and must be the same everywhere.
pub(super) fn fill(peers: &[(u64, u16)]) -> Vec<u32> {
    let size = size(peers.len());
    let mut cursors: Vec<Cursor> = peers
        .iter()
        .map(|(hash, _)| Cursor::new(*hash, size))
        .collect();
    let mut slots = vec![0; size];
    let mut taken = vec![0u64; size.div_ceil(64)];
    let mut breather = Breather::default();
    for (turn, peer) in turns(peers, size, &mut breather).into_iter().enumerate() {
        if turn % AT_ONCE == 0 {
            breather.look();
        }
        let slot = cursors[peer as usize].next_free(size, &taken);
        taken[slot / 64] |= 1 << (slot % 64);
        slots[slot] = peer;
    }
    slots
}

/// The rounds in which a peer has its turns: turn `n` in round `n * highest / weight`.
fn rounds_of(weight: usize, highest: usize) -> impl Iterator<Item = usize> {
    let (whole, part) = (highest / weight, highest % weight);
    let mut next = (0, 0);
    std::iter::repeat_with(move || {
        let (round, rest) = next;
        let over = rest + part;
        // A division for each of a quarter of a million turns would take most of the time.
        next = if over >= weight {
            (round + whole + 1, over - weight)
        } else {
            (round + whole, over)
        };
        round
    })
}

/// Whose turn it is, `size` times: round after round, a peer with half the highest weight every
/// other round. Ordered by round with a counting sort.
fn turns(peers: &[(u64, u16)], size: usize, breather: &mut Breather) -> Vec<u32> {
    let highest = peers.iter().map(|(_, weight)| *weight).max().unwrap_or(1);
    let highest = usize::from(highest.max(1));
    let total: usize = peers.iter().map(|(_, w)| usize::from(*w)).sum();
    // So many rounds have at least `size` turns in them.
    let rounds = (size * highest).div_ceil(total.max(1)) + 1;
    let each = |peer: usize| {
        let weight = usize::from(peers[peer].1.max(1));
        rounds_of(weight, highest).take_while(move |round| *round < rounds)
    };
    let mut ends = vec![0usize; rounds + 1];
    for peer in 0..peers.len() {
        each(peer).for_each(|round| ends[round + 1] += 1);
        breather.step();
    }
    for round in 0..rounds {
        ends[round + 1] += ends[round];
    }
    let mut order = vec![0u32; ends[rounds]];
    for (number, peer) in (0u32..).zip(0..peers.len()) {
        for round in each(peer) {
            order[ends[round]] = number;
            ends[round] += 1;
        }
        breather.step();
    }
    order.truncate(size);
    order
}

struct Cursor {
    at: usize,
    step: usize,
}

impl Cursor {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "both are below the size after the remainder"
    )]
    fn new(hash: u64, size: usize) -> Self {
        let other = crate::balance::random::mix(hash ^ 0xa076_1d64_78bd_642f);
        Self {
            at: (hash % size as u64) as usize,
            step: (other % (size as u64 - 1)) as usize + 1,
        }
    }

    /// A free slot exists: there are no more turns than slots, and a prime number of slots makes
    /// every step visit all of them.
    fn next_free(&mut self, size: usize, taken: &[u64]) -> usize {
        loop {
            let slot = self.at;
            self.at += self.step;
            if self.at >= size {
                self.at -= size;
            }
            if taken[slot / 64] & (1 << (slot % 64)) == 0 {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_as_they_are_divided() {
        for weight in 1..60 {
            for highest in weight..60 {
                let counted: Vec<usize> = rounds_of(weight, highest).take(300).collect();
                let divided: Vec<usize> = (0..300).map(|turn| turn * highest / weight).collect();
                assert_eq!(counted, divided, "{weight} of {highest}");
            }
        }
    }
}
