use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::state::tests::key;

fn lapsed(ids: std::ops::Range<usize>, at: i64) -> Vec<Lapsed> {
    ids.map(|n| Lapsed {
        key: key("a", "search", n),
        at,
        stale_since: None,
    })
    .collect()
}

#[test]
fn ten_that_fall_silent_at_once_leave_three_a_minute_and_the_last_stays() {
    let mut guard = Guard::new(GuardConfig::default());
    let mut there = lapsed(0..10, 0);
    let mut counts = Vec::new();
    for minute in 0..6i64 {
        let now = 1 + minute * 60_000;
        let population = there.len() as u64;
        let verdict = guard.decide(now, there.clone(), |_, _| population);
        counts.push(verdict.expire.len());
        there.retain(|one| !verdict.expire.contains(&one.key));
        for one in &mut there {
            if verdict.mark.contains(&one.key) {
                one.stale_since = Some(now);
            }
        }
        // Half a minute later nothing more leaves.
        let population = there.len() as u64;
        let again = guard.decide(now + 30_000, there.clone(), |_, _| population);
        assert_eq!(again, Verdict::default());
    }
    assert_eq!(counts, [3, 3, 3, 0, 0, 0]);
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].stale_since, Some(1), "marked the first time, once");
    let later = guard.decide(1 + 24 * 3_600_000, there, |_, _| 1);
    assert_eq!(later.expire.len(), 1, "after 24 h the last one leaves too");
}

#[test]
fn one_of_many_leaves_at_once() {
    let mut guard = Guard::new(GuardConfig::default());
    let verdict = guard.decide(5, lapsed(0..1, 0), |_, _| 10);
    assert_eq!((verdict.expire.len(), verdict.mark.len()), (1, 0));
}

#[test]
fn the_last_one_leaves_when_the_operator_says_so() {
    let mut guard = Guard::new(GuardConfig {
        keep_last: false,
        ..GuardConfig::default()
    });
    assert_eq!(guard.decide(5, lapsed(0..1, 0), |_, _| 1).expire.len(), 1);
}

proptest! {
    /// Whatever lapses when: in no minute do more leave than allowed, and never the last.
    #[test]
    fn never_more_than_the_share_in_any_minute(
        size in 1usize..60,
        percent in 0u32..=100,
        at_least in 0usize..6,
        steps in prop::collection::vec((0i64..40_000, 0usize..60), 1..40),
    ) {
        let config = GuardConfig { percent, at_least, stale_ttl: Duration::from_hours(24), ..GuardConfig::default() };
        let mut guard = Guard::new(config);
        let mut there: Vec<Lapsed> = lapsed(0..size, 0);
        let mut now = 0;
        let mut log: Vec<(i64, u64)> = Vec::new(); // when, how many were there before
        for (wait, silent) in steps {
            now += wait;
            let population = there.len() as u64;
            let some: Vec<Lapsed> = there.iter().take(silent).cloned().collect();
            let verdict = guard.decide(now, some, |_, _| population);
            for gone in &verdict.expire {
                log.push((now, there.len() as u64));
                there.retain(|one| one.key != *gone);
            }
            prop_assert!(!there.is_empty());
            let window: Vec<_> = log.iter().filter(|(at, _)| *at > now - 60_000).collect();
            if let Some((_, first)) = window.first() {
                let most = (first * u64::from(percent) / 100).max(at_least as u64);
                prop_assert!(window.len() as u64 <= most, "{} left of {first}", window.len());
            }
        }
    }
}
