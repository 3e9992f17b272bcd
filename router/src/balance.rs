//! Balancing: which peer gets a request.
//!
//! Each worker has its own [`Balancers`], so a pick locks nothing. State is kept by peer, so a new
//! table neither resets the order nor makes the workers march in step.

use std::{sync::Arc, time::Instant};

use cardea_registry_api::policy::Balance;

use crate::{
    ahead, clock,
    health::{Trial, probe_due},
    peer::{Peer, PeerNumber, Picked},
    upstream::{Member, Upstream},
};

pub(crate) mod hash;
pub mod key;
pub(crate) mod least;
pub(crate) mod random;
pub(crate) mod robin;
#[cfg(test)]
mod tests;
mod ways;

use random::Random;
use robin::{Fitness, Robin};
use ways::LocalWays;
pub use ways::Reach;

/// What a pick depends on besides the upstream.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickInput {
    /// The hash of the request's key ([`key::hash`]), for upstreams that balance by hash; none when
    /// the request lacks the key: then it is balanced round robin.
    pub key: Option<u64>,
    /// The request can be sent again to another peer if this one fails. Only then may it probe a
    /// peer that was down (others probe when no such request has come for a while).
    pub replayable: bool,
    /// The hash of what keeps a caller in one cluster, for upstreams whose requests may leave it.
    pub cluster_key: Option<u64>,
    /// How far it may go.
    pub reach: Reach,
}

/// Whom the next picks will give, as far as one can tell.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Upcoming {
    pub(crate) next: Option<PeerNumber>,
    pub(crate) after: Option<PeerNumber>,
}

/// The balancing state of one worker.
#[derive(Debug)]
pub struct Balancers {
    random: Random,
    /// By the upstreams' indexes.
    states: Vec<Option<Local>>,
    /// Turns among clusters, by the upstreams' indexes, where there are any.
    ways: Vec<Option<Box<LocalWays>>>,
}

/// One upstream as this worker last saw it.
#[derive(Debug)]
struct Local {
    upstream: Arc<Upstream>,
    robin: Robin,
    watch: Watch,
}

/// Knows when to look for peers that may be probed, without looking at all of them each time.
#[derive(Debug, Default)]
struct Watch {
    generation: Option<u64>,
    /// Members that are marked down, by position.
    marked: Vec<usize>,
    /// When the first of them may be probed.
    next_due: u64,
}

impl Balancers {
    /// Fresh state; another `seed` for each worker and process makes them start at other peers.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            states: Vec::new(),
            ways: Vec::new(),
        }
    }

    /// Picks a peer of `upstream` that is not among `tried`. When every peer is down, all are tried.
    /// None: there is no peer left to try.
    ///
    /// Should this worker have seen a newer version of the upstream than the request's table has,
    /// the newer one is used: it knows better who is gone.
    pub fn pick(
        &mut self,
        upstream: &Arc<Upstream>,
        input: &PickInput,
        tried: &[PeerNumber],
        now: Instant,
    ) -> Option<Picked> {
        match upstream.ways() {
            None => self.pick_part(upstream, input, tried, now, true),
            Some(ways) => self.pick_way(upstream, ways, input, (tried, None), now),
        }
    }

    /// Picks a peer among the upstream's own; `last`: one that is down if there is no other.
    fn pick_part(
        &mut self,
        upstream: &Arc<Upstream>,
        input: &PickInput,
        tried: &[PeerNumber],
        now: Instant,
        last: bool,
    ) -> Option<Picked> {
        let (local, random) = self.local(upstream);
        local.pick(random, input, (tried, last), clock::millis(now))
    }

    /// A peer that was down and may be tried again by this request.
    fn probe(
        &mut self,
        upstream: &Arc<Upstream>,
        input: &PickInput,
        tried: &[PeerNumber],
        now: Instant,
    ) -> Option<Picked> {
        let (local, _) = self.local(upstream);
        local.probe(input, tried, clock::millis(now))
    }

    /// This worker's state of an upstream, of the newest version that it has seen.
    fn local(&mut self, upstream: &Arc<Upstream>) -> (&mut Local, &mut Random) {
        let at = upstream.index() as usize;
        if self.states.len() <= at {
            self.states.resize_with(at + 1, || None);
        }
        let random = &mut self.random;
        let local = match &mut self.states[at] {
            Some(local) => {
                if upstream.version() > local.upstream.version() {
                    local.follow(upstream, random);
                }
                local
            }
            empty => empty.insert(Local::new(upstream, random)),
        };
        (local, random)
    }

    /// The peer that [`Balancers::pick`] would give, without giving it: no probe is begun and nothing
    /// is counted.
    pub(crate) fn preview(
        &mut self,
        upstream: &Arc<Upstream>,
        input: &PickInput,
        now: Instant,
    ) -> Option<Arc<Peer>> {
        let mut local = Local::new(upstream, &mut self.random);
        let none = (&[][..], true);
        let (member, _) = local.choose(&mut self.random, input, none, clock::millis(now))?;
        Some(Arc::clone(&upstream.members()[member].peer))
    }

    /// Who comes next in an upstream that was just picked from.
    pub(crate) fn upcoming(&self, upstream: &Upstream) -> Upcoming {
        let local = self.states.get(upstream.index() as usize);
        let Some(Some(local)) = local else {
            return Upcoming::default();
        };
        let number = |after| {
            let at = local.robin.upcoming(after)?;
            Some(local.upstream.members().get(at)?.number())
        };
        Upcoming {
            next: number(0),
            after: number(1),
        }
    }

    /// Forgets upstreams that a table no longer has. Cheap; for the worker's housekeeping.
    pub fn forget(&mut self, table: &crate::table::Table) {
        for (at, state) in self.states.iter_mut().enumerate() {
            if table.slots.get(at).is_none_or(Option::is_none) {
                *state = None;
                if let Some(ways) = self.ways.get_mut(at) {
                    *ways = None;
                }
            }
        }
    }
}

impl Local {
    fn new(upstream: &Arc<Upstream>, random: &mut Random) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            robin: Robin::new(upstream.members(), random),
            watch: Watch::default(),
        }
    }

    fn follow(&mut self, upstream: &Arc<Upstream>, random: &mut Random) {
        self.robin
            .follow(self.upstream.members(), upstream.members(), random);
        self.upstream = Arc::clone(upstream);
        self.watch = Watch::default();
    }

    fn pick(
        &mut self,
        random: &mut Random,
        input: &PickInput,
        (tried, last): (&[PeerNumber], bool),
        now: u64,
    ) -> Option<Picked> {
        if let Some(picked) = self.probe(input, tried, now) {
            return Some(picked);
        }
        let (member, trial) = self.choose(random, input, (tried, last), now)?;
        Some(self.picked(member, trial))
    }

    fn probe(&mut self, input: &PickInput, tried: &[PeerNumber], now: u64) -> Option<Picked> {
        let member = self.watch.due(&self.upstream, input, tried, now)?;
        Some(self.picked(member, Trial::Probe))
    }

    fn choose(
        &mut self,
        random: &mut Random,
        input: &PickInput,
        (tried, last): (&[PeerNumber], bool),
        now: u64,
    ) -> Option<(usize, Trial)> {
        let upstream = &*self.upstream;
        let members = upstream.members();
        let over = upstream.policy().health.slow_start.as_millis();
        let warmth = |at: usize| {
            if over == 0 {
                1.0
            } else {
                f64::from(members[at].peer.warmth(over, now))
            }
        };
        let fit = |at: usize| fitness(&members[at], tried) == Fitness::Fit;
        let choice = match (&upstream.policy().balance, input.key) {
            (Balance::LeastLoaded, _) => upstream.lots().pick(members, random, fit, warmth, now),
            (Balance::Hash(_), Some(key)) => upstream.chooser().pick(members, key, fit, warmth),
            (Balance::RoundRobin | Balance::Hash(_), _) => {
                let generation = upstream.guard().generation();
                let fit = |at: usize| fitness(&members[at], tried);
                let choice = self.robin.pick(members, random, generation, fit, warmth);
                self.fetch_ahead(members);
                choice
            }
        };
        if let Some(member) = choice {
            return Some((member, Trial::Normal));
        }
        if !last {
            return None;
        }
        // Every peer that is left is down: any of them is better than none.
        let start = random.below(members.len().max(1));
        let mut order = (start..members.len()).chain(0..start);
        let any = order.find(|at| {
            let member = &members[*at];
            member.takes_requests()
                && member.peer.takes_requests()
                && !tried.contains(&member.number())
        })?;
        Some((any, Trial::LastResort))
    }

    /// Has what the next picks will look at fetched: of hundreds of peers, hardly one is in a cache.
    fn fetch_ahead(&self, members: &[Member]) {
        if let Some(next) = self.robin.upcoming(0) {
            members[next].peer.fetch_ahead();
        }
        // The one after next is asked for its number; see [`Balancers::upcoming`].
        if let Some(later) = self.robin.upcoming(2) {
            ahead::fetch_ends(&members[later]);
        }
    }

    fn picked(&self, member: usize, trial: Trial) -> Picked {
        Picked::new(Arc::clone(&self.upstream), member, trial)
    }
}

fn fitness(member: &Member, tried: &[PeerNumber]) -> Fitness {
    if !member.takes_requests() || !member.peer.word().usable() {
        Fitness::Down
    } else if !tried.is_empty() && tried.contains(&member.number()) {
        Fitness::Tried
    } else {
        Fitness::Fit
    }
}

impl Watch {
    /// A peer whose time is over and whose one probe this request has won.
    fn due(
        &mut self,
        upstream: &Upstream,
        input: &PickInput,
        tried: &[PeerNumber],
        now: u64,
    ) -> Option<usize> {
        let generation = upstream.guard().generation();
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            self.look(upstream);
        }
        if self.marked.is_empty() || now < self.next_due {
            return None;
        }
        let rules = upstream.policy().rules;
        let members = upstream.members();
        self.marked.iter().copied().find(|at| {
            let peer = &members[*at].peer;
            let due = probe_due(peer.word().state(), rules, input.replayable);
            due.is_some_and(|due| now >= due)
                && !tried.contains(&members[*at].number())
                && peer.try_probe(rules, upstream.probe_lease(), input.replayable, now)
        })
    }

    fn look(&mut self, upstream: &Upstream) {
        let rules = upstream.policy().rules;
        self.marked.clear();
        self.next_due = u64::MAX;
        for (at, member) in upstream.members().iter().enumerate() {
            let word = member.peer.word();
            if !member.takes_requests() || word.checks_down() {
                continue;
            }
            if let Some(due) = probe_due(word.state(), rules, true) {
                self.marked.push(at);
                self.next_due = self.next_due.min(due);
            }
        }
    }
}
