//! The core as its doors see it, on both engines.

use std::time::Duration;

use cardea_registry_api::{api::Mode, feed::Update};

use super::*;
use crate::{
    state::tests::{key, name, put_service, register},
    testing::{Postgres, Running, ask, config, sqlite_url, until},
};

fn body(answer: &FeedAnswer) -> (Update, String, u64) {
    match answer {
        FeedAnswer::Body {
            epoch,
            revision,
            bytes,
            ..
        } => (Update::decode(bytes).unwrap(), epoch.to_string(), *revision),
        other => panic!("{other:?}"),
    }
}

/// What is written is served, kept, and there after a restart.
async fn round_trip(url: &str) {
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), url, "one")).await.unwrap();
    let written = one.submit(register("a", "search", 0)).await.unwrap();
    assert_eq!((written.revision, written.durable), (3, true));
    let again = one.submit(register("a", "search", 0)).await.unwrap();
    assert_eq!(again.revision, 3, "nothing changed: no revision");
    let (update, epoch, revision) = body(&one.core.feed(ask(None, Duration::ZERO)).await);
    // Cluster, service, instance.
    assert_eq!((update.entries.len(), revision), (3, 3));
    let poll = one.core.clone();
    let after = epoch.clone();
    let waiting = tokio::spawn(async move {
        poll.feed(ask(Some((&after, 3)), Duration::from_secs(10)))
            .await
    });
    until("the poll waits", || {
        one.core
            .shared
            .routers
            .list(None)
            .first()
            .is_some_and(|r| r.revision == 3)
    })
    .await;
    let gone = one
        .submit(Change::Deregister {
            key: key("a", "search", 0),
        })
        .await
        .unwrap();
    assert!(gone.found());
    let (update, _, revision) = body(&waiting.await.unwrap());
    assert_eq!((update.entries.len(), revision), (2, 4));
    let none = one
        .core
        .acknowledged(&name("a"), &gone, Duration::ZERO)
        .await;
    assert_eq!(none.pending, ["r1"]);
    let core = one.core.clone();
    let acknowledged = tokio::spawn(async move {
        core.acknowledged(&name("a"), &gone, Duration::from_secs(10))
            .await
    });
    one.core.feed(ask(Some((&epoch, 4)), Duration::ZERO)).await;
    assert_eq!(acknowledged.await.unwrap().acknowledged, ["r1"]);
    let history = one.core.history(2, 10).await.unwrap().0;
    let causes: Vec<_> = history.iter().map(|row| row.cause.as_str()).collect();
    assert_eq!(causes, ["registered", "deregistered"]);
    one.stop().await;
    let two = Running::open(config(dir.path(), url, "one")).await.unwrap();
    assert_eq!(two.core.state().revision(), 4);
    assert_eq!(**two.core.state().epoch(), *epoch);
    assert_eq!(two.core.status().mode, Mode::Ok);
    assert!(two.core.state().service("search").is_some());
    two.stop().await;
}

/// Who leaves right after a start would be told that all routers have let go of it, as none has come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_just_started_waits_for_routers_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite_url(dir.path());
    let mut config = config(dir.path(), &url, "one");
    config.router_return = Duration::from_hours(1);
    let ready = async |core: &Core, put: &Written| {
        let cluster = name("a");
        let acknowledged = core.acknowledged(&cluster, put, Duration::from_mins(1));
        tokio::select! {
            biased;
            _ = acknowledged => true,
            () = std::future::ready(()) => false,
        }
    };
    let one = Running::open(config.clone()).await.unwrap();
    let put = one.submit(register("a", "search", 0)).await.unwrap();
    assert!(ready(&one.core, &put).await, "nobody can have asked before");
    one.stop().await;
    let two = Running::open(config.clone()).await.unwrap();
    let put = two.submit(register("a", "search", 1)).await.unwrap();
    assert!(!ready(&two.core, &put).await, "who will come back?");
    let none = two
        .core
        .acknowledged(&name("a"), &put, Duration::ZERO)
        .await;
    assert_eq!(none, Acknowledgements::default());
    two.stop().await;
    config.router_return = Duration::ZERO;
    let three = Running::open(config).await.unwrap();
    let put = three.submit(register("a", "search", 2)).await.unwrap();
    assert!(ready(&three.core, &put).await, "all are back");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trip_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    round_trip(&sqlite_url(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trip_postgres() {
    let postgres = Postgres::start();
    round_trip(&postgres.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_follow_within_20_ms_of_a_notification_and_agree_under_contention() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let mut slow = config(dir.path(), &postgres.url(), "one");
    slow.store.poll = Duration::from_mins(10);
    let one = Running::open(slow.clone()).await.unwrap();
    slow.data_dir = dir.path().join("two");
    slow.replica = "two".to_owned();
    let two = Running::open(slow).await.unwrap();
    until("both listen", || {
        postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'") == "2"
    })
    .await;
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let written = one.submit(register("a", "search", n)).await.unwrap();
        let started = std::time::Instant::now();
        until("the other follows", || {
            two.core.state().revision() >= written.revision
        })
        .await;
        slowest = slowest.max(started.elapsed());
    }
    println!("followed within {slowest:?}");
    // Both write at once, hundreds of changes, some of the same objects.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let core = if n % 2 == 0 { &one.core } else { &two.core }.clone();
        tasks.spawn(async move {
            core.submit(
                vec![register("a", "search", n % 150), put_service("mail")],
                Author::named("t"),
            )
            .await
            .unwrap()
        });
    }
    let written: Vec<Written> = tasks.join_all().await;
    assert!(written.iter().all(|written| written.durable));
    until("both agree", || {
        one.core.state().revision() == two.core.state().revision()
    })
    .await;
    crate::state::tests::same(&one.core.state(), &two.core.state());
    assert_eq!(postgres.sql("SELECT count(*) FROM instances"), "150");
    assert_eq!(
        postgres.sql("SELECT count(*) = max(revision) FROM changes"),
        "t",
        "no gap in the log"
    );
    one.stop().await;
    two.stop().await;
    assert!(slowest < Duration::from_millis(200), "{slowest:?}");
}

/// While replicas are upgraded one by one: the newer one's objects do not stop the older one.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_kind_that_only_newer_programs_know_is_followed() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    one.submit(register("a", "search", 0)).await.unwrap();
    let next = one.core.state().revision() + 1;
    postgres.sql(&format!(
        "BEGIN; UPDATE head SET revision = {next}, digest = 'd'; \
         INSERT INTO changes VALUES ({next}, 1, 'newer', 'applied', 'gadget', 'g', NULL, '{{}}', 'u', 'd'); \
         INSERT INTO objects VALUES ('gadget', 'g', {next}, '{{}}'); COMMIT"
    ));
    until("the change is followed", || {
        one.core.state().revision() == next
    })
    .await;
    assert_eq!(one.core.status().mode, Mode::Ok);
    let written = one.submit(register("a", "search", 1)).await.unwrap();
    assert_eq!((written.revision, written.durable), (next + 1, true));
    one.stop().await;
    let again = Running::open(config(dir.path(), &postgres.url(), "one"))
        .await
        .unwrap();
    assert_eq!(again.core.status().mode, Mode::Ok);
    assert_eq!(
        postgres.sql("SELECT count(*) FROM objects WHERE kind = 'gadget'"),
        "1"
    );
    again.stop().await;
}

fn keeping(dir: &std::path::Path, replica: &str, keep: Duration) -> CoreConfig {
    let mut config = config(dir, &sqlite_url(dir), replica);
    config.history = config::HistoryConfig {
        keep,
        at_least: 3,
        every: Duration::from_millis(20),
    };
    config
}

const LONG: Duration = Duration::from_hours(1);

/// A replica `two` was there at the beginning, and is away; `one` has removed all but three changes.
/// What `two` knew comes with it.
async fn with_a_short_log(dir: &std::path::Path) -> (Running, State) {
    let two = Running::open(keeping(dir, "two", LONG)).await.unwrap();
    two.submit(register("a", "search", 0)).await.unwrap();
    let known = State::clone(&two.core.state());
    two.stop().await;
    let one = Running::open(keeping(dir, "one", Duration::ZERO))
        .await
        .unwrap();
    for n in 1..20 {
        one.submit(register("a", "search", n)).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let revision = one.core.state().revision();
    while one.core.oldest_change().await.unwrap() != Some(revision - 2) {
        assert!(tokio::time::Instant::now() < deadline, "nothing is removed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rows = one.core.history(0, 100).await.unwrap().0;
    assert_eq!(rows.len(), 3, "the last ones stay, however old");
    (one, known)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_further_behind_than_the_log_reads_everything_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (one, known) = with_a_short_log(dir.path()).await;
    // A writer with what was known then: as after a long time without the database.
    let (_, inbox) = tokio::sync::mpsc::channel(1);
    let shared = Arc::clone(&one.core.shared);
    let mut late = crate::writer::Writer::new(shared, inbox, Some(known), Vec::new());
    late.catch_up().await;
    assert_eq!(one.core.status().mode, Mode::Ok);
    assert_eq!(one.core.state().population(&name("a"), &name("search")), 20);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_from_a_disk_older_than_the_log_takes_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _) = with_a_short_log(dir.path()).await;
    one.stop().await;
    let two = Running::open(keeping(dir.path(), "two", LONG))
        .await
        .unwrap();
    assert_eq!(two.core.status().mode, Mode::Ok);
    assert_eq!(two.core.state().population(&name("a"), &name("search")), 20);
    two.stop().await;
}
