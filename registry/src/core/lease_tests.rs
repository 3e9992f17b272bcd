//! Leases through the core: expiry, the guard, grace, and several replicas.

use std::time::Duration;

use cardea_registry_api::{Span, api::Mode};

use super::*;
use crate::{
    state::tests::{key, name, registration},
    testing::{Postgres, Running, config, sqlite_url, until},
};

/// A registration with the shortest lease.
fn short(n: usize) -> Change {
    let mut registration = registration(n);
    registration.lease = Some(Span::secs(1));
    Change::Register {
        key: key("a", "search", n),
        registration: Box::new(registration),
    }
}

fn population(core: &Core) -> u64 {
    core.state().population(&name("a"), &name("search"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_expires_and_who_renews_stays() {
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &sqlite_url(dir.path()), "one"))
        .await
        .unwrap();
    for n in 0..3 {
        one.submit(short(n)).await.unwrap();
    }
    until("one is left", || {
        one.core.renew(&[key("a", "search", 2)]);
        population(&one.core) == 1
    })
    .await;
    assert!(one.core.state().instance(&key("a", "search", 2)).is_some());
    let history = one.core.history(0, 100).await.unwrap().0;
    let expired: Vec<_> = history
        .iter()
        .filter(|row| row.cause == "expired")
        .collect();
    assert_eq!(expired.len(), 2);
    assert_eq!(expired[0].actor, "system");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_keeps_the_last_marks_it_and_a_renewal_unmarks_it() {
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &sqlite_url(dir.path()), "one"))
        .await
        .unwrap();
    for n in 0..8 {
        one.submit(short(n)).await.unwrap();
    }
    until("three left, five are kept", || {
        population(&one.core) == 5 && one.core.state().stale() == 5
    })
    .await;
    until("the alarm is raised", || {
        one.core
            .status()
            .alarms
            .iter()
            .any(|alarm| alarm.code == "collapse_guard")
    })
    .await;
    let kept: Vec<_> = (one.core.state().instances(None))
        .map(|stored| stored.object.key())
        .collect();
    until("all are fresh again", || {
        assert!(one.core.renew(&kept).iter().all(|known| *known));
        one.core.state().stale() == 0
    })
    .await;
    until("the alarm is over", || one.core.status().alarms.is_empty()).await;
    assert_eq!(population(&one.core), 5);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_expires_nothing_and_leases_get_grace_after_it() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &postgres.url(), "one");
    config.leases.grace = Duration::from_secs(3);
    let one = Running::open(config).await.unwrap();
    for n in 0..3 {
        one.submit(short(n)).await.unwrap();
    }
    postgres.crash();
    until("the loss is noticed", || {
        one.core.status().mode == Mode::DatabaseLost
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(population(&one.core), 3, "lapsed long ago, and still there");
    postgres.resume();
    until("back", || one.core.status().mode == Mode::Ok).await;
    let back = std::time::Instant::now();
    until("the silent expire in the end", || {
        population(&one.core) == 1
    })
    .await;
    assert!(
        back.elapsed() > Duration::from_millis(2500),
        "{:?}",
        back.elapsed()
    );
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_registered_before_a_restart_gets_grace() {
    let dir = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = config(dir.path(), &sqlite_url(dir.path()), "one");
        config.leases.grace = Duration::from_hours(1);
        config
    };
    let one = Running::open(config()).await.unwrap();
    one.submit(short(0)).await.unwrap();
    one.stop().await;
    let one = Running::open(config()).await.unwrap();
    until("it looks for lapsed leases", || {
        one.core.shared.holds_expiry()
    })
    .await;
    // Those that come now have none, and lapse later than the first would without.
    for n in 1..3 {
        one.submit(short(n)).await.unwrap();
    }
    until("one is left", || population(&one.core) == 1).await;
    let state = one.core.state();
    assert!(state.instance(&key("a", "search", 0)).is_some());
    assert_eq!(state.stale(), 0);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_at_one_replica_count_for_the_other_and_the_job_moves() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let of = |replica: &str| {
        let mut config = config(dir.path(), &postgres.url(), replica);
        config.leases.flush = Duration::from_millis(200);
        config
    };
    let one = Running::open(of("one")).await.unwrap();
    until("one holds the job", || one.core.shared.holds_expiry()).await;
    let two = Running::open(of("two")).await.unwrap();
    until("they know of one another", || {
        [&one, &two]
            .iter()
            .all(|r| r.core.shared.others.load(Ordering::Relaxed))
    })
    .await;
    assert!(!two.core.shared.holds_expiry());
    for n in 0..3 {
        one.submit(short(n)).await.unwrap();
    }
    until("two follows", || population(&two.core) == 3).await;
    let until_then = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until_then {
        two.core.renew(&[
            key("a", "search", 0),
            key("a", "search", 1),
            key("a", "search", 2),
        ]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(population(&one.core), 3, "renewed at the other replica");
    one.stop().await;
    until("two takes the job over, and they expire", || {
        population(&two.core) == 1
    })
    .await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_joins_is_told_of_changes_from_its_start_on() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let of = |replica: &str| {
        let mut config = config(dir.path(), &postgres.url(), replica);
        // Only what it is told: the timer would cover for it.
        config.store.poll = Duration::from_hours(1);
        config
    };
    let one = Running::open(of("one")).await.unwrap();
    one.submit(short(0)).await.unwrap();
    assert!(!one.core.shared.others.load(Ordering::Relaxed));
    let two = Running::open(of("two")).await.unwrap();
    one.submit(short(1)).await.unwrap();
    one.submit(short(2)).await.unwrap();
    let written = one.submit(short(3)).await.unwrap();
    until("two follows", || {
        two.core.state().revision >= written.revision
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_at_another_replica_acknowledges_too() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    let two = Running::open(config(dir.path(), &postgres.url(), "two"))
        .await
        .unwrap();
    until("they know of one another", || {
        [&one, &two]
            .iter()
            .all(|r| r.core.shared.others.load(Ordering::Relaxed))
    })
    .await;
    let written = one.submit(short(0)).await.unwrap();
    let ask = |after| crate::testing::ask(after, Duration::from_secs(5));
    two.core.feed(ask(None)).await;
    until("one knows the router", || {
        one.core.shared.routers.list(None).len() == 1
    })
    .await;
    let gone = one
        .submit(Change::Deregister {
            key: key("a", "search", 0),
        })
        .await
        .unwrap();
    let epoch = written.epoch.to_string();
    let (applied, answer) = tokio::join!(
        async {
            two.core.feed(ask(Some((&epoch, written.revision)))).await;
            let poll = two.core.clone();
            let request = ask(Some((&epoch, gone.revision)));
            tokio::time::timeout(Duration::from_secs(1), poll.feed(request))
                .await
                .is_err()
        },
        async {
            let started = std::time::Instant::now();
            let answer = one
                .core
                .acknowledged(&name("a"), &gone, Duration::from_secs(8))
                .await;
            (answer, started.elapsed())
        }
    );
    assert!(applied, "the router waits for the next change");
    assert_eq!(answer.0.acknowledged, ["r1"]);
    println!("acknowledged across replicas within {:?}", answer.1);
    assert!(answer.1 < Duration::from_secs(1), "{:?}", answer.1);
    assert!(two.core.forget_router(&name("a"), "r1").await);
    until("one forgets it too", || {
        one.core.shared.routers.list(None).is_empty()
    })
    .await;
    one.stop().await;
    two.stop().await;
}
