//! Leases and the collapse guard: when an instance that is silent leaves.
//!
//! Both are plain values: no clock, no I/O. Times are milliseconds of a monotonic clock that the
//! caller hands in, so that a step of the wall clock expires nothing. Leases are known to every
//! replica from its own renewals and from what the others flushed; only the holder of the expiry job
//! acts on them.

use std::collections::{HashMap, VecDeque};

use cardea_registry_api::{InstanceKey, Name, Span};

use crate::core::config::GuardConfig;

/// The leases of all instances that have one.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: HashMap<InstanceKey, Lease>,
    /// Nothing lapses before this.
    grace: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    span: u64,
    heard: u64,
    stale: bool,
    /// Renewed here since [`Leases::untold`] was last asked.
    untold: bool,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The lease goes on.
    Renewed,
    /// The lease goes on, and the instance, which was kept as stale, is to be marked fresh.
    WasStale,
    /// There is no such lease.
    Unknown,
}

impl Leases {
    /// An instance was registered or changed: its lease starts anew. `None`: it needs no renewals.
    pub(crate) fn put(&mut self, key: InstanceKey, span: Option<Span>, stale: bool, now: u64) {
        match span {
            Some(span) => {
                let lease = Lease {
                    span: span.as_millis(),
                    heard: now,
                    stale,
                    untold: true,
                };
                self.leases.insert(key, lease);
            }
            None => {
                self.leases.remove(&key);
            }
        }
    }

    /// An instance was changed by somebody else than its source: the lease's length and mark are
    /// brought up to date, and it is not renewed.
    pub(crate) fn adjust(&mut self, key: &InstanceKey, span: Option<Span>, stale: bool, now: u64) {
        match (self.leases.get_mut(key), span) {
            (Some(lease), Some(span)) => {
                lease.span = span.as_millis();
                lease.stale = stale;
            }
            (None, Some(_)) => self.put(key.clone(), span, stale, now),
            (_, None) => {
                self.leases.remove(key);
            }
        }
    }

    /// An instance has left.
    pub(crate) fn remove(&mut self, key: &InstanceKey) {
        self.leases.remove(key);
    }

    /// An instance is alive: it told this replica.
    pub(crate) fn renew(&mut self, key: &InstanceKey, now: u64) -> Renewal {
        match self.leases.get_mut(key) {
            None => Renewal::Unknown,
            Some(lease) => {
                lease.heard = lease.heard.max(now);
                lease.untold = true;
                if lease.stale {
                    Renewal::WasStale
                } else {
                    Renewal::Renewed
                }
            }
        }
    }

    /// An instance was alive at `at`: it told another replica.
    pub(crate) fn heard(&mut self, key: &InstanceKey, at: u64) {
        if let Some(lease) = self.leases.get_mut(key) {
            lease.heard = lease.heard.max(at);
        }
    }

    /// Nothing lapses before `until`: after a start, an outage or a change of the job's holder,
    /// agents must first be able to reach a registry again.
    pub(crate) fn grace(&mut self, until: u64) {
        self.grace = self.grace.max(until);
    }

    /// Renewals that came in here since the last call, with when: what is flushed for the others.
    pub(crate) fn untold(&mut self) -> Vec<(InstanceKey, u64)> {
        let untold = self.leases.iter_mut().filter(|(_, lease)| lease.untold);
        untold
            .map(|(key, lease)| {
                lease.untold = false;
                (key.clone(), lease.heard)
            })
            .collect()
    }

    /// Instances whose lease has lapsed, the longest silent first.
    pub(crate) fn lapsed(&self, now: u64) -> Vec<InstanceKey> {
        if now < self.grace {
            return Vec::new();
        }
        let lapsed = |lease: &Lease| now.saturating_sub(lease.heard) > lease.span;
        let mut found: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, lease)| lapsed(lease))
            .collect();
        found.sort_by(|a, b| a.1.heard.cmp(&b.1.heard).then_with(|| a.0.cmp(b.0)));
        found.into_iter().map(|(key, _)| key.clone()).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}

/// The collapse guard: leases that lapse together are usually the network's fault, so expiry may
/// empty a service only slowly, and never wholly. An explicit deregistration never comes here.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// When instances of a cluster's service expired, within the window.
    spent: HashMap<(Name, Name), VecDeque<u64>>,
}

/// An instance whose lease has lapsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lapsed {
    pub(crate) key: InstanceKey,
    /// How long it has been marked stale, in ms; none: it is not.
    pub(crate) stale_for: Option<u64>,
}

/// What happens to lapsed instances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decision {
    /// They leave now.
    pub(crate) expire: Vec<InstanceKey>,
    /// They are kept for now, and to be marked stale (those that are not yet).
    pub(crate) mark_stale: Vec<InstanceKey>,
    /// How many are kept by the guard, marked before or now.
    pub(crate) kept: usize,
}

impl Guard {
    /// Decides about lapsed instances (the longest silent first). `population` says how many
    /// instances a cluster's service has, lapsed ones included.
    pub(crate) fn decide(
        &mut self,
        config: &GuardConfig,
        lapsed: Vec<Lapsed>,
        population: impl Fn(&Name, &Name) -> u64,
        now: u64,
    ) -> Decision {
        let window = millis(config.window);
        self.spent.retain(|_, times| {
            while times
                .front()
                .is_some_and(|at| now.saturating_sub(*at) >= window)
            {
                times.pop_front();
            }
            !times.is_empty()
        });
        let mut decision = Decision::default();
        let mut left: HashMap<(Name, Name), u64> = HashMap::new();
        for Lapsed { key, stale_for } in lapsed {
            let place = (key.cluster.clone(), key.service.clone());
            let left = left
                .entry(place.clone())
                .or_insert_with(|| population(&key.cluster, &key.service));
            let spent = self.spent.get(&place).map_or(0, VecDeque::len);
            let outlived = stale_for.is_some_and(|age| age >= millis(config.stale_ttl));
            let last = config.keep_last && *left <= 1;
            let room = spent < allowance(config, *left, spent);
            if outlived || (room && !last) {
                self.spent.entry(place).or_default().push_back(now);
                *left = left.saturating_sub(1);
                decision.expire.push(key);
            } else {
                decision.kept += 1;
                if stale_for.is_none() {
                    decision.mark_stale.push(key);
                }
            }
        }
        decision
    }
}

/// How many may expire within the window: a share of what there was at its start, or a few.
fn allowance(config: &GuardConfig, left: u64, spent: usize) -> usize {
    let before = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .saturating_add(spent);
    let share = before.saturating_mul(config.percent as usize) / 100;
    share.max(config.at_least)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
