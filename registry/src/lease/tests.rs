use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;

fn key(service: &str, n: usize) -> InstanceKey {
    format!("dc-a/{service}/i-{n}").parse().unwrap()
}

fn lapsed(n: usize) -> Vec<Lapsed> {
    (0..n)
        .map(|i| Lapsed {
            key: key("s", i),
            stale_for: None,
        })
        .collect()
}

#[test]
fn a_silent_lease_lapses_after_its_span() {
    let mut leases = Leases::default();
    leases.put(key("s", 1), Some(Span::secs(15)), false, 1_000);
    leases.put(key("s", 2), None, false, 1_000);
    assert!(leases.lapsed(16_000).is_empty());
    assert_eq!(leases.lapsed(16_001), [key("s", 1)]);
    assert_eq!(leases.renew(&key("s", 1), 16_001), Renewal::Renewed);
    assert!(leases.lapsed(31_001).is_empty());
    assert_eq!(leases.renew(&key("s", 2), 1), Renewal::Unknown);
}

#[test]
fn grace_holds_everything() {
    let mut leases = Leases::default();
    leases.put(key("s", 1), Some(Span::secs(1)), false, 0);
    leases.grace(60_000);
    leases.grace(30_000);
    assert!(leases.lapsed(59_999).is_empty());
    assert_eq!(leases.lapsed(60_000).len(), 1);
}

#[test]
fn renewals_are_told_once() {
    let mut leases = Leases::default();
    leases.put(key("s", 1), Some(Span::secs(1)), true, 5);
    assert_eq!(leases.untold(), [(key("s", 1), 5)]);
    assert!(leases.untold().is_empty());
    assert_eq!(leases.renew(&key("s", 1), 9), Renewal::WasStale);
    assert_eq!(leases.untold(), [(key("s", 1), 9)]);
    leases.heard(&key("s", 1), 50);
    leases.heard(&key("s", 1), 20);
    assert!(leases.untold().is_empty());
    assert!(leases.lapsed(1_050).is_empty());
}

#[test]
fn an_operators_change_is_no_renewal() {
    let mut leases = Leases::default();
    leases.put(key("s", 1), Some(Span::secs(1)), false, 0);
    leases.adjust(&key("s", 1), Some(Span::secs(2)), true, 1_900);
    assert!(leases.lapsed(2_000).is_empty());
    assert_eq!(leases.lapsed(2_001).len(), 1);
}

#[test]
fn of_a_small_service_three_a_minute_and_never_the_last() {
    let config = GuardConfig::default();
    let mut guard = Guard::default();
    let first = guard.decide(&config, lapsed(5), |_, _| 5, 0);
    assert_eq!(
        (first.expire.len(), first.mark_stale.len(), first.kept),
        (3, 2, 2)
    );
    let rest: Vec<_> = first
        .mark_stale
        .iter()
        .map(|key| Lapsed {
            key: key.clone(),
            stale_for: Some(1_000),
        })
        .collect();
    let same_minute = guard.decide(&config, rest.clone(), |_, _| 2, 59_999);
    assert_eq!(
        (
            same_minute.expire.len(),
            same_minute.mark_stale.len(),
            same_minute.kept
        ),
        (0, 0, 2)
    );
    let next_minute = guard.decide(&config, rest.clone(), |_, _| 2, 60_000);
    assert_eq!((next_minute.expire.len(), next_minute.kept), (1, 1));
    let last = vec![Lapsed {
        key: rest[1].key.clone(),
        stale_for: Some(86_399_999),
    }];
    assert_eq!(
        guard
            .decide(&config, last, |_, _| 1, 86_400_000)
            .expire
            .len(),
        0
    );
    let last = vec![Lapsed {
        key: rest[1].key.clone(),
        stale_for: Some(86_400_000),
    }];
    assert_eq!(
        guard
            .decide(&config, last, |_, _| 1, 86_400_001)
            .expire
            .len(),
        1
    );
}

#[test]
fn an_operator_may_let_the_last_one_go() {
    let config = GuardConfig {
        keep_last: false,
        ..GuardConfig::default()
    };
    let decision = Guard::default().decide(&config, lapsed(1), |_, _| 1, 0);
    assert_eq!(decision.expire.len(), 1);
}

proptest! {
    /// Against a service that nobody joins: within any window the cap holds, the last one stays,
    /// and every lapsed instance is either gone or marked.
    #[test]
    fn the_cap_holds(
        size in 1usize..200,
        percent in 0u32..100,
        at_least in 0usize..10,
        steps in prop::collection::vec(1u64..90_000, 1..30),
    ) {
        let config = GuardConfig { percent, at_least, ..GuardConfig::default() };
        let mut guard = Guard::default();
        let mut alive: BTreeMap<InstanceKey, Option<u64>> =
            (0..size).map(|i| (key("s", i), None)).collect();
        let mut gone: Vec<u64> = Vec::new();
        let mut now = 0;
        for step in steps {
            now += step;
            let all: Vec<_> = alive
                .iter()
                .map(|(key, since)| Lapsed { key: key.clone(), stale_for: since.map(|at| now - at) })
                .collect();
            let before = alive.len();
            let decision = guard.decide(&config, all, |_, _| before as u64, now);
            for key in &decision.expire {
                prop_assert!(alive.remove(key).is_some());
                gone.push(now);
            }
            for key in &decision.mark_stale {
                prop_assert!(alive.insert(key.clone(), Some(now)) == Some(None));
            }
            prop_assert_eq!(alive.len(), decision.kept);
            prop_assert!(alive.values().all(Option::is_some));
            prop_assert!(!alive.is_empty());
            let recent = gone.iter().filter(|at| now - **at < 60_000).count();
            let limit = (((alive.len() + recent) * percent as usize) / 100).max(at_least);
            prop_assert!(recent <= limit, "{recent} expired within a minute, {limit} allowed");
        }
        prop_assert!(config.stale_ttl > Duration::from_millis(now));
    }

    /// One service's trouble takes nothing from another's allowance.
    #[test]
    fn services_are_apart(n in 1usize..50) {
        let config = GuardConfig::default();
        let mut all = lapsed(n);
        all.push(Lapsed { key: key("other", 0), stale_for: None });
        let decision = Guard::default().decide(&config, all, |_, service| {
            if service.as_str() == "other" { 10 } else { n as u64 }
        }, 0);
        prop_assert!(decision.expire.contains(&key("other", 0)));
    }
}
