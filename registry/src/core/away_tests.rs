//! Traffic that is moved on one side of a cut.

use cardea_registry_api::{Cluster, Traffic, TrafficKey, api::Mode};

use super::*;
use crate::{
    change::{Change, Expected},
    state::tests::name,
    testing::{Postgres, Running, ask, config, until},
};

fn key(cluster: &str) -> TrafficKey {
    TrafficKey {
        cluster: name(cluster),
        service: None,
    }
}

fn traffic(weight: u8) -> Traffic {
    let mut traffic = Traffic::of(key("a"));
    traffic.weights = [(name("a"), 100), (name("b"), weight)].into();
    traffic
}

fn weight(core: &Core) -> Option<u8> {
    let state = core.state();
    state
        .traffic(&key("a"))?
        .object
        .weights
        .get(&name("b"))
        .copied()
}

async fn put(running: &Running, weight: u8) -> Result<Written, SubmitError> {
    let change = Change::PutTraffic {
        traffic: Box::new(traffic(weight)),
        expected: Expected::Any,
    };
    running.submit(change).await
}

async fn away(core: &Core, from: u8, to: Option<u8>) -> Result<Written, SubmitError> {
    let forms = (Some(traffic(from)), to.map(traffic));
    core.move_traffic(key("a"), forms, "cut off", Author::named("ann"))
        .await
}

/// As `kill -9` does it.
pub(super) fn kill(running: Running) {
    running.background.kill();
    drop(running.core);
}

/// The killed replica again.
pub(super) async fn again(postgres: &Postgres, dir: &std::path::Path) -> Running {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // Until the one before has let go of its files.
        match Running::open(config(dir, &postgres.url(), "one")).await {
            Ok(running) => return running,
            Err(OpenError::DataDir { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A replica whose database is lost, and which router `r1` of cluster `a` asks.
async fn cut_off(postgres: &Postgres, dir: &std::path::Path) -> Running {
    let one = Running::open(config(dir, &postgres.url(), "one"))
        .await
        .unwrap();
    for cluster in ["a", "b"] {
        let cluster = Change::PutCluster {
            cluster: Cluster::named(name(cluster)),
            expected: Expected::Any,
        };
        one.submit(cluster).await.unwrap();
    }
    let written = put(&one, 5).await.unwrap();
    until("a snapshot has it", || {
        let snapshots = one.core.shared.disk.list(false).unwrap();
        snapshots
            .first()
            .is_some_and(|newest| newest.revision >= written.revision)
    })
    .await;
    one.core.feed(ask(None, Duration::ZERO)).await;
    postgres.crash();
    let refused = put(&one, 50).await.unwrap_err();
    assert!(
        matches!(refused, SubmitError::Unavailable { .. }),
        "{refused}"
    );
    assert!(one.core.is_cut_off());
    one
}

pub(super) async fn agree(one: &Running) {
    until("in agreement", || {
        let status = one.core.status();
        status.mode == Mode::Ok && status.pending_changes == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_at_once_through_a_restart_and_in_the_database_after() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let one = cut_off(&postgres, dir.path()).await;
    let moved = away(&one.core, 5, Some(70)).await.unwrap();
    assert!(!moved.durable);
    assert_eq!(weight(&one.core), Some(70));
    away(&one.core, 70, Some(30)).await.unwrap();
    let stale = away(&one.core, 70, Some(1)).await.unwrap_err().to_string();
    assert!(stale.contains("was changed meanwhile"), "{stale}");
    let elsewhere = Traffic::of(key("b"));
    let stranger =
        one.core
            .move_traffic(key("b"), (None, Some(elsewhere)), "x", Author::named("ann"));
    let stranger = stranger.await.unwrap_err().to_string();
    assert!(
        stranger.contains("no router of `b` asks this registry"),
        "{stranger}"
    );
    let forms = (Some(traffic(30)), None);
    let mute = one
        .core
        .move_traffic(key("a"), forms, " ", Author::named("ann"))
        .await;
    assert!(mute.unwrap_err().to_string().contains("say why"));
    let mut nowhere = traffic(30);
    nowhere.weights.insert(name("c"), 1);
    let forms = (Some(traffic(30)), Some(nowhere));
    let nowhere = one
        .core
        .move_traffic(key("a"), forms, "x", Author::named("ann"))
        .await;
    assert!(
        nowhere
            .unwrap_err()
            .to_string()
            .contains("there is no cluster `c`")
    );

    kill(one);
    let one = again(&postgres, dir.path()).await;
    assert_eq!(weight(&one.core), Some(30));
    postgres.resume();
    agree(&one).await;
    assert_eq!(weight(&one.core), Some(30));
    let log = "SELECT count(*) FROM changes WHERE kind = 'traffic' AND cause = 'away cut off' AND actor = 'ann'";
    assert_eq!(postgres.sql(log), "2");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_in_the_database_meanwhile_holds() {
    for meanwhile in [Some(9), None] {
        let postgres = Postgres::start();
        let dir = tempfile::tempdir().unwrap();
        let one = cut_off(&postgres, dir.path()).await;
        // The second one is on the first one, and falls with it.
        away(&one.core, 5, Some(70)).await.unwrap();
        away(&one.core, 70, None).await.unwrap();
        assert_eq!(weight(&one.core), None);
        kill(one);
        postgres.resume();
        let two = Running::open(config(dir.path(), &postgres.url(), "two"))
            .await
            .unwrap();
        let change = match meanwhile {
            Some(weight) => Change::PutTraffic {
                traffic: Box::new(traffic(weight)),
                expected: Expected::Any,
            },
            None => Change::DeleteTraffic {
                key: key("a"),
                expected: Expected::Any,
            },
        };
        two.submit(change).await.unwrap();
        let one = again(&postgres, dir.path()).await;
        agree(&one).await;
        until("both say the same", || {
            weight(&two.core) == weight(&one.core)
        })
        .await;
        assert_eq!(weight(&one.core), meanwhile);
        let alarm = |core: &Core| {
            let alarms = core.status().alarms.into_iter();
            alarms
                .map(|alarm| (alarm.code, alarm.message))
                .collect::<Vec<_>>()
        };
        let said = alarm(&one.core);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].1.starts_with(
                "what ann said of traffic `a` while the database was away (cut off) does not hold"
            ),
            "{said:?}"
        );
        assert_eq!(alarm(&two.core), []);
        one.stop().await;
        let one = again(&postgres, dir.path()).await;
        assert_eq!(alarm(&one.core), said, "also after a restart");
        if meanwhile.is_some() {
            put(&two, 60).await.unwrap();
            until("written anew", || alarm(&one.core).is_empty()).await;
        } else {
            let by = Author::named("ann");
            assert!(one.core.acknowledge("none", &by).await.is_none());
            one.core
                .acknowledge(crate::lost::CODE, &by)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(alarm(&one.core), []);
        }
        one.stop().await;
        two.stop().await;
    }
}
