use std::{sync::Arc, time::Instant};

use cardea_registry_api::{InstanceState, Service, route::HostPattern};
use proptest::prelude::*;

use super::{index::Index, objects::Objects, *};
use crate::fixtures::{World, instance, name, route};

fn world(routes: &[(&str, &str, &str)]) -> World {
    let mut world = World::default();
    for (id, host, prefix) in routes {
        world.route(route(id, host, prefix, "s"));
    }
    world.publish(Instant::now());
    world
}

fn found(table: &Table, host: &str, path: &str) -> String {
    match table.route(host.as_bytes(), path.as_bytes()) {
        Ok(entry) => entry.id.to_string(),
        Err(NoRoute::NotFound) => "404".to_owned(),
        Err(NoRoute::BadPath(_)) => "400".to_owned(),
    }
}

#[test]
fn the_most_specific_host_with_a_fitting_prefix_wins() {
    let world = world(&[
        ("exact", "a.svc.local", "/v1"),
        ("deep", "*.svc.local", "/v2"),
        ("shallow", "*.local", "/"),
        ("any", "*", "/v3/x"),
    ]);
    let table = world.shared.table_full().unwrap();
    for (host, path, want) in [
        ("a.svc.local", "/v1/x", "exact"),
        ("A.SVC.Local.:8080", "/v1", "exact"),
        ("a.svc.local", "/v2", "deep"),
        ("a.svc.local", "/v3", "shallow"),
        ("b.a.svc.local", "/v2/", "deep"),
        ("svc.local", "/v2", "shallow"),
        ("local", "/v1", "404"),
        (".local", "/v1", "404"),
        ("elsewhere", "/v3/x", "any"),
        ("", "/v3/x?q=/v1", "any"),
        ("elsewhere", "/v3", "404"),
        ("a.svc.local", "/v1/../admin", "400"),
    ] {
        assert_eq!(found(&table, host, path), want, "{host} {path}");
    }
}

#[test]
fn prefixes_end_at_segments() {
    let world = world(&[
        ("root", "h", "/"),
        ("api", "h", "/api"),
        ("deep", "h", "/api/v1/x"),
    ]);
    let table = world.shared.table_full().unwrap();
    for (path, want) in [
        ("/", "root"),
        ("", "root"),
        ("*", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/apix", "root"),
        ("/api/v1", "api"),
        ("/api/v1/x/y", "deep"),
        ("//api//v1/x", "deep"),
        ("/%61pi", "api"),
        ("/API", "root"),
    ] {
        assert_eq!(found(&table, "h", path), want, "{path}");
    }
}

#[test]
fn v6_hosts_keep_their_brackets_and_lose_their_port() {
    let world = world(&[("six", "[::1]", "/")]);
    let table = world.shared.table_full().unwrap();
    assert_eq!(found(&table, "[::1]:80", "/"), "six");
    assert_eq!(found(&table, "[::1]", "/"), "six");
    assert_eq!(found(&table, "[::2]", "/"), "404");
}

#[test]
fn what_a_host_longer_than_any_name_gets() {
    let world = world(&[("any", "*", "/"), ("suffix", "*.local", "/")]);
    let table = world.shared.table_full().unwrap();
    let long = format!("{}.local", "a".repeat(4000));
    assert_eq!(found(&table, &long, "/"), "any");
}

#[test]
fn two_routes_that_mean_the_same_are_named_and_one_stands() {
    let world = world(&[("a", "h", "/x"), ("b", "h", "/%78"), ("c", "h", "/%2e%2e")]);
    let table = world.shared.table_full().unwrap();
    assert_eq!(found(&table, "h", "/x"), "a");
    let refused: Vec<_> = world.builder.refused().map(|(object, _)| object).collect();
    assert_eq!(refused, ["route b", "route c"]);
}

#[test]
fn a_peer_outlives_tables_until_its_address_changes() {
    let mut world = World::with(Service::named(name("s")), &[100, 100]);
    let peer = |world: &World, at: usize| Arc::clone(&world.upstream("s").members()[at].peer);
    let (one, two) = (peer(&world, 0), peer(&world, 1));
    world.state("s", 0, InstanceState::Draining);
    world.publish(Instant::now());
    assert!(Arc::ptr_eq(&one, &peer(&world, 0)));
    assert!(!one.takes_requests());
    assert_eq!(world.upstream("s").takers(), 1);
    assert_eq!(world.upstream("s").guard().counts().takers, 1);

    let mut moved = instance("s", 1, 100);
    moved.address = "10.9.9.9:80".parse().unwrap();
    world.instance(moved);
    world.publish(Instant::now());
    assert!(!Arc::ptr_eq(&two, &peer(&world, 1)));
    assert!(!two.takes_requests());
    assert!(peer(&world, 1).takes_requests());

    world.remove("s", 0);
    world.remove("s", 1);
    world.publish(Instant::now());
    assert_eq!(world.upstream("s").members().len(), 0);
}

#[test]
fn a_delta_touches_one_upstream_only() {
    let mut world = World::default();
    for service in ["a", "b"] {
        world.route(route(service, service, "/", service));
        world.instance(instance(service, 0, 100));
    }
    let before = world.publish(Instant::now());
    world.instance(instance("a", 1, 100));
    let after = world.publish(Instant::now());
    assert!(Arc::ptr_eq(&before.routes, &after.routes));
    let upstream = |table: &Table, host: &str| {
        let entry = table.route(host.as_bytes(), b"/").unwrap();
        Arc::clone(table.upstream(entry))
    };
    assert!(Arc::ptr_eq(&upstream(&before, "b"), &upstream(&after, "b")));
    assert_eq!(upstream(&before, "a").members().len(), 1);
    assert_eq!(upstream(&after, "a").members().len(), 2);
}

#[test]
fn a_route_to_nothing_has_an_upstream_without_peers() {
    let world = world(&[("a", "h", "/")]);
    let table = world.shared.table_full().unwrap();
    let entry = table.route(b"h", b"/").unwrap();
    assert_eq!(table.upstream(entry).members().len(), 0);
}

/// The rule in plain words, over lists.
fn naive<'r>(routes: &'r [Route], host: &str, path: &str) -> Option<&'r str> {
    let segments = |text: &str| -> Vec<String> {
        let parts = text.split('/').filter(|s| !s.is_empty());
        parts.map(str::to_owned).collect()
    };
    let path = segments(path);
    let rank = |route: &Route| match &route.host {
        HostPattern::Exact(exact) => (exact == host).then_some((2, 0)),
        HostPattern::Suffix(suffix) => host
            .ends_with(&format!(".{suffix}"))
            .then_some((1, suffix.len())),
        HostPattern::Any => Some((0, 0)),
    };
    let fitting = routes.iter().filter_map(|route| {
        let prefix = segments(route.prefix.as_str());
        let rank = rank(route)?;
        path.starts_with(&prefix)
            .then_some(((rank, prefix.len()), route.id.as_str()))
    });
    fitting.max().map(|(_, id)| id)
}

fn hosts() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 1..4)
        .prop_map(|l| l.join("."))
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "a/"]), 0..5)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn patterns() -> impl Strategy<Value = String> {
    prop_oneof![
        hosts(),
        hosts().prop_map(|host| format!("*.{host}")),
        Just("*".to_owned()),
    ]
}

proptest! {
    #[test]
    fn finds_what_the_plain_rule_finds(
        patterns in prop::collection::btree_set((patterns(), paths()), 0..30),
        requests in prop::collection::vec((hosts(), paths()), 1..30),
    ) {
        let mut routes: Vec<Route> = Vec::new();
        for (number, (host, prefix)) in patterns.iter().enumerate() {
            let prefix = prefix.replace("//", "/");
            let new = route(&format!("r{number}"), host, &prefix, "s");
            if routes.iter().all(|r| (&r.host, &r.prefix) != (&new.host, &new.prefix)) {
                routes.push(new);
            }
        }
        let index = index(&routes);
        let refused: Vec<_> = index.refused().collect();
        prop_assert!(refused.is_empty(), "{refused:?}");
        for (host, path) in requests {
            let got = index.routes().find(&Sought::new(host.as_bytes()), path.as_bytes()).ok().map(|e| e.id.as_str());
            prop_assert_eq!(got, naive(&routes, &host, &path), "{} {}", host, path);
        }
    }

    #[test]
    fn no_request_makes_it_panic(host in prop::collection::vec(any::<u8>(), 0..300), path in prop::collection::vec(any::<u8>(), 0..300)) {
        let routes = [route("a", "*.a", "/a/b", "s"), route("b", "*", "/", "s")];
        let _ = index(&routes).routes().find(&Sought::new(&host), &path);
    }

    /// Step by step or at once, the table says the same of every peer.
    #[test]
    fn steps_lead_where_a_fresh_build_leads(steps in prop::collection::vec((0..6usize, 0..5u8, any::<bool>()), 1..40)) {
        let mut world = World::default();
        world.route(route("r", "h", "/", "s"));
        for (number, action, publish) in steps {
            match action {
                0 => world.remove("s", number),
                1 => {
                    let mut moved = instance("s", number, 100);
                    moved.address = "10.200.0.1:80".parse().unwrap();
                    world.instance(moved);
                }
                2 => world.instance(instance("s", number, 0)),
                _ => world.instance(instance("s", number, u16::from(action) * 10)),
            }
            if publish {
                world.publish(Instant::now());
            }
        }
        world.publish(Instant::now());
        let mut fresh = World::default();
        fresh.dirty = Objects::default().difference(&world.objects);
        fresh.objects = world.objects.clone();
        fresh.publish(Instant::now());
        let view = |world: &World| {
            let mut all: Vec<_> = world.upstream("s").members().iter().map(|m| {
                (m.peer.key().clone(), m.peer.address().clone(), m.weight, m.peer.takes_requests())
            }).collect();
            all.sort();
            (all, world.upstream("s").guard().counts())
        };
        prop_assert_eq!(view(&world), view(&fresh));
    }
}

fn index(routes: &[Route]) -> Index {
    let mut index = Index::default();
    for route in routes {
        index.set(&Arc::new(route.clone()), place());
    }
    index
}

fn place() -> super::Place {
    super::Place {
        index: 0,
        slot: 0,
        chain: None,
        service: name("s"),
    }
}
