//! What is decided, with upstreams and peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Cluster, InstanceState, Name, Service, Traffic, policy::HashKey, traffic::Zones,
};

use super::traffic;
use crate::{
    balance::{Balancers, PickInput, Reach},
    fixtures::{World, instance, name},
    peer::{Failure, Picked},
    traffic::standing,
    upstream::{Member, Upstream},
};

/// `dc` with instances 0–3 and `b` with 4–7 of `s`.
pub(super) fn two_clusters(traffic: Traffic) -> World {
    let mut world = World::default();
    world.service(Service::named(name("s")));
    world.traffic(traffic);
    for number in 0..4 {
        world.instance(instance("s", number, 100));
        let mut away = instance("s", number + 4, 100);
        away.cluster = name("b");
        world.other("b", away);
    }
    world.publish(Instant::now());
    world
}

fn picked(world: &World, balancers: &mut Balancers, input: &PickInput, now: Instant) -> Picked {
    let upstream = world.upstream("s");
    balancers.pick(&upstream, input, &[], now).unwrap()
}

fn clusters(
    world: &World,
    balancers: &mut Balancers,
    count: usize,
    now: Instant,
) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for _ in 0..count {
        let mut picked = picked(world, balancers, &PickInput::default(), now);
        picked.finished();
        *found
            .entry(picked.peer().key().cluster.to_string())
            .or_insert(0) += 1;
    }
    found
}

/// Peers of a cluster fail until none of them is asked any more.
fn kill(world: &World, balancers: &mut Balancers, cluster: &str, now: Instant) {
    for _ in 0..200 {
        let mut picked = picked(world, balancers, &PickInput::default(), now);
        if picked.peer().key().cluster == name(cluster) {
            picked.failed(Failure::Connect, now);
        } else {
            picked.finished();
        }
    }
}

#[test]
fn a_service_without_traffic_knows_no_other_cluster() {
    let mut other = traffic(&[("b", 1)], &[]);
    other.service = Some(name("other"));
    let world = two_clusters(other);
    let upstream = world.upstream("s");
    assert!(upstream.ways().is_none());
    assert_eq!(upstream.everybody().count(), 4);
}

#[test]
fn the_narrower_object_wins() {
    let mut world = two_clusters(traffic(&[("b", 1)], &[]));
    let mut own = traffic(&[("dc", 1)], &[]);
    own.service = Some(name("s"));
    let mut balancers = Balancers::new(1);
    let now = Instant::now();
    assert_eq!(clusters(&world, &mut balancers, 100, now)["b"], 100);
    world.traffic(own.clone());
    world.publish(now);
    assert_eq!(clusters(&world, &mut balancers, 100, now)["dc"], 100);
    world.no_traffic(&own.key());
    world.publish(now);
    assert_eq!(clusters(&world, &mut balancers, 100, now)["b"], 100);
}

#[test]
fn weights_move_requests_and_the_shares_are_exact() {
    let mut world = two_clusters(traffic(&[("dc", 100), ("b", 0)], &[]));
    let mut balancers = Balancers::new(5);
    let now = Instant::now();
    for weight in [0_u8, 10, 37, 50, 99, 100] {
        world.traffic(traffic(&[("dc", 100 - weight), ("b", weight)], &[]));
        world.publish(now);
        let found = clusters(&world, &mut balancers, 1000, now);
        let got = found.get("b").copied().unwrap_or_default();
        assert!(
            got.abs_diff(usize::from(weight) * 10) <= 2,
            "{weight}: {got}"
        );
    }
}

#[test]
fn a_dead_cluster_is_left_and_comes_back_bit_by_bit() {
    let world = two_clusters(traffic(&[], &["b"]));
    let mut balancers = Balancers::new(5);
    let now = Instant::now();
    assert_eq!(clusters(&world, &mut balancers, 100, now)["dc"], 100);
    kill(&world, &mut balancers, "dc", now);
    assert_eq!(clusters(&world, &mut balancers, 1000, now)["b"], 1000);
    // A probe of each, then requests again: not all at once.
    let later = now + Duration::from_secs(11);
    let probing = PickInput {
        replayable: true,
        ..PickInput::default()
    };
    let mut probed = 0;
    for _ in 0..20 {
        let mut picked = picked(&world, &mut balancers, &probing, later);
        probed += usize::from(picked.peer().key().cluster == name("dc"));
        picked.responded(Duration::from_millis(1), later);
        picked.finished();
    }
    assert_eq!(probed, 4);
    let share = |balancers: &mut Balancers, seconds: u64| {
        let at = later + Duration::from_secs(seconds);
        clusters(&world, balancers, 1000, at)
            .get("dc")
            .copied()
            .unwrap_or_default()
    };
    assert!(share(&mut balancers, 0) <= 10);
    let half = share(&mut balancers, 5);
    assert!((480..=520).contains(&half), "{half}");
    assert_eq!(share(&mut balancers, 11), 1000);
}

#[test]
fn every_peer_of_a_dead_cluster_is_marked_though_it_is_the_last() {
    let world = two_clusters(traffic(&[("dc", 50), ("b", 50)], &[]));
    let mut balancers = Balancers::new(5);
    let now = Instant::now();
    kill(&world, &mut balancers, "b", now);
    assert_eq!(clusters(&world, &mut balancers, 500, now)["dc"], 500);
    // And when all are, all are tried.
    for _ in 0..200 {
        let input = PickInput::default();
        picked(&world, &mut balancers, &input, now).failed(Failure::Connect, now);
    }
    let mut found = BTreeSet::new();
    for _ in 0..50 {
        // Without a verdict: one that answers would get all the others.
        let input = PickInput::default();
        let picked = picked(&world, &mut balancers, &input, now);
        found.insert(picked.peer().key().cluster.clone());
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn the_last_try_leaves_the_cluster_that_failed() {
    let world = two_clusters(traffic(&[], &["b"]));
    let upstream = world.upstream("s");
    let ways = upstream.ways().unwrap();
    let mut balancers = Balancers::new(5);
    let now = Instant::now();
    let input = PickInput::default();
    let first = balancers
        .pick_way(&upstream, ways, &input, (&[], None), now)
        .unwrap();
    let tried = [first.peer().number()];
    let home = name("dc");
    let stays = balancers
        .pick_way(&upstream, ways, &input, (&tried, None), now)
        .unwrap();
    assert_eq!(stays.peer().key().cluster, home);
    let leaves = balancers.pick_way(&upstream, ways, &input, (&tried, Some(&home)), now);
    assert_eq!(leaves.unwrap().peer().key().cluster, name("b"));
}

#[test]
fn a_request_from_another_cluster_stays_and_gateways_are_left_out_where_somebody_says_so() {
    let mut world = two_clusters(traffic(&[("b", 100)], &[]));
    let mut balancers = Balancers::new(5);
    let now = Instant::now();
    let of = |world: &World, balancers: &mut Balancers, reach: Reach| {
        let input = PickInput {
            reach,
            ..PickInput::default()
        };
        let picked = picked(world, balancers, &input, now);
        let (cluster, gateway) = (&picked.peer().key().cluster, picked.upstream().is_gateway());
        (cluster.to_string(), gateway)
    };
    let (home, away) = (("dc".to_owned(), false), ("b".to_owned(), false));
    assert_eq!(of(&world, &mut balancers, Reach::Anywhere), away);
    assert_eq!(of(&world, &mut balancers, Reach::Instances), away);
    assert_eq!(of(&world, &mut balancers, Reach::Home), home);
    let mut b = Cluster::named(name("b"));
    b.gateway = vec!["10.9.9.9:80".parse().unwrap()];
    world.cluster(b);
    world.publish(now);
    let gateway = of(&world, &mut balancers, Reach::Anywhere);
    assert_eq!(gateway, ("b".to_owned(), true));
    assert_eq!(of(&world, &mut balancers, Reach::Instances), home);
    world.cluster(Cluster::named(name("b")));
    world.publish(now);
    assert_eq!(of(&world, &mut balancers, Reach::Anywhere), away);
}

#[test]
fn near_instances_come_first_until_they_are_too_few() {
    let mut near = traffic(&[], &["b"]);
    near.zones = Zones::Near;
    let mut world = World::in_zone("z1");
    world.service(Service::named(name("s")));
    world.traffic(near);
    for number in 0..8 {
        let mut one = instance("s", number, 100);
        one.zone = Some(name(if number < 4 { "z1" } else { "z2" }));
        world.instance(one);
    }
    let now = Instant::now();
    world.publish(now);
    let mut balancers = Balancers::new(5);
    let share = |world: &World, balancers: &mut Balancers| {
        let mut near = 0;
        for _ in 0..1000 {
            let mut picked = picked(world, balancers, &PickInput::default(), now);
            picked.finished();
            let id = picked.peer().key().id.to_string();
            near += usize::from(["i0", "i1", "i2", "i3"].contains(&id.as_str()));
        }
        near
    };
    assert_eq!(share(&world, &mut balancers), 1000);
    // Three of four are out: the one left bears 35 % and its part of what goes to all.
    for number in 0..3 {
        let id = format!("i{number}");
        let upstream = world.upstream("s");
        let found = upstream
            .members()
            .iter()
            .find(|m| m.peer.key().id.as_str() == id);
        found.unwrap().peer.set_checks(Some("down".to_owned()));
    }
    let got = share(&world, &mut balancers);
    assert!((450..=510).contains(&got), "{got}");
}

#[test]
fn capacity_counts_where_it_is_declared() {
    let mut world = two_clusters(traffic(&[], &["b"]));
    let mut large = instance("s", 0, 100);
    large.capacity = Some(900);
    world.instance(large);
    for number in 1..4 {
        let mut small = instance("s", number, 100);
        small.capacity = Some(100);
        world.instance(small);
    }
    let now = Instant::now();
    world.publish(now);
    let upstream = world.upstream("s");
    let healthy = || standing(&upstream.ways().unwrap().home().all).healthy;
    let down = |id: &str| {
        let found = upstream
            .members()
            .iter()
            .find(|m| m.peer.key().id.as_str() == id);
        found.unwrap().peer.set_checks(Some("down".to_owned()));
    };
    assert!((healthy() - 1.0).abs() < 1e-9);
    down("i1");
    assert!((healthy() - 11.0 / 12.0).abs() < 1e-9);
    down("i0");
    assert!((healthy() - 2.0 / 12.0).abs() < 1e-9);
}

#[test]
fn a_key_keeps_its_cluster() {
    let mut sticky = traffic(&[("dc", 50), ("b", 50)], &[]);
    sticky.sticky = Some(HashKey::Client);
    let world = two_clusters(sticky);
    let now = Instant::now();
    let of = |key: u64, seed: u64| {
        let input = PickInput {
            cluster_key: Some(key),
            ..PickInput::default()
        };
        let picked = picked(&world, &mut Balancers::new(seed), &input, now);
        picked.peer().key().cluster.clone()
    };
    let mut found = BTreeMap::new();
    for key in 0..1000_u64 {
        let key = xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
        assert_eq!(of(key, 1), of(key, 2));
        *found.entry(of(key, 1)).or_insert(0) += 1;
    }
    assert_eq!(found.len(), 2);
    assert!(
        found.values().all(|count| (400..=600).contains(count)),
        "{found:?}"
    );
}

#[test]
fn what_changes_in_another_cluster_touches_those_who_use_it() {
    let mut own = traffic(&[("b", 100)], &[]);
    own.service = Some(name("s"));
    let mut world = two_clusters(own);
    world.service(Service::named(name("t")));
    world.instance(instance("t", 20, 100));
    let now = Instant::now();
    world.publish(now);
    let slots = |world: &World| {
        let table = world.shared.table_full().unwrap();
        let one = |slot: &Option<Arc<Upstream>>| {
            slot.as_ref()
                .map(|one| (one.service().clone(), Arc::as_ptr(one)))
        };
        table.slots.iter().filter_map(one).collect::<Vec<_>>()
    };
    let before = slots(&world);
    for service in ["s", "t"] {
        let mut away = instance(service, 30, 100);
        away.cluster = name("b");
        world.other("b", away);
    }
    let peers_before: Vec<u64> = world
        .upstream("s")
        .everybody()
        .map(Member::number)
        .collect();
    world.publish(now);
    let after = slots(&world);
    let same = |service: &str| {
        let of = |slots: &[(Name, _)]| {
            let own = slots.iter().filter(|(of, _)| *of == name(service));
            own.map(|(_, at)| *at).collect::<Vec<_>>()
        };
        of(&before) == of(&after)
    };
    // (The table of before is freed only later: no address is used twice.)
    assert!(same("t") || world.upstream("t").ways().is_none());
    assert!(!same("s"));
    let peers: Vec<u64> = world
        .upstream("s")
        .everybody()
        .map(Member::number)
        .collect();
    assert_eq!(
        peers[..peers_before.len()],
        peers_before[..],
        "peers stay who they are"
    );
    assert_eq!(peers.len(), peers_before.len() + 1);
    assert_eq!(world.upstream("t").everybody().count(), 1);
}

#[test]
fn instances_that_come_and_go_elsewhere_are_followed() {
    let mut world = two_clusters(traffic(&[("b", 100)], &[]));
    let now = Instant::now();
    let mut balancers = Balancers::new(5);
    assert_eq!(clusters(&world, &mut balancers, 100, now)["b"], 100);
    for number in 4..8 {
        world.other_gone("b", "s", number);
    }
    world.publish(now);
    // It lacks the service now: nobody is refused.
    assert_eq!(clusters(&world, &mut balancers, 100, now)["dc"], 100);
    let mut draining = instance("s", 4, 100);
    draining.cluster = name("b");
    draining.state = InstanceState::Draining;
    world.other("b", draining);
    world.publish(now);
    assert_eq!(clusters(&world, &mut balancers, 100, now)["dc"], 100);
    let slow = now + Duration::from_mins(1);
    let mut back = instance("s", 4, 100);
    back.cluster = name("b");
    world.other("b", back);
    world.publish(slow);
    clusters(&world, &mut balancers, 10, slow);
    let later = slow + Duration::from_secs(11);
    assert_eq!(clusters(&world, &mut balancers, 100, later)["b"], 100);
    world.forget("b");
    world.publish(later);
    assert_eq!(clusters(&world, &mut balancers, 100, later)["dc"], 100);
}
