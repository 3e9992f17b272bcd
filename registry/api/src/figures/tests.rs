use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::strict;

fn report(value: &serde_json::Value) -> Result<Report, Invalid> {
    let report: Report = strict::from_json(value.to_string().as_bytes())?;
    report.check(1_000_000)?;
    Ok(report)
}

fn fields(value: &serde_json::Value) -> Vec<String> {
    let errors = report(value).unwrap_err().errors;
    errors.into_iter().map(|error| error.field).collect()
}

#[test]
fn a_report_is_read_strictly_and_what_is_wrong_is_named() {
    let right = json!({
        "process": "p1", "at": 995_000,
        "series": [
            {"route": "r", "service": "s", "figures": {
                "classes": [0, 3, 0, 0, 1], "retries": 1,
                "latency": {"first": 7, "counts": [1, 0, 3], "sum_us": 500},
            }},
            {"figures": {"classes": [0, 0, 0, 2, 0]}},
        ],
        "peers": [{"service": "s", "healthy": 1, "total": 2}],
    });
    let read = report(&right).unwrap();
    assert_eq!(read.series[0].figures.requests(), 4);
    assert_eq!(
        serde_json::to_value(&read).unwrap()["series"][0],
        right["series"][0]
    );

    let change = |pointer: &str, to: serde_json::Value| {
        let mut wrong = right.clone();
        *wrong.pointer_mut(pointer).unwrap() = to;
        fields(&wrong)
    };
    assert_eq!(change("/at", json!(995_001)), ["at"]);
    assert_eq!(
        change("/at", json!(695_000)),
        ["at"],
        "older than five minutes"
    );
    assert_eq!(change("/at", json!(1_015_000)), ["at"], "of the future");
    assert_eq!(change("/process", json!("P 1")), ["process"]);
    assert_eq!(change("/series/0/route", json!(null)), ["series[0]"]);
    assert_eq!(
        change("/series/0/figures/retries", json!(1_000_000_001)),
        ["series[0].figures.retries"]
    );
    assert_eq!(
        change("/series/0/figures/latency/first", json!(159)),
        ["series[0].figures.latency.counts"]
    );
    assert_eq!(
        change("/series/1", right["series"][0].clone()),
        ["series[1]"]
    );
    assert_eq!(change("/peers/0/healthy", json!(3)), ["peers[0].healthy"]);
    let mut wrong = right.clone();
    wrong["series"][0]["figures"]["limitd"] = json!(1);
    assert_eq!(fields(&wrong), ["series[0].figures.limitd"]);
}

#[test]
fn a_report_has_so_many_series_and_no_more() {
    let series: Vec<_> = (0..=MAX_SERIES)
        .map(|n| json!({"route": format!("r{n}"), "service": "s", "figures": {"classes": [0, 1, 0, 0, 0]}}))
        .collect();
    let all = |n: usize| json!({"process": "p", "at": 995_000, "series": series[..n]});
    report(&all(MAX_SERIES)).unwrap();
    assert_eq!(fields(&all(MAX_SERIES + 1)), ["series"]);
}

#[test]
fn windows_begin_at_multiples() {
    assert_eq!(window_of(12_345), 10_000);
    assert_eq!(window_of(10_000), 10_000);
    assert_eq!(window_of(-1), -5_000);
}

fn figures() -> impl Strategy<Value = Figures> {
    let counts = prop::array::uniform5(0u64..1000);
    let latency = prop::collection::vec(0u64..100_000_000, 0..20);
    (counts, latency, prop::array::uniform4(0u64..1000)).prop_map(|(classes, all, rest)| {
        let mut latency = Histogram::default();
        all.into_iter().for_each(|us| latency.observe(us));
        let [in_flight, retries, fallbacks, limited] = rest;
        Figures {
            classes,
            latency,
            in_flight,
            retries,
            fallbacks,
            limited,
        }
    })
}

proptest! {
    #[test]
    fn figures_are_the_same_merged_in_any_order(a in figures(), b in figures(), c in figures()) {
        let merged = |all: [&Figures; 3]| {
            let mut sum = Figures::default();
            all.into_iter().for_each(|one| sum.merge(one));
            sum
        };
        let sum = merged([&a, &b, &c]);
        prop_assert_eq!(&merged([&c, &a, &b]), &sum);
        let mut right = b.clone();
        right.merge(&c);
        let mut nested = a.clone();
        nested.merge(&right);
        prop_assert_eq!(&nested, &sum);
        prop_assert_eq!(sum.requests(), a.requests() + b.requests() + c.requests());
        prop_assert_eq!(sum.latency.count(), a.latency.count() + b.latency.count() + c.latency.count());
        let all = |of: fn(&Figures) -> u64| of(&a) + of(&b) + of(&c);
        prop_assert_eq!(sum.in_flight, all(|f| f.in_flight));
        prop_assert_eq!(sum.retries, all(|f| f.retries));
        prop_assert_eq!(sum.fallbacks, all(|f| f.fallbacks));
        prop_assert_eq!(sum.limited, all(|f| f.limited));
        prop_assert_eq!(sum.errors(), all(Figures::errors));
    }
}
