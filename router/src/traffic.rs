//! Traffic over clusters: which cluster a request goes to, before a peer is picked there.
//!
//! An upstream whose requests may leave the cluster has [`Ways`]: for each cluster an upstream of its
//! own, with what is wanted of it. Everything that is decided is decided by pure functions over values:
//!
//! ```text
//!   split.rs    a traffic object: wanted shares, failover order, rules
//!   shares.rs   shares now = wanted × what each cluster keeps + what others spill
//!   turns.rs    the cluster of one request: in turns, or by its key
//!   load.rs     what a part's instances bear, as was learnt
//!   flow.rs     what is remembered in between, for all workers; when it is looked at again
//! ```
//!
//! An upstream without ways pays nothing for all this.

use std::sync::Arc;

use cardea_registry_api::Name;

use crate::upstream::Upstream;

pub(crate) mod flow;
pub(crate) mod load;
pub(crate) mod shares;
pub(crate) mod split;
#[cfg(test)]
mod tests;
pub(crate) mod turns;

use flow::Flow;
use load::Counted;
use shares::Standing;
use split::Split;

/// Where an upstream's requests can go.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) split: Arc<Split>,
    /// One for each of the split's clusters, in that order.
    pub(crate) each: Box<[Way]>,
    /// What outlives versions of the upstream.
    pub(crate) flow: Arc<Flow>,
    /// Tell the clusters apart where a key chooses among them.
    pub(crate) seeds: Box<[u64]>,
}

/// The way to a cluster.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) cluster: Name,
    /// Its peers.
    pub(crate) all: Arc<Upstream>,
    /// Those in the router's own zone, where they come first.
    pub(crate) near: Option<Arc<Upstream>>,
    /// The peers are its routers.
    pub(crate) gateway: bool,
}

impl Ways {
    /// The same seeds in all routers: a key goes the same way everywhere.
    pub(crate) fn new(split: Arc<Split>, ways: Vec<Way>, flow: Arc<Flow>) -> Self {
        let seed = |way: &Way| xxhash_rust::xxh3::xxh3_64(way.cluster.as_str().as_bytes());
        Self {
            split,
            seeds: ways.iter().map(seed).collect(),
            each: ways.into(),
            flow,
        }
    }

    /// Whether a cluster is meant to get requests, or gets them now because others cannot.
    pub(crate) fn uses(&self, cluster: &Name, version: u64, now: u64) -> bool {
        let Some(at) = self.each.iter().position(|way| way.cluster == *cluster) else {
            return false;
        };
        self.split.wanted[at] > 0.0 || self.flow.decide(self, version, now).shares[at] > 0.0
    }

    /// The way to the router's own cluster.
    pub(crate) fn home(&self) -> &Way {
        &self.each[0]
    }

    /// Moves whenever a peer of any cluster goes out, comes back, joins or leaves.
    pub(crate) fn generation(&self) -> u64 {
        let all = self.each.iter().map(|way| way.all.guard().generation());
        all.fold(0, u64::wrapping_add)
    }

    /// Whether somebody can answer, of any cluster that may be asked.
    pub(crate) fn is_usable(&self) -> bool {
        let mut ways = self.each.iter().enumerate();
        ways.any(|(at, way)| self.split.allows(at) && way.all.has_usable())
    }
}

/// How much of an upstream's capacity is healthy.
pub(crate) fn standing(upstream: &Upstream) -> Standing {
    // What is declared, and the weights of those who declare nothing; all of it, and what is healthy.
    let (mut declared, mut weights) = ([0.0; 2], [0.0; 2]);
    let mut weight_of_declared = 0.0;
    for member in upstream.members().iter().filter(|m| m.takes_requests()) {
        let weight = f64::from(member.weight);
        let (sum, size) = match member.capacity {
            Some(capacity) => {
                weight_of_declared += weight;
                (&mut declared, f64::from(capacity))
            }
            None => (&mut weights, weight),
        };
        sum[0] += size;
        if member.is_usable() {
            sum[1] += size;
        }
    }
    // Who declares nothing is taken for as able, by weight, as those who do.
    let able = if weight_of_declared > 0.0 {
        declared[0] / weight_of_declared
    } else {
        1.0
    };
    let [all, healthy] = [0, 1].map(|at| declared[at] + weights[at] * able);
    Standing {
        populated: all > 0.0,
        healthy: if all > 0.0 { healthy / all } else { 0.0 },
        bears: 1.0,
        serves: 1.0,
    }
}

/// What was counted of an upstream's peers, also of those that take no new requests any more.
pub(crate) fn counted(upstream: &Upstream) -> Counted {
    let mut sum = Counted::default();
    for member in upstream.members() {
        sum.add(member.peer.counted());
    }
    sum
}
