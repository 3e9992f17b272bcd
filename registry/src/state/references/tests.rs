use cardea_registry_api::Fallback;

use crate::{
    change::{Change, Expected, Rejection},
    state::{
        State,
        tests::{fresh, name, put_route, put_service},
    },
};

const ANY: Expected = Expected::Any;

fn plugin(json: serde_json::Value) -> Change {
    Change::PutPlugin {
        plugin: serde_json::from_value(json).unwrap(),
        expected: ANY,
    }
}

fn service(groups: &[&str]) -> Change {
    let groups: serde_json::Map<_, _> = groups
        .iter()
        .map(|group| ((*group).to_owned(), serde_json::json!({"version": group})))
        .collect();
    let service = serde_json::json!({"name": "search", "groups": groups});
    Change::PutService {
        service: serde_json::from_value(service).unwrap(),
        expected: ANY,
    }
}

fn gray(bound: &str, group: &str) -> Change {
    plugin(serde_json::json!({
        "name": "p", bound: if bound == "cluster" { "a" } else { "search" },
        "gray": {"rules": [{"group": group}]},
    }))
}

fn refused(state: &mut State, changes: &[Change]) -> (usize, String) {
    let before = state.clone();
    let (index, rejection) = state.apply_all(changes, 1).unwrap_err();
    crate::state::tests::same(state, &before);
    (index, rejection.to_string())
}

fn site() -> State {
    let mut state = fresh();
    let route = put_route("search", "h", "search");
    state
        .apply_all(&[service(&["gray"]), route, put_service("shop")], 1)
        .unwrap();
    state
}

#[test]
fn a_plugin_is_refused_by_the_field_that_names_what_is_not_there() {
    let mut state = site();
    let (_, why) = refused(&mut state, &[gray("service", "grey")]);
    assert_eq!(
        why,
        "gray.rules[0].group: service `search` has no group `grey`; did you mean `gray`?"
    );
    let (_, why) = refused(&mut state, &[gray("cluster", "gray")]);
    assert_eq!(why, "cluster: there is no cluster `a`: create it first");
    // What comes in the same unit counts, whatever the order.
    let both = [gray("service", "blue"), service(&["gray", "blue"])];
    state.apply_all(&both, 1).unwrap();
}

#[test]
fn what_a_plugin_names_stays() {
    let mut state = site();
    state.apply_all(&[gray("service", "gray")], 1).unwrap();
    let (_, why) = refused(&mut state, &[service(&[])]);
    assert_eq!(
        why,
        "plugin `p` needs it otherwise: gray.rules[0].group: service `search` has no group `gray`; \
         give it in the service's `groups` first"
    );
    let gone = |change| match change {
        "route" => Change::DeleteRoute {
            id: name("search"),
            expected: ANY,
        },
        "service" => Change::DeleteService {
            name: name("search"),
            expected: ANY,
        },
        _ => Change::DeletePlugin {
            name: name("p"),
            expected: ANY,
        },
    };
    state.apply_all(&[gone("route")], 1).unwrap();
    let (_, why) = refused(&mut state, &[gone("service")]);
    assert_eq!(
        why,
        "plugin `p` names service `search` in `service`: change or delete it first"
    );
    // In one unit, both go.
    state
        .apply_all(&[gone("service"), gone("plugin")], 1)
        .unwrap();

    let mut state = site();
    state.apply_all(&[gray("route", "gray")], 1).unwrap();
    let (_, why) = refused(&mut state, &[gone("route")]);
    assert!(
        why.starts_with("plugin `p` names route `search` in `route`"),
        "{why}"
    );
    let (index, why) = refused(
        &mut state,
        &[put_service("other"), put_route("search", "h", "other")],
    );
    assert_eq!(index, 1);
    assert!(why.contains("service `other` has no group `gray`"), "{why}");
    state
        .apply_all(&[gone("plugin"), put_route("search", "h", "shop")], 1)
        .unwrap();
}

#[test]
fn a_route_that_rescues_another_stays_and_is_not_rescued_by_it() {
    let mut state = site();
    let rescue = |on: &str, to: &str| {
        plugin(serde_json::json!({"name": on, "route": on, "fallback": {"route": to}}))
    };
    let (_, why) = refused(&mut state, &[rescue("search", "shp")]);
    assert!(
        why.starts_with("fallback.route: there is no route `shp`"),
        "{why}"
    );
    let spare = || put_route("spare", "s", "shop");
    let both = [rescue("search", "spare"), spare()];
    state.apply_all(&both, 1).unwrap();
    let delete = Change::DeleteRoute {
        id: name("spare"),
        expected: ANY,
    };
    let (_, why) = refused(&mut state, &[delete]);
    assert_eq!(
        why,
        "plugin `search` names route `spare` in `fallback.route`: change or delete it first"
    );
    let (_, why) = refused(&mut state, &[rescue("spare", "search")]);
    assert!(
        why.starts_with("fallback.route: leads back to where it began: route"),
        "{why}"
    );
    // For everything but itself.
    let all = serde_json::json!({"name": "all", "fallback": {"service": "shop"}});
    state.apply_all(&[plugin(all)], 1).unwrap();
}

#[test]
fn stored_bodies_have_a_bound_together() {
    let mut state = fresh();
    let body = |n: usize, size: usize| Change::PutFallback {
        fallback: Fallback {
            name: name(&format!("f{n}")),
            content_type: "text/plain".to_owned(),
            status: None,
            body: vec![0; size].into(),
        },
        expected: ANY,
    };
    let most = cardea_registry_api::fallback::MAX_BODY;
    let all: Vec<Change> = (0..16).map(|n| body(n, most)).collect();
    state.apply_all(&all, 1).unwrap();
    state
        .apply_all(&[body(3, most - 1), body(16, 1)], 1)
        .unwrap();
    let (index, why) = refused(&mut state, &[body(3, 0), body(3, most), body(17, 1)]);
    assert_eq!(index, 1);
    assert!(why.starts_with("body: all bodies together have"), "{why}");
    let rejection = state.apply_all(&[body(1, most + 1)], 1).unwrap_err().1;
    assert!(matches!(rejection, Rejection::Invalid(_)));
}

/// Large bodies do not pile up among the changes that deltas are made of.
#[test]
fn recent_changes_have_a_bound_in_bytes() {
    let mut state = fresh();
    for n in 0..60u8 {
        let fallback = Fallback {
            name: name("f"),
            content_type: "text/plain".to_owned(),
            status: None,
            body: vec![n; 1 << 20].into(),
        };
        let expected = ANY;
        state
            .apply_all(&[Change::PutFallback { fallback, expected }], 1)
            .unwrap();
    }
    let bytes: usize = state
        .recent
        .iter()
        .filter_map(|recent| recent.line.as_ref())
        .map(|line| line.bytes.len())
        .sum();
    assert!((48 << 20..=64 << 20).contains(&bytes), "{bytes}");
    assert_eq!(
        state.recent_from,
        state.revision - state.recent.len() as u64
    );
}

fn traffic(json: serde_json::Value) -> Change {
    Change::PutTraffic {
        traffic: serde_json::from_value(json).unwrap(),
        expected: ANY,
    }
}

fn cluster(cluster: &str) -> Change {
    Change::PutCluster {
        cluster: cardea_registry_api::Cluster::named(name(cluster)),
        expected: ANY,
    }
}

#[test]
fn traffic_names_what_is_there_and_what_it_names_stays() {
    let mut state = site();
    let one = serde_json::json!({
        "cluster": "dc-a", "service": "search", "weights": {"dc-a": 10, "dc-b": 90},
        "failover": {"order": ["dc-c"]},
    });
    let (_, why) = refused(
        &mut state,
        &[cluster("dc-a"), cluster("dc-b"), traffic(one.clone())],
    );
    assert_eq!(
        why,
        "failover.order[0]: there is no cluster `dc-c`: did you mean `dc-a`?"
    );
    let mut other = one.clone();
    other["service"] = "serch".into();
    let clusters = [cluster("dc-a"), cluster("dc-b"), cluster("dc-c")];
    state.apply_all(&clusters, 1).unwrap();
    let (_, why) = refused(&mut state, &[traffic(other)]);
    assert_eq!(
        why,
        "service: there is no service `serch`: did you mean `search`?"
    );
    state.apply_all(&[traffic(one)], 1).unwrap();
    for (named, field) in [
        ("dc-a", "cluster"),
        ("dc-b", "weights.dc-b"),
        ("dc-c", "failover.order[0]"),
    ] {
        let delete = Change::DeleteCluster {
            name: name(named),
            expected: ANY,
        };
        let (_, why) = refused(&mut state, &[delete]);
        assert_eq!(
            why,
            format!(
                "traffic `dc-a/search` names cluster `{named}` in `{field}`: change or delete it first"
            )
        );
    }
    let unroute = Change::DeleteRoute {
        id: name("search"),
        expected: ANY,
    };
    let gone = Change::DeleteService {
        name: name("search"),
        expected: ANY,
    };
    let (_, why) = refused(&mut state, &[unroute.clone(), gone.clone()]);
    assert!(
        why.starts_with("traffic `dc-a/search` names service `search`"),
        "{why}"
    );
    let free = Change::DeleteTraffic {
        key: "dc-a/search".parse().unwrap(),
        expected: ANY,
    };
    state.apply_all(&[unroute, gone, free], 1).unwrap();
}
