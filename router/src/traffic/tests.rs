//! What is decided, as values.

use cardea_registry_api::{Traffic, TrafficKey, traffic::Failover};
use proptest::prelude::*;

use super::{
    shares::{Keeping, Standing, shares},
    split::{MOST, Split},
    turns::{Turns, of_key},
};
use crate::fixtures::name;

mod load;
mod picks;

fn traffic(weights: &[(&str, u8)], order: &[&str]) -> Traffic {
    let mut traffic = Traffic::of(TrafficKey {
        cluster: name("dc"),
        service: None,
    });
    traffic.weights = weights.iter().map(|(of, w)| (name(of), *w)).collect();
    if !order.is_empty() {
        traffic.failover = Some(Failover::to(order.iter().map(|of| name(of)).collect()));
    }
    traffic.check().unwrap();
    traffic
}

fn standing(healthy: f64) -> Standing {
    Standing {
        populated: true,
        healthy,
        bears: 1.0,
        serves: 1.0,
    }
}

/// What each cluster gets when its healthy part is as given, from a fresh start.
fn fresh(split: &Split, healthy: &[f64]) -> Vec<f64> {
    let standings: Vec<Standing> = healthy.iter().copied().map(standing).collect();
    let first = |one: &Standing| Keeping::default().step(split.rules, *one, 0);
    let keeping: Vec<Keeping> = standings.iter().map(first).collect();
    shares(split, &standings, &keeping)[..healthy.len()].to_vec()
}

fn near(got: &[f64], wanted: &[f64]) {
    let close = got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-9);
    assert!(close && got.len() == wanted.len(), "{got:?} {wanted:?}");
}

#[test]
fn weights_and_failover_are_combined() {
    let alone = Split::new(&traffic(&[], &["b", "c"]));
    near(&fresh(&alone, &[1.0, 1.0, 1.0]), &[1.0, 0.0, 0.0]);
    near(&fresh(&alone, &[0.5, 1.0, 1.0]), &[1.0, 0.0, 0.0]);
    // As Envoy: 40 % healthy bear 56 %; the next takes the rest.
    near(&fresh(&alone, &[0.4, 1.0, 1.0]), &[0.56, 0.44, 0.0]);
    near(&fresh(&alone, &[0.4, 0.5, 1.0]), &[0.56, 0.308, 0.132]);
    near(&fresh(&alone, &[0.0, 0.0, 1.0]), &[0.0, 0.0, 1.0]);
    // All that is left bears 28 % and 14 %: in proportion.
    near(
        &fresh(&alone, &[0.2, 0.1, 0.0]),
        &[0.28 / 0.3808, 0.1008 / 0.3808, 0.0],
    );
    let weighed = Split::new(&traffic(&[("dc", 60), ("b", 40)], &["c"]));
    near(&fresh(&weighed, &[1.0, 1.0, 1.0]), &[0.6, 0.4, 0.0]);
    near(&fresh(&weighed, &[0.0, 1.0, 1.0]), &[0.0, 0.4, 0.6]);
    near(&fresh(&weighed, &[0.0, 1.0, 0.0]), &[0.0, 1.0, 0.0]);
    let moved = Split::new(&traffic(&[("dc", 0), ("b", 100)], &[]));
    near(&fresh(&moved, &[1.0, 1.0]), &[0.0, 1.0]);
    near(&fresh(&moved, &[1.0, 0.1]), &[0.0, 1.0]);
    // Nobody is refused while anybody who is named can answer.
    near(&fresh(&moved, &[1.0, 0.0]), &[1.0, 0.0]);
    near(&fresh(&moved, &[0.0, 0.0]), &[0.0, 1.0]);
}

#[test]
fn the_way_back_is_slower_than_the_way_out() {
    let split = Split::new(&traffic(&[], &["b"]));
    let mut keeping = Keeping::default();
    let mut kept = |healthy: f64, now: u64| {
        keeping = keeping.step(split.rules, standing(healthy), now);
        format!("{:.3}", keeping.kept)
    };
    assert_eq!(kept(1.0, 0), "1.000");
    assert_eq!(kept(0.49, 1), "0.686", "at once");
    // Above the threshold, but not well above: what it bears, and not all.
    assert_eq!(kept(0.6, 10_001), "0.840");
    assert_eq!(kept(0.0, 10_002), "0.000");
    assert_eq!(kept(0.0, 60_000), "0.000");
    // All of it is back: a tenth a second.
    assert_eq!(kept(1.0, 61_000), "0.100");
    assert_eq!(kept(1.0, 65_000), "0.500");
    assert_eq!(kept(1.0, 99_000), "1.000");
    // Between the marks it stays as it is.
    assert_eq!(kept(0.6, 99_001), "1.000");
}

#[test]
fn a_cluster_that_is_new_gets_its_share_at_once_and_one_that_lost_all_does_not() {
    let split = Split::new(&traffic(&[("b", 100)], &[]));
    let nobody = Standing {
        populated: false,
        healthy: 0.0,
        bears: 1.0,
        serves: 1.0,
    };
    let before = Keeping::default().step(split.rules, nobody, 0);
    let now = before.step(split.rules, standing(1.0), 10);
    near(&[before.kept, now.kept], &[0.0, 1.0]);
    let gone = now.step(split.rules, nobody, 20);
    let back = gone.step(split.rules, standing(1.0), 1020);
    near(&[gone.kept, back.kept], &[0.0, 0.1]);
}

/// Weights of three clusters, an order among them, and how each stands.
fn any_case() -> impl Strategy<Value = (Split, Vec<Standing>)> {
    let weights = prop::collection::vec(0..=100_u8, 3)
        .prop_filter("something", |weights| weights.iter().any(|w| *w > 0));
    let order = prop::sample::subsequence(vec!["dc", "b", "c"], 0..=3).prop_shuffle();
    let healthy = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0_f64];
    let standings = prop::collection::vec((healthy, any::<bool>()), 3);
    (weights, order, standings).prop_map(|(weights, order, standings)| {
        let weights: Vec<(&str, u8)> = ["dc", "b", "c"].into_iter().zip(weights).collect();
        let split = Split::new(&traffic(&weights, &order));
        let standing = |(healthy, there): (f64, bool)| Standing {
            populated: there,
            healthy: if there { healthy } else { 0.0 },
            bears: 1.0,
            serves: 1.0,
        };
        (split, standings.into_iter().map(standing).collect())
    })
}

proptest! {
    #[test]
    fn shares_add_up_and_go_to_who_can_answer(
        (split, standings) in any_case(),
        was in prop::collection::vec(0.0..=1.0_f64, 3),
    ) {
        let mut keeping = Vec::new();
        for (one, was) in standings.iter().zip(was) {
            // Whatever was before.
            let before = Keeping::default().step(split.rules, standing(was), 0);
            keeping.push(before.step(split.rules, *one, 500));
        }
        let shares = shares(&split, &standings, &keeping);
        let sum: f64 = shares.iter().sum();
        let there = standings.iter().any(|one| one.populated);
        prop_assert!((sum - f64::from(u8::from(there))).abs() < 1e-9, "{shares:?}");
        let answers = |at: usize| standings[at].healthy > 0.0;
        let n = standings.len();
        for (at, share) in shares[..n].iter().copied().enumerate() {
            prop_assert!(share >= 0.0);
            if (0..n).any(answers) && !answers(at) {
                prop_assert!(share <= 0.0, "{} cannot answer", at);
            }
            let may = (0..n).any(|at| answers(at) && split.allows(at));
            if may && !split.allows(at) {
                prop_assert!(share <= 0.0, "{} may not be asked", at);
            }
        }
    }

    /// Over any window of 1,000 requests, whatever came before, each cluster has its share within one
    /// point.
    #[test]
    fn turns_keep_the_shares(
        before in prop::collection::vec(0..=100_u32, 3),
        weights in prop::collection::vec(0..=100_u32, 3),
        (start, run) in (0.0..1.0_f64, 0..500_usize),
        later in 0..3000_usize,
    ) {
        let of = |weights: &[u32]| {
            let sum: u32 = weights.iter().sum();
            let mut shares = [0.0; MOST];
            for (share, weight) in shares.iter_mut().zip(weights) {
                *share = f64::from(*weight) / f64::from(sum.max(1));
            }
            shares
        };
        let (before, shares) = (of(&before), of(&weights));
        prop_assume!(weights.iter().any(|w| *w > 0));
        let mut turns = Turns::new(&before, start);
        for _ in 0..run {
            turns.next(&before);
        }
        for _ in 0..later {
            turns.next(&shares);
        }
        let mut got = [0_u32; 3];
        for _ in 0..1000 {
            got[turns.next(&shares).unwrap()] += 1;
        }
        for (got, share) in got.iter().zip(shares) {
            prop_assert!((f64::from(*got) - share * 1000.0).abs() <= 10.0, "{} of {}", got, share);
        }
    }

    #[test]
    fn a_key_moves_only_where_shares_change(
        before in prop::collection::vec(0.0..1.0_f64, 4),
        after in prop::collection::vec(0.0..1.0_f64, 4),
        key: u64,
    ) {
        let [before, after] = [before, after].map(|some| {
            let mut shares = [0.0; MOST];
            let sum: f64 = some.iter().sum();
            shares.iter_mut().zip(some).for_each(|(share, one)| *share = one / sum.max(1e-9));
            shares
        });
        let seeds = [11, 22, 33, 44];
        if let (Some(old), Some(new)) = (of_key(key, &seeds, &before), of_key(key, &seeds, &after))
            && old != new
        {
            // In the ratio to all others, one of both must have changed.
            let ratio = |at: usize| after[at] / before[at].max(1e-12);
            prop_assert!(ratio(new) > ratio(old));
        }
    }
}

#[test]
fn keys_have_the_shares() {
    let seeds: Vec<u64> = (0..3_u64)
        .map(|at| xxhash_rust::xxh3::xxh3_64(&at.to_le_bytes()))
        .collect();
    let mut shares = [0.0; MOST];
    shares[..3].copy_from_slice(&[0.9, 0.1, 0.0]);
    let mut moved = shares;
    moved[..3].copy_from_slice(&[0.8, 0.2, 0.0]);
    let keys = (0..100_000_u64).map(|key| xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes()));
    let (mut first, mut second, mut others) = (0.0, 0.0, 0);
    for key in keys {
        let (one, two) = (of_key(key, &seeds, &shares), of_key(key, &seeds, &moved));
        first += f64::from(u8::from(one == Some(1)));
        second += f64::from(u8::from(two == Some(1)));
        others += usize::from(one == Some(1) && two != Some(1));
    }
    assert!((first / 100_000.0 - 0.1).abs() < 0.01, "{first}");
    assert!((second / 100_000.0 - 0.2).abs() < 0.01, "{second}");
    assert_eq!(others, 0, "who is there already stays");
}
