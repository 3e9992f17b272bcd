//! What is to be seen on Postgres alone.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn plans_made_while_tables_are_small_use_their_indexes() {
    use sqlx::{Connection as _, PgConnection};
    const SCANS: &str = "SELECT sum(seq_scan)::bigint, sum(idx_scan)::bigint \
         FROM pg_stat_user_tables WHERE relname IN ('head', 'instances')";
    let postgres = Postgres::start();
    let store = Store::new(&StoreConfig {
        url: postgres.url(),
        ..StoreConfig::default()
    })
    .unwrap();
    let mut at = store.prepare("e").await.unwrap().point;
    at = commit(&store, &at, &[(Kind::Instance, "a/s/0", Some("{}"))]).await;
    let mut aside = PgConnection::connect(&postgres.url()).await.unwrap();
    // What the server does by itself after a minute.
    sqlx::raw_sql("VACUUM ANALYZE")
        .execute(&mut aside)
        .await
        .unwrap();
    let scans = async |aside: &mut PgConnection| -> (i64, i64) {
        sqlx::query_as(SCANS).fetch_one(aside).await.unwrap()
    };
    let mut session = store.session(true).await.unwrap();
    // So often that the server keeps its plans.
    for n in 0..10 {
        let (new, old) = (format!("a/s/{}", n + 1), format!("a/s/{n}"));
        let changed = [
            (Kind::Instance, new.as_str(), Some("{}")),
            (Kind::Instance, old.as_str(), None),
        ];
        for objects in [
            &changed[..1],
            &[changed[0], changed[0]],
            &changed,
            &changed[1..],
        ] {
            let (records, to) = rows(&at, objects);
            let written = session.write_at_once(&at, &to, &records, false).await;
            assert_eq!(written.unwrap(), Some(true));
            at = to;
        }
    }
    // Its connections' ends tell the server what they did.
    drop((session, store));
    let told = async {
        loop {
            let now = scans(&mut aside).await;
            if now.0 + now.1 > 42 {
                break now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let after = tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .unwrap();
    assert_eq!(after.0, 2, "once each, for their indexes to be made");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_away_and_says_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let store = Store::new(&StoreConfig {
        url: format!("postgres://nobody@127.0.0.1:{port}/nothing"),
        ..StoreConfig::default()
    })
    .unwrap();
    assert!(matches!(store.head().await, Err(StoreError::Away(_))));
}

#[tokio::test]
async fn a_frozen_database_is_away_after_the_timeout() {
    let postgres = Postgres::start();
    let store = Store::new(&StoreConfig {
        url: postgres.url(),
        timeout: Duration::from_millis(300),
        ..StoreConfig::default()
    })
    .unwrap();
    store.prepare("e").await.unwrap();
    postgres.freeze(true);
    for _ in 0..2 {
        let started = std::time::Instant::now();
        let error = store.head().await.unwrap_err();
        assert!(matches!(error, StoreError::Away(_)), "{error}");
        assert!(started.elapsed() < Duration::from_millis(600));
    }
    postgres.freeze(false);
    store.head().await.unwrap();
}
