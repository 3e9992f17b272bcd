//! Which cluster a request goes to, given the shares: in turns, or by the request's key.

use super::{shares::Shares, split::MOST};

/// Turns among clusters: each request adds every cluster's share to what it is owed, and the one that is
/// owed most gets it (smooth weighted round robin, as nginx's). After any number of requests each has had
/// its share give or take one, whatever the shares were meanwhile.
#[derive(Debug)]
pub(crate) struct Turns {
    owed: [f64; MOST],
}

impl Turns {
    /// Begins somewhere, so that workers and routers do not march in step; `start` is from 0 to 1.
    pub(crate) fn new(shares: &Shares, start: f64) -> Self {
        let mut owed = [0.0; MOST];
        // Who of them comes first is drawn by their shares.
        let mut rest = start;
        for (owed, share) in owed.iter_mut().zip(shares) {
            *owed = if (0.0..*share).contains(&rest) {
                0.5
            } else {
                0.0
            };
            rest -= share;
        }
        Self { owed }
    }

    /// Whose turn it is; none: nobody has a share.
    pub(crate) fn next(&mut self, shares: &Shares) -> Option<usize> {
        let mut first: Option<usize> = None;
        for (at, share) in shares.iter().enumerate() {
            if *share <= 0.0 {
                // What it was owed when it had a share does not come back at once later.
                self.owed[at] = 0.0;
                continue;
            }
            self.owed[at] += share;
            if first.is_none_or(|first| self.owed[at] > self.owed[first]) {
                first = Some(at);
            }
        }
        let first = first?;
        self.owed[first] -= 1.0;
        Some(first)
    }
}

/// The cluster of a key: weighted rendezvous hashing (Schindelhauer and Schomaker's logarithmic method).
/// When shares change, a key moves only from a cluster whose share shrinks, or to one whose share grows.
/// `seeds` tells the clusters apart, the same in all routers.
pub(crate) fn of_key(key: u64, seeds: &[u64], shares: &Shares) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (at, (seed, share)) in seeds.iter().zip(shares).enumerate() {
        if *share <= 0.0 {
            continue;
        }
        let score = -unit(mix(key ^ seed)).ln() / share;
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, at));
        }
    }
    best.map(|(_, at)| at)
}

/// The last step of `SplitMix64`: every bit of what goes in matters for every bit that comes out.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Between 0 and 1, neither of them.
fn unit(hash: u64) -> f64 {
    ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}
