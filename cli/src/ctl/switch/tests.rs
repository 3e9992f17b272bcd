use cardea_registry_api::switch::{
    Capacity, Event, NewSwitch, PlannedTarget, PlannedTraffic, Refusal,
};

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn weights(a: u8, b: u8) -> Weights {
    [(name("dc-a"), a), (name("dc-b"), b)].into()
}

#[test]
fn a_plan_says_what_moves_and_what_is_against_it() {
    let planned = SwitchPlan {
        cluster: name("dc-a"),
        traffic: vec![PlannedTraffic {
            key: "dc-a".parse().unwrap(),
            exists: false,
            from: [(name("dc-a"), 100)].into(),
            stages: vec![weights(90, 10), weights(50, 50), weights(0, 100)],
        }],
        keeps: vec![name("mail")],
        services: vec![PlannedService {
            service: name("shop"),
            rate: 812.34,
            targets: vec![PlannedTarget {
                cluster: name("dc-b"),
                share: 100.0,
                load: 913.0,
                instances: 2,
                healthy: Some(2),
                seen_by: Some(name("dc-b")),
                capacity: Some(600.0),
                known: Capacity::Declared,
            }],
        }],
        refusals: vec![Refusal {
            service: Some(name("shop")),
            why: "service `shop`: cluster `dc-b` can serve 600".to_owned(),
        }],
        notes: vec!["mail keep traffic of their own".to_owned()],
    };
    insta::assert_snapshot!(plan(&planned));
}

#[test]
fn a_status_tells_the_whole_story() {
    let mut asked = NewSwitch::new(name("dc-a"), Some(name("shop")), weights(0, 100));
    "power".clone_into(&mut asked.reason);
    let event = |at: i64, by: &str, state: SwitchState, what: &str| Event {
        at,
        by: by.to_owned(),
        state,
        what: what.to_owned(),
    };
    let switch = Switch {
        id: name("switch-7"),
        asked,
        author: "ann".to_owned(),
        created_at: 1_700_000_000_000,
        approved_by: Some("bob".to_owned()),
        state: SwitchState::Running,
        stage: 1,
        stage_at: 1_700_000_070_000,
        converged_at: None,
        moves: Vec::new(),
        before: Vec::new(),
        learnt: std::collections::BTreeMap::new(),
        events: vec![
            event(
                1_700_000_000_000,
                "ann",
                SwitchState::Waiting,
                "asked for approval: power",
            ),
            event(1_700_000_009_000, "bob", SwitchState::Running, "approved"),
        ],
    };
    let versioned = Versioned {
        revision: 12,
        object: switch,
    };
    insta::assert_snapshot!(list(std::slice::from_ref(&versioned)));
    let shown = Shown {
        switch: versioned,
        now: "stage 2 of 3 (50 %): waits for router-1".to_owned(),
    };
    insta::assert_snapshot!(one(&shown));
}
