use super::*;
use crate::strict;

fn read(json: &str) -> Result<ReleasePlan, Vec<String>> {
    let read = strict::from_json::<ReleasePlan>(json.as_bytes());
    let checked = read.and_then(|plan| plan.check().map(|()| plan));
    checked.map_err(|invalid| {
        let named = |e: &crate::FieldError| format!("{}: {}", e.field, e.message);
        invalid.errors.iter().map(named).collect()
    })
}

fn steps(plan: &ReleasePlan) -> Vec<String> {
    let text = |step: &Step| format!("{}:{}", step.percent.hundredths(), step.pause);
    plan.steps().iter().map(text).collect()
}

#[test]
fn golden() {
    let short = read(r#"{"service":"s","candidate":"v2","reason":"faster"}"#).unwrap();
    insta::assert_json_snapshot!("short", short);
    assert_eq!(short.how(), How::Gray(None));
    assert_eq!(steps(&short), ["2500:1m", "5000:1m", "10000:0s"]);
    let full = read(
        r#"{"service":"s","candidate":"v2","baseline":"v1","reason":"faster","plugin":"p",
            "gray":{"key":"header:x-user"},"on_worse":"pause",
            "steps":[{"percent":0.5},{"percent":25,"pause":"manual"},{"percent":100,"pause":"10s"}],
            "limits":{"alpha":0.5,"least_requests":10,"tolerated_errors":1,"tolerated_p99":50}}"#,
    )
    .unwrap();
    insta::assert_json_snapshot!("full", full);
    assert_eq!(steps(&full), ["50:1m", "2500:manual", "10000:10s"]);
    let sides = read(r#"{"service":"s","candidate":"g","reason":"r","blue_green":{}}"#).unwrap();
    assert_eq!(steps(&sides), ["10000:1m"]);
}

#[test]
fn what_is_wrong_is_named() {
    let with = |more: &str| format!(r#"{{"service":"s","candidate":"v2","reason":"r",{more}}}"#);
    for (json, wrong) in [
        (
            r#"{"service":"s","candidate":"v2","reason":" "}"#.to_owned(),
            "reason: say why, in at most 1024 bytes: whoever looks at 3 a.m. will ask",
        ),
        (
            with(r#""canditate":"v3""#),
            "canditate: unknown field; did you mean `candidate`?",
        ),
        (
            with(r#""baseline":"v2""#),
            "candidate: another group than `baseline`",
        ),
        (
            with(r#""gray":{},"blue_green":{}"#),
            "blue_green: a release moves requests in one way: give one of `gray`, `blue_green` and `ab`",
        ),
        (
            with(r#""ab":{"experiment":"e"},"baseline":"v1""#),
            "baseline: with `ab` all other variants are what the candidate is compared with: leave it out",
        ),
        (
            with(r#""steps":[{"percent":10},{"percent":10},{"percent":100}]"#),
            "steps[1].percent: more than the step before: shares only grow",
        ),
        (
            with(r#""steps":[{"percent":10}]"#),
            "steps[0].percent: the last step is 100: a release ends with all requests at the candidate",
        ),
        (
            with(r#""steps":[{"percent":100,"pause":"25h"}]"#),
            "steps[0].pause: at most 24h; for longer write `manual`",
        ),
        (
            with(r#""steps":[{"percent":100,"pause":"soon"}]"#),
            "steps[0].pause: `soon` is no pause: write a time such as 30s or 5m, or `manual`",
        ),
        (
            with(r#""steps":[{"percent":100.5}]"#),
            "steps[0].percent: 100.5 is no share: a number from 0 to 100, in steps of 0.01",
        ),
        (
            with(r#""limits":{"alpha":0}"#),
            "limits.alpha: 0.01 to 10: of a hundred releases with nothing wrong, so many may be called worse",
        ),
        (
            with(r#""limits":{"least_requests":0}"#),
            "limits.least_requests: 1 to 1,000,000",
        ),
        (
            with(r#""limits":{"tolerated_p99":10001}"#),
            "limits.tolerated_p99: 0 to 10000, in percent",
        ),
    ] {
        assert_eq!(read(&json).unwrap_err(), [wrong], "{json}");
    }
    let wrong = read(&with(
        r#""blue_green":{},"steps":[{"percent":50},{"percent":100}]"#,
    ));
    assert!(wrong.unwrap_err()[0].starts_with("steps: a side is live or is not"));
    let wrong = read(&with(r#""gray":{"key":"x"}"#)).unwrap_err();
    assert!(
        wrong[0].starts_with("gray.key: `x` is no hash key"),
        "{wrong:?}"
    );
}

#[test]
fn steps_as_they_are_typed() {
    for (text, percent, pause) in [
        ("25", 2500, Pause::default()),
        ("0.5:30s", 50, Pause::For(Span::secs(30))),
        ("100:manual", 10_000, Pause::Manual),
    ] {
        let step: Step = text.parse().unwrap();
        assert_eq!((step.percent.hundredths(), step.pause), (percent, pause));
    }
    for bad in ["", "x", "101", "25:", "25:soon", ":30s"] {
        assert!(bad.parse::<Step>().is_err(), "{bad}");
    }
}

#[test]
fn events_are_bounded_and_the_first_stays() {
    let plan = ReleasePlan::of("s".parse().unwrap(), "v2".parse().unwrap(), "r");
    let mut release = Release {
        id: "r".parse().unwrap(),
        plan,
        author: "a".to_owned(),
        created_at: 0,
        state: ReleaseState::Running,
        why: None,
        step: 0,
        percent: Percent::default(),
        since: 0,
        judged_from: 0,
        plugin: "p".parse().unwrap(),
        weights: std::collections::BTreeMap::new(),
        ended_at: None,
        events: Vec::new(),
    };
    for at in 0..250 {
        release.note(Event {
            at,
            by: "a".to_owned(),
            what: Happened::Promoted,
            percent: Percent::default(),
            why: None,
        });
    }
    assert_eq!(release.events.len(), state::MAX_EVENTS);
    assert_eq!((release.events[0].at, release.events[1].at), (0, 151));
}
