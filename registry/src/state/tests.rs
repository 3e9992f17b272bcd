//! The state as a value: what holds whatever is done to it.

use std::collections::BTreeMap;

use cardea_registry_api::{Span, api::Registration, feed::SetChecksum, instance::Forced};
use proptest::prelude::*;

use super::*;
use crate::{
    change::{Change, Expected, Outcome, Rejection, Verb},
    record::Digest,
};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn key(cluster: &str, service: &str, n: usize) -> InstanceKey {
    InstanceKey {
        cluster: name(cluster),
        service: name(service),
        id: format!("i{n}").parse().unwrap(),
    }
}

pub(crate) fn registration(n: usize) -> Registration {
    Registration::at(format!("10.0.0.1:{}", 1000 + n % 60_000).parse().unwrap())
}

pub(crate) fn register(cluster: &str, service: &str, n: usize) -> Change {
    Change::Register {
        key: key(cluster, service, n),
        registration: Box::new(registration(n)),
    }
}

pub(crate) fn instance(cluster: &str, service: &str, n: usize) -> Instance {
    registration(n).into_instance(key(cluster, service, n), 0)
}

pub(crate) fn put_service(service: &str) -> Change {
    Change::PutService {
        service: Box::new(Service::named(name(service))),
        expected: Expected::Any,
    }
}

pub(crate) fn put_route(id: &str, host: &str, service: &str) -> Change {
    Change::PutRoute {
        route: Route {
            id: name(id),
            host: host.parse().unwrap(),
            prefix: PathPrefix::default(),
            service: name(service),
        },
        expected: Expected::Any,
    }
}

fn token(n: usize) -> TokenRecord {
    TokenRecord {
        name: name(&format!("t{n}")),
        role: cardea_registry_api::api::Role::Agent,
        services: Vec::new(),
        created_at: 1,
        sha256: format!("{n:064x}"),
    }
}

pub(crate) fn fresh() -> State {
    State::empty(Point {
        epoch: "e".into(),
        revision: 0,
        digest: Digest::root("e"),
    })
}

/// A state with `n` instances in each of two clusters, and one object of every other kind.
pub(crate) fn filled(n: usize) -> State {
    let mut state = fresh();
    let mut changes = vec![put_service("search"), put_route("r", "h.local", "search")];
    changes.push(Change::PutToken {
        token: token(1),
        expected: Expected::None,
    });
    for n in 0..n {
        changes.push(register("a", "search", n));
        changes.push(register("b", "search", n));
    }
    state.apply_all(&changes, 1).unwrap();
    state
}

/// That two states serve the same.
pub(crate) fn same(one: &State, other: &State) {
    assert_eq!((&one.epoch, one.revision), (&other.epoch, other.revision));
    let rows = |state: &State| -> Vec<(Kind, String, u64, String)> {
        state
            .all_rows()
            .map(|(kind, key, revision, json)| (kind, key, revision, json.to_owned()))
            .collect()
    };
    assert_eq!(rows(one), rows(other));
    for cluster in ["a", "b", "none"] {
        let (one, other) = (one.totals(&name(cluster)), other.totals(&name(cluster)));
        assert_eq!(
            (one.checksum, one.objects, one.bytes),
            (other.checksum, other.objects, other.bytes)
        );
    }
    assert_eq!(one.stale, other.stale);
    assert_eq!(one.instances_of, other.instances_of);
    assert_eq!(one.counts, other.counts);
    assert_eq!(one.routes_at, other.routes_at);
    assert_eq!(one.routes_of, other.routes_of);
    assert_eq!(one.tokens_by_hash, other.tokens_by_hash);
}

/// That the indexes and sums are what counting everything again gives.
fn sound(state: &State) {
    let mut again = State::empty(state.base.clone());
    again.epoch = state.epoch.clone();
    again.revision = state.revision;
    for (kind, key, revision, json) in state.all_rows() {
        let object = Object::parse(kind, json).unwrap();
        assert_eq!(object.key(), key);
        again.set(object, revision).unwrap();
    }
    same(state, &again);
    for cluster in ["a", "b"] {
        let cluster = name(cluster);
        let mut checksum = SetChecksum::default();
        let mut objects = 0;
        for line in state.feed_lines(&cluster) {
            checksum.add(line.hash);
            objects += 1;
        }
        let totals = state.totals(&cluster);
        assert_eq!((totals.checksum, totals.objects), (checksum, objects));
    }
    for route in state.routes(None) {
        assert!(state.service(route.object.service.as_str()).is_some());
    }
    for instance in state.instances(None) {
        assert!(state.service(instance.object.service.as_str()).is_some());
        assert!(state.cluster(instance.object.cluster.as_str()).is_some());
    }
}

/// A change among few objects, so that they meet.
fn any_change() -> impl Strategy<Value = Change> {
    let small = || 0usize..3;
    let expected = prop_oneof![
        Just(Expected::None),
        Just(Expected::Any),
        (1u64..30).prop_map(Expected::Exactly)
    ];
    let key = (small(), small(), small())
        .prop_map(|(c, s, n)| key(["a", "b", "c"][c], ["search", "mail", "map"][s], n));
    prop_oneof![
        4 => (key.clone(), small(), 0u16..3).prop_map(|(key, n, weight)| {
            let mut registration = registration(n);
            registration.weight = weight;
            Change::Register { key, registration: Box::new(registration) }
        }),
        2 => key.clone().prop_map(|key| Change::Deregister { key }),
        1 => key.clone().prop_map(|key| Change::Expire { key }),
        1 => key.clone().prop_map(|key| Change::MarkStale { key }),
        1 => key.clone().prop_map(|key| Change::MarkFresh { key }),
        1 => (key, 0u16..1500).prop_map(|(key, weight)| Change::Patch {
            key,
            patch: cardea_registry_api::api::InstancePatch {
                state: Some(InstanceState::Draining),
                weight: None,
                forced: Some(Forced { state: None, weight: Some(weight) }),
            },
        }),
        1 => (small(), expected.clone()).prop_map(|(s, expected)| Change::PutService {
            service: Box::new(Service::named(name(["search", "mail", "map"][s]))),
            expected,
        }),
        1 => (small(), expected.clone()).prop_map(|(s, expected)| Change::DeleteService {
            name: name(["search", "mail", "map"][s]),
            expected,
        }),
        1 => (small(), expected.clone()).prop_map(|(s, expected)| Change::DeleteCluster {
            name: name(["a", "b", "c"][s]),
            expected,
        }),
        1 => (small(), small(), small()).prop_map(|(r, h, s)| put_route(
            ["r1", "r2", "r3"][r],
            ["h1.local", "*.h2.local", "*"][h],
            ["search", "mail", "map"][s],
        )),
        1 => (small(), expected).prop_map(|(r, expected)| Change::DeleteRoute {
            id: name(["r1", "r2", "r3"][r]),
            expected,
        }),
        1 => (small(), small()).prop_map(|(n, m)| {
            let mut token = token(n);
            token.sha256 = format!("{m:064x}");
            Change::PutToken { token, expected: Expected::Any }
        }),
        1 => small().prop_map(|n| Change::DeleteToken { name: token(n).name }),
        2 => (small(), small(), small(), any::<bool>()).prop_map(|(c, s, t, weighs)| {
            let mut traffic = Traffic::of(traffic_key(c, s));
            if weighs {
                traffic.weights.insert(name(["a", "b", "c"][t]), 50);
            }
            Change::PutTraffic { traffic: Box::new(traffic), expected: Expected::Any }
        }),
        1 => (small(), small()).prop_map(|(c, s)| Change::DeleteTraffic {
            key: traffic_key(c, s),
            expected: Expected::Any,
        }),
    ]
}

fn traffic_key(cluster: usize, service: usize) -> TrafficKey {
    TrafficKey {
        cluster: name(["a", "b", "c"][cluster]),
        service: (service > 0).then(|| name(["search", "mail", "map"][service])),
    }
}

fn replay(state: &mut State, outcomes: &[Outcome]) {
    for outcome in outcomes {
        if matches!(outcome.verb, Verb::Unchanged | Verb::Absent) {
            continue;
        }
        match &outcome.after {
            Some(json) => {
                let object = Object::parse(outcome.kind, json).unwrap();
                state.set(object, outcome.revision).unwrap();
            }
            None => assert!(state.unset(outcome.kind, &outcome.key, outcome.revision)),
        }
        state.revision = outcome.revision;
    }
}

proptest! {
    #[test]
    fn whatever_is_done_the_state_stays_sound(
        units in prop::collection::vec(prop::collection::vec(any_change(), 1..4), 1..40)
    ) {
        let mut state = fresh();
        let mut follower = fresh();
        for (now, unit) in units.iter().enumerate() {
            let before = state.clone();
            match state.apply_all(unit, i64::try_from(now).unwrap()) {
                Ok(outcomes) => {
                    let made = outcomes
                        .iter()
                        .filter(|o| !matches!(o.verb, Verb::Unchanged | Verb::Absent))
                        .count() as u64;
                    prop_assert_eq!(state.revision, before.revision + made, "one revision a change");
                    for outcome in &outcomes {
                        prop_assert_eq!(outcome.before == outcome.after, outcome.verb == Verb::Unchanged || outcome.verb == Verb::Absent);
                    }
                    replay(&mut follower, &outcomes);
                }
                Err(_) => same(&before, &state),
            }
            sound(&state);
            same(&state, &follower);
        }
        // A delta from any point that is still remembered leads to the present feed.
        let after = state.revision / 2;
        let changed: BTreeMap<_, _> = state
            .recent
            .iter()
            .filter(|recent| recent.revision > after)
            .map(|recent| ((recent.kind, Arc::clone(&recent.key)), recent.line.clone()))
            .collect();
        for ((kind, key), line) in changed {
            let now = state
                .all_rows()
                .any(|(k, name, _, _)| k == kind && name == *key);
            prop_assert_eq!(line.is_some(), now);
        }
    }
}

#[test]
fn registering_again_keeps_what_was_forced_and_changes_nothing_else() {
    let mut state = filled(1);
    let forced = Forced {
        state: Some(InstanceState::Disabled),
        weight: Some(1),
    };
    let patch = Change::Patch {
        key: key("a", "search", 0),
        patch: cardea_registry_api::api::InstancePatch {
            forced: Some(forced),
            ..Default::default()
        },
    };
    state.apply_all(&[patch], 5).unwrap();
    let revision = state.revision;
    let again = state.apply_all(&[register("a", "search", 0)], 6).unwrap();
    assert_eq!(again[0].verb, Verb::Unchanged);
    assert_eq!(state.revision, revision);
    let instance = state.instance(&key("a", "search", 0)).unwrap();
    assert_eq!(instance.object.forced, forced);
    assert_eq!(instance.object.registered_at, 1);
    state
        .apply_all(
            &[
                Change::Deregister {
                    key: key("a", "search", 0),
                },
                register("a", "search", 0),
            ],
            7,
        )
        .unwrap();
    let instance = state.instance(&key("a", "search", 0)).unwrap();
    assert_eq!(instance.object.forced, Forced::default());
}

#[test]
fn registering_implies_cluster_and_service_and_says_so() {
    let mut state = fresh();
    let outcomes = state.apply_all(&[register("a", "search", 0)], 1).unwrap();
    let told: Vec<_> = outcomes
        .iter()
        .map(|o| (o.kind, o.cause, o.revision))
        .collect();
    assert_eq!(
        told,
        [
            (Kind::Cluster, "implied", 1),
            (Kind::Service, "implied", 2),
            (Kind::Instance, "registered", 3)
        ]
    );
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let mut state = filled(1);
    for (change, says) in [
        (
            Change::DeleteService {
                name: name("search"),
                expected: Expected::Any,
            },
            "r;",
        ),
        (
            Change::DeleteCluster {
                name: name("a"),
                expected: Expected::Any,
            },
            "a/search/i0",
        ),
        (put_route("other", "h.local", "search"), "route `r`"),
    ] {
        let (_, rejection) = state.apply_all(&[change], 1).unwrap_err();
        assert!(matches!(rejection, Rejection::Conflict { .. }));
        assert!(rejection.to_string().contains(says), "{rejection}");
    }
    let (index, rejection) = state
        .apply_all(&[put_service("x"), put_route("n", "n.local", "gone")], 1)
        .unwrap_err();
    assert_eq!(index, 1);
    assert!(rejection.to_string().contains("no service `gone`"));
    assert!(state.service("x").is_none(), "all or nothing");
}

#[test]
fn preconditions() {
    let mut state = filled(0);
    let current = state.service("search").unwrap().revision;
    let mut service = Service::named(name("search"));
    service.owner = "me".to_owned();
    let put = |expected| Change::PutService {
        service: Box::new(service.clone()),
        expected,
    };
    let (_, none) = state.apply_all(&[put(Expected::None)], 1).unwrap_err();
    assert!(matches!(none, Rejection::PreconditionRequired { current: c, .. } if c == current));
    let (_, other) = state
        .apply_all(&[put(Expected::Exactly(999))], 1)
        .unwrap_err();
    assert!(
        matches!(other, Rejection::PreconditionFailed { current: Some(c), .. } if c == current)
    );
    state
        .apply_all(&[put(Expected::Exactly(current))], 1)
        .unwrap();
    let delete = Change::DeleteRoute {
        id: name("nothing"),
        expected: Expected::Any,
    };
    let (_, gone) = state.apply_all(&[delete], 1).unwrap_err();
    assert!(matches!(gone, Rejection::NotFound { .. }));
}

#[test]
fn only_manual_instances_live_without_a_lease() {
    let mut state = fresh();
    let mut lasting = registration(1);
    lasting.lease = None;
    let change = |registration: &Registration| Change::Register {
        key: key("a", "s", 1),
        registration: Box::new(registration.clone()),
    };
    let (_, rejection) = state.apply_all(&[change(&lasting)], 1).unwrap_err();
    assert!(matches!(rejection, Rejection::Invalid(ref i) if i.errors[0].field == "lease"));
    lasting.source = Source::Manual;
    state.apply_all(&[change(&lasting)], 1).unwrap();
    lasting.lease = Some(Span::secs(100_000));
    assert!(state.apply_all(&[change(&lasting)], 1).is_err());
}
