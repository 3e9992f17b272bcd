//! Leases: who was heard of, in memory.
//!
//! A renewal touches one entry of a map and nothing else: no log, no database. Where several
//! replicas share a database, one of them looks for lapsed leases; the others leave it what they
//! heard, in batches (`report` and `take_report`). Pure but for the lock: the time is handed in.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cardea_registry_api::{Instance, InstanceKey};

use crate::{guard::Lapsed, state::State};

#[derive(Debug)]
pub(crate) struct Leases(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    leases: HashMap<InstanceKey, Lease>,
    /// Stale ones that were renewed after all: to be unmarked.
    revived: Vec<InstanceKey>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    /// None: for ever.
    length: Option<i64>,
    renewed: i64,
    deadline: i64,
    stale_since: Option<i64>,
}

impl Leases {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner::default()))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance was set (or removed). Only its source's registration counts as a renewal.
    pub(crate) fn observe(
        &self,
        key: &InstanceKey,
        instance: Option<&Instance>,
        renews: bool,
        now: i64,
    ) {
        let mut inner = self.inner();
        let Some(instance) = instance else {
            inner.leases.remove(key);
            return;
        };
        let length = length(instance);
        let deadline = deadline(length, now);
        let lease = inner.leases.entry(key.clone()).or_insert(Lease {
            length,
            renewed: now,
            deadline,
            stale_since: None,
        });
        lease.length = length;
        lease.stale_since = instance.stale_since;
        if renews {
            lease.renewed = now;
            lease.deadline = lease.deadline.max(deadline);
        }
        if length.is_none() {
            lease.deadline = i64::MAX;
        } else if lease.deadline == i64::MAX {
            lease.deadline = deadline;
        }
    }

    /// Renews; `false`: not known.
    pub(crate) fn renew(&self, keys: &[InstanceKey], now: i64) -> Vec<bool> {
        let mut inner = self.inner();
        let Inner { leases, revived } = &mut *inner;
        keys.iter()
            .map(|key| match leases.get_mut(key) {
                Some(lease) => {
                    lease.renewed = now;
                    lease.deadline = lease.deadline.max(deadline(lease.length, now));
                    if lease.stale_since.take().is_some() {
                        revived.push(key.clone());
                    }
                    true
                }
                None => false,
            })
            .collect()
    }

    /// Gives every lease a full length from now, and `grace` on top.
    pub(crate) fn grace(&self, now: i64, grace: i64) {
        for lease in self.inner().leases.values_mut() {
            if lease.length.is_some() {
                lease.deadline = lease.deadline.max(deadline(lease.length, now + grace));
            }
        }
    }

    /// Follows another state as a whole: what is not in it is forgotten, all else gets grace.
    pub(crate) fn follow(&self, state: &State, now: i64, grace: i64) {
        let mut inner = self.inner();
        let mut old = std::mem::take(&mut inner.leases);
        for stored in state.instances(None) {
            let key = stored.object.key();
            let length = length(&stored.object);
            let renewed = old.remove(&key).map_or(now, |lease| lease.renewed);
            let lease = Lease {
                length,
                renewed,
                deadline: deadline(length, now + grace),
                stale_since: stored.object.stale_since,
            };
            inner.leases.insert(key, lease);
        }
    }

    /// Which leases have lapsed.
    pub(crate) fn lapsed(&self, now: i64) -> Vec<Lapsed> {
        self.inner()
            .leases
            .iter()
            .filter(|(_, lease)| lease.deadline < now)
            .map(|(key, lease)| Lapsed {
                key: key.clone(),
                at: lease.deadline,
                stale_since: lease.stale_since,
            })
            .collect()
    }

    /// Stale ones that were renewed since the last call.
    pub(crate) fn take_revived(&self) -> Vec<InstanceKey> {
        std::mem::take(&mut self.inner().revived)
    }

    /// Puts back what could not be unmarked yet.
    pub(crate) fn put_back_revived(&self, keys: Vec<InstanceKey>) {
        self.inner().revived.extend(keys);
    }

    /// What was renewed here since `since`, as lines `KEY AGE`: for another replica.
    pub(crate) fn report(&self, since: i64, now: i64) -> String {
        let mut out = String::new();
        for (key, lease) in &self.inner().leases {
            if lease.renewed >= since && lease.length.is_some() {
                let _ = writeln!(out, "{key} {}", now - lease.renewed);
            }
        }
        out
    }

    /// Takes over another replica's report, which is `age` old.
    pub(crate) fn take_report(&self, body: &str, age: i64, now: i64) {
        let mut inner = self.inner();
        let Inner { leases, revived } = &mut *inner;
        for line in body.lines() {
            let Some((key, ago)) = line.split_once(' ') else {
                continue;
            };
            let (Ok(key), Ok(ago)) = (key.parse::<InstanceKey>(), ago.parse::<i64>()) else {
                continue;
            };
            let Some(lease) = leases.get_mut(&key) else {
                continue;
            };
            let renewed = now - age.max(0) - ago.max(0);
            lease.deadline = lease.deadline.max(deadline(lease.length, renewed));
            if lease.stale_since.is_some_and(|since| since < renewed) {
                lease.stale_since = None;
                revived.push(key);
            }
        }
    }
}

fn length(instance: &Instance) -> Option<i64> {
    instance
        .lease
        .map(|lease| i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 4))
}

fn deadline(length: Option<i64>, now: i64) -> i64 {
    length.map_or(i64::MAX, |length| now + length)
}

#[cfg(test)]
mod tests;
