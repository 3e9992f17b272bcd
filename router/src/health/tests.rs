use proptest::prelude::*;

use super::{guard::Counts, *};

const RULES: Rules = Rules {
    max_fails: 3,
    fail_timeout: 10_000,
};

fn failed(health: &mut Passive, now: u64, trial: Trial) {
    health.on_failure(now, RULES, trial, || true);
}

fn down() -> Passive {
    let mut health = Passive::new();
    for now in [1000, 1001, 1002] {
        failed(&mut health, now, Trial::Normal);
    }
    assert_eq!(health.state(), State::Down { until: 11_002 });
    health
}

#[test]
fn three_failures_within_the_window_mark() {
    let mut health = Passive::new();
    failed(&mut health, 0, Trial::Normal);
    failed(&mut health, 5000, Trial::Normal);
    // The first one is out of the window by now.
    failed(&mut health, 10_001, Trial::Normal);
    assert_eq!(health.state(), State::Up);
    failed(&mut health, 10_002, Trial::Normal);
    assert_eq!(health.state(), State::Down { until: 20_002 });
}

#[test]
fn a_success_resets_the_count() {
    let mut health = Passive::new();
    failed(&mut health, 0, Trial::Normal);
    failed(&mut health, 1, Trial::Normal);
    health.on_success(Trial::Normal);
    failed(&mut health, 2, Trial::Normal);
    failed(&mut health, 3, Trial::Normal);
    assert_eq!(health.state(), State::Up);
}

#[test]
fn late_answers_do_not_shorten_the_stay_and_late_failures_do_not_lengthen_it() {
    let mut health = down();
    health.on_success(Trial::Normal);
    failed(&mut health, 5000, Trial::Normal);
    assert_eq!(health.state(), State::Down { until: 11_002 });
}

#[test]
fn one_probe_decides_and_failed_ones_back_off_to_eight_times() {
    let mut health = down();
    assert!(!health.try_probe(11_001, RULES, 500, true));
    let mut until = 11_002;
    for factor in [2, 4, 8, 8] {
        assert!(health.try_probe(until, RULES, 500, true));
        assert!(!health.try_probe(until, RULES, 500, true));
        failed(&mut health, until + 7, Trial::Probe);
        until += 7 + 10_000 * factor;
        assert_eq!(health.state(), State::Down { until });
    }
    assert!(health.try_probe(until, RULES, 500, true));
    health.on_success(Trial::Probe);
    assert_eq!(health.state(), State::Up);
    // Back-off starts over.
    for now in [until, until, until] {
        failed(&mut health, now, Trial::Normal);
    }
    assert_eq!(
        health.state(),
        State::Down {
            until: until + 10_000
        }
    );
}

#[test]
fn a_probe_without_a_verdict_lets_another_one_try() {
    let mut health = down();
    assert!(health.try_probe(11_002, RULES, 500, true));
    health.on_abandoned(11_100, Trial::Probe);
    assert!(health.try_probe(11_100, RULES, 500, true));
    // Nobody ever tells how it ended: the lease runs out.
    assert!(!health.try_probe(11_599, RULES, 500, true));
    assert!(health.try_probe(11_600, RULES, 500, true));
}

#[test]
fn a_request_that_cannot_be_repeated_probes_only_when_no_other_comes() {
    let mut health = down();
    assert!(!health.try_probe(11_002, RULES, 500, false));
    assert!(!health.try_probe(21_001, RULES, 500, false));
    assert!(health.try_probe(21_002, RULES, 500, false));
}

#[test]
fn when_all_are_down_an_answer_brings_one_back() {
    let mut health = down();
    failed(&mut health, 2000, Trial::LastResort);
    assert_eq!(health.state(), State::Down { until: 11_002 });
    health.on_success(Trial::LastResort);
    assert_eq!(health.state(), State::Up);
}

#[test]
fn a_peer_that_cannot_be_spared_is_asked_about_again() {
    let mut health = Passive::new();
    for now in 0..5 {
        health.on_failure(now, RULES, Trial::Normal, || false);
    }
    assert_eq!((health.state(), health.fails()), (State::Up, 3));
    failed(&mut health, 5, Trial::Normal);
    assert_eq!(health.state(), State::Down { until: 10_005 });
}

#[test]
fn marking_can_be_switched_off() {
    let rules = Rules {
        max_fails: 0,
        ..RULES
    };
    let mut health = Passive::new();
    for now in 0..100 {
        health.on_failure(now, rules, Trial::Normal, || true);
    }
    assert_eq!((health.state(), health.fails()), (State::Up, 0));
}

#[test]
fn what_an_upstream_can_spare() {
    for (takers, out, percent, want) in [
        (1, 0, 50, false),
        (2, 0, 50, true),
        (2, 1, 50, false),
        (3, 0, 10, true),
        (3, 1, 10, false),
        (10, 4, 50, true),
        (10, 5, 50, false),
        (10, 8, 100, true),
        (10, 9, 100, false),
        (10, 0, 0, false),
        (0, 0, 50, false),
    ] {
        assert_eq!(
            Counts { takers, out }.can_spare_one(percent),
            want,
            "{takers} {out} {percent}"
        );
    }
}

#[derive(Debug, Clone)]
enum Event {
    Fail,
    Succeed,
    Probe,
    ProbeFails,
    ProbeAnswers,
    ProbeVanishes,
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        4 => Just(Event::Fail),
        1 => Just(Event::Succeed),
        2 => Just(Event::Probe),
        1 => Just(Event::ProbeFails),
        1 => Just(Event::ProbeAnswers),
        1 => Just(Event::ProbeVanishes),
    ];
    prop::collection::vec((0..6000u64, event), 1..200)
}

proptest! {
    /// Against the rules as one would say them, over the whole history.
    #[test]
    fn marks_exactly_when_the_rules_say(events in events()) {
        let mut health = Passive::new();
        let mut now = 0;
        // Failures since the last success or marking, and the stay that was announced.
        let mut fails: Vec<u64> = Vec::new();
        let mut stay_until = 0;
        let mut probing = false;
        for (pause, event) in events {
            now += pause;
            let before = health.state();
            match event {
                Event::Fail => {
                    failed(&mut health, now, Trial::Normal);
                    if before == State::Up {
                        fails.push(now);
                        let recent = fails.iter().filter(|at| **at + 10_000 >= now).count();
                        prop_assert_eq!(health.state() != State::Up, recent >= 3);
                        if recent >= 3 {
                            fails.clear();
                            stay_until = now + 10_000;
                        }
                    } else {
                        prop_assert_eq!(health.state(), before);
                    }
                }
                Event::Succeed => {
                    health.on_success(Trial::Normal);
                    prop_assert_eq!(health.state(), before);
                    if before == State::Up {
                        fails.clear();
                    }
                }
                Event::Probe => {
                    let won = health.try_probe(now, RULES, 1000, true);
                    // Never while up, never before the full stay is over.
                    prop_assert!(!won || (before != State::Up && now >= stay_until));
                    probing |= won;
                }
                Event::ProbeFails if probing => {
                    failed(&mut health, now, Trial::Probe);
                    let State::Down { until } = health.state() else {
                        panic!("{:?}", health.state());
                    };
                    prop_assert!((20_000..=80_000).contains(&(until - now)));
                    stay_until = until;
                    probing = false;
                }
                Event::ProbeAnswers if probing => {
                    health.on_success(Trial::Probe);
                    prop_assert_eq!(health.state(), State::Up);
                    probing = false;
                }
                Event::ProbeVanishes if probing => {
                    health.on_abandoned(now, Trial::Probe);
                    probing = false;
                    stay_until = now;
                }
                Event::ProbeFails | Event::ProbeAnswers | Event::ProbeVanishes => {}
            }
        }
    }
}
