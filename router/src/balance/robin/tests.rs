use std::time::Instant;

use cardea_registry_api::Service;
use proptest::prelude::*;

use super::*;
use crate::{
    fixtures::{World, name},
    upstream::Upstream,
};

fn robin(upstream: &Upstream, seed: u64) -> (Robin, Random) {
    let mut random = Random::new(seed);
    (Robin::new(upstream.members(), &mut random), random)
}

fn world(weights: &[u16]) -> std::sync::Arc<Upstream> {
    let mut world = World::with(Service::named(name("s")), weights);
    world.publish(Instant::now());
    world.upstream("s")
}

/// Until a round is kept.
fn settle(robin: &mut Robin, members: &[Member], random: &mut Random) {
    let mut picks = 0;
    while !robin.round.is_whole() {
        let picked = robin.pick(members, random, 0, |_| Fitness::Fit, |_| 1.0);
        assert!(picked.is_some());
        picks += 1;
        assert!(picks < 10_000, "a round is kept at some time");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With a round and without one, whoever is passed over, down or new meanwhile: each has had its share
    /// of what was picked while nothing was said against it.
    #[test]
    fn rounds_change_no_share(
        weights in prop::collection::vec(prop_oneof![Just(100u16), 1..6u16, 1..=300u16], 2..20),
        trouble in prop::collection::vec((1..400usize, any::<prop::sample::Index>(), 0..3u8), 0..12),
        seed in any::<u64>(),
    ) {
        let upstream = world(&weights);
        let members = upstream.members();
        let (mut robin, mut random) = robin(&upstream, seed);
        // The members' order is another one.
        let weights: Vec<f64> = members.iter().map(|member| f64::from(member.weight)).collect();
        let total: f64 = weights.iter().sum();
        let mut counts = vec![0.0; weights.len()];
        let mut picked = 0.0;
        let mut generation = 0;
        for (count, who, what) in trouble {
            for _ in 0..count {
                let member = robin.pick(members, &mut random, generation, |_| Fitness::Fit, |_| 1.0);
                counts[member.unwrap()] += 1.0;
                picked += 1.0;
            }
            match what {
                // Something was learnt about some peer, but for this nothing changes.
                0 => generation += 1,
                // A request that has tried somebody; there is another one.
                1 => {
                    let tried = who.index(weights.len());
                    let fit = |at| if at == tried { Fitness::Tried } else { Fitness::Fit };
                    let member = robin.pick(members, &mut random, generation, fit, |_| 1.0).unwrap();
                    prop_assert_ne!(member, tried);
                    counts[member] += 1.0;
                    picked += 1.0;
                }
                // The same peers in another table.
                _ => robin.follow(members, members, &mut random),
            }
        }
        for _ in 0..2000 {
            let member = robin.pick(members, &mut random, generation, |_| Fitness::Fit, |_| 1.0);
            counts[member.unwrap()] += 1.0;
            picked += 1.0;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let fair = picked * weight / total;
            prop_assert!((count - fair).abs() <= 3.0, "{count} {fair}");
        }
    }
}

#[test]
fn a_round_is_kept_and_gone_through_in_order() {
    let upstream = world(&[4, 3, 2, 1]);
    let members = upstream.members();
    let (mut robin, mut random) = robin(&upstream, 7);
    settle(&mut robin, members, &mut random);
    let mut round = || {
        let mut pick = || {
            let next = robin.upcoming(0);
            let picked = robin.pick(members, &mut random, 0, |_| Fitness::Fit, |_| 1.0);
            assert_eq!(picked, next, "it was said who comes next");
            picked.unwrap()
        };
        (0..10).map(|_| pick()).collect::<Vec<_>>()
    };
    let first = round();
    assert_eq!(first, round());
    let count = |at: usize| first.iter().filter(|one| **one == at).count();
    assert_eq!([0, 1, 2, 3].map(count), [4, 3, 2, 1]);
}

#[test]
fn who_was_tried_by_one_request_is_the_next_ones() {
    let upstream = world(&[100; 4]);
    let members = upstream.members();
    let (mut robin, mut random) = robin(&upstream, 7);
    settle(&mut robin, members, &mut random);
    let [tried, other] = [0, 1].map(|after| robin.upcoming(after));
    let fit = |at| {
        if tried == Some(at) {
            Fitness::Tried
        } else {
            Fitness::Fit
        }
    };
    let picked = robin.pick(members, &mut random, 0, fit, |_| 1.0);
    assert_eq!(picked, other);
    let next = robin.pick(members, &mut random, 0, |_| Fitness::Fit, |_| 1.0);
    assert_eq!(next, tried);
}

#[test]
fn who_goes_down_or_warms_up_ends_a_round() {
    let upstream = world(&[100; 4]);
    let members = upstream.members();
    let (mut robin, mut random) = robin(&upstream, 7);
    settle(&mut robin, members, &mut random);
    let fit = |at| if at == 2 { Fitness::Down } else { Fitness::Fit };
    for _ in 0..100 {
        let picked = robin.pick(members, &mut random, 0, fit, |_| 1.0);
        assert_ne!(picked.unwrap(), 2);
    }
    let picks = (0..300).map(|_| robin.pick(members, &mut random, 1, |_| Fitness::Fit, |_| 1.0));
    let again = picks.filter(|picked| *picked == Some(2)).count();
    assert!(
        (73..=77).contains(&again),
        "{again}: it is back, and does not catch up"
    );
    settle(&mut robin, members, &mut random);
    let warmth = |at| if at == 1 { 0.1 } else { 1.0 };
    let picks = (0..310).map(|_| robin.pick(members, &mut random, 1, |_| Fitness::Fit, warmth));
    let cold = picks.filter(|picked| *picked == Some(1)).count();
    assert!((8..=12).contains(&cold), "{cold}");
    assert!(!robin.round.is_whole());
}

#[test]
fn a_round_that_is_too_long_is_not_kept() {
    let upstream = world(&[997, 991]);
    let members = upstream.members();
    let (mut robin, mut random) = robin(&upstream, 7);
    for _ in 0..10_000 {
        robin.pick(members, &mut random, 0, |_| Fitness::Fit, |_| 1.0);
    }
    assert!(!robin.round.is_whole());
    assert_eq!(robin.upcoming(0), None);
}
