use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cardea_registry_api::{InstanceState, Service};

use super::*;
use crate::{
    balance::{Balancers, PickInput},
    fixtures::{World, name},
};

const INPUT: PickInput = PickInput {
    key: None,
    replayable: true,
    cluster_key: None,
    reach: crate::balance::Reach::Anywhere,
};

fn world(peers: usize, percent: u8) -> World {
    let mut service = Service::named(name("s"));
    service.health.max_ejected_percent = percent;
    World::with(service, &vec![100; peers])
}

fn pick(balancers: &mut Balancers, world: &World, now: Instant) -> Picked {
    balancers
        .pick(&world.upstream("s"), &INPUT, &[], now)
        .unwrap()
}

#[test]
fn the_word_holds_what_was_put_in() {
    for state in [
        State::Up,
        State::Down { until: 1 << 40 },
        State::Probing { lease: 7 },
    ] {
        for bits in 0..8u8 {
            let flag = |bit: u8| bits & (1 << bit) != 0;
            let word = Word::new(flag(0), flag(1), state, flag(2));
            assert_eq!(word.takes(), flag(0));
            assert_eq!(word.checks_down(), flag(1));
            assert_eq!(word.state(), state);
            assert_eq!(word.usable(), flag(0) && !flag(1) && state == State::Up);
            assert_eq!(word.troubled(), flag(2) || state != State::Up);
        }
    }
}

#[test]
fn workers_that_fail_everything_at_once_never_mark_the_last_peer_or_too_many() {
    for (peers, percent, most) in [(2, 100, 1), (5, 100, 4), (10, 50, 5), (10, 30, 3)] {
        let world = world(peers, percent);
        let now = Instant::now();
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for seed in 0..8 {
                let (world, start) = (&world, &start);
                scope.spawn(move || {
                    let mut balancers = Balancers::new(seed);
                    start.wait();
                    for _ in 0..500 {
                        let mut picked = pick(&mut balancers, world, now);
                        picked.failed(Failure::Connect, now);
                    }
                });
            }
        });
        let upstream = world.upstream("s");
        let down = upstream
            .members()
            .iter()
            .filter(|m| !m.peer.word().usable())
            .count();
        assert_eq!(down, most, "{peers} peers, {percent} %");
        let counts = upstream.guard().counts();
        assert_eq!((counts.takers as usize, counts.out as usize), (peers, most));
    }
}

#[test]
fn one_request_of_all_workers_probes() {
    let world = world(2, 50);
    let now = Instant::now();
    let bad = Arc::clone(&world.upstream("s").members()[0].peer);
    let mut balancers = Balancers::new(1);
    while bad.word().usable() {
        let mut picked = pick(&mut balancers, &world, now);
        if picked.peer().number() == bad.number() {
            picked.failed(Failure::Reset, now);
        } else {
            picked.finished();
        }
    }
    let later = now + Duration::from_secs(10);
    let probes = AtomicUsize::new(0);
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for seed in 0..8 {
            let (world, start, probes) = (&world, &start, &probes);
            scope.spawn(move || {
                let mut balancers = Balancers::new(seed);
                start.wait();
                let kept: Vec<Picked> = (0..100)
                    .map(|_| pick(&mut balancers, world, later))
                    .collect();
                let won = kept.iter().filter(|p| p.trial() == Trial::Probe).count();
                probes.fetch_add(won, Ordering::Relaxed);
                // A probe that ends without a verdict would let the next one try: all end together.
                start.wait();
            });
        }
    });
    assert_eq!(probes.into_inner(), 1);
}

#[test]
fn out_within_three_failures_and_back_by_one_answer() {
    let world = world(3, 50);
    let mut now = Instant::now();
    let mut balancers = Balancers::new(1);
    let bad = world.upstream("s").members()[1].peer.number();
    let mut failures = 0;
    for _ in 0..1000 {
        let mut picked = pick(&mut balancers, &world, now);
        if picked.peer().number() == bad {
            picked.failed(Failure::FirstByteTimeout, now);
            failures += 1;
        } else {
            picked.responded(Duration::from_millis(1), now);
            picked.finished();
        }
        now += Duration::from_millis(5);
    }
    assert_eq!(failures, 3);
    now += Duration::from_secs(10);
    let mut picked = pick(&mut balancers, &world, now);
    assert_eq!(
        (picked.peer().number(), picked.trial()),
        (bad, Trial::Probe)
    );
    picked.responded(Duration::from_millis(1), now);
    drop(picked);
    let hits = (0..300)
        .filter(|_| pick(&mut balancers, &world, now).peer().number() == bad)
        .count();
    assert!((99..=101).contains(&hits), "{hits}");
}

#[test]
fn a_client_that_goes_away_says_nothing_about_the_peer() {
    let world = world(2, 50);
    let now = Instant::now();
    let mut balancers = Balancers::new(1);
    for _ in 0..100 {
        drop(pick(&mut balancers, &world, now));
    }
    for member in world.upstream("s").members() {
        assert!(member.peer.word().usable());
        assert_eq!(member.peer.in_flight(), 0);
        assert_eq!(member.peer.report(now).failures, 0);
    }
}

#[test]
fn a_client_that_goes_away_during_a_probe_leaves_it_to_the_next() {
    let world = world(2, 50);
    let now = Instant::now();
    let mut balancers = Balancers::new(1);
    let bad = Arc::clone(&world.upstream("s").members()[0].peer);
    for _ in 0..3 {
        bad.failed(
            Failure::Connect,
            Rules {
                max_fails: 3,
                fail_timeout: 10_000,
            },
            50,
            Trial::Normal,
            clock::millis(now),
        );
    }
    // The abandoned probe's time is the real clock's, so the stay has to be over by that too.
    let later = now + Duration::from_secs(20);
    let probe = pick(&mut balancers, &world, later);
    assert_eq!(probe.trial(), Trial::Probe);
    assert_eq!(pick(&mut balancers, &world, later).trial(), Trial::Normal);
    drop(probe);
    assert_eq!(pick(&mut balancers, &world, later).trial(), Trial::Probe);
}

#[test]
fn a_body_that_breaks_after_a_good_head_counts() {
    let world = world(2, 50);
    let now = Instant::now();
    let mut balancers = Balancers::new(1);
    let bad = world.upstream("s").members()[0].peer.number();
    let mut broken = 0;
    for _ in 0..100 {
        let mut picked = pick(&mut balancers, &world, now);
        picked.responded(Duration::from_millis(1), now);
        if picked.peer().number() == bad {
            picked.failed(Failure::Reset, now);
            broken += 1;
        } else {
            picked.finished();
        }
    }
    assert_eq!(broken, 3);
}

#[test]
fn a_peer_that_leaves_while_down_does_not_count_as_out() {
    let mut world = world(3, 50);
    let now = Instant::now();
    let rules = Rules {
        max_fails: 1,
        fail_timeout: 10_000,
    };
    let fail = |world: &World, at: usize| {
        let upstream = world.upstream("s");
        let peer = &upstream.members()[at].peer;
        peer.failed(
            Failure::Connect,
            rules,
            50,
            Trial::Normal,
            clock::millis(now),
        );
        peer.word().usable()
    };
    assert!(!fail(&world, 0));
    assert!(fail(&world, 1), "half of three is one");
    world.state("s", 0, InstanceState::Draining);
    world.publish(now);
    assert_eq!(world.upstream("s").guard().counts().out, 0);
    assert!(!fail(&world, 1));
    // It comes back as it left: down.
    world.state("s", 0, InstanceState::Up);
    world.publish(now);
    assert_eq!(world.upstream("s").guard().counts().out, 2);
}

#[test]
fn the_report_says_why() {
    let world = world(2, 50);
    let now = Instant::now();
    let upstream = world.upstream("s");
    let peer = &upstream.members()[0].peer;
    assert_eq!(peer.report(now).health, Standing::Up);
    let rules = upstream.policy().rules;
    for _ in 0..3 {
        peer.failed(
            Failure::Status(503),
            rules,
            50,
            Trial::Normal,
            clock::millis(now),
        );
    }
    let report = peer.report(now + Duration::from_secs(4));
    assert_eq!(report.health, Standing::Down);
    assert_eq!(report.last_failure.as_deref(), Some("status 503"));
    assert_eq!(report.probe_in_ms, Some(6000));
    assert_eq!((report.failures, report.marked), (3, 1));
    peer.set_checks(Some("check failed: connect".to_owned()));
    assert_eq!(peer.report(now).health, Standing::ChecksDown);
    peer.set_takes(false);
    assert_eq!(peer.report(now).health, Standing::Idle);
}
