use cardea_registry_api::Span;
use proptest::prelude::*;

use super::*;
use crate::state::tests::{instance, key};

fn with(n: usize, now: i64) -> Leases {
    let leases = Leases::new();
    for n in 0..n {
        leases.observe(
            &key("a", "search", n),
            Some(&instance("a", "search", n)),
            true,
            now,
        );
    }
    leases
}

#[test]
fn a_lease_lapses_unless_it_is_renewed() {
    let leases = with(2, 0);
    assert_eq!(
        leases.renew(&[key("a", "search", 0), key("a", "search", 9)], 10_000),
        [true, false]
    );
    assert!(leases.lapsed(15_000).is_empty());
    let lapsed = leases.lapsed(15_001);
    assert_eq!(lapsed.len(), 1);
    assert_eq!(
        (&lapsed[0].key, lapsed[0].at),
        (&key("a", "search", 1), 15_000)
    );
}

#[test]
fn grace_comes_on_top_of_a_full_lease() {
    let leases = with(1, 0);
    leases.grace(60_000, 0);
    assert!(leases.lapsed(75_000).is_empty());
    leases.grace(60_000, 30_000);
    assert!(leases.lapsed(105_000).is_empty());
    assert_eq!(leases.lapsed(105_001).len(), 1);
    // And it never takes away what a lease had.
    leases.grace(61_000, 0);
    assert!(leases.lapsed(105_000).is_empty());
}

#[test]
fn who_follows_another_state_gives_the_same_grace() {
    let leases = with(1, 0);
    leases.follow(&crate::state::tests::filled(1), 60_000, 30_000);
    let lapsed = |now| leases.lapsed(now).len();
    assert_eq!(lapsed(105_000), 0);
    assert!(lapsed(105_001) > 0);
}

#[test]
fn what_an_operator_or_the_guard_changes_renews_nothing() {
    let leases = with(1, 0);
    let mut stale = instance("a", "search", 0);
    stale.stale_since = Some(16_000);
    leases.observe(&stale.key(), Some(&stale), false, 16_000);
    assert_eq!(leases.lapsed(16_001)[0].stale_since, Some(16_000));
    assert!(leases.take_revived().is_empty());
    leases.renew(&[stale.key()], 17_000);
    assert_eq!(leases.take_revived(), [stale.key()]);
    assert!(leases.lapsed(17_001).is_empty());
}

#[test]
fn an_instance_without_a_lease_stays() {
    let leases = with(1, 0);
    let mut manual = instance("a", "search", 0);
    manual.lease = None;
    leases.observe(&manual.key(), Some(&manual), true, 1);
    assert!(leases.lapsed(i64::MAX - 1).is_empty());
    manual.lease = Some(Span::secs(15));
    leases.observe(&manual.key(), Some(&manual), true, 10);
    assert_eq!(leases.lapsed(20_000).len(), 1);
    leases.observe(&manual.key(), None, false, 20_000);
    assert!(leases.lapsed(i64::MAX - 1).is_empty());
}

#[test]
fn another_replicas_renewals_count() {
    let here = with(3, 0);
    let there = with(3, 0);
    there.renew(&[key("a", "search", 1)], 12_000);
    let report = there.report(10_000, 13_000);
    assert_eq!(report, "a/search/i1 1000\n");
    here.take_report(&report, 500, 14_000);
    assert_eq!(here.lapsed(27_500).len(), 2);
    assert_eq!(here.lapsed(27_501).len(), 3);
    here.take_report("nonsense\n x y\na/search/i1 z\n", 0, 14_000);
}

proptest! {
    /// Whatever happens in whichever order: nothing lapses within a full lease of its last sign of life.
    #[test]
    fn nothing_lapses_early(steps in prop::collection::vec((0usize..3, 0usize..4, 0i64..5_000), 1..60)) {
        let leases = with(3, 0);
        let mut heard = [0i64; 3];
        let mut now = 0;
        for (n, what, wait) in steps {
            now += wait;
            let key = key("a", "search", n);
            match what {
                0 => { leases.renew(&[key], now); heard[n] = now; }
                1 => { leases.observe(&key, Some(&instance("a", "search", n)), true, now); heard[n] = now; }
                2 => { leases.grace(now, 0); heard = [now; 3]; }
                _ => { leases.observe(&key, Some(&instance("a", "search", n)), false, now); }
            }
            let lapsed: Vec<_> = leases.lapsed(now).into_iter().map(|l| l.key.id.to_string()).collect();
            for (n, heard) in heard.iter().enumerate() {
                let should = now - heard > 15_000;
                prop_assert_eq!(lapsed.contains(&format!("i{n}")), should);
            }
        }
    }
}
