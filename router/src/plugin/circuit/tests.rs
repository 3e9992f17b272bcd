use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    window: 10_000,
    min_requests: 20,
    errors: 5_000,
    slow_calls: 8_000,
    open: 5_000,
    probes: 3,
};
const GOOD: Outcome = Outcome {
    failed: false,
    slow: false,
};
const FAILED: Outcome = Outcome {
    failed: true,
    slow: false,
};
const SLOW: Outcome = Outcome {
    failed: false,
    slow: true,
};
const START: u64 = 3_600_000;

fn feed(circuit: &Circuit, outcome: Outcome, times: usize, now: u64) {
    for _ in 0..times {
        circuit.ended(outcome, now, &RULES);
    }
}

fn is_open(circuit: &Circuit) -> bool {
    matches!(circuit.state(), State::Open { .. })
}

#[test]
fn ratios_open_it_from_the_minimum_on() {
    // Good, failed, slow; whether it is open then.
    for (good, failed, slow, open) in [
        (0, 19, 0, false),
        (0, 20, 0, true),
        (11, 10, 0, false),
        (10, 10, 0, true),
        (1000, 999, 0, false),
        (6, 0, 19, false),
        (4, 0, 16, true),
        // Neither share is reached; together they would be.
        (8, 9, 9, false),
    ] {
        let circuit = Circuit::default();
        feed(&circuit, GOOD, good, START);
        feed(&circuit, FAILED, failed, START);
        feed(&circuit, SLOW, slow, START);
        assert_eq!(is_open(&circuit), open, "{good} {failed} {slow}");
    }
}

#[test]
fn what_left_the_window_does_not_count() {
    let circuit = Circuit::default();
    feed(&circuit, FAILED, 19, START);
    feed(&circuit, FAILED, 1, START + RULES.window);
    assert!(!is_open(&circuit));
    assert_eq!(circuit.totals(START + RULES.window, &RULES).requests, 1);
    feed(&circuit, FAILED, 19, START + RULES.window * 2 - 1000);
    assert!(is_open(&circuit));
}

#[test]
fn open_half_open_and_closed_again() {
    let circuit = Circuit::default();
    feed(&circuit, FAILED, 20, START);
    assert_eq!(circuit.opened(), 1);
    assert_eq!(circuit.admit(START, &RULES), Admission::Refused(5_000));
    assert_eq!(circuit.admit(START + 4_999, &RULES), Admission::Refused(1));
    let now = START + 5_000;
    let rounds: Vec<_> = (0..3)
        .map(|_| match circuit.admit(now, &RULES) {
            Admission::Probe(round) => round,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(circuit.admit(now, &RULES), Admission::Refused(_)));
    // One went away: another one is given.
    circuit.probed(rounds[0], None, now, &RULES);
    assert!(matches!(circuit.admit(now, &RULES), Admission::Probe(_)));
    for round in rounds {
        assert!(matches!(circuit.state(), State::Half { .. }));
        circuit.probed(round, Some(GOOD), now, &RULES);
    }
    assert_eq!(circuit.state(), State::Closed { since: now });
    // What opened it is not held against it any more.
    feed(&circuit, FAILED, 1, now + 1);
    assert_eq!(circuit.admit(now + 1, &RULES), Admission::Pass);
}

#[test]
fn a_probe_that_fails_opens_it_and_older_ones_say_nothing() {
    let circuit = Circuit::default();
    feed(&circuit, FAILED, 20, START);
    let now = START + 5_000;
    let Admission::Probe(first) = circuit.admit(now, &RULES) else {
        panic!("a probe");
    };
    let Admission::Probe(_) = circuit.admit(now, &RULES) else {
        panic!("a probe");
    };
    circuit.probed(first, Some(SLOW), now + 7, &RULES);
    assert_eq!(circuit.state(), State::Open { until: now + 5_007 });
    assert_eq!(circuit.opened(), 2);
    let Admission::Probe(second) = circuit.admit(now + 5_007, &RULES) else {
        panic!("a probe");
    };
    assert_ne!(first, second);
    let before = circuit.state();
    circuit.probed(first, Some(FAILED), now + 5_008, &RULES);
    circuit.probed(first, Some(GOOD), now + 5_008, &RULES);
    assert_eq!(circuit.state(), before);
}

#[test]
fn probes_that_never_come_back_do_not_keep_it_shut() {
    let circuit = Circuit::default();
    feed(&circuit, FAILED, 20, START);
    let now = START + 5_000;
    for _ in 0..3 {
        assert!(matches!(circuit.admit(now, &RULES), Admission::Probe(_)));
    }
    assert_eq!(
        circuit.admit(now + 1_000, &RULES),
        Admission::Refused(4_000)
    );
    assert!(matches!(
        circuit.admit(now + 5_000, &RULES),
        Admission::Probe(_)
    ));
}

#[test]
fn many_threads_get_no_more_probes_than_there_are() {
    let circuit = Circuit::default();
    feed(&circuit, FAILED, 20, START);
    let probes: usize = std::thread::scope(|scope| {
        let ask = || {
            let admitted = (0..1000).map(|_| circuit.admit(START + 5_000, &RULES));
            admitted
                .filter(|a| matches!(a, Admission::Probe(_)))
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(probes, 3);
}

#[test]
fn many_threads_count_every_request_once() {
    let circuit = Circuit::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| feed(&circuit, GOOD, 10_000, START));
        }
    });
    assert_eq!(circuit.totals(START, &RULES).requests, 40_000);
}

fn states() -> impl Strategy<Value = State> {
    let time = 0..1u64 << 38;
    prop_oneof![
        time.clone().prop_map(|since| State::Closed { since }),
        time.clone().prop_map(|until| State::Open { until }),
        (any::<u8>(), any::<u8>(), any::<u8>(), time).prop_map(|(round, given, passed, at)| {
            State::Half {
                round,
                given,
                passed,
                at,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn a_state_is_a_number(state in states()) {
        prop_assert_eq!(State::from(u64::from(state)), state);
    }

    /// Whatever comes in whatever order: while it is open nothing goes on before its time is over,
    /// half open no more than the probes go on in a round, and only so many good probes close it.
    #[test]
    fn whatever_happens_its_promises_hold(
        steps in prop::collection::vec((0u64..2_000, 0u8..5), 1..400),
    ) {
        let circuit = Circuit::default();
        let mut now = START;
        let mut out: Vec<u8> = Vec::new();
        let mut good = 0;
        for (gap, step) in steps {
            now += gap;
            let before = circuit.state();
            match step {
                0 | 1 => match circuit.admit(now, &RULES) {
                    Admission::Pass => {
                        let closed = matches!(before, State::Closed { .. });
                        prop_assert!(closed);
                    }
                    Admission::Refused(ms) => {
                        let closed = matches!(before, State::Closed { .. });
                        prop_assert!(!closed && ms > 0 && ms <= RULES.open);
                    }
                    Admission::Probe(round) => {
                        if let State::Open { until } = before {
                            prop_assert!(now >= until);
                        }
                        if !matches!(before, State::Half { round: r, .. } if r == round) {
                            good = 0;
                        }
                        out.push(round);
                    }
                },
                2 => if let Some(round) = out.pop() {
                    let current = matches!(before, State::Half { round: r, .. } if r == round);
                    circuit.probed(round, Some(GOOD), now, &RULES);
                    good += u8::from(current);
                    if matches!(circuit.state(), State::Closed { .. })
                        && !matches!(before, State::Closed { .. })
                    {
                        prop_assert_eq!(good, RULES.probes);
                    }
                },
                3 => if let Some(round) = out.pop() {
                    circuit.probed(round, None, now, &RULES);
                },
                _ => feed(&circuit, FAILED, 7, now),
            }
            if let State::Half { given, passed, .. } = circuit.state() {
                prop_assert!(given <= RULES.probes && passed <= given);
            }
        }
    }
}
