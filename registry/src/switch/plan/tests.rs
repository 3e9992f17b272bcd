//! What a plan says of capacity.

use std::collections::BTreeMap;

use cardea_registry_api::{Cluster, switch::Learnt};
use proptest::prelude::*;

use super::*;
use crate::{
    change::{Change, Expected},
    state::tests::{fresh, key, name, put_service, registration},
};

/// Clusters `a` and `b` with two instances of `s` each, which can serve so much, if they say so.
fn site(capacity: Option<u32>) -> State {
    let cluster = |one: &str| Change::PutCluster {
        cluster: Cluster::named(name(one)),
        expected: Expected::Any,
    };
    let mut changes = vec![cluster("a"), cluster("b"), put_service("s")];
    for cluster in ["a", "b"] {
        for n in 0..2 {
            let mut one = registration(n);
            one.capacity = capacity;
            changes.push(Change::Register {
                key: key(cluster, "s", n),
                registration: Box::new(one),
            });
        }
    }
    let mut state = fresh();
    state.apply_all(&changes, 1).unwrap();
    state
}

fn asked() -> NewSwitch {
    let to = [(name("a"), 0), (name("b"), 100)].into();
    NewSwitch::new(name("a"), None, to)
}

/// Requests a second that `a` gets, and how much of `b` is healthy.
fn known(rate: f64, part: Option<f64>) -> Known {
    let rates = [(name("a"), [(name("s"), rate)].into())].into();
    let seen = part.map(|part| Seen {
        part,
        by: name("b"),
    });
    Known {
        rates,
        learnt: BTreeMap::new(),
        healthy: (seen.into_iter())
            .map(|seen| ((name("b"), name("s")), seen))
            .collect(),
    }
}

fn planned(state: &State, known: &Known) -> SwitchPlan {
    let asked = asked();
    let moves = moves(state, &asked).unwrap();
    plan(state, &asked, &moves, known, 1)
}

fn whys(plan: &SwitchPlan) -> Vec<&str> {
    plan.refusals.iter().map(|r| r.why.as_str()).collect()
}

#[test]
fn what_routers_mark_is_no_capacity() {
    let state = site(Some(100));
    let told = planned(&state, &known(150.0, Some(1.0)));
    let target = &told.services[0].targets[0];
    assert_eq!((target.instances, target.healthy), (2, Some(2)));
    assert_eq!(target.seen_by, Some(name("b")));
    assert_eq!(whys(&told), [""; 0]);
    let told = planned(&state, &known(150.0, Some(0.5)));
    assert_eq!(
        whys(&told),
        [
            "service `s`: cluster `b` can serve 100 requests a second (declared, 2 instances, 1 of them healthy as the routers of `b` see it), and would get 150"
        ]
    );
    // With what is left it is enough.
    assert_eq!(whys(&planned(&state, &known(90.0, Some(0.5)))), [""; 0]);
    let told = planned(&state, &known(1.0, Some(0.0)));
    assert_eq!(
        whys(&told),
        [
            "service `s`: cluster `b` has 2 instances, of which none is healthy as the routers of `b` see it, and would get 1.0"
        ]
    );
}

#[test]
fn without_fresh_figures_all_that_are_registered_count_and_it_is_said() {
    let told = planned(&site(Some(100)), &known(150.0, None));
    let target = &told.services[0].targets[0];
    assert_eq!((target.healthy, target.capacity), (None, Some(200.0)));
    assert_eq!(whys(&told), [""; 0]);
    assert_eq!(
        told.notes,
        [
            "no router has said lately which instances of s in cluster `b` are healthy: all that are registered count"
        ]
    );
}

#[test]
fn what_is_not_known_is_no_refusal() {
    let state = site(None);
    let mut known = known(4.2, Some(1.0));
    let told = planned(&state, &known);
    assert_eq!(whys(&told), [""; 0]);
    assert!(
        told.notes[0].contains("is not known: its instances do not say, and too little was seen"),
        "{:?}",
        told.notes
    );
    let learnt = Learnt {
        each: 2,
        rate: u64::MAX,
    };
    known.learnt.insert(name("s"), learnt);
    let told = planned(&state, &known);
    assert!(
        whys(&told)[0].contains("can serve 4.0 requests a second (learnt"),
        "{told:?}"
    );
}

#[test]
fn what_came_through_gateways_is_counted_once() {
    let mut state = site(Some(100));
    let mut b = Cluster::named(name("b"));
    b.gateway = vec!["10.9.9.9:80".parse().unwrap()];
    let mut half = Traffic::of("a".parse().unwrap());
    half.weights = [(name("a"), 50), (name("b"), 50)].into();
    let changes = [
        Change::PutCluster {
            cluster: b,
            expected: Expected::Any,
        },
        Change::PutTraffic {
            traffic: Box::new(half),
            expected: Expected::Any,
        },
    ];
    state.apply_all(&changes, 1).unwrap();
    let mut known = known(150.0, Some(1.0));
    // Of the 95 that the routers of `b` count, 75 have come from `a`.
    known.rates.insert(name("b"), [(name("s"), 95.0)].into());
    let told = planned(&state, &known);
    let target = &told.services[0].targets[0];
    assert!((target.load - 170.0).abs() < 1e-9, "{target:?}");
    assert_eq!(whys(&told), [""; 0]);
}

#[test]
fn little_teaches_nothing() {
    let long = [0, 20, 20, 100, 20, 20, 20, 20, 20, 20, 20, 20, 20];
    assert_eq!(peak(&long), Some(100));
    assert_eq!(peak(&long[1..12]), None, "less than a minute");
    assert_eq!(peak(&[99; 700]), None, "hardly any requests");
    assert_eq!(peak(&[]), None);
}

proptest! {
    /// The more instances are healthy, the less speaks against it.
    #[test]
    fn health_only_helps(rate in 0.0..500.0_f64, less in 0.0..=1.0_f64, more in 0.0..=1.0_f64) {
        prop_assume!(less <= more);
        let state = site(Some(100));
        let refused = |part| !planned(&state, &known(rate, Some(part))).refusals.is_empty();
        prop_assert!(refused(less) || !refused(more));
        let target = |part| planned(&state, &known(rate, part)).services[0].targets[0].clone();
        let (all, seen) = (target(None), target(Some(less)));
        prop_assert!(seen.capacity <= all.capacity);
        prop_assert!(seen.healthy.unwrap() <= seen.instances);
    }
}
