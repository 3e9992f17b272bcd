//! The collapse guard: which lapsed instances leave, and which are kept.
//!
//! A lapsed lease says that nobody heard from an instance, not that it is gone: a partition between
//! agents and registry looks the same for a whole service at once. So only a share of a service may
//! expire in a minute, the last one stays, and what is kept is marked stale; it leaves when the
//! budget allows it, or when it has been stale for long. Pure: the time is handed in.

use std::collections::{BTreeMap, HashMap, VecDeque};

use cardea_registry_api::{InstanceKey, Name};

use crate::{clock::ms, core::config::GuardConfig};

/// An instance whose lease has lapsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lapsed {
    pub(crate) key: InstanceKey,
    /// When, Unix ms.
    pub(crate) at: i64,
    /// Since when the guard keeps it.
    pub(crate) stale_since: Option<i64>,
}

/// What is to be done about lapsed instances.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// These leave.
    pub(crate) expire: Vec<InstanceKey>,
    /// These are kept, and are to be marked.
    pub(crate) mark: Vec<InstanceKey>,
}

/// Remembers what left lately.
#[derive(Debug)]
pub(crate) struct Guard {
    config: GuardConfig,
    /// Cluster and service → when instances expired, within the window.
    left: HashMap<(Name, Name), VecDeque<i64>>,
}

impl Guard {
    pub(crate) fn new(config: GuardConfig) -> Self {
        Self {
            config,
            left: HashMap::new(),
        }
    }

    /// Decides about everything that has lapsed. `population` says how many instances a service has
    /// in a cluster, lapsed ones included.
    pub(crate) fn decide(
        &mut self,
        now: i64,
        lapsed: Vec<Lapsed>,
        population: impl Fn(&Name, &Name) -> u64,
    ) -> Verdict {
        let horizon = now - ms(self.config.window);
        self.left.retain(|_, times| {
            while times.front().is_some_and(|at| *at <= horizon) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let mut by_service: BTreeMap<(Name, Name), Vec<Lapsed>> = BTreeMap::new();
        for one in lapsed {
            let service = (one.key.cluster.clone(), one.key.service.clone());
            by_service.entry(service).or_default().push(one);
        }
        let mut verdict = Verdict::default();
        for (service, lapsed) in by_service {
            let times = self.left.entry(service.clone()).or_default();
            let there = population(&service.0, &service.1);
            let left = decide_one(
                &self.config,
                now,
                there,
                times.len() as u64,
                lapsed,
                &mut verdict,
            );
            times.extend(std::iter::repeat_n(now, left));
        }
        verdict
    }
}

/// Decides about one service in one cluster; how many leave.
fn decide_one(
    config: &GuardConfig,
    now: i64,
    mut there: u64,
    left_lately: u64,
    mut lapsed: Vec<Lapsed>,
    verdict: &mut Verdict,
) -> usize {
    let share = (there + left_lately) * u64::from(config.percent) / 100;
    let mut budget = share
        .max(config.at_least as u64)
        .saturating_sub(left_lately);
    let before = verdict.expire.len();
    // The longest silent go first.
    lapsed.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
    for one in lapsed {
        let stale_for = one.stale_since.map(|since| now - since);
        let overdue = stale_for.is_some_and(|span| span >= ms(config.stale_ttl));
        let last = config.keep_last && there <= 1;
        if overdue || (budget > 0 && !last) {
            verdict.expire.push(one.key);
            budget = budget.saturating_sub(1);
            there = there.saturating_sub(1);
        } else if one.stale_since.is_none() {
            verdict.mark.push(one.key);
        }
    }
    verdict.expire.len() - before
}

#[cfg(test)]
mod tests;
