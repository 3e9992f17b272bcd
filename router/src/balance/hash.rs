//! Consistent hashing: the same key goes to the same peer, in all routers, and little moves when
//! peers come and go.
//!
//! Few peers: weighted rendezvous hashing, which moves nothing but what it must. Many: a Maglev
//! table, made once a version of the upstream, whose lookups cost the same for any number of peers
//! and whose shares are even to a hundredth. A key whose peer is down goes to its next choice, which
//! differs from key to key.

mod maglev;

use crate::{
    balance::random::{mix, unit},
    upstream::Member,
};

/// Up to this many takers, each pick looks at all of them.
const FEW: usize = 16;
/// Keeps the draw for slow start apart from the choice of the peer.
const WARMTH: u64 = 0x5851_f42d_4c95_7f2d;
/// Choices of a key that are looked at before any fit peer will do.
const CHOICES: usize = 64;

/// The consistent hash over an upstream's takers.
#[derive(Debug)]
pub(crate) enum Chooser {
    Rendezvous(Box<[u32]>),
    Maglev(Box<[u32]>),
}

impl Chooser {
    pub(crate) fn new(members: &[Member]) -> Self {
        let takers = (0u32..)
            .zip(members)
            .filter(|(_, member)| member.takes_requests())
            .map(|(at, _)| at);
        // By key and not by number, which is another in each router.
        let peer = |at: u32| &members[at as usize].peer;
        let mut hashed: Vec<(u64, u32)> = takers.map(|at| (peer(at).hash(), at)).collect();
        hashed.sort_unstable_by(|(hash, at), (other, than)| {
            let keys = || peer(*at).key().cmp(peer(*than).key());
            hash.cmp(other).then_with(keys)
        });
        let takers: Vec<u32> = hashed.into_iter().map(|(_, at)| at).collect();
        if takers.len() <= FEW {
            Self::Rendezvous(takers.into())
        } else {
            let seeds: Vec<(u64, u16)> = takers
                .iter()
                .map(|at| &members[*at as usize])
                .map(|member| (member.peer.hash(), member.weight))
                .collect();
            let slots = maglev::fill(&seeds);
            Self::Maglev(slots.iter().map(|slot| takers[*slot as usize]).collect())
        }
    }

    pub(crate) fn pick(
        &self,
        members: &[Member],
        key: u64,
        fit: impl Fn(usize) -> bool,
        warmth: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        // A peer in slow start takes over its keys little by little, each for good.
        let warm = |at: usize| {
            let share = warmth(at);
            share >= 1.0 || unit(mix(key ^ members[at].peer.hash() ^ WARMTH)) < share
        };
        match self {
            Self::Rendezvous(takers) => {
                let order = || takers.iter().map(|at| *at as usize).filter(|at| fit(*at));
                rendezvous(members, key, order().filter(|at| warm(*at)))
                    .or_else(|| rendezvous(members, key, order()))
            }
            Self::Maglev(slots) => {
                let mut hash = mix(key);
                for _ in 0..CHOICES {
                    let at = slots[scale(hash, slots.len())] as usize;
                    if fit(at) && warm(at) {
                        return Some(at);
                    }
                    hash = mix(hash.wrapping_add(WARMTH));
                }
                let (before, from) = members.split_at(scale(hash, members.len()));
                let order = (before.len()..).take(from.len()).chain(0..before.len());
                order.into_iter().find(|at| fit(*at))
            }
        }
    }
}

fn rendezvous(
    members: &[Member],
    key: u64,
    candidates: impl Iterator<Item = usize>,
) -> Option<usize> {
    let cost = |at: usize| {
        let draw = unit(mix(key ^ members[at].peer.hash())).max(f64::MIN_POSITIVE);
        -draw.ln() / f64::from(members[at].weight)
    };
    candidates
        .map(|at| (cost(at), at))
        .min_by(|one, two| one.0.total_cmp(&two.0))
        .map(|(_, at)| at)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the product's upper half is below limit"
)]
fn scale(hash: u64, limit: usize) -> usize {
    ((u128::from(hash) * limit as u128) >> 64) as usize
}
