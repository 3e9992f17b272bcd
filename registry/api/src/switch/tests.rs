use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Traffic, TrafficKey, strict};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn read(json: &str) -> Result<NewSwitch, Vec<String>> {
    let read = strict::from_json::<NewSwitch>(json.as_bytes());
    let checked = read.and_then(|switch| switch.check().map(|()| switch));
    checked.map_err(|invalid| {
        let named = |e: &crate::FieldError| format!("{}: {}", e.field, e.message);
        invalid.errors.iter().map(named).collect()
    })
}

#[test]
fn golden() {
    let short = read(r#"{"cluster":"a","to":{"b":100},"reason":"power"}"#).unwrap();
    insta::assert_json_snapshot!("short", short);
    let off = read(
        r#"{"cluster":"a","to":{"b":100},"reason":"power","stages":[100],"watch":"0s",
            "guards":{"errors":null,"p99":null,"capacity":false,"routers":null}}"#,
    )
    .unwrap();
    assert_eq!(off.guards.errors, None);
    assert_eq!(off.guards.routers, None);
}

#[test]
fn what_is_wrong_is_named() {
    let stages =
        "stages: 1 to 20 percentages that grow up to 100, such as [10, 50, 100]; [100]: at once";
    for (json, wrong) in [
        (
            r#"{"cluster":"a","to":{},"reason":"r"}"#,
            "to: 1 to 16 clusters with their shares, such as {\"dc-b\": 100}",
        ),
        (
            r#"{"cluster":"a","to":{"b":0},"reason":"r"}"#,
            "to: at least one above 0: requests must go somewhere",
        ),
        (
            r#"{"cluster":"a","to":{"b":101},"reason":"r"}"#,
            "to.b: a cluster's share is 0 to 100",
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","stages":[]}"#,
            stages,
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","stages":[0,100]}"#,
            stages,
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","stages":[50,50,100]}"#,
            stages,
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","stages":[10,50]}"#,
            stages,
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":" "}"#,
            "reason: say why, in at most 1000 bytes: it is kept with the switch",
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","watch":"2h"}"#,
            "watch: at most 1h",
        ),
        (
            r#"{"cluster":"a","service":"s","narrower":true,"to":{"b":1},"reason":"r"}"#,
            "narrower: is for a whole cluster: leave `service` out, or this",
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","guards":{"p99":{"percent":99}}}"#,
            "guards.p99.percent: a percentage of what it was before, 100 to 10000",
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","guards":{"errors":{"least_requests":0}}}"#,
            "guards.errors.least_requests: 1 to 1000000000 requests",
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","guards":{"routers":{"within":"0s"}}}"#,
            "guards.routers.within: 1s to 1h",
        ),
        (
            r#"{"cluster":"a","to":{"b":1},"reason":"r","stage":[100]}"#,
            "stage: unknown field; did you mean `stages`?",
        ),
    ] {
        assert_eq!(read(json).unwrap_err(), [wrong], "{json}");
    }
}

#[test]
fn events_are_bounded_and_the_first_ones_stay() {
    let asked = read(r#"{"cluster":"a","to":{"b":1},"reason":"r"}"#).unwrap();
    let mut switch = Switch {
        id: name("switch-1"),
        asked,
        author: "ann".to_owned(),
        created_at: 0,
        approved_by: None,
        state: SwitchState::Running,
        stage: 0,
        stage_at: 0,
        converged_at: None,
        moves: Vec::new(),
        before: Vec::new(),
        learnt: BTreeMap::new(),
        events: Vec::new(),
    };
    for n in 0..250 {
        switch.note(n, "ann", format!("{n}"));
    }
    assert_eq!(switch.events.len(), MAX_EVENTS);
    assert_eq!((switch.events[0].at, switch.events[99].at), (0, 249));
}

fn weights() -> impl Strategy<Value = Weights> {
    prop::collection::btree_map(0u8..6, 0u8..=100, 1..5)
        .prop_map(|map| {
            map.into_iter()
                .map(|(n, w)| (name(&format!("c{n}")), w))
                .collect()
        })
        .prop_filter("somewhere", |weights: &Weights| {
            weights.values().any(|w| *w > 0)
        })
}

fn share(weights: &Weights, cluster: &Name) -> f64 {
    let sum: u32 = weights.values().map(|w| u32::from(*w)).sum();
    f64::from(weights.get(cluster).copied().unwrap_or_default()) * 100.0 / f64::from(sum)
}

proptest! {
    #[test]
    fn each_share_is_within_a_point_of_the_way_and_the_end_is_what_was_asked(
        from in weights(), to in weights(), percent in 0u8..=100,
    ) {
        let on_the_way = interpolated(&from, &to, percent);
        if percent < 100 {
            prop_assert_eq!(on_the_way.values().map(|w| u32::from(*w)).sum::<u32>(), 100);
        }
        for cluster in from.keys().chain(to.keys()) {
            let way = f64::from(percent) / 100.0;
            let exact = share(&from, cluster) * (1.0 - way) + share(&to, cluster) * way;
            prop_assert!((share(&on_the_way, cluster) - exact).abs() < 1.0);
        }
        for (cluster, weight) in interpolated(&from, &to, 100) {
            prop_assert_eq!(weight, to.get(&cluster).copied().unwrap_or_default());
        }
    }

    #[test]
    fn only_weights_are_written(from in weights(), to in weights(), percent in 0u8..=100) {
        let mut base = Traffic::of(TrafficKey { cluster: name("c0"), service: None });
        base.weights = from;
        base.failover = Some(crate::traffic::Failover::to(vec![name("c1")]));
        let moved = Move { base: base.clone(), existed: true };
        let mut at = moved.at(&to, percent);
        prop_assert!(at.check().is_ok());
        at.weights = base.weights.clone();
        prop_assert_eq!(at, base);
    }
}
