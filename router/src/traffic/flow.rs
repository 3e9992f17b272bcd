//! What is remembered between decisions: one for an upstream, shared by all workers, so that they and
//! whoever explains agree. It is looked at again when a peer's standing changes, and every moment while a
//! cluster is on its way back; in between, a worker uses what it has copied.

use std::sync::{Mutex, PoisonError};

use cardea_registry_api::{Name, figures::Bears};

use crate::upstream::Upstream;

use super::{
    Way, Ways, counted,
    load::{Counted, LONGEST, Load, WINDOW},
    shares::{Keeping, Shares, Standing, shares},
    split::MOST,
    standing,
};

/// How soon it is looked at again while something moves by itself, in milliseconds.
pub(crate) const SOON: u64 = 50;
/// And while nothing does: peers may have been marked without a word, as when a table is swapped.
pub(crate) const SELDOM: u64 = 500;

/// How long it holds what the registry said, in milliseconds: it says it anew each 5 s.
const TOLD: u64 = 20_000;

/// What is remembered of an upstream's clusters.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By cluster, which other versions of the object may have in another order.
    keeping: Vec<(Name, Keeping)>,
    /// Of the peers in the own zone.
    near: Keeping,
    /// What is learnt of each cluster, and of the peers in the own zone.
    gauges: Vec<(Name, Gauge)>,
    near_gauge: Gauge,
    /// What the registry last said of clusters whose instances cannot serve all that is meant for them, and
    /// until when it holds.
    told: Vec<(Name, f64)>,
    told_until: u64,
    decided: Option<Decided>,
    /// For which peers: the ways' generation, and their upstreams' version.
    of: (u64, u64),
}

/// Looks at what a part's peers serve, window by window.
#[derive(Debug, Clone, Copy, Default)]
struct Gauge {
    load: Load,
    /// Where the window began: when, for which version of the upstream, and what had been counted.
    begun: Option<(u64, u64, Counted)>,
}

impl Gauge {
    /// Looks; how much the part bears.
    fn step(&mut self, part: &Upstream, standing: Standing, now: u64) -> f64 {
        let healthy = standing.healthy * part.takers() as f64;
        match self.begun {
            // Others are in it now: what they had served before is not of this window.
            Some((at, version, before))
                if version == part.version() && now.saturating_sub(at) <= LONGEST =>
            {
                let lasted = now.saturating_sub(at);
                if lasted >= WINDOW {
                    let sum = counted(part);
                    if healthy > 0.0 {
                        let window = sum.since(&before, lasted, healthy);
                        self.learn(part, self.load.step(window, now));
                    }
                    self.begun = Some((now, version, sum));
                }
            }
            _ => self.begun = Some((now, part.version(), counted(part))),
        }
        self.load.kept
    }

    fn learn(&mut self, part: &Upstream, load: Load) {
        let before = std::mem::replace(&mut self.load, load);
        if before.kept >= 1.0 && load.kept < 1.0 {
            let kept = (load.kept * 100.0).round();
            tracing::warn!(service = %part.service(), kept, peak = load.peak().round(),
                "more than instances bear: requests leave for others");
        } else if before.kept < 1.0 && load.kept >= 1.0 {
            tracing::info!(service = %part.service(), "instances bear all of their requests again");
        }
    }
}

/// What holds until it is looked at again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Decided {
    pub(crate) shares: Shares,
    /// How many of the own cluster's requests stay in the own zone, 0 to 1.
    pub(crate) near: f64,
    /// Clusters that do not keep all that they are wanted to get, a bit for each: they may have peers
    /// that only wait to be tried.
    pub(crate) short: u64,
    /// When it is to be looked at again, in the clock's milliseconds.
    pub(crate) until: u64,
}

impl Flow {
    /// The shares now.
    pub(crate) fn decide(&self, ways: &Ways, version: u64, now: u64) -> Decided {
        let generation = ways.generation();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decided) = memory.decided
            && memory.of == (generation, version)
            && now < decided.until
        {
            return decided;
        }
        let decided = memory.step(ways, now);
        memory.decided = Some(decided);
        memory.of = (generation, version);
        decided
    }

    /// The registry says of which clusters the instances cannot serve all that is meant for them.
    pub(crate) fn told<'a>(&self, bears: impl Iterator<Item = &'a Bears>, now: u64) {
        let part = |one: &Bears| (one.cluster.clone(), f64::from(one.part) / 1000.0);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.told.clear();
        memory.told.extend(bears.map(part));
        memory.told_until = now + TOLD;
    }

    /// How each cluster stands, with what was last learnt and told of it.
    pub(crate) fn standings(&self, ways: &Ways, now: u64) -> Vec<Standing> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |way: &Way| {
            let mut known = memory.gauges.iter();
            let found = known.find(|(name, _)| *name == way.cluster);
            Standing {
                bears: found.map_or(1.0, |(_, gauge)| gauge.load.kept),
                serves: memory.told(&way.cluster, now),
                ..standing(&way.all)
            }
        };
        ways.each.iter().map(of).collect()
    }

    /// What is kept of each cluster's part, as it was last decided.
    pub(crate) fn keeping(&self, ways: &Ways) -> Vec<Keeping> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let clusters = ways.split.clusters.iter();
        clusters.map(|name| memory.kept_by(name)).collect()
    }
}

impl Memory {
    fn kept_by(&self, cluster: &Name) -> Keeping {
        let mut known = self.keeping.iter();
        let found = known.find(|(name, _)| name == cluster);
        found.map_or_else(Keeping::default, |(_, keeping)| *keeping)
    }

    fn told(&self, cluster: &Name, now: u64) -> f64 {
        let mut told = self.told.iter();
        match told.find(|(name, _)| name == cluster) {
            Some((_, part)) if now < self.told_until => *part,
            _ => 1.0,
        }
    }

    fn bears(&mut self, cluster: &Name, part: &Upstream, standing: Standing, now: u64) -> f64 {
        let known = self.gauges.iter_mut().find(|(name, _)| name == cluster);
        if let Some((_, gauge)) = known {
            return gauge.step(part, standing, now);
        }
        let mut gauge = Gauge::default();
        let bears = gauge.step(part, standing, now);
        self.gauges.push((cluster.clone(), gauge));
        bears
    }

    fn step(&mut self, ways: &Ways, now: u64) -> Decided {
        let split = &*ways.split;
        let n = split.clusters.len();
        let mut standings = [Standing {
            populated: false,
            healthy: 0.0,
            bears: 1.0,
            serves: 1.0,
        }; MOST];
        let mut keeping = [Keeping::default(); MOST];
        let mut short = 0;
        for (at, way) in ways.each.iter().enumerate() {
            standings[at] = standing(&way.all);
            keeping[at] = self
                .kept_by(&way.cluster)
                .step(split.rules, standings[at], now);
            if keeping[at].moves() {
                short |= 1 << at;
            }
            if split.spills() {
                standings[at].bears = self.bears(&way.cluster, &way.all, standings[at], now);
                standings[at].serves = self.told(&way.cluster, now);
            }
        }
        self.gauges
            .retain(|(name, _)| split.spills() && split.clusters.contains(name));
        let known = split.clusters.iter().zip(keeping);
        self.keeping.clear();
        self.keeping
            .extend(known.map(|(name, keeping)| (name.clone(), keeping)));
        let near = match &ways.home().near {
            None => 0.0,
            Some(near) => {
                let standing = standing(near);
                self.near = self.near.step(split.rules, standing, now);
                let bears = self.near_gauge.step(near, standing, now);
                if near.has_usable() {
                    self.near.kept * bears
                } else {
                    0.0
                }
            }
        };
        let moves = short != 0 || (ways.home().near.is_some() && self.near.moves());
        Decided {
            shares: shares(split, &standings[..n], &keeping[..n]),
            near,
            short,
            until: now + if moves { SOON } else { SELDOM },
        }
    }
}
