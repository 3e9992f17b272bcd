//! The machine as a value: what holds whatever is seen, in whatever order.

use cardea_registry_api::switch::{Event, Guards};
use proptest::prelude::*;

use super::*;
use crate::state::tests::name;
use world::{World, asked, beginning, moved, sample};

mod world;

#[test]
fn stages_are_written_waited_for_and_watched_one_after_the_other() {
    let mut world = World::begin(asked(&[10, 50, 100], 10), false);
    for (percent, weight) in [(10, 10), (50, 50), (100, 100)] {
        assert_eq!(
            (world.switch.percent(), world.weight()),
            (percent, Some(weight))
        );
        world.behind = true;
        assert_eq!(step(&world.switch, &world.seen(), world.now + 59_000), None);
        world.behind = false;
        assert_eq!(world.step().unwrap().write, Write::Nothing);
        assert_eq!(world.step(), None, "it is watched");
        world.pass(9_000);
        assert_eq!(world.step(), None, "for as long as was asked");
        world.pass(8_000);
        assert!(world.step().is_some());
    }
    assert_eq!(world.switch.state, SwitchState::Done);
    assert_eq!(world.step(), None);
    let by: Vec<&str> = world
        .switch
        .events
        .iter()
        .map(|e: &Event| e.by.as_str())
        .collect();
    assert_eq!((by[0], by[2]), ("ann", ITSELF));
}

#[test]
fn nothing_goes_on_without_figures_of_the_watch() {
    let mut world = World::begin(asked(&[10, 100], 10), false);
    world.behind = false;
    world.step();
    world.now += 60_000;
    assert_eq!(world.step(), None);
    // Only the first of two windows.
    world.windows = vec![world.now - 10_000 - world.now % 5000];
    assert_eq!(world.step(), None);
    world.now += 80_000;
    world.step();
    assert_eq!(world.switch.state, SwitchState::Paused, "{}", world.said());
    assert_eq!(world.weight(), Some(10));
    // Nobody wants to know.
    let mut asked = asked(&[10, 100], 10);
    (asked.guards.errors, asked.guards.p99) = (None, None);
    let mut world = World::begin(asked, false);
    world.behind = false;
    world.step();
    world.now += 10_000;
    world.step();
    assert_eq!(world.weight(), Some(100));
}

#[test]
fn after_an_outage_a_stage_is_watched_anew() {
    let mut world = World::begin(asked(&[10, 100], 10), false);
    world.behind = false;
    world.step();
    // For three minutes nobody counts, or looks.
    world.windows.clear();
    world.now += 180_000;
    world.since = world.now;
    assert_eq!(world.step(), None, "nobody could report");
    world.windows = vec![world.now + 5_000];
    world.now += 12_000;
    assert_eq!(world.step(), None, "a window of two");
    world.windows.push(world.now - 2_000);
    world.now += 5_000;
    world.step();
    assert_eq!(world.weight(), Some(100), "{}", world.said());
    // Nor does a router that could not follow meanwhile send it back.
    world.now += 180_000;
    world.since = world.now;
    world.behind = true;
    assert_eq!(world.step(), None);
    world.now += 60_000;
    assert_eq!(world.step().unwrap().tripped, Some("routers"));
    // And where nothing is counted afterwards, it pauses as ever.
    let mut blind = World::begin(asked(&[10, 100], 10), false);
    blind.behind = false;
    blind.step();
    blind.now += 180_000;
    blind.since = blind.now;
    blind.now += 119_000;
    assert_eq!(blind.step(), None);
    blind.now += 1_000;
    blind.step();
    assert_eq!(blind.switch.state, SwitchState::Paused);
}

#[test]
fn each_guard_sends_everything_back_and_says_why() {
    type Turn = fn(&mut World);
    let turns: [(&str, Turn, &str); 5] = [
        (
            "errors",
            |w| w.figures = sample(1000, 12, 20_000),
            "1.20 % of 5xx (12 of 1000",
        ),
        (
            "p99",
            |w| w.figures = sample(1000, 1, 71_000),
            "up to 71 ms, 20 ms before",
        ),
        ("capacity", |w| w.short = true, "too little"),
        (
            "routers",
            |w| {
                w.now += 60_000;
                w.switch.converged_at = None;
                w.behind = true;
            },
            "routers do not have it: r1",
        ),
        (
            "routers",
            |w| {
                w.now += 60_000;
                w.switch.converged_at = None;
            },
            "no router is live",
        ),
    ];
    for existed in [false, true] {
        for (guard, turn, says) in turns {
            let mut world = World::begin(asked(&[10, 100], 60), existed);
            world.behind = false;
            world.step();
            turn(&mut world);
            let mut seen = world.seen();
            if says == "no router is live" {
                seen.live = 0;
            }
            let next = step(&world.switch, &seen, world.now).unwrap();
            assert_eq!(next.tripped, Some(guard));
            assert!(world.write(&next, Some(world.revision), &seen));
            assert_eq!(world.switch.state, SwitchState::Returned);
            assert!(world.said().contains(says), "{}", world.said());
            let there = world.traffic.as_ref().map(|(traffic, _)| traffic);
            assert_eq!(there, moved(existed).before());
        }
    }
}

#[test]
fn guards_that_are_off_or_know_too_little_do_not_trip() {
    let off: fn(&mut Guards) = |guards| {
        *guards = Guards {
            errors: None,
            p99: None,
            capacity: false,
            routers: None,
        };
    };
    let bad = sample(1000, 1000, 10_000_000);
    let few = sample(99, 99, 10_000_000);
    for (change, figures) in [(off, bad.clone()), ((|_| {}) as fn(&mut Guards), few)] {
        let mut asked = asked(&[10, 100], 60);
        change(&mut asked.guards);
        let mut world = World::begin(asked, false);
        world.short = world.switch.asked.guards.errors.is_none();
        world.figures = figures;
        world.behind = false;
        world.step();
        assert_eq!(world.step(), None, "{}", world.said());
    }
    // Forced: capacity is known to be short.
    let mut asked = asked(&[10, 100], 60);
    asked.force = true;
    let mut world = World::begin(asked, false);
    world.short = true;
    assert_eq!(world.step(), None);
    // From before there is too little to compare times with: errors count from none.
    let mut world = World::begin(self::asked(&[10, 100], 60), false);
    world.switch.before = vec![sample(5, 5, 1)];
    world.figures = sample(1000, 10, 10_000_000);
    assert_eq!(world.step(), None);
    world.figures = sample(1000, 11, 10_000_000);
    assert_eq!(world.step().unwrap().tripped, Some("errors"));
    drop(bad);
}

#[test]
fn a_change_by_hand_pauses_it_and_is_written_over_only_with_force() {
    let mut world = World::begin(asked(&[10, 100], 60), true);
    world.hand(7);
    world.step();
    assert_eq!(world.switch.state, SwitchState::Paused);
    assert!(
        world
            .said()
            .starts_with("traffic `a` was changed by somebody else, at revision ")
    );
    let seen = world.seen();
    for refused in [
        resume(&world.switch, "bob", ("", false), &seen, 0).unwrap_err(),
        undo(&world.switch, "bob", ("", false), &seen, 0).unwrap_err(),
    ] {
        assert!(
            refused.0.ends_with("with force it is written over"),
            "{refused}"
        );
    }
    let next = resume(&world.switch, "bob", ("mine", true), &seen, world.now).unwrap();
    assert!(world.write(&next, Some(world.revision), &seen));
    assert_eq!(
        (world.switch.state, world.weight()),
        (SwitchState::Running, Some(28))
    );
    assert_eq!(
        world.switch.converged_at, None,
        "watched from the beginning"
    );
    world.traffic = None;
    world.step();
    assert!(
        world
            .said()
            .starts_with("traffic `a` was deleted by somebody else")
    );
    let seen = world.seen();
    let next = undo(&world.switch, "bob", ("no", true), &seen, world.now).unwrap();
    assert!(world.write(&next, Some(world.revision), &seen));
    assert_eq!(world.traffic.unwrap().0, moved(true).base);
}

#[test]
fn a_second_person_has_to_approve() {
    let mut wanted = asked(&[100], 0);
    wanted.approval = true;
    let id = (name("switch-1"), wanted);
    let waiting = begin(id, "ann", beginning(false), 5);
    assert_eq!(
        (waiting.write, waiting.switch.state),
        (Write::Nothing, SwitchState::Waiting)
    );
    assert!(waiting.switch.moves.is_empty());
    let switch = waiting.switch;
    assert_eq!(step(&switch, &Seen::default(), 1_000_000), None);
    let refused = approve(&switch, "ann", beginning(false), 6).unwrap_err();
    assert!(
        refused.0.contains("somebody else has to approve it"),
        "{refused}"
    );
    let begun = approve(&switch, "bob", beginning(false), 6).unwrap();
    assert_eq!(
        (begun.write, begun.switch.state),
        (Write::Stage, SwitchState::Running)
    );
    assert_eq!(begun.switch.approved_by.as_deref(), Some("bob"));
    approve(&begun.switch, "bob", beginning(false), 7).unwrap_err();
    let cancelled = undo(&switch, "ann", ("", false), &Seen::default(), 6).unwrap();
    assert_eq!(
        (cancelled.write, cancelled.switch.state),
        (Write::Nothing, SwitchState::Cancelled)
    );
}

#[test]
fn a_replica_that_stood_still_writes_nothing() {
    let mut world = World::begin(asked(&[10, 50, 100], 10), false);
    world.behind = false;
    let stale = (world.switch.clone(), world.revision, world.seen());
    world.step();
    world.pass(17_000);
    world.step();
    assert_eq!(world.weight(), Some(50));
    let (switch, revision, seen) = stale;
    let next = step(&switch, &seen, world.now).unwrap();
    assert!(!world.write(&next, Some(revision), &seen));
    // Also one that only missed what somebody did to the traffic.
    world.pass(1000);
    let seen = world.seen();
    world.hand(1);
    let back = undo(&world.switch, "ann", ("", false), &seen, world.now).unwrap();
    assert!(!world.write(&back, Some(world.revision), &seen));
}

/// What happens around a switch.
#[derive(Debug, Clone)]
enum Happening {
    Pass(i64),
    Behind(bool),
    Figures(u64, u64),
    Short(bool),
    Hand(u8),
    Pause,
    Resume(bool),
    Undo(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{Behind, Figures, Hand, Pass, Pause, Resume, Short, Undo};
    prop_oneof![
        6 => (0i64..20_000).prop_map(Pass),
        2 => any::<bool>().prop_map(Behind),
        2 => (0u64..40, 1u64..100_000).prop_map(|(errors, p99)| Figures(errors, p99)),
        1 => prop::bool::weighted(0.2).prop_map(Short),
        1 => (1u8..100).prop_map(Hand),
        1 => Just(Pause),
        2 => any::<bool>().prop_map(Resume),
        1 => any::<bool>().prop_map(Undo),
    ]
}

proptest! {
    #[test]
    fn no_stage_is_skipped_or_left_before_its_clean_watch_and_back_is_exactly_as_before(
        happenings in prop::collection::vec(happening(), 0..80), existed in any::<bool>(),
    ) {
        let mut world = World::begin(asked(&[10, 50, 100], 10), existed);
        let mut by_hand = false;
        for happening in happenings {
            let (seen, now) = (world.seen(), world.now);
            let mut said = None;
            match happening {
                Happening::Pass(ms) => world.pass(ms),
                Happening::Behind(behind) => world.behind = behind,
                Happening::Figures(errors, p99) => world.figures = sample(1000, errors, p99),
                Happening::Short(short) => world.short = short,
                Happening::Hand(weight) => {
                    world.hand(weight);
                    by_hand = true;
                }
                Happening::Pause => said = pause(&world.switch, "ann", "", now).ok(),
                Happening::Resume(force) => said = resume(&world.switch, "ann", ("", force), &seen, now).ok(),
                Happening::Undo(force) => said = undo(&world.switch, "ann", ("", force), &seen, now).ok(),
            }
            if let Some(next) = said {
                prop_assert!(world.write(&next, Some(world.revision), &seen));
                by_hand &= next.write == Write::Nothing;
            }
            let before = world.switch.clone();
            let (seen, now) = (world.seen(), world.now);
            let stepped = world.step();
            if let Some(next) = &stepped {
                by_hand &= next.write == Write::Nothing;
            }
            let after = &world.switch;
            if after.stage != before.stage || (after.state == SwitchState::Done && before.state != SwitchState::Done) {
                prop_assert!(after.stage == before.stage + 1 || after.state == SwitchState::Done);
                let since = before.converged_at.unwrap();
                prop_assert!(now >= since + 10_000);
                let counted = seen.figures.unwrap();
                let clean = counted.windows.iter().filter(|at| **at >= since).count();
                prop_assert!(clean >= 2);
                prop_assert!(counted.samples[0].errors <= 11 && counted.samples[0].p99_us <= Some(70_000));
                prop_assert!(!world.short);
            }
            if matches!(after.state, SwitchState::Returned | SwitchState::Undone) && !by_hand {
                let there = world.traffic.clone().map(|(traffic, _)| traffic);
                prop_assert_eq!(there, moved(existed).before().cloned());
            }
        }
    }

    /// With routers that follow and figures that come, it ends: done, or back.
    #[test]
    fn it_ends(errors in 0u64..30, stages in prop::collection::btree_set(1u8..100, 0..5)) {
        let mut stages: Vec<u8> = stages.into_iter().collect();
        stages.push(100);
        let mut world = World::begin(asked(&stages, 7), false);
        world.behind = false;
        world.figures = sample(1000, errors, 20_000);
        for _ in 0..60 * stages.len() {
            world.pass(1000);
            world.step();
        }
        let wanted = if errors > 11 { SwitchState::Returned } else { SwitchState::Done };
        prop_assert_eq!(world.switch.state, wanted);
    }
}
