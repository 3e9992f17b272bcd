//! Picking where requests may leave the cluster: first a cluster, then a peer of it.
//!
//! A peer that is down is never asked while one of any cluster that may be asked is not. Peers of a cluster
//! that has lost its share are still tried one at a time, as any peer that was marked is: else nobody would
//! notice that they are back.

use std::{sync::Arc, time::Instant};

use cardea_registry_api::Name;

use super::{Balancers, PickInput};
use crate::{
    clock,
    peer::{PeerNumber, Picked},
    traffic::{
        Way, Ways,
        flow::Decided,
        shares::Shares,
        split::MOST,
        turns::{self, Turns},
    },
    upstream::Upstream,
};

/// How far a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// To every cluster.
    #[default]
    Anywhere,
    /// To instances of every cluster, but through no cluster's routers: it may have come through some.
    Instances,
    /// It came from another cluster's router: to instances of this one.
    Home,
}

/// Turns of one worker among an upstream's clusters.
#[derive(Debug)]
pub(super) struct LocalWays {
    turns: Turns,
    /// What requests to the own cluster owe its own zone.
    near: f64,
    decided: Decided,
    of: (u64, u64),
}

impl Balancers {
    /// Picks a peer of one of the clusters. `leave`: rather of another one than this, which has failed.
    pub(crate) fn pick_way(
        &mut self,
        front: &Arc<Upstream>,
        ways: &Ways,
        input: &PickInput,
        (tried, leave): (&[PeerNumber], Option<&Name>),
        now: Instant,
    ) -> Option<Picked> {
        if input.reach == Reach::Home {
            return self.pick_part(&ways.home().all, input, tried, now, true);
        }
        let (decided, first) = self.turn(front, ways, input, leave, now);
        let may = |way: &Way| input.reach == Reach::Anywhere || !way.gateway;
        if decided.short != 0 {
            let short = ways.each.iter().enumerate().filter(|(at, way)| {
                decided.short & (1 << at) != 0 && ways.split.allows(*at) && may(way)
            });
            for (_, way) in short {
                let probe = self.probe(&way.all, input, tried, now);
                if probe.is_some() {
                    return probe;
                }
            }
        }
        let order = order(ways, &decided.shares, first, leave);
        let order = || {
            order
                .iter()
                .copied()
                .flatten()
                .filter(|at| may(&ways.each[*at]))
        };
        for at in order() {
            let way = &ways.each[at];
            if let Some(near) = self.near(front, way, &decided, at) {
                let picked = self.pick_part(near, input, tried, now, false);
                if picked.is_some() {
                    return picked;
                }
            }
            let picked = self.pick_part(&way.all, input, tried, now, false);
            if picked.is_some() {
                return picked;
            }
        }
        // Everybody who is left is down: any of them is better than none.
        order().find_map(|at| self.pick_part(&ways.each[at].all, input, tried, now, true))
    }

    /// What holds now, and whose turn it is.
    fn turn(
        &mut self,
        front: &Arc<Upstream>,
        ways: &Ways,
        input: &PickInput,
        leave: Option<&Name>,
        now: Instant,
    ) -> (Decided, Option<usize>) {
        let at = front.index() as usize;
        if self.ways.len() <= at {
            self.ways.resize_with(at + 1, || None);
        }
        let now = clock::millis(now);
        let of = (ways.generation(), front.version());
        let local = match &mut self.ways[at] {
            Some(local) => {
                if local.of != of || now >= local.decided.until {
                    local.decided = ways.flow.decide(ways, front.version(), now);
                    local.of = of;
                }
                local
            }
            empty => {
                let decided = ways.flow.decide(ways, front.version(), now);
                empty.insert(Box::new(LocalWays {
                    turns: Turns::new(&decided.shares, self.random.unit()),
                    near: self.random.unit(),
                    decided,
                    of,
                }))
            }
        };
        let shares = without_gateways(ways, &local.decided.shares, input.reach);
        let first = match input.cluster_key {
            _ if leave.is_some() => None,
            Some(key) => turns::of_key(key, &ways.seeds, &shares),
            None => local.turns.next(&shares),
        };
        (local.decided, first)
    }

    /// The peers in the own zone, where it is their turn.
    fn near<'w>(
        &mut self,
        front: &Upstream,
        way: &'w Way,
        decided: &Decided,
        at: usize,
    ) -> Option<&'w Arc<Upstream>> {
        let near = way.near.as_ref().filter(|_| at == 0)?;
        let local = self.ways[front.index() as usize].as_mut()?;
        local.near += decided.near;
        if local.near < 1.0 {
            return None;
        }
        local.near -= 1.0;
        Some(near)
    }
}

/// What can be reached by instances alone.
fn without_gateways(ways: &Ways, shares: &Shares, reach: Reach) -> Shares {
    let mut shares = *shares;
    if reach == Reach::Instances {
        for (share, way) in shares.iter_mut().zip(&ways.each) {
            if way.gateway {
                *share = 0.0;
            }
        }
    }
    shares
}

/// Whom to ask one after the other: whose turn it is, then by their shares, then those that may be asked,
/// then those that are named; `leave` last of its kind.
fn order(
    ways: &Ways,
    shares: &Shares,
    first: Option<usize>,
    leave: Option<&Name>,
) -> [Option<usize>; MOST] {
    let mut order = [None; MOST];
    let n = ways.each.len();
    let rank = |at: usize| {
        let left = leave.is_some_and(|leave| ways.each[at].cluster == *leave);
        let kind = match (Some(at) == first, ways.split.allows(at)) {
            (true, _) => 3.0,
            (false, true) => 1.0 + shares[at],
            (false, false) => 0.0,
        };
        // Whoever may be asked comes before whoever may not, also where somebody is to be left.
        if left { kind.min(0.5) } else { kind }
    };
    for (at, place) in order[..n].iter_mut().enumerate() {
        *place = Some(at);
    }
    order[..n].sort_unstable_by(|one, two| {
        let of = |at: &Option<usize>| at.map_or(-1.0, rank);
        of(two).total_cmp(&of(one))
    });
    order
}
