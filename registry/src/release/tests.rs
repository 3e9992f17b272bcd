//! The machine, step by step.

use super::{judge::SPELL_MS, *};
use crate::{
    change::{Change, Expected},
    state::{
        State,
        tests::{fresh, key, name, put_route},
    },
};
use cardea_registry_api::{
    ReleasePlan, Service, Span,
    api::Registration,
    figures::Figures,
    plugin::{GrayRule, When},
};

mod plans;
mod turns;

/// A service with two instances of version 1 and two of version 2 in each of some clusters.
pub(crate) fn world(clusters: &[&str]) -> State {
    let mut service = Service::named(name("shop"));
    for version in ["v1", "v2", "v3"] {
        let selector = [("version".to_owned(), version.to_owned())].into();
        if version != "v1" {
            service.groups.insert(name(version), selector);
        }
    }
    let mut changes = vec![Change::PutService {
        service: Box::new(service),
        expected: Expected::Any,
    }];
    for cluster in clusters {
        for (n, version) in ["v1", "v1", "v2", "v2"].iter().enumerate() {
            changes.push(register(cluster, n, version));
        }
    }
    changes.push(put_route("r", "shop.test", "shop"));
    with(fresh(), &changes)
}

fn register(cluster: &str, n: usize, version: &str) -> Change {
    Change::Register {
        key: key(cluster, "shop", n),
        registration: Box::new(Registration {
            version: version.to_owned(),
            ..crate::state::tests::registration(n)
        }),
    }
}

fn with(mut state: State, changes: &[Change]) -> State {
    state.apply_all(changes, 0).unwrap();
    state
}

fn with_plugin(state: State, json: &str) -> State {
    let plugin = Box::new(plugin(json));
    let expected = Expected::Any;
    with(state, &[Change::PutPlugin { plugin, expected }])
}

fn plugin(json: &str) -> Plugin {
    let plugin: Plugin = serde_json::from_str(json).unwrap();
    plugin.check().unwrap();
    plugin
}

pub(crate) fn plan(candidate: &str) -> ReleasePlan {
    ReleasePlan::of(name("shop"), name(candidate), "tests")
}

/// A release that has begun, and its plugin.
pub(crate) fn begun(plan: &ReleasePlan, now: i64) -> (Release, Plugin) {
    let draft = draft(plan.clone(), &world(&["c"]), "alice", now).unwrap();
    (draft.release, draft.plugin)
}

fn refused(plan: ReleasePlan, state: &State) -> String {
    match draft(plan, state, "alice", 0) {
        Ok(draft) => panic!("{draft:?}"),
        Err(Refused::Invalid(invalid)) => invalid.to_string(),
        Err(Refused::Conflict(why)) => format!("conflict: {why}"),
    }
}

fn rules(plugin: &Plugin) -> Vec<(String, Option<u16>)> {
    let rules = plugin.gray.iter().flat_map(|gray| &gray.rules);
    rules
        .map(|rule| {
            let percent = rule.when.percent.map(Percent::hundredths);
            (rule.group.to_string(), percent)
        })
        .collect()
}

const T0: i64 = 1_000_000_000;

/// Windows in which both groups have so many requests and errors, from one moment to another.
fn windows(from: i64, to: i64, candidate: (u64, u64), baseline: (u64, u64)) -> Vec<Window> {
    let figures = |(requests, errors): (u64, u64)| Figures {
        classes: [0, requests - errors, 0, 0, errors],
        ..Figures::default()
    };
    (window_of(from)..window_of(to))
        .step_by(5000)
        .map(|at| Window {
            at,
            cluster: name("c"),
            candidate: figures(candidate),
            baseline: figures(baseline),
        })
        .collect()
}

fn seen<'a>(now: i64, plugin: &'a Plugin, windows: &'a [Window]) -> Seen<'a> {
    Seen {
        now,
        plugin: Some(plugin),
        candidate_ready: Some(2),
        baseline_ready: Some(2),
        windows,
        before: &[],
        newest: windows.last().map(|window| window.at + WINDOW_MS),
    }
}

fn did(release: &Release, plugin: &Plugin, action: &Action, now: i64) -> (Release, Plugin) {
    let (release, put) = act(release, Some(plugin), action, (ITSELF, None, now)).unwrap();
    (release, put.unwrap_or_else(|| plugin.clone()))
}

#[test]
fn a_clean_release_goes_to_its_end_step_by_step() {
    let (release, plugin) = begun(&plan("v2"), T0);
    assert_eq!(rules(&plugin), [("v2".to_owned(), Some(2500))]);
    assert_eq!(release.plan.baseline, Some(name("baseline")));
    let healthy = windows(T0, T0 + 60_000, (200, 0), (800, 1));
    let at = |now| next(&release, &seen(now, &plugin, &healthy));
    assert_eq!(at(T0 + 59_000), None, "its pause");
    let step = at(T0 + 63_000);
    assert_eq!(step, Some((Action::Promote, None)));
    let (release, plugin) = did(&release, &plugin, &Action::Promote, T0 + 63_000);
    assert_eq!(
        (release.step, rules(&plugin)),
        (1, vec![("v2".to_owned(), Some(5000))])
    );
    // Only what was counted since says something of this step.
    let early = seen(T0 + 124_000, &plugin, &healthy);
    assert_eq!(next(&release, &early), None, "no figures of this step");
    let healthy = windows(release.judged_from, T0 + 125_000, (500, 0), (500, 1));
    let step = next(&release, &seen(T0 + 128_000, &plugin, &healthy));
    assert_eq!(step, Some((Action::Promote, None)));
    let (release, plugin) = did(&release, &plugin, &Action::Promote, T0 + 128_000);
    assert_eq!(rules(&plugin), [("v2".to_owned(), Some(10_000))]);
    let step = next(&release, &seen(T0 + 129_000, &plugin, &[]));
    assert_eq!(
        step,
        Some((Action::Promote, None)),
        "nobody wants it watched"
    );
    let (release, plugin) = did(&release, &plugin, &Action::Promote, T0 + 129_000);
    assert_eq!(release.state, ReleaseState::Finished);
    assert_eq!(release.ended_at, Some(T0 + 129_000));
    let what: Vec<Happened> = release.events.iter().map(|event| event.what).collect();
    assert_eq!(
        what,
        [
            Happened::Started,
            Happened::Promoted,
            Happened::Promoted,
            Happened::Finished
        ]
    );
    assert_eq!(rules(&plugin), [("v2".to_owned(), Some(10_000))]);
    assert_eq!(next(&release, &seen(T0 + 200_000, &plugin, &[])), None);
}

#[test]
fn a_worse_candidate_goes_back_with_the_numbers() {
    let (release, plugin) = begun(&plan("v2"), T0);
    let bad = windows(T0, T0 + 10_000, (250, 8), (750, 0));
    let (action, why) = next(&release, &seen(T0 + 13_000, &plugin, &bad)).unwrap();
    assert_eq!(action, Action::RollBack);
    assert_eq!(
        why.as_deref(),
        Some(
            "`v2` has more errors at 25 %: 16 of its 500 requests (3.20 %), the baseline 0 of 1500 (0.00 %)"
        )
    );
    let done = act(&release, Some(&plugin), &action, (ITSELF, why.clone(), T0)).unwrap();
    assert_eq!(
        (done.0.state, &done.0.why),
        (ReleaseState::RolledBack, &why)
    );
    // The rule stays: without one the candidate would have its part again.
    assert_eq!(rules(&done.1.unwrap()), [("v2".to_owned(), Some(0))]);
    let mut patient = plan("v2");
    patient.on_worse = OnWorse::Pause;
    let (release, plugin) = begun(&patient, T0);
    let (action, _) = next(&release, &seen(T0 + 13_000, &plugin, &bad)).unwrap();
    assert_eq!(action, Action::Pause);
    // Whoever resumes has seen what was: it is judged by what comes.
    let (paused, plugin) = did(&release, &plugin, &action, T0 + 13_000);
    let (resumed, plugin) = did(&paused, &plugin, &Action::Resume, T0 + 20_000);
    assert!(resumed.judged_from > T0 + 20_000);
    let later = windows(T0, T0 + 40_000, (250, 0), (750, 0));
    let since: Vec<Window> = later
        .into_iter()
        .filter(|w| w.at >= resumed.judged_from)
        .collect();
    assert_eq!(next(&resumed, &seen(T0 + 43_000, &plugin, &since)), None);
}

#[test]
fn without_figures_or_a_sample_it_waits() {
    let (release, plugin) = begun(&plan("v2"), T0);
    let waits = |seen: &Seen<'_>| {
        assert_eq!(next(&release, seen), None);
        waits_for(&release, seen, &judge(&release, seen)).unwrap()
    };
    let now = T0 + 600_000;
    assert!(waits(&seen(now, &plugin, &[])).starts_with("figures of this step"));
    // The routers stopped reporting before its pause was over.
    let cut = windows(T0, T0 + 40_000, (200, 0), (800, 0));
    assert!(waits(&seen(now, &plugin, &cut)).starts_with("figures of this step"));
    let few = windows(T0, T0 + 60_000, (1, 0), (100, 0));
    assert_eq!(
        waits(&seen(now, &plugin, &few)),
        "a sample of 50 requests each: the candidate has had 12, the baseline 1200"
    );
    let pause = windows(T0, T0 + 40_000, (200, 0), (800, 0));
    assert_eq!(
        waits(&seen(T0 + 40_500, &plugin, &pause)),
        "the end of its pause, in 20 s"
    );
}

#[test]
fn a_candidate_without_instances_goes_back_unless_there_is_nobody() {
    let (release, plugin) = begun(&plan("v2"), T0);
    let mut gone = seen(T0 + 1000, &plugin, &[]);
    gone.candidate_ready = Some(0);
    let (action, why) = next(&release, &gone).unwrap();
    assert_eq!(action, Action::RollBack);
    assert_eq!(
        why.as_deref(),
        Some("no instance of `v2` takes requests any more")
    );
    gone.baseline_ready = Some(0);
    assert_eq!(next(&release, &gone).unwrap().0, Action::Pause);
}

fn own(plugin: &mut Plugin) -> &mut Vec<GrayRule> {
    &mut plugin.gray.as_mut().unwrap().rules
}

#[test]
fn a_hand_on_its_plugin_makes_it_pause_and_other_rules_are_nobodys_business() {
    let (release, plugin) = begun(&plan("v2"), T0);
    let paused = |change: &dyn Fn(&mut Plugin)| {
        let mut changed = plugin.clone();
        change(&mut changed);
        match next(&release, &seen(T0, &changed, &[])) {
            Some((Action::Pause, Some(why))) => Some(why),
            None => None,
            other => panic!("{other:?}"),
        }
    };
    let other = GrayRule {
        when: serde_json::from_str(r#"{"key":"header:x-user","is":["bob"]}"#).unwrap(),
        group: name("v3"),
    };
    let rule = |when| GrayRule {
        when,
        group: name("v3"),
    };
    assert_eq!(paused(&|_| {}), None);
    assert_eq!(paused(&|plugin| own(plugin).insert(0, other.clone())), None);
    assert_eq!(
        paused(&|plugin| own(plugin).push(rule(When::default()))),
        None
    );
    for (change, why) in [
        (
            &(|plugin: &mut Plugin| own(plugin)[0].when.percent = Some(Percent::ALL))
                as &dyn Fn(&mut Plugin),
            "the release's rule in plugin `release-shop` was changed, by hand",
        ),
        (
            &|plugin| own(plugin)[0] = other.clone(),
            "the release's rule was taken out of plugin `release-shop`, by hand",
        ),
        (
            &|plugin| plugin.enabled = false,
            "plugin `release-shop` was switched off, by hand",
        ),
        (
            &|plugin| plugin.shadow = true,
            "plugin `release-shop` was put in shadow: it moves nothing, by hand",
        ),
        (
            &|plugin| own(plugin).insert(0, rule(When::default())),
            "plugin `release-shop` has a rule before the release's that takes every request, by hand",
        ),
        (
            &|plugin| plugin.gray = None,
            "plugin `release-shop` is of another kind now, by hand",
        ),
    ] {
        assert_eq!(paused(change).as_deref(), Some(why));
    }
    let gone = Seen {
        plugin: None,
        ..seen(T0, &plugin, &[])
    };
    let (action, why) = next(&release, &gone).unwrap();
    assert_eq!(action, Action::Pause);
    assert_eq!(
        why.as_deref(),
        Some("plugin `release-shop` is gone, by hand")
    );
    // Back to the baseline is possible all the same, and keeps the candidate out.
    let back = act(&release, None, &Action::RollBack, ("bob", None, T0)).unwrap();
    assert_eq!(rules(&back.1.unwrap()), [("v2".to_owned(), Some(0))]);
}

#[test]
fn orders_are_done_or_refused_by_name() {
    let (release, plugin) = begun(&plan("v2"), T0);
    let by = |action: &Action, release: &Release, plugin: &Plugin| {
        act(
            release,
            Some(plugin),
            action,
            ("bob", Some("so".to_owned()), T0),
        )
    };
    let state = |action: Action| by(&action, &release, &plugin).unwrap().0.state;
    assert_eq!(state(Action::Pause), ReleaseState::Paused);
    assert_eq!(state(Action::Abort), ReleaseState::Aborted);
    let (full, put) = by(&Action::PromoteFull, &release, &plugin).unwrap();
    assert_eq!((full.step, full.state), (2, ReleaseState::Running));
    assert_eq!(rules(&put.unwrap()), [("v2".to_owned(), Some(10_000))]);
    let last = full.events.last().unwrap();
    assert_eq!((last.by.as_str(), last.why.as_deref()), ("bob", Some("so")));
    let refused = |action: Action| by(&action, &release, &plugin).unwrap_err().to_string();
    assert_eq!(
        refused(Action::Resume),
        format!("release `{}` is running", release.id)
    );
    let (aborted, put) = by(&Action::Abort, &release, &plugin).unwrap();
    assert_eq!(put, None, "it is left where it is");
    let no = by(&Action::Promote, &aborted, &plugin)
        .unwrap_err()
        .to_string();
    assert_eq!(
        no,
        format!("release `{}` is over: it is aborted", release.id)
    );
    // What is over can go back as long as nothing else was done.
    let (back, _) = by(&Action::RollBack, &aborted, &plugin).unwrap();
    assert_eq!(back.state, ReleaseState::RolledBack);
    let mut changed = plugin.clone();
    changed.gray.as_mut().unwrap().rules[0].when.percent = Some(Percent::ALL);
    let no = by(&Action::RollBack, &aborted, &changed)
        .unwrap_err()
        .to_string();
    assert!(no.contains("is over, and the release's rule"), "{no}");
}

#[test]
fn a_spell_ends_and_the_next_one_knows_nothing_of_it() {
    let mut manual = plan("v2");
    manual.steps = vec!["25:manual".parse().unwrap(), "100:0s".parse().unwrap()];
    let (release, plugin) = begun(&manual, T0);
    // Good for as long as one likes, then bad: found within a minute.
    let evening = T0 + 8 * SPELL_MS + 60_000;
    let mut all = windows(T0, evening, (500, 2), (1500, 6));
    all.extend(windows(evening, evening + 60_000, (500, 15), (1500, 6)));
    let (action, _) = next(&release, &seen(evening + 63_000, &plugin, &all)).unwrap();
    assert_eq!(action, Action::RollBack);
    assert_eq!(
        spell_of(&release, evening),
        (8, release.judged_from + 8 * SPELL_MS)
    );
}

#[test]
fn ids_are_names() {
    assert_eq!(
        id_of(&name("shop"), 1_764_240_000_000).as_str(),
        "shop-mihay0ao"
    );
    let long = "s".repeat(63);
    assert!(id_of(&name(&long), 1_764_240_000_000).as_str().len() <= 63);
}
