//! Releases in the log: kept, driven by one, gone on with by another, on both engines; judged by what routers
//! reported.

use cardea_registry_api::{
    ReleasePlan, Service, Source,
    figures::{Figures, Series, WINDOW_MS, window_of},
    release::{Order, ReleaseState},
};

use super::*;
use crate::{
    change::{Expected, Kind, Rejection},
    release::{self, Action, look::Looked},
    state::tests::{key, name, registration},
    testing::{Postgres, Running, ask, config, sqlite_url, until},
};

pub(super) fn plan(steps: &[&str]) -> ReleasePlan {
    let mut plan = ReleasePlan::of(name("shop"), name("v2"), "tests");
    plan.steps = steps.iter().map(|step| step.parse().unwrap()).collect();
    plan
}

async fn site(running: &Running) {
    site_in(running, "default").await;
}

pub(super) async fn site_in(running: &Running, cluster: &str) {
    let mut service = Service::named(name("shop"));
    let selector = [("version".to_owned(), "2".to_owned())].into();
    service.groups.insert(name("v2"), selector);
    let mut changes = vec![Change::PutService {
        service: Box::new(service),
        expected: Expected::Any,
    }];
    for (n, version) in ["1", "2"].iter().enumerate() {
        let mut registration = registration(n);
        (*version).clone_into(&mut registration.version);
        // Nobody renews here.
        (registration.source, registration.lease) = (Source::Manual, None);
        changes.push(Change::Register {
            key: key(cluster, "shop", n),
            registration: Box::new(registration),
        });
    }
    let core = &running.core;
    core.submit(changes, Author::named("test")).await.unwrap();
}

async fn begin(core: &Core, plan: &ReleasePlan) -> Result<Name, ReleaseError> {
    core.begin_release(plan, "ann").await.map(|(id, ..)| id)
}

pub(super) fn stands(core: &Core, id: &Name) -> (ReleaseState, u16) {
    let state = core.state();
    let release = &state.release(id.as_str()).unwrap().object;
    (release.state, release.percent.hundredths() / 100)
}

/// The share that the plugin gives the candidate.
pub(super) fn share(core: &Core) -> Option<u16> {
    let state = core.state();
    let plugin = &state.plugin("release-shop")?.object;
    let rule = plugin.gray.as_ref()?.rules.first()?;
    rule.when.percent.map(|percent| percent.hundredths() / 100)
}

/// A router's report of the window that ended last.
async fn report(core: &Core, at: i64, errors: u64) {
    let series = |group: &str, requests, errors| Series {
        route: Some(name("r")),
        service: Some(name("shop")),
        group: Some(name(group)),
        figures: Figures {
            classes: [0, requests - errors, 0, 0, errors],
            ..Figures::default()
        },
    };
    let report = Report {
        process: name("p"),
        at,
        series: vec![series("v2", 300, errors), series("baseline", 700, 0)],
        peers: Vec::new(),
        left_out: 0,
        dropped: 0,
    };
    let taken = core.take_figures(name("default"), "router".to_owned(), report);
    assert!(taken.await.unwrap().counted);
}

async fn life(url: &str, beside: bool) {
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), url, "one")).await.unwrap();
    site(&one).await;
    let id = begin(&one.core, &plan(&["10:manual", "50:10m", "100:0s"]))
        .await
        .unwrap();
    assert_eq!(
        (stands(&one.core, &id), share(&one.core)),
        ((ReleaseState::Running, 10), Some(10))
    );
    let order = async |core: &Core, order| {
        let written = core.order_release(&id, order, "bob", Some("so")).await;
        written.unwrap();
    };
    order(&one.core, Order::Promote).await;
    order(&one.core, Order::Pause).await;
    assert_eq!(
        (stands(&one.core, &id), share(&one.core)),
        ((ReleaseState::Paused, 50), Some(50))
    );
    let FeedAnswer::Body { bytes, .. } = one.core.feed(ask(None, Duration::ZERO)).await else {
        panic!("a full set");
    };
    let feed = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        feed.contains("release-shop") && !feed.contains("\"release\""),
        "{feed}"
    );
    let known = one.core.state().release(id.as_str()).unwrap().clone();
    one.stop().await;

    let two = Running::open(config(dir.path(), url, if beside { "two" } else { "one" }))
        .await
        .unwrap();
    let stored = two
        .core
        .state()
        .release(id.as_str())
        .unwrap()
        .object
        .clone();
    assert_eq!(stored, known.object);
    order(&two.core, Order::Resume).await;
    // The window after the one in which it was resumed is the first that counts.
    let at = window_of(wall_ms()) + WINDOW_MS;
    report(&two.core, at, 30).await;
    until("it goes back by itself", || {
        stands(&two.core, &id) == (ReleaseState::RolledBack, 0)
    })
    .await;
    assert!(wall_ms() >= at + WINDOW_MS, "not before the window's end");
    assert_eq!(share(&two.core), Some(0));
    let info = two.core.show_release(&id).await.unwrap();
    let why = info.release.why.unwrap();
    assert_eq!(
        why,
        "`v2` has more errors at 50 %: 30 of its 300 requests (10.00 %), the baseline 0 of 700 (0.00 %)"
    );
    let (log, _) = two.core.history(0, 1000).await.unwrap();
    let cause = format!("release {id}");
    let steps: Vec<_> = log.iter().filter(|row| row.cause == cause).collect();
    let whose =
        |kind: &str, who: &str| steps.iter().any(|row| row.kind == kind && row.actor == who);
    assert!(whose("release", "ann") && whose("plugin", "ann") && whose("release", "bob"));
    let plugins = log.iter().filter(|row| row.kind == "plugin").count();
    assert_eq!(
        plugins, 3,
        "started, promoted, back: pause and resume move nothing"
    );
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    life(&sqlite_url(dir.path()), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    let postgres = Postgres::start();
    life(&postgres.url(), true).await;
}

/// Without the database nothing moves, by itself or by order; figures that only a replica's memory has lead
/// to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_it_stays_where_it_is() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    site(&one).await;
    let id = begin(&one.core, &plan(&["10:0s", "50:manual", "100:manual"]))
        .await
        .unwrap();
    let stays = || (stands(&one.core, &id), share(&one.core));
    postgres.crash();
    until("the database is missed", || {
        one.core.status().mode != api::Mode::Ok
    })
    .await;
    let at = window_of(wall_ms());
    report(&one.core, at, 0).await;
    let ordered = one
        .core
        .order_release(&id, Order::Promote, "bob", None)
        .await;
    assert!(
        matches!(
            ordered,
            Err(ReleaseError::Submit(SubmitError::Unavailable { .. }))
        ),
        "{ordered:?}"
    );
    // By then it would have been told of, and looked at.
    until("the window is over", || wall_ms() > at + WINDOW_MS + 4000).await;
    assert_eq!(stays(), ((ReleaseState::Running, 10), Some(10)));
    let waits = one
        .core
        .show_release(&id)
        .await
        .unwrap()
        .analysis
        .unwrap()
        .waits_for;
    assert!(waits.unwrap().starts_with("figures of this step"));
    postgres.resume();
    until("the database is back", || {
        one.core.status().mode == api::Mode::Ok
    })
    .await;
    report(&one.core, window_of(wall_ms()), 0).await;
    until("the next step", || {
        stays() == ((ReleaseState::Running, 50), Some(50))
    })
    .await;
    one.stop().await;
}

/// A step that was decided over what is no longer so leaves no trace, whichever part of it is late.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_step_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite_url(dir.path());
    let one = Running::open(config(dir.path(), &url, "one"))
        .await
        .unwrap();
    site(&one).await;
    let id = begin(&one.core, &plan(&["10:manual", "100:manual"]))
        .await
        .unwrap();
    let decided = || {
        let state = one.core.state();
        let stored = state.release(id.as_str()).unwrap();
        let looked = Looked::at(&state, &stored.object, wall_ms());
        let plugin = looked.seen().plugin;
        let done = release::act(&stored.object, plugin, &Action::Promote, ("late", None, 1));
        let (next, put) = done.unwrap();
        release_changes(next, Some(stored.revision), put, looked.plugin_revision)
    };
    let late = async |changes, kind: Kind| {
        let refused = one
            .core
            .submit(changes, Author::named("late"))
            .await
            .unwrap_err();
        let SubmitError::Rejected {
            rejection: Rejection::PreconditionFailed { kind: of, .. },
            ..
        } = &refused
        else {
            panic!("{refused}");
        };
        assert_eq!(*of, kind);
    };
    let changes = decided();
    one.core
        .order_release(&id, Order::Pause, "bob", None)
        .await
        .unwrap();
    late(changes, Kind::Release).await;
    assert_eq!(
        (stands(&one.core, &id), share(&one.core)),
        ((ReleaseState::Paused, 10), Some(10))
    );
    // The plugin was changed by hand meanwhile.
    let changes = decided();
    let mut plugin = one
        .core
        .state()
        .plugin("release-shop")
        .unwrap()
        .object
        .clone();
    plugin.required = true;
    let by_hand = Change::PutPlugin {
        plugin: Box::new(plugin),
        expected: Expected::Any,
    };
    one.submit(by_hand).await.unwrap();
    late(changes, Kind::Plugin).await;
    assert_eq!(
        (stands(&one.core, &id), share(&one.core)),
        ((ReleaseState::Paused, 10), Some(10))
    );
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_one_at_a_time_and_old_ones_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite_url(dir.path());
    let one = Running::open(config(dir.path(), &url, "one"))
        .await
        .unwrap();
    site(&one).await;
    let manual = plan(&["10:manual", "100:manual"]);
    let first = begin(&one.core, &manual).await.unwrap();
    let refused = begin(&one.core, &manual).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!(
            "release `{first}` of ann is running and moves service `shop`"
        )),
        "{refused}"
    );
    let delete = |id: &Name| Change::DeleteRelease { id: id.clone() };
    one.submit(delete(&first)).await.unwrap_err();
    one.core
        .order_release(&first, Order::Abort, "bob", None)
        .await
        .unwrap();
    // One that is over does not come to life.
    let mut dead = one
        .core
        .state()
        .release(first.as_str())
        .unwrap()
        .object
        .clone();
    dead.state = ReleaseState::Running;
    let revive = Change::PutRelease {
        release: Box::new(dead),
        expected: Expected::Any,
    };
    let refused = one.submit(revive).await.unwrap_err().to_string();
    assert!(refused.contains("is over: start another one"), "{refused}");
    // Nor is it undone under another one.
    let second = begin(&one.core, &manual).await.unwrap();
    let undone = one
        .core
        .order_release(&first, Order::Rollback, "bob", None)
        .await;
    assert!(
        matches!(undone, Err(ReleaseError::Conflict(_))),
        "{undone:?}"
    );
    one.core
        .order_release(&second, Order::Rollback, "bob", None)
        .await
        .unwrap();
    let unknown = one
        .core
        .order_release(&name("none"), Order::Pause, "bob", None)
        .await;
    assert!(
        matches!(unknown, Err(ReleaseError::NotFound(_))),
        "{unknown:?}"
    );
    for _ in 0..104 {
        let id = begin(&one.core, &manual).await.unwrap();
        one.core
            .order_release(&id, Order::Rollback, "ann", None)
            .await
            .unwrap();
    }
    let state = one.core.state();
    assert_eq!(
        state.releases().count(),
        101,
        "100, and the last one, which was running when it began"
    );
    assert!(state.release(first.as_str()).is_none());
    one.stop().await;
}
