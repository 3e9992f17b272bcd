//! What plans come to: of a service as it is, and after other releases.

use super::{super::start::Draft, *};

#[test]
fn the_next_release_begins_where_the_last_one_ended() {
    let begun =
        |state: &State, candidate: &str, now| draft(plan(candidate), state, "alice", now).unwrap();
    let state = world(&["c"]);
    let first = begun(&state, "v2", T0);
    let all = first.at_the_end.clone();
    let mut state = with_plugin(state, &serde_json::to_string(&all).unwrap());
    state = with(state, &[register("c", 9, "v3")]);
    assert_eq!(
        refused(plan("v2"), &state),
        "candidate: requests go to `v2` already"
    );
    let second = begun(&state, "v3", T0 + 10_000);
    assert_eq!(second.release.plan.baseline, Some(name("v2")));
    assert_eq!(
        rules(&second.plugin),
        [
            ("v3".to_owned(), Some(2500)),
            ("v2".to_owned(), Some(10_000))
        ]
    );
    let back = moves::written(&second.release, Some(&second.plugin), Percent::default()).unwrap();
    let state = with_plugin(state, &serde_json::to_string(&back).unwrap());
    // What the one that was rolled back left leaves with the next.
    let third = begun(&state, "v3", T0 + 20_000);
    assert_eq!(
        rules(&third.plugin),
        [
            ("v3".to_owned(), Some(2500)),
            ("v2".to_owned(), Some(10_000))
        ]
    );
    let state = with_plugin(state, &serde_json::to_string(&third.at_the_end).unwrap());
    let fourth = draft(plan("baseline"), &state, "alice", T0 + 30_000).unwrap();
    assert_eq!(
        rules(&fourth.plugin),
        [
            ("baseline".to_owned(), Some(2500)),
            ("v3".to_owned(), Some(10_000))
        ]
    );
}

#[test]
fn sides_go_at_once_and_back() {
    let mut sides = plan("v2");
    sides.blue_green = Some(cardea_registry_api::release::BySide {});
    let (release, plugin) = begun(&sides, T0);
    let live = |plugin: &Plugin| plugin.blue_green.as_ref().unwrap().live.to_string();
    assert_eq!(live(&plugin), "v2");
    let (_, back) = act(
        &release,
        Some(&plugin),
        &Action::RollBack,
        ("bob", None, T0),
    )
    .unwrap();
    assert_eq!(live(&back.unwrap()), "baseline");
    // There is nobody beside it: it is laid beside what was before.
    let before: Vec<Window> = {
        let mut before = windows(T0 - 200_000, T0, (0, 0), (1000, 1));
        before.reverse();
        before
    };
    let bad = windows(T0, T0 + 10_000, (1000, 30), (0, 0));
    let mut seen = seen(T0 + 13_000, &plugin, &bad);
    seen.before = &before;
    let (action, why) = next(&release, &seen).unwrap();
    assert_eq!(action, Action::RollBack, "{why:?}");
    let good = windows(T0, T0 + 60_000, (1000, 1), (0, 0));
    (seen.windows, seen.newest, seen.now) = (&good, Some(T0 + 60_000), T0 + 63_000);
    assert_eq!(next(&release, &seen), Some((Action::Promote, None)));
    // Too little was before, and never will be more: that is not waited for.
    let few = windows(T0 - 5000, T0, (0, 0), (49, 0));
    seen.before = &few;
    assert_eq!(next(&release, &seen), Some((Action::Promote, None)));
    let (done, _) = did(&release, &plugin, &Action::Promote, T0 + 63_000);
    assert_eq!(done.state, ReleaseState::Finished);
    // Of a plugin that is there, the sides are its own.
    let state = with_plugin(
        world(&["c"]),
        r#"{"name":"bg","service":"shop","blue_green":{"blue":"v2","green":"v3","live":"v3"}}"#,
    );
    let state = with(state, &[register("c", 9, "v3")]);
    let found = draft(sides.clone(), &state, "a", T0).unwrap();
    assert_eq!(found.release.plan.baseline, Some(name("v3")));
    sides.candidate = name("baseline");
    assert_eq!(
        refused(sides, &state),
        "candidate: a side of plugin `bg`: `v2` or `v3`"
    );
    assert!(refused(plan("v2"), &state).starts_with("conflict: plugin `bg` says which side"));
}

const AB: &str = r#"{"name":"ab","service":"shop","ab":{"experiments":[{"name":"e","key":"header:x-user",
    "variants":[{"name":"a","weight":3,"group":"baseline"},{"name":"b","weight":1,"group":"v2"},
    {"name":"c","weight":2,"group":"v3"}]}]}}"#;

#[test]
fn a_winner_gets_the_weights_and_the_others_keep_their_proportions() {
    let state = with_plugin(world(&["c"]), AB);
    let state = with(state, &[register("c", 9, "v3")]);
    let mut winner = plan("b");
    winner.ab = Some(cardea_registry_api::release::ByWeights {
        experiment: name("e"),
    });
    let begun = draft(winner.clone(), &state, "alice", T0).unwrap();
    let weights = |plugin: &Plugin| -> Vec<u16> {
        let variants = &plugin.ab.as_ref().unwrap().experiments[0].variants;
        variants.iter().map(|variant| variant.weight).collect()
    };
    assert_eq!(weights(&begun.plugin), [450, 250, 300]);
    assert_eq!(weights(&begun.at_the_end), [0, 1000, 0]);
    let (_, back) = act(
        &begun.release,
        Some(&begun.plugin),
        &Action::RollBack,
        ("bob", None, T0),
    )
    .unwrap();
    assert_eq!(weights(&back.unwrap()), [3, 1, 2], "as they were");
    let groups = groups(&begun.release, Some(&begun.plugin)).unwrap();
    assert_eq!(groups.candidate, name("v2"));
    assert_eq!(groups.baseline, [name("baseline"), name("v3")]);
    // A share that it has already is no step.
    winner.candidate = name("a");
    let begun = draft(winner.clone(), &state, "alice", T0).unwrap();
    let steps: Vec<String> = (begun.release.plan.steps.iter())
        .map(|step| format!("{}:{}", step.percent.hundredths(), step.pause))
        .collect();
    assert_eq!(steps, ["7500:1m", "10000:0s"], "it has 50 %");
    winner.steps = vec!["40".parse().unwrap(), "100".parse().unwrap()];
    assert_eq!(
        refused(winner.clone(), &state),
        "steps[0].percent: more than the variant has: 50 %"
    );
    winner.candidate = name("z");
    assert_eq!(
        refused(winner.clone(), &state),
        "candidate: experiment `e` has no variant `z`"
    );
    // Without groups nothing can be compared: only people promote.
    let bare = AB.replace(r#","group":"v2""#, "");
    let state = with_plugin(state, &bare);
    (winner.candidate, winner.steps) = (name("b"), Vec::new());
    let wrong = refused(winner.clone(), &state);
    assert!(
        wrong.starts_with("steps[0].pause: `manual`: without groups"),
        "{wrong}"
    );
    winner.steps = vec!["50:manual".parse().unwrap(), "100:0s".parse().unwrap()];
    let begun = draft(winner, &state, "alice", T0).unwrap();
    assert_eq!(super::groups(&begun.release, Some(&begun.plugin)), None);
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let state = world(&["c"]);
    let with_name = |name: &str| ReleasePlan {
        plugin: Some(name.parse().unwrap()),
        ..plan("v2")
    };
    let mut other = plan("v2");
    other.service = name("shopp");
    assert_eq!(
        refused(other, &state),
        "service: there is no service `shopp`: create it first"
    );
    assert_eq!(
        refused(plan("v4"), &state),
        "candidate: service `shop` has no group `v4`: it has v2, v3, baseline; give it in the service's `groups` \
         first"
    );
    assert!(
        refused(plan("v3"), &state).starts_with("conflict: no instance of `v3` takes requests"),
    );
    let mut from = plan("v2");
    from.baseline = Some(name("v3"));
    assert_eq!(
        refused(from, &state),
        "baseline: requests go to `baseline` now: write that, or leave it out"
    );
    let off = with_plugin(
        world(&["c"]),
        r#"{"name":"g","service":"shop","enabled":false,"gray":{"rules":[{"group":"v3"}]}}"#,
    );
    assert_eq!(
        refused(plan("v2"), &off),
        "conflict: plugin `g` is switched off: it moves nothing; enable it first"
    );
    let foreign = with_plugin(
        world(&["c"]),
        r#"{"name":"g","gray":{"rules":[{"group":"v3"}]}}"#,
    );
    assert_eq!(
        refused(with_name("g"), &foreign),
        "plugin: plugin `g` is not bound to service `shop` or one of its routes"
    );
    let limit = with_plugin(
        world(&["c"]),
        r#"{"name":"release-shop","service":"shop","limit":{"rate":1}}"#,
    );
    assert!(
        refused(plan("v2"), &limit).starts_with("plugin: the release needs a plugin of its own")
    );
    assert!(
        refused(with_name("release-shop"), &limit)
            .starts_with("plugin: plugin `release-shop` is no plugin")
    );
    let two = [1, 2].iter().fold(world(&["c"]), |state, n| {
        let json =
            format!(r#"{{"name":"g{n}","service":"shop","gray":{{"rules":[{{"group":"v3"}}]}}}}"#);
        let plugin: Plugin = serde_json::from_str(&json).unwrap();
        let mut state = state;
        let change = Change::PutPlugin {
            plugin: Box::new(plugin),
            expected: Expected::Any,
        };
        // Two of a kind at one place may be refused: then there is nothing to choose among.
        let _ = state.apply_all(&[change], 0);
        state
    });
    if two.plugin("g2").is_some() {
        assert!(refused(plan("v2"), &two).starts_with("plugin: service `shop` has several"));
    }
}

#[test]
fn what_to_know_is_said() {
    let mut state = world(&["a", "b"]);
    for n in 2..4 {
        let gone = [Change::Deregister {
            key: key("b", "shop", n),
        }];
        state = with(state, &gone);
    }
    state = with_plugin(
        state,
        r#"{"name":"own","route":"r","gray":{"rules":[{"group":"v3"}]}}"#,
    );
    let Draft {
        warnings,
        candidate_ready,
        baseline_ready,
        ..
    } = draft(plan("v2"), &state, "alice", T0).unwrap();
    let all = warnings.join("\n");
    for said in [
        "nobody of `v2` is in b: requests stay with the baseline there",
        "route `r` has plugin `own` of its own: it is not moved",
        "until now nothing kept requests from `v2`",
    ] {
        assert!(all.contains(said), "{all}");
    }
    assert_eq!(candidate_ready, [(name("a"), 2)].into());
    assert_eq!(baseline_ready, [(name("a"), 2), (name("b"), 2)].into());
}
