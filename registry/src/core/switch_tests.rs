//! Switches in the log: kept, driven by one, gone on with by another, on both engines.

use cardea_registry_api::{
    Cluster, Span, Traffic, TrafficKey,
    switch::{NewSwitch, SwitchState, Word},
};

use super::*;
use crate::{
    change::{Expected, Kind, Rejection},
    state::tests::{name, put_service},
    switch,
    testing::{Postgres, Running, ask, config, sqlite_url, until},
};

fn asked(service: Option<&str>) -> NewSwitch {
    let to = [(name("a"), 0), (name("b"), 100)].into();
    let mut asked = NewSwitch::new(name("a"), service.map(name), to);
    asked.watch = Span::secs(0);
    asked.guards.routers = None;
    asked.reason = "power".to_owned();
    // Nobody routes here.
    asked.force = true;
    asked
}

fn key() -> TrafficKey {
    TrafficKey {
        cluster: name("a"),
        service: None,
    }
}

async fn begin(core: &Core, asked: &NewSwitch) -> Result<Name, SwitchError> {
    core.begin_switch(asked, "ann").await.map(|(_, id, _)| id)
}

fn stands(core: &Core, id: &Name) -> SwitchState {
    core.state().switch(id.as_str()).unwrap().object.state
}

fn watched(core: &Core, id: &Name) -> bool {
    let state = core.state();
    let switch = &state.switch(id.as_str()).unwrap().object;
    switch.converged_at.is_some()
}

fn weight(core: &Core) -> Option<u8> {
    let state = core.state();
    let traffic = state.traffic(&key())?;
    traffic.object.weights.get(&name("b")).copied()
}

async fn site(running: &Running) {
    let cluster = |one: &str| Change::PutCluster {
        cluster: Cluster::named(name(one)),
        expected: Expected::Any,
    };
    let changes = vec![
        cluster("a"),
        cluster("b"),
        put_service("s"),
        put_service("t"),
    ];
    let core = &running.core;
    core.submit(changes, Author::named("test")).await.unwrap();
}

/// One replica begins, another one goes on; a restart forgets nothing; routers are told of none of it.
async fn life(url: &str, beside: bool) {
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), url, "one")).await.unwrap();
    site(&one).await;
    until("it drives", || one.core.shared.drives_operations()).await;
    let mut wanted = asked(None);
    wanted.watch = Span::secs(600);
    let id = begin(&one.core, &wanted).await.unwrap();
    assert_eq!(id.as_str(), "switch-1");
    until("its first stage is watched", || watched(&one.core, &id)).await;
    one.core
        .act_on_switch(&id, Act::Pause, "bob", &Word::default())
        .await
        .unwrap();
    let stays = weight(&one.core);
    let FeedAnswer::Body { bytes, .. } = one.core.feed(ask(None, Duration::ZERO)).await else {
        panic!("a full set");
    };
    let feed = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        feed.contains("\"traffic\"") && !feed.contains("switch"),
        "{feed}"
    );
    let known = one.core.state().switch("switch-1").unwrap().clone();
    one.stop().await;

    let two = Running::open(config(dir.path(), url, if beside { "two" } else { "one" }))
        .await
        .unwrap();
    assert_eq!(
        two.core.state().switch("switch-1").unwrap().object,
        known.object
    );
    assert_eq!(weight(&two.core), stays);
    two.core
        .act_on_switch(&id, Act::Resume, "bob", &Word::default())
        .await
        .unwrap();
    until("the other one drives it", || watched(&two.core, &id)).await;
    assert_eq!(weight(&two.core), Some(10));
    let (log, _) = two.core.history(0, 1000).await.unwrap();
    let steps: Vec<_> = log
        .iter()
        .filter(|row| row.cause == "switch switch-1")
        .collect();
    let whose =
        |kind: &str, who: &str| steps.iter().any(|row| row.kind == kind && row.actor == who);
    assert!(whose("switch", "ann") && whose("traffic", "ann") && whose("switch", "bob"));
    assert!(
        log.iter()
            .filter(|row| row.kind == "traffic")
            .all(|row| row.cause == "switch switch-1")
    );

    let word = Word {
        reason: "no".to_owned(),
        force: false,
    };
    two.core
        .act_on_switch(&id, Act::Undo, "ann", &word)
        .await
        .unwrap();
    assert_eq!(stands(&two.core, &id), SwitchState::Undone);
    assert!(
        two.core.state().traffic(&key()).is_none(),
        "there was none before"
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

/// A step that was decided over what is no longer so leaves no trace, whichever part of it is late.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_step_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite_url(dir.path());
    let one = Running::open(config(dir.path(), &url, "one"))
        .await
        .unwrap();
    site(&one).await;
    let mut wanted = asked(None);
    wanted.watch = Span::secs(600);
    let id = begin(&one.core, &wanted).await.unwrap();
    until("it is watched", || {
        let state = one.core.state();
        state
            .switch("switch-1")
            .unwrap()
            .object
            .converged_at
            .is_some()
    })
    .await;
    let shared = &one.core.shared;
    let state = one.core.state();
    let stored = state.switch(id.as_str()).unwrap();
    let seen = switch::look::look(shared, &state, stored, false).await;
    let next = switch::undo(&stored.object, "late", ("", false), &seen, 1).unwrap();
    let changes = next.changes(Some(stored.revision), &seen);
    one.core
        .act_on_switch(&id, Act::Pause, "bob", &Word::default())
        .await
        .unwrap();
    let refused = one
        .core
        .submit(changes, Author::named("late"))
        .await
        .unwrap_err();
    let late = |error: &SubmitError, kind: Kind| matches!(error, SubmitError::Rejected { rejection: Rejection::PreconditionFailed { kind: of, .. }, .. } if *of == kind);
    assert!(late(&refused, Kind::Switch), "{refused}");
    assert_eq!(
        (stands(&one.core, &id), weight(&one.core)),
        (SwitchState::Paused, Some(10))
    );

    // The traffic was changed by hand meanwhile.
    let state = one.core.state();
    let stored = state.switch(id.as_str()).unwrap();
    let seen = switch::look::look(shared, &state, stored, false).await;
    let next = switch::undo(&stored.object, "late", ("", false), &seen, 1).unwrap();
    let mut traffic = Traffic::of(key());
    traffic.weights = [(name("b"), 7)].into();
    let by_hand = Change::PutTraffic {
        traffic: Box::new(traffic),
        expected: Expected::Any,
    };
    one.submit(by_hand).await.unwrap();
    let changes = next.changes(Some(stored.revision), &seen);
    let refused = one
        .core
        .submit(changes, Author::named("late"))
        .await
        .unwrap_err();
    assert!(late(&refused, Kind::Traffic), "{refused}");
    assert_eq!(
        (stands(&one.core, &id), weight(&one.core)),
        (SwitchState::Paused, Some(7))
    );
    let refused = one
        .core
        .act_on_switch(&id, Act::Undo, "bob", &Word::default())
        .await;
    assert!(
        matches!(refused, Err(SwitchError::Refused(_))),
        "{refused:?}"
    );
    let word = Word {
        reason: String::new(),
        force: true,
    };
    one.core
        .act_on_switch(&id, Act::Undo, "bob", &word)
        .await
        .unwrap();
    assert!(one.core.state().traffic(&key()).is_none());
    one.stop().await;
}

/// Also while one step follows the other without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_s_word_comes_through() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    site(&one).await;
    until("it drives", || one.core.shared.drives_operations()).await;
    let mut wanted = asked(None);
    wanted.stages = (81..=100).collect();
    let id = begin(&one.core, &wanted).await.unwrap();
    until("it is under way", || weight(&one.core) >= Some(83)).await;
    one.core
        .act_on_switch(&id, Act::Undo, "bob", &Word::default())
        .await
        .unwrap();
    assert_eq!(stands(&one.core, &id), SwitchState::Undone);
    assert_eq!(weight(&one.core), None);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_move_the_same_are_refused_and_old_ones_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite_url(dir.path());
    let one = Running::open(config(dir.path(), &url, "one"))
        .await
        .unwrap();
    site(&one).await;
    let mut long = asked(Some("s"));
    long.watch = Span::secs(600);
    let first = begin(&one.core, &long).await.unwrap();
    for other in [asked(Some("s")), asked(None)] {
        let refused = begin(&one.core, &other).await.unwrap_err().to_string();
        assert!(
            refused.contains("switch `switch-1` of ann is running and moves the same"),
            "{refused}"
        );
    }
    // Another service, beside it: and with the first one's end, its own again.
    let mut beside = asked(Some("t"));
    beside.stages = vec![100];
    let beside = begin(&one.core, &beside).await.unwrap();
    until("the other's end", || {
        stands(&one.core, &beside) == SwitchState::Done
    })
    .await;
    one.core
        .act_on_switch(&first, Act::Undo, "bob", &Word::default())
        .await
        .unwrap();
    let again = begin(&one.core, &long).await.unwrap();
    let undo = one
        .core
        .act_on_switch(&first, Act::Undo, "bob", &Word::default())
        .await;
    assert!(matches!(undo, Err(SwitchError::Refused(_))), "{undo:?}");
    one.core
        .act_on_switch(&again, Act::Undo, "bob", &Word::default())
        .await
        .unwrap();

    // A switch that has ended does not come to life, and one that is active is not forgotten.
    let state = one.core.state();
    let mut dead = state.switch(first.as_str()).unwrap().object.clone();
    dead.state = SwitchState::Running;
    let revive = Change::PutSwitch {
        switch: Box::new(dead),
        expected: Expected::Any,
    };
    let refused = one.submit(revive).await.unwrap_err().to_string();
    assert!(
        refused.contains("has ended: begin another one"),
        "{refused}"
    );
    let mut wanted = asked(Some("s"));
    wanted.approval = true;
    for _ in 0..105 {
        let id = begin(&one.core, &wanted).await.unwrap();
        let delete = Change::DeleteSwitch { id: id.clone() };
        one.submit(delete).await.unwrap_err();
        one.core
            .act_on_switch(&id, Act::Undo, "ann", &Word::default())
            .await
            .unwrap();
    }
    let state = one.core.state();
    assert_eq!(
        state.switches().count(),
        101,
        "100, and the last one was active when it began"
    );
    assert!(state.switch("switch-1").is_none() && state.switch("switch-108").is_some());
    one.stop().await;
}

/// Started without its database in mid-stage, from the disk's copy, a registry serves what was decided last,
/// says so, and goes on when the database is back.
#[tokio::test(flavor = "multi_thread")]
async fn it_stands_still_without_the_database_and_goes_on_with_it() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    site(&one).await;
    until("it drives", || one.core.shared.drives_operations()).await;
    let mut wanted = asked(None);
    (wanted.watch, wanted.stages) = (Span::secs(6), vec![10, 100]);
    (wanted.guards.errors, wanted.guards.p99) = (None, None);
    let id = begin(&one.core, &wanted).await.unwrap();
    until("its first stage is watched", || watched(&one.core, &id)).await;
    one.stop().await;
    postgres.crash();

    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    let status = one.core.status();
    assert_eq!(
        (status.mode, status.started_from.as_str()),
        (cardea_registry_api::api::Mode::DatabaseLost, "snapshot")
    );
    assert_eq!(
        (weight(&one.core), stands(&one.core, &id)),
        (Some(10), SwitchState::Running)
    );
    let stored = one.core.state().switch(id.as_str()).unwrap().clone();
    let said = one.core.describe_switch(&stored).await;
    assert!(
        said.ends_with("it stands still until the database is back, and is watched anew then"),
        "{said}"
    );
    // Its watch is over since long; nobody moves on, and nobody can be told to.
    let over = stored.object.converged_at.unwrap() + 8_000;
    until("its watch is over", || crate::clock::wall_ms() > over).await;
    let refused = one
        .core
        .act_on_switch(&id, Act::Undo, "ann", &Word::default())
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the database is away"), "{refused}");
    assert_eq!(weight(&one.core), Some(10));
    postgres.resume();
    until("it goes on", || weight(&one.core) == Some(100)).await;
    one.stop().await;
}
