//! Which pending changes still matter. Pure.
//!
//! What agents do to an instance leads to one last form, and that is what counts when the database is
//! back: a registration replaces what was reported before it, a deregistration everything. Left out is
//! only what later changes of the same instance have made void, so that what remains leads to the
//! same instances wherever it is applied.

use std::collections::HashMap;

use cardea_registry_api::{InstanceKey, api::InstancePatch};

use super::PendingUnit;
use crate::change::Change;

/// What later changes say about an instance; looked at from the end to the beginning.
#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is one thing that was said, and any may come with any other"
)]
struct Later {
    /// It is taken out: what it was before is void.
    gone: bool,
    registered: bool,
    state: bool,
    weight: bool,
    forced: bool,
    /// A later patch needs it to be there.
    needed: bool,
}

/// The units without the changes that later ones have made void; a unit that is left with none goes.
pub(super) fn compact(units: Vec<PendingUnit>) -> Vec<PendingUnit> {
    let mut later: HashMap<InstanceKey, Later> = HashMap::new();
    let mut kept: Vec<PendingUnit> = Vec::new();
    for mut unit in units.into_iter().rev() {
        let changes = std::mem::take(&mut unit.changes);
        let changes = changes.into_iter().rev();
        unit.changes = changes
            .filter_map(|change| keep(&mut later, change))
            .collect();
        unit.changes.reverse();
        if !unit.changes.is_empty() {
            unit.changes.shrink_to_fit();
            kept.push(unit);
        }
    }
    kept.reverse();
    kept
}

/// What is left of a change, in the light of what came after it.
fn keep(later: &mut HashMap<InstanceKey, Later>, change: Change) -> Option<Change> {
    let (Change::Register { key, .. } | Change::Patch { key, .. } | Change::Deregister { key }) =
        &change
    else {
        // What was said of traffic and releases: each on the one before.
        return Some(change);
    };
    let later = later.entry(key.clone()).or_default();
    if later.gone {
        return None;
    }
    match change {
        Change::Register { .. } if later.registered && !later.needed => None,
        Change::Register { .. } => {
            later.needed = false;
            (later.registered, later.state, later.weight) = (true, true, true);
            Some(change)
        }
        Change::Patch { key, patch } => {
            let left = InstancePatch {
                state: patch.state.filter(|_| !later.state),
                weight: patch.weight.filter(|_| !later.weight),
                forced: patch.forced.filter(|_| !later.forced),
            };
            later.state |= left.state.is_some();
            later.weight |= left.weight.is_some();
            later.forced |= left.forced.is_some();
            if left == InstancePatch::default() {
                return None;
            }
            later.needed = true;
            Some(Change::Patch { key, patch: left })
        }
        change => {
            later.gone = true;
            Some(change)
        }
    }
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::{InstanceState, instance::Forced};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        journal::tests::pending,
        record::{Digest, Point},
        state::{
            State,
            tests::{key, register},
        },
    };

    fn change() -> impl Strategy<Value = Change> {
        let key = (0usize..3).prop_map(|n| key("a", "search", n));
        let state = prop_oneof![Just(InstanceState::Up), Just(InstanceState::Draining)];
        let forced = prop::option::of(0u16..3).prop_map(|weight| Forced {
            state: None,
            weight,
        });
        let patch = (
            prop::option::of(state.clone()),
            prop::option::of(0u16..5),
            prop::option::of(forced),
        );
        prop_oneof![
            3 => (0usize..3, 0u16..5, state).prop_map(|(n, weight, state)| {
                let mut change = register("a", "search", n);
                if let Change::Register { registration, .. } = &mut change {
                    (registration.weight, registration.state) = (weight, state);
                }
                change
            }),
            3 => (key.clone(), patch).prop_map(|(key, (state, weight, forced))| Change::Patch {
                key,
                patch: InstancePatch { state, weight, forced },
            }),
            1 => key.prop_map(|key| Change::Deregister { key }),
        ]
    }

    fn state() -> State {
        State::empty(Point {
            epoch: "e".into(),
            revision: 0,
            digest: Digest::root("e"),
        })
    }

    fn instances(state: &State) -> Vec<cardea_registry_api::Instance> {
        let stored = state.instances(None);
        stored.map(|stored| stored.object.clone()).collect()
    }

    proptest! {
        #[test]
        fn what_is_left_leads_to_the_same_instances(
            there in prop::collection::vec(change(), 0..6),
            units in prop::collection::vec(prop::collection::vec(change(), 1..3), 0..20),
        ) {
            let mut database = state();
            for change in &there {
                drop(database.apply_all(std::slice::from_ref(change), 0));
            }
            // What is rejected never becomes pending.
            let mut served = database.clone();
            let accepted: Vec<PendingUnit> = units
                .into_iter()
                .filter(|changes| served.apply_all(changes, 0).is_ok())
                .enumerate()
                .map(|(n, changes)| pending(n, changes))
                .collect();
            let left = compact(accepted);
            for unit in &left {
                prop_assert!(!unit.changes.is_empty());
                let applied = database.apply_all(&unit.changes, 0);
                prop_assert!(applied.is_ok(), "{applied:?}");
            }
            prop_assert_eq!(instances(&database), instances(&served));
            for n in 0..3 {
                let key = key("a", "search", n);
                let mine = |change: &&Change| match change {
                    Change::Register { key: own, .. }
                    | Change::Patch { key: own, .. }
                    | Change::Deregister { key: own } => *own == key,
                    _ => false,
                };
                let count = left.iter().flat_map(|unit| &unit.changes).filter(mine).count();
                prop_assert!(count <= super::super::MOST_EACH, "{count}");
            }
            let again = compact(left.clone());
            prop_assert_eq!(again, left);
        }
    }
}
