//! What is pending, in memory, and its bound.
//!
//! Up to a point every change is kept as it came, so that the change log gets all of it. Beyond, what
//! later changes have made void is left out ([`compact`]). Where even that is too much, instances
//! that nobody has heard of are refused; those that are known go on, since what they say replaces
//! what they said before.

use std::collections::HashSet;

use cardea_registry_api::InstanceKey;

use super::{PendingUnit, compact::compact};
use crate::change::Change;

/// Up to so many changes nothing is left out.
const WHOLE: usize = 10_000;

/// Units that were accepted and are not known to be in the database, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Pending {
    units: Vec<PendingUnit>,
    /// Of all units.
    changes: usize,
    /// From more changes than this on, only what is known goes on.
    most: usize,
    /// With more changes than this it is worth leaving out what is void.
    compact_at: usize,
    /// Whose changes these are; made when it is first asked for.
    keys: Option<HashSet<InstanceKey>>,
}

impl Pending {
    /// Holds `units`, and up to `most` changes.
    pub(crate) fn new(units: Vec<PendingUnit>, most: usize) -> Self {
        Self {
            changes: changes(&units),
            units,
            most,
            compact_at: WHOLE.min(most),
            keys: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, PendingUnit> {
        self.units.iter()
    }

    pub(crate) fn extend(&mut self, units: Vec<PendingUnit>) {
        self.changes += changes(&units);
        if let Some(keys) = &mut self.keys {
            keys.extend(units.iter().flat_map(keys_of).cloned());
        }
        self.units.extend(units);
    }

    /// The first `count` units are in the database.
    pub(crate) fn drop_first(&mut self, count: usize) {
        self.units.drain(..count);
        self.changed();
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&PendingUnit) -> bool) {
        self.units.retain(keep);
        self.changed();
    }

    pub(crate) fn clear(&mut self) {
        self.units = Vec::new();
        self.changed();
    }

    /// Whether it is worth leaving out what is void before so many changes are added.
    pub(crate) fn is_long(&self, more: usize) -> bool {
        self.changes + more > self.compact_at
    }

    /// What matters of the units: to be put in their place with [`Pending::replace`].
    pub(crate) fn compacted(&self) -> impl FnOnce() -> Vec<PendingUnit> + Send + use<> {
        let units = self.units.clone();
        move || compact(units)
    }

    /// Puts what matters in place of what was there.
    pub(crate) fn replace(&mut self, units: Vec<PendingUnit>) {
        self.units = units;
        self.changed();
        self.rest();
    }

    /// Not again before an eighth has come on top: leaving out costs as much as there is.
    pub(crate) fn rest(&mut self) {
        let more = (self.changes / 8).max(self.most / 16).max(1);
        self.compact_at = (self.changes + more).max(WHOLE.min(self.most));
    }

    /// Whether so many changes more are too many.
    pub(crate) fn is_full(&self, more: usize) -> bool {
        self.changes + more > self.most
    }

    /// Whether there is a change of this instance.
    pub(crate) fn has(&mut self, key: &InstanceKey) -> bool {
        let units = &self.units;
        let keys = self
            .keys
            .get_or_insert_with(|| units.iter().flat_map(keys_of).cloned().collect());
        keys.contains(key)
    }

    fn changed(&mut self) {
        self.changes = changes(&self.units);
        self.keys = None;
    }
}

fn changes(units: &[PendingUnit]) -> usize {
    units.iter().map(|unit| unit.changes.len()).sum()
}

fn keys_of(unit: &PendingUnit) -> impl Iterator<Item = &InstanceKey> {
    unit.changes.iter().filter_map(Change::instance)
}
