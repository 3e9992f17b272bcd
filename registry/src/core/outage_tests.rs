//! The database goes away in every way it can, and nothing is lost.

use std::time::Duration;

use cardea_registry_api::{
    Span,
    api::{InstancePatch, Keep, Mode},
    feed::Update,
};

use super::*;
use crate::{
    state::tests::{key, name, put_service, registration, same},
    testing::{Postgres, Running, ask, config, until},
};

/// With a lease that no slow machine outlasts: nobody renews here.
fn register(cluster: &str, service: &str, n: usize) -> Change {
    let mut registration = registration(n);
    registration.lease = Some(Span::secs(600));
    Change::Register {
        key: key(cluster, service, n),
        registration: Box::new(registration),
    }
}

fn deregister(n: usize) -> Change {
    Change::Deregister {
        key: key("a", "search", n),
    }
}

fn has(core: &Core, n: usize) -> bool {
    core.state().instance(&key("a", "search", n)).is_some()
}

/// Both what memory serves and what the database holds.
async fn agrees(postgres: &Postgres, running: &Running, present: &[usize], absent: &[usize]) {
    until("in agreement again", || {
        running.core.status().mode == Mode::Ok
    })
    .await;
    for n in present {
        assert!(has(&running.core, *n), "{n} is served");
        let sql = format!("SELECT count(*) FROM instances WHERE key = 'a/search/i{n}'");
        assert_eq!(postgres.sql(&sql), "1", "{n} is in the database");
    }
    for n in absent {
        assert!(!has(&running.core, *n), "{n} is not served");
        let sql = format!("SELECT count(*) FROM instances WHERE key = 'a/search/i{n}'");
        assert_eq!(postgres.sql(&sql), "0", "{n} is not in the database");
    }
    assert_eq!(
        postgres.sql("SELECT count(*) = max(revision) FROM changes"),
        "t"
    );
    assert_eq!(running.core.status().pending_changes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_database_loses_nothing() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    for n in 0..5 {
        one.submit(register("a", "search", n)).await.unwrap();
    }
    let epoch = one.core.state().epoch().to_string();
    postgres.crash();
    let kept = one.submit(register("a", "search", 10)).await.unwrap();
    assert!(!kept.durable);
    assert!(kept.epoch.starts_with(&format!("{epoch}~one-")));
    one.submit(deregister(1)).await.unwrap();
    let drained = Change::Patch {
        key: key("a", "search", 2),
        patch: InstancePatch {
            weight: Some(0),
            ..InstancePatch::default()
        },
    };
    one.submit(drained).await.unwrap();
    let refused = one.submit(put_service("mail")).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Unavailable { .. }));
    assert_eq!(one.core.renew(&[key("a", "search", 3)]), [true]);
    let FeedAnswer::Body { bytes, .. } =
        one.core.feed(ask(Some((&epoch, 1)), Duration::ZERO)).await
    else {
        panic!("a branch is another epoch: the full set")
    };
    assert!(Update::decode(&bytes).unwrap().head.degraded);
    assert_eq!(one.core.status().pending_changes, 3);
    postgres.resume();
    agrees(&postgres, &one, &[0, 2, 3, 4, 10], &[1]).await;
    assert_eq!(**one.core.state().epoch(), *epoch);
    let weight = one.core.state();
    let weight = weight.instance(&key("a", "search", 2)).unwrap();
    assert_eq!(weight.object.weight, 0);
    assert!(one.submit(put_service("mail")).await.unwrap().durable);
    assert!(!dir.path().join("one/pending.journal").exists());
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_database_is_bounded_and_known_instances_go_on() {
    const MOST: usize = 20;
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &postgres.url(), "one");
    config.max_pending = MOST;
    let one = Running::open(config).await.unwrap();
    for n in 0..5 {
        one.submit(register("a", "search", n)).await.unwrap();
    }
    postgres.crash();
    let mut next = 5;
    let refused = loop {
        match one.submit(register("a", "search", next)).await {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 5 * MOST, "nothing is ever too much");
    };
    assert!(matches!(refused, SubmitError::Full { .. }), "{refused}");
    assert_eq!(next, 5 + MOST, "as many as may wait");
    let alarms = one.core.status().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.code == "journal_full"),
        "{alarms:?}"
    );

    // Those that are known say what they like, as often as they like.
    let weigh = |n: usize, weight: u16| Change::Patch {
        key: key("a", "search", n),
        patch: InstancePatch {
            weight: Some(weight),
            ..InstancePatch::default()
        },
    };
    for round in 0..300 {
        let n = round % next;
        one.submit(weigh(n, 7)).await.unwrap();
        one.submit(register("a", "search", n)).await.unwrap();
        one.submit(weigh(n, 9)).await.unwrap();
    }
    one.submit(deregister(2)).await.unwrap();
    one.submit(deregister(6)).await.unwrap();
    one.submit(register("a", "search", 6)).await.unwrap();
    let stranger = one.submit(register("a", "search", next)).await.unwrap_err();
    assert!(matches!(stranger, SubmitError::Full { .. }), "{stranger}");
    let journal = dir.path().join("one/pending.journal");
    let lines = std::fs::read_to_string(&journal).unwrap().lines().count();
    let bound = next * crate::journal::MOST_EACH * 9 / 8;
    assert!(lines <= bound, "{lines} lines for {next} instances");
    assert!(one.core.status().pending_changes <= bound as u64);

    postgres.resume();
    let present: Vec<usize> = (0..next).filter(|n| *n != 2).collect();
    agrees(&postgres, &one, &present, &[2, next]).await;
    for n in present {
        let weight = one.core.state();
        let weight = weight.instance(&key("a", "search", n)).unwrap();
        assert_eq!(weight.object.weight, if n == 6 { 100 } else { 9 }, "{n}");
    }
    assert!(one.core.status().alarms.is_empty());
    let taken = one.submit(register("a", "search", next)).await.unwrap();
    assert!(taken.durable);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_is_noticed_and_what_it_then_commits_is_not_done_twice() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    one.submit(register("a", "search", 0)).await.unwrap();
    // Freeze it in the midst of writes: some commit is on its way.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 100..400 {
        let core = one.core.clone();
        tasks.spawn(async move {
            core.submit(vec![register("a", "search", n)], Author::named("t"))
                .await
        });
    }
    let first = tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(first.durable);
    postgres.freeze(true);
    let started = std::time::Instant::now();
    let late = one.submit(register("a", "search", 1)).await.unwrap();
    assert!(!late.durable);
    let noticed = started.elapsed();
    println!("noticed after {noticed:?}");
    assert!(noticed < Duration::from_secs(4), "{noticed:?}");
    for result in tasks.join_all().await {
        result.unwrap();
    }
    one.submit(deregister(0)).await.unwrap();
    postgres.freeze(false);
    let all: Vec<usize> = (100..400).chain([1]).collect();
    agrees(&postgres, &one, &all, &[0]).await;
    assert_eq!(
        postgres.sql("SELECT count(*) FROM (SELECT key FROM changes WHERE cause = 'registered' GROUP BY key HAVING count(*) > 1) AS twice"),
        "0"
    );
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn started_without_the_database_it_serves_from_disk_and_keeps_what_it_accepts() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let of = |replica: &str| config(dir.path(), &postgres.url(), replica);
    let one = Running::open(of("one")).await.unwrap();
    for n in 0..3 {
        one.submit(register("a", "search", n)).await.unwrap();
    }
    one.stop().await;
    postgres.crash();
    let error = Running::open(of("two")).await.unwrap_err();
    assert!(matches!(error, OpenError::NothingToServe(_)), "{error}");
    let one = Running::open(of("one")).await.unwrap();
    let status = one.core.status();
    assert_eq!(
        (status.mode, status.started_from.as_str()),
        (Mode::DatabaseLost, "snapshot")
    );
    assert!(has(&one.core, 2));
    one.submit(register("a", "search", 7)).await.unwrap();
    // Killed, not stopped: no last snapshot; the journal has it.
    one.background.kill();
    drop(one.core);
    let again = loop {
        // The killed one's lock goes when its last task does.
        match Running::open(of("one")).await {
            Ok(again) => break again,
            Err(OpenError::DataDir { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(has(&again.core, 7));
    again.submit(deregister(0)).await.unwrap();
    postgres.resume();
    agrees(&postgres, &again, &[1, 2, 7], &[0]).await;
    again.stop().await;
}

/// Two replicas on a database that is then emptied.
async fn emptied(postgres: &Postgres, dir: &std::path::Path) -> (Running, Running, String) {
    let one = Running::open(config(dir, &postgres.url(), "one"))
        .await
        .unwrap();
    let two = Running::open(config(dir, &postgres.url(), "two"))
        .await
        .unwrap();
    for n in 0..3 {
        one.submit(register("a", "search", n)).await.unwrap();
    }
    until("two follows", || has(&two.core, 2)).await;
    let epoch = one.core.state().epoch().to_string();
    postgres.sql(
        "DROP TABLE head, changes, objects, instances, leases, routers, jobs, figures, figure_reports, \
         _sqlx_migrations",
    );
    for running in [&one, &two] {
        until("held", || running.core.status().mode == Mode::HistoryHeld).await;
        assert!(has(&running.core, 2), "memory goes on serving");
        assert!(!crate::feed::accepted(
            &running.core.state(),
            running.core.shared.clock.now()
        ));
        assert_eq!(running.core.status().alarms[0].code, "history_held");
    }
    let kept = one.submit(register("a", "search", 9)).await.unwrap();
    assert!(!kept.durable);
    assert!(one.submit(put_service("mail")).await.is_err());
    (one, two, epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_database_is_held_until_memory_is_kept() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let (one, two, old) = emptied(&postgres, dir.path()).await;
    let status = one
        .core
        .decide_history(Keep::Memory, Author::named("op"))
        .await
        .unwrap();
    assert_eq!(status.mode, Mode::Ok);
    assert_ne!(status.epoch, old);
    until("two takes it over", || {
        two.core.status().mode == Mode::Ok
            && two.core.state().revision() == one.core.state().revision()
    })
    .await;
    same(&one.core.state(), &two.core.state());
    assert!(has(&two.core, 9) && has(&two.core, 2));
    assert!(crate::feed::accepted(
        &two.core.state(),
        two.core.shared.clock.now()
    ));
    assert!(
        two.submit(register("a", "search", 11))
            .await
            .unwrap()
            .durable
    );
    one.stop().await;
    two.stop().await;
    let again = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    assert_eq!(again.core.status().mode, Mode::Ok);
    assert!(has(&again.core, 9) && has(&again.core, 11));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_database_is_held_until_the_database_is_kept() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let (one, two, _) = emptied(&postgres, dir.path()).await;
    one.core
        .decide_history(Keep::Database, Author::named("op"))
        .await
        .unwrap();
    assert!(
        has(&one.core, 9),
        "what was accepted meanwhile is written on top"
    );
    assert!(!has(&one.core, 0));
    until("two takes it over", || {
        two.core.status().mode == Mode::Ok && has(&two.core, 9)
    })
    .await;
    assert!(!has(&two.core, 0));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_from_an_old_copy_is_held_also_at_start() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let of = || config(dir.path(), &postgres.url(), "one");
    let one = Running::open(of()).await.unwrap();
    for n in 0..3 {
        one.submit(register("a", "search", n)).await.unwrap();
    }
    let revision = one.core.state().revision();
    one.stop().await;
    // What a restore of an hour ago looks like; and then somebody else wrote to it.
    let at = revision - 1;
    postgres.sql(&format!(
        "DELETE FROM changes WHERE revision > {at}; DELETE FROM instances WHERE revision > {at}; \
         UPDATE head SET revision = {at}, digest = (SELECT digest FROM changes WHERE revision = {at})"
    ));
    let one = Running::open(of()).await.unwrap();
    assert_eq!(one.core.status().mode, Mode::HistoryHeld);
    assert!(has(&one.core, 2), "the disk remembers more");
    let other = Running::open(config(dir.path(), &postgres.url(), "other"))
        .await
        .unwrap();
    other.submit(register("a", "search", 20)).await.unwrap();
    other.submit(register("a", "search", 21)).await.unwrap();
    other.stop().await;
    one.stop().await;
    let one = Running::open(of()).await.unwrap();
    assert_eq!(
        one.core.status().mode,
        Mode::HistoryHeld,
        "the database has another change at that revision"
    );
    one.core
        .decide_history(Keep::Memory, Author::named("op"))
        .await
        .unwrap();
    agrees_after_decision(&postgres, &one).await;
    one.stop().await;
}

async fn agrees_after_decision(postgres: &Postgres, one: &Running) {
    until("ok", || one.core.status().mode == Mode::Ok).await;
    assert_eq!(
        postgres.sql("SELECT string_agg(key, ' ' ORDER BY key) FROM instances"),
        "a/search/i0 a/search/i1 a/search/i2"
    );
    assert!(one.core.state().cluster("a").is_some());
    assert_eq!(one.core.state().population(&name("a"), &name("search")), 3);
}
