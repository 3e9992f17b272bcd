use std::collections::{BTreeMap, BTreeSet};

use super::*;

use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Act {
    Push(u64),
    Pop(u64),
    Find(u64),
    /// Closes what was pushed before this, and gives up places that are empty since before this.
    Retain(u64, u64),
}

/// Numbers as they come: many that follow one another, and some that are the same in their lower half.
fn peer() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..40_u64,
        1000..1010_u64,
        (0..6_u64).prop_map(|n| (n << 32) + 7)
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => peer().prop_map(Act::Push),
        3 => peer().prop_map(Act::Pop),
        2 => peer().prop_map(Act::Find),
        1 => (0..400_u64, 0..400_u64).prop_map(|(before, since)| Act::Retain(before, since)),
    ]
}

proptest! {
    /// Each peer has a stack of its own, whatever happens to the others.
    #[test]
    fn each_peer_has_a_stack(acts in prop::collection::vec(act(), 0..400)) {
        let mut places = Places::<u64>::default();
        let mut stacks = BTreeMap::<u64, Vec<u64>>::new();
        for (at, act) in acts.into_iter().enumerate() {
            let now = at as u64;
            match act {
                Act::Push(peer) => {
                    places.of(peer, now).push(now);
                    stacks.entry(peer).or_default().push(now);
                }
                Act::Pop(peer) => {
                    let popped = places.get_mut(peer).and_then(|place| place.pop(now));
                    prop_assert_eq!(popped, stacks.entry(peer).or_default().pop());
                }
                Act::Find(peer) => {
                    let newest = stacks.get(&peer).and_then(|stack| stack.last());
                    let last = places.get(peer).and_then(Place::last);
                    // After a take, the one before it becomes the last only when it is taken.
                    prop_assert!(last.is_none() || last == newest);
                    let count = places.get(peer).map_or(0, Place::len);
                    prop_assert_eq!(count, stacks.get(&peer).map_or(0, Vec::len));
                }
                Act::Retain(before, since) => {
                    places.retain(|place| {
                        place.retain(now, |kept| *kept >= before);
                        place.empty_since().is_none_or(|at| at >= since)
                    });
                    for stack in stacks.values_mut() {
                        stack.retain(|kept| *kept >= before);
                    }
                }
            }
            let held: BTreeSet<u64> = places.iter().map(|place| place.peer).collect();
            prop_assert_eq!(held.len(), places.taken);
            prop_assert!(places.taken * 2 <= places.all.len());
            for (peer, stack) in &stacks {
                prop_assert!(stack.is_empty() || held.contains(peer));
            }
        }
    }
}

#[test]
fn a_thousand_peers_are_at_home_or_next_to_it() {
    let mut places = Places::<u64>::default();
    for peer in 5000..6000 {
        places.of(peer, 0).push(1);
    }
    let way = |peer| {
        places
            .position(peer)
            .unwrap()
            .abs_diff(places.home_of(peer).unwrap())
    };
    assert!((5000..6000).all(|peer| way(peer) <= 1));
}

#[test]
fn places_that_are_given_up_take_no_room() {
    let mut places = Places::<u64>::default();
    for peer in 0..1000 {
        places.of(peer, peer).push(1);
        places.of(peer, peer).pop(peer);
    }
    places.retain(|place| place.empty_since() >= Some(990));
    assert_eq!((places.taken, places.all.len()), (10, 32));
    assert!(places.get(989).is_none() && places.get(990).is_some());
    places.retain(|_| false);
    assert_eq!(places.all.len(), 0);
    assert!(places.get(990).is_none());
}
