//! What holds for operations of every kind.

use std::sync::atomic::AtomicU32;

use cardea_registry_api::{
    Plugin, Release, ReleasePlan, Service,
    release::{ByWeights, ReleaseState},
};
use sqlx::{Connection, Executor};

use super::{operations::Decided, *};
use crate::{
    change::Expected,
    state::tests::{key, name, put_service, registration},
    testing::{Postgres, Running, config, sqlite_url, until},
};

/// A release of `shop` that is judged, and an experiment of `zoo` whose variants nobody can tell apart.
async fn site(core: &Core) {
    let mut shop = Service::named(name("shop"));
    let selector = [("version".to_owned(), "2".to_owned())].into();
    shop.groups.insert(name("v2"), selector);
    let mut changes = vec![
        Change::PutService {
            service: Box::new(shop),
            expected: Expected::Any,
        },
        put_service("zoo"),
    ];
    for (n, version) in ["1", "2"].iter().enumerate() {
        let mut registration = registration(n);
        (*version).clone_into(&mut registration.version);
        changes.push(Change::Register {
            key: key("default", "shop", n),
            registration: Box::new(registration),
        });
    }
    let ab = r#"{"name":"ab","service":"zoo","ab":{"experiments":[{"name":"e","key":"header:x-user",
        "variants":[{"name":"a","weight":1},{"name":"b","weight":1}]}]}}"#;
    let plugin: Plugin = serde_json::from_str(ab).unwrap();
    changes.push(Change::PutPlugin {
        plugin: Box::new(plugin),
        expected: Expected::Any,
    });
    core.submit(changes, Author::named("test")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_that_do_not_come_hold_up_no_other_operation() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &postgres.url(), "one");
    // The read hangs for longer than this test.
    config.store.timeout = Duration::from_mins(5);
    let one = Running::open(config).await.unwrap();
    site(&one.core).await;
    until("it drives", || one.core.shared.drives_operations()).await;
    let mut other = sqlx::PgConnection::connect(&postgres.url()).await.unwrap();
    other.execute("BEGIN; LOCK TABLE figures").await.unwrap();
    let begin = async |plan: ReleasePlan| {
        let begun = one.core.begin_release(&plan, "ann").await;
        begun.unwrap().0
    };
    let judged = begin(ReleasePlan::of(name("shop"), name("v2"), "hangs")).await;
    until("its look hangs", || {
        postgres.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0"
    })
    .await;
    let mut plan = ReleasePlan::of(name("zoo"), name("b"), "goes on");
    plan.ab = Some(ByWeights {
        experiment: name("e"),
    });
    plan.steps = vec!["100:0s".parse().unwrap()];
    let beside = begin(plan).await;
    let stands = |id: &Name| one.core.state().release(id.as_str()).unwrap().object.state;
    until("the other one's end", || {
        stands(&beside) == ReleaseState::Finished
    })
    .await;
    assert_eq!(stands(&judged), ReleaseState::Running);
    // Nor does it hold up the registry's end.
    one.stop().await;
}

/// However often others change meanwhile what an operator's word is about.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_is_decided_anew_more_often_than_an_operation_makes_steps() {
    let dir = tempfile::tempdir().unwrap();
    let one = Running::open(config(dir.path(), &sqlite_url(dir.path()), "one"))
        .await
        .unwrap();
    let asked = AtomicU32::new(0);
    let decide = |late: u32| {
        let asked = asked.fetch_add(1, Ordering::Relaxed) + 1;
        let expected = if asked <= late {
            Expected::Exactly(77)
        } else {
            Expected::None
        };
        std::future::ready(Ok::<_, SubmitError>(Decided {
            id: name("r"),
            changes: vec![Change::PutService {
                service: Box::new(Service::named(name("s"))),
                expected,
            }],
            told: asked,
        }))
    };
    let word = one
        .core
        .write_word::<Release, _, _, _>("ann", || decide(2 * 20));
    assert_eq!(word.await.unwrap().2, 41);
    // What is final is not tried again.
    asked.store(0, Ordering::Relaxed);
    let final_word = || {
        asked.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<Decided<()>, _>(SubmitError::Stopping))
    };
    let word = one.core.write_word::<Release, _, _, _>("ann", final_word);
    word.await.unwrap_err();
    assert_eq!(asked.into_inner(), 1);
    one.stop().await;
}
