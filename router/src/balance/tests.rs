use std::{collections::HashMap, time::Duration};

use cardea_registry_api::{InstanceState, Service, policy::HashKey};
use proptest::prelude::*;

use super::*;
use crate::{
    fixtures::{World, instance, name},
    peer::Failure,
};

fn world(balance: Balance, weights: &[u16]) -> World {
    let mut service = Service::named(name("s"));
    service.balance = balance;
    World::with(service, weights)
}

fn by_hash() -> Balance {
    Balance::Hash(HashKey::Client)
}

/// The ids of `count` picks, each answered at once.
fn picks(balancers: &mut Balancers, world: &World, count: usize, now: Instant) -> Vec<String> {
    let upstream = world.upstream("s");
    let input = PickInput::default();
    let one = |_| {
        let mut picked = balancers.pick(&upstream, &input, &[], now)?;
        picked.responded(Duration::from_millis(1), now);
        Some(picked.peer().key().id.to_string())
    };
    (0..count).map(one).collect::<Option<_>>().unwrap()
}

fn shares(picks: &[String]) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for id in picks {
        *shares.entry(id.clone()).or_insert(0) += 1;
    }
    shares
}

fn hashed(world: &World, keys: u64) -> Vec<PeerNumber> {
    let upstream = world.upstream("s");
    let mut balancers = Balancers::new(1);
    let now = Instant::now();
    (0..keys)
        .map(|number| {
            let input = PickInput {
                key: Some(key::hash(format!("user-{number}").as_bytes())),
                ..PickInput::default()
            };
            let picked = balancers.pick(&upstream, &input, &[], now);
            picked.unwrap().peer().number()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any number of picks, each peer has its share give or take a little more than one.
    #[test]
    fn round_robin_is_smooth(
        weights in prop::collection::vec(prop_oneof![1..5u16, 1..=1000u16], 1..20),
        seed in any::<u64>(),
    ) {
        let world = world(Balance::RoundRobin, &weights);
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let picks = picks(&mut Balancers::new(seed), &world, 2000, Instant::now());
        let mut counts = vec![0.0; weights.len()];
        for (done, id) in picks.iter().enumerate() {
            counts[id[1..].parse::<usize>().unwrap()] += 1.0;
            for (peer, weight) in weights.iter().enumerate() {
                let fair = (done + 1) as f64 * f64::from(*weight) / total;
                prop_assert!((counts[peer] - fair).abs() <= 2.0, "{peer}: {} {fair}", counts[peer]);
            }
        }
    }

    /// A table that changes after every few picks, without touching the weights, changes no share.
    #[test]
    fn round_robin_survives_tables(
        weights in prop::collection::vec(1..10u16, 2..8),
        every in 1..20usize,
        seed in any::<u64>(),
    ) {
        let mut world = world(Balance::RoundRobin, &weights);
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let mut balancers = Balancers::new(seed);
        let mut counts = vec![0.0; weights.len()];
        let rounds = 600 / every;
        for round in 0..rounds {
            for id in picks(&mut balancers, &world, every, Instant::now()) {
                counts[id[1..].parse::<usize>().unwrap()] += 1.0;
            }
            // Something else about the service changes.
            let mut service = Service::named(name("s"));
            service.retries.body_limit = u32::try_from(round).unwrap();
            world.service(service);
            world.publish(Instant::now());
        }
        for (peer, weight) in weights.iter().enumerate() {
            let fair = (rounds * every) as f64 * f64::from(*weight) / total;
            prop_assert!((counts[peer] - fair).abs() <= 2.0, "{peer}: {} {fair}", counts[peer]);
        }
    }

    /// Peers come, go and change their weights at any time: never a peer that must not be picked,
    /// never none when there is one.
    #[test]
    fn any_balance_picks_only_what_it_may(
        balance in prop::sample::select(vec![Balance::RoundRobin, Balance::LeastLoaded, by_hash()]),
        steps in prop::collection::vec((0..25usize, 0..4u16, 0..4u8), 1..60),
    ) {
        let mut world = world(balance, &[100]);
        let mut balancers = Balancers::new(7);
        let now = Instant::now();
        for (number, weight, action) in steps {
            match action {
                0 => world.remove("s", number),
                1 => {
                    world.instance(instance("s", number, weight * 10));
                    world.state("s", number, InstanceState::Starting);
                }
                _ => world.instance(instance("s", number, weight * 10)),
            }
            world.publish(now);
            let upstream = world.upstream("s");
            let mut tried = Vec::new();
            let input = PickInput { key: Some(number as u64), replayable: true, ..PickInput::default() };
            while let Some(picked) = balancers.pick(&upstream, &input, &tried, now) {
                prop_assert!(!tried.contains(&picked.peer().number()));
                prop_assert!(upstream.member(picked.peer().number()).unwrap().takes_requests());
                tried.push(picked.peer().number());
            }
            prop_assert_eq!(tried.len(), upstream.takers());
        }
    }
}

#[test]
fn the_classic_five_one_one_never_bunches() {
    let world = world(Balance::RoundRobin, &[5, 1, 1]);
    for seed in 0..50 {
        let picks = picks(&mut Balancers::new(seed), &world, 700, Instant::now());
        let shares = shares(&picks[..]);
        assert!((498..=502).contains(&shares["i0"]), "{shares:?}");
        let longest = picks
            .chunk_by(|a, b| a == b)
            .filter(|run| run[0] == "i0")
            .map(<[String]>::len)
            .max();
        assert!(longest <= Some(4), "{longest:?} {:?}", &picks[..21]);
    }
}

#[test]
fn workers_do_not_march_in_step() {
    let world = world(Balance::RoundRobin, &[100; 50]);
    let firsts: std::collections::HashSet<String> = (0..40)
        .map(|seed| picks(&mut Balancers::new(seed), &world, 1, Instant::now()).remove(0))
        .collect();
    assert!(firsts.len() > 15, "{}", firsts.len());
}

#[test]
fn a_new_peer_gets_its_share_and_no_more() {
    let mut world = world(Balance::RoundRobin, &[100; 4]);
    let mut balancers = Balancers::new(3);
    picks(&mut balancers, &world, 100_000, Instant::now());
    world.instance(instance("s", 4, 100));
    world.publish(Instant::now());
    let shares = shares(&picks(&mut balancers, &world, 50, Instant::now()));
    assert!((9..=11).contains(&shares["i4"]), "{shares:?}");
}

#[test]
fn a_peer_that_was_down_does_not_catch_up() {
    let world = world(Balance::RoundRobin, &[100; 4]);
    let mut balancers = Balancers::new(3);
    let upstream = world.upstream("s");
    let peer = &upstream.members()[2].peer;
    peer.set_checks(Some("down".to_owned()));
    let now = Instant::now();
    let without = shares(&picks(&mut balancers, &world, 3000, now));
    assert_eq!(without.get("i2"), None);
    assert!((999..=1001).contains(&without["i1"]), "{without:?}");
    peer.set_checks(None);
    let with = shares(&picks(&mut balancers, &world, 400, now));
    assert!((98..=102).contains(&with["i2"]), "{with:?}");
}

#[test]
fn slow_start_grows_from_a_tenth_to_the_whole() {
    for balance in [Balance::RoundRobin, Balance::LeastLoaded] {
        let mut service = Service::named(name("s"));
        service.balance = balance.clone();
        service.health.slow_start = cardea_registry_api::Span::secs(100);
        let mut world = World::with(service, &[100; 10]);
        let born = Instant::now() + Duration::from_secs(1000);
        world.instance(instance("s", 10, 100));
        world.publish(born);
        let mut balancers = Balancers::new(3);
        let mut share = |age: u64| {
            let picks = picks(
                &mut balancers,
                &world,
                11_000,
                born + Duration::from_secs(age),
            );
            shares(&picks).get("i10").copied().unwrap_or(0)
        };
        for (age, fair) in [(0, 110), (50, 600), (100, 1000)] {
            let got = share(age);
            let tolerance = fair / 5 + 20;
            assert!(
                got.abs_diff(fair) < tolerance,
                "{balance:?} at {age} s: {got}, not {fair}"
            );
        }
    }
}

#[test]
fn least_loaded_respects_weights_when_idle() {
    let world = world(Balance::LeastLoaded, &[300, 100, 100, 100]);
    let shares = shares(&picks(
        &mut Balancers::new(5),
        &world,
        60_000,
        Instant::now(),
    ));
    assert!((28_000..32_000).contains(&shares["i0"]), "{shares:?}");
    assert!((9000..11_000).contains(&shares["i3"]), "{shares:?}");
}

#[test]
fn least_loaded_avoids_the_slow_and_the_busy() {
    let world = world(Balance::LeastLoaded, &[100; 10]);
    let upstream = world.upstream("s");
    let mut balancers = Balancers::new(5);
    let now = Instant::now();
    picks(&mut balancers, &world, 100, now);
    let slow = &upstream.members()[0].peer;
    slow.latency()
        .observe(Duration::from_secs(1), clock::millis(now));
    let mut counts = HashMap::new();
    let mut held = Vec::new();
    for _ in 0..1000 {
        let picked = balancers
            .pick(&upstream, &PickInput::default(), &[], now)
            .unwrap();
        *counts.entry(picked.peer().number()).or_insert(0) += 1;
        held.push(picked);
    }
    assert_eq!(counts.get(&slow.number()), None, "{counts:?}");
    // Nothing was answered: the load itself must be even.
    let (least, most) = (counts.values().min(), counts.values().max());
    assert!(least >= Some(&100) && most <= Some(&122), "{counts:?}");
}

#[test]
fn a_peer_that_never_answered_gets_one_request_at_a_time() {
    let mut world = world(Balance::LeastLoaded, &[100; 5]);
    let mut balancers = Balancers::new(5);
    let now = Instant::now();
    picks(&mut balancers, &world, 1000, now);
    world.instance(instance("s", 5, 100));
    world.publish(now);
    let upstream = world.upstream("s");
    let held: Vec<Picked> = (0..100)
        .map(|_| {
            balancers
                .pick(&upstream, &PickInput::default(), &[], now)
                .unwrap()
        })
        .collect();
    let new = upstream.members()[5].peer.number();
    assert_eq!(held.iter().filter(|p| p.peer().number() == new).count(), 1);
}

#[test]
fn hashes_are_even_and_respect_weights() {
    for peers in [2, 3, 10, 16, 17, 50] {
        let world = world(by_hash(), &vec![100; peers]);
        let mut counts: HashMap<PeerNumber, usize> = HashMap::new();
        for number in hashed(&world, 100_000) {
            *counts.entry(number).or_insert(0) += 1;
        }
        let fair = 100_000.0 / peers as f64;
        for count in counts.values() {
            let off = (*count as f64 - fair).abs() / fair;
            assert!(off < 0.1, "{peers} peers: {count} of {fair}");
        }
        assert_eq!(counts.len(), peers);
    }
    for peers in [4usize, 20] {
        let weights: Vec<u16> = (0..peers).map(|p| if p == 0 { 400 } else { 100 }).collect();
        let world = world(by_hash(), &weights);
        let heavy = world.upstream("s").members()[0].peer.number();
        let count = hashed(&world, 100_000)
            .iter()
            .filter(|number| **number == heavy)
            .count();
        let fair = 100_000.0 * 4.0 / (peers as f64 + 3.0);
        assert!(
            (count as f64 - fair).abs() / fair < 0.1,
            "{count} of {fair}"
        );
    }
}

#[test]
fn little_moves_when_a_peer_comes_or_goes() {
    for peers in [4usize, 10, 40] {
        let mut world = world(by_hash(), &vec![100; peers]);
        let before = hashed(&world, 20_000);
        let gone = world.upstream("s").members()[1].peer.number();
        world.remove("s", 1);
        world.publish(Instant::now());
        let after = hashed(&world, 20_000);
        let needless = before
            .iter()
            .zip(&after)
            .filter(|(b, a)| **b != gone && b != a)
            .count();
        // Rendezvous moves nothing else; Maglev a little.
        let most = if peers <= 16 { 0 } else { 20_000 * 4 / 100 };
        assert!(needless <= most, "{peers} peers: {needless}");

        world.instance(instance("s", 1, 100));
        world.publish(Instant::now());
        let again = hashed(&world, 20_000);
        let new = world.upstream("s").members().last().unwrap().peer.number();
        let same = |(b, a): (&PeerNumber, &PeerNumber)| b == a || (*b == gone && *a == new);
        assert!(
            before.iter().zip(&again).all(same),
            "the same set, the same places"
        );
    }
}

#[test]
fn a_key_whose_peer_is_down_goes_elsewhere_and_the_others_stay() {
    for peers in [4usize, 40] {
        let world = world(by_hash(), &vec![100; peers]);
        let before = hashed(&world, 10_000);
        let upstream = world.upstream("s");
        let down = &upstream.members()[1].peer;
        down.set_checks(Some("down".to_owned()));
        let after = hashed(&world, 10_000);
        let mut heirs: HashMap<PeerNumber, usize> = HashMap::new();
        for (was, is) in before.iter().zip(&after) {
            assert_ne!(*is, down.number());
            if *was == down.number() {
                *heirs.entry(*is).or_insert(0) += 1;
            } else {
                assert_eq!(was, is);
            }
        }
        assert!(heirs.len() >= (peers - 1) * 9 / 10, "{}", heirs.len());
    }
}

#[test]
fn all_routers_agree_on_a_hash() {
    let one = world(by_hash(), &[100; 30]);
    // Another router got to know the same peers in another order.
    let mut two = world(by_hash(), &[]);
    for number in (0..30).rev() {
        two.instance(instance("s", number, 100));
        two.publish(Instant::now());
    }
    let keys = |world: &World| -> Vec<String> {
        let upstream = world.upstream("s");
        let id = |number| upstream.member(number).unwrap().peer.key().to_string();
        hashed(world, 1000).into_iter().map(id).collect()
    };
    assert_eq!(keys(&one), keys(&two));
}

#[test]
fn when_all_are_down_all_are_tried() {
    let world = world(Balance::RoundRobin, &[100; 3]);
    let upstream = world.upstream("s");
    for member in upstream.members() {
        member.peer.set_checks(Some("down".to_owned()));
    }
    let mut balancers = Balancers::new(1);
    let (mut tried, now) = (Vec::new(), Instant::now());
    for _ in 0..3 {
        let mut picked = balancers
            .pick(&upstream, &PickInput::default(), &tried, now)
            .unwrap();
        assert_eq!(picked.trial(), Trial::LastResort);
        picked.failed(Failure::Connect, now);
        tried.push(picked.peer().number());
    }
    let none = balancers.pick(&upstream, &PickInput::default(), &tried, now);
    assert!(none.is_none());
}

#[test]
fn a_request_with_an_old_table_does_not_reach_a_peer_that_left() {
    let mut world = world(Balance::RoundRobin, &[100; 2]);
    let old = world.upstream("s");
    let gone = old.members()[0].peer.number();
    world.remove("s", 0);
    world.publish(Instant::now());
    let mut balancers = Balancers::new(1);
    for _ in 0..10 {
        let picked = balancers
            .pick(&old, &PickInput::default(), &[], Instant::now())
            .unwrap();
        assert_ne!(picked.peer().number(), gone);
    }
}
