//! A release that is rolled back on one side of a cut.

use cardea_registry_api::release::{Order, ReleaseState};

use super::{
    away_tests::{again, agree, kill},
    release_tests::{plan, share, site_in, stands},
    *,
};
use crate::{
    change::{Author, Expected},
    testing::{Postgres, Running, ask, config, until},
};

/// A replica whose database is lost, with a release at 50 %, and which router `r1` of cluster `a` asks.
async fn cut_off(postgres: &Postgres, dir: &std::path::Path) -> (Running, Name) {
    let one = Running::open(config(dir, &postgres.url(), "one"))
        .await
        .unwrap();
    site_in(&one, "a").await;
    let plan = plan(&["50:manual", "100:manual"]);
    let begun = one.core.begin_release(&plan, "ann").await;
    let (id, written, _) = begun.unwrap();
    until("a snapshot has it", || {
        let snapshots = one.core.shared.disk.list(false).unwrap();
        let newest = snapshots.first();
        newest.is_some_and(|newest| newest.revision >= written.revision)
    })
    .await;
    postgres.crash();
    let refused = one
        .core
        .order_release(&id, Order::Rollback, "bob", None)
        .await;
    assert!(
        matches!(
            refused,
            Err(ReleaseError::Submit(SubmitError::Unavailable { .. }))
        ),
        "{refused:?}"
    );
    let unheard = one.core.roll_back_while_away(&id, "bob", "errors").await;
    let unheard = unheard.unwrap_err().to_string();
    assert!(
        unheard.contains("no router asks this registry"),
        "{unheard}"
    );
    one.core.feed(ask(None, Duration::ZERO)).await;
    (one, id)
}

async fn back(core: &Core, id: &Name) {
    let written = core.roll_back_while_away(id, "bob", "errors").await;
    assert!(!written.unwrap().durable);
    assert_eq!(
        (stands(core, id), share(core)),
        ((ReleaseState::RolledBack, 0), Some(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_back_at_once_through_a_restart_and_in_the_database_after() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let (one, id) = cut_off(&postgres, dir.path()).await;
    let unknown = crate::state::tests::name("none");
    let unknown = one.core.roll_back_while_away(&unknown, "bob", "x").await;
    assert!(unknown.unwrap_err().to_string().contains("none"));
    back(&one.core, &id).await;
    let twice = one.core.roll_back_while_away(&id, "bob", "x").await;
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("was rolled back already")
    );
    let FeedAnswer::Body { bytes, .. } = one.core.feed(ask(None, Duration::ZERO)).await else {
        panic!("a full set");
    };
    let feed = String::from_utf8_lossy(&bytes).into_owned();
    assert!(feed.contains("\"percent\":0"), "routers are told: {feed}");

    kill(one);
    let one = again(&postgres, dir.path()).await;
    assert_eq!(share(&one.core), Some(0));
    postgres.resume();
    agree(&one).await;
    assert_eq!(
        (stands(&one.core, &id), share(&one.core)),
        ((ReleaseState::RolledBack, 0), Some(0))
    );
    let (log, _) = one.core.history(0, 1000).await.unwrap();
    let cause = format!("release {id}");
    for kind in ["release", "plugin"] {
        let rows = log
            .iter()
            .filter(|row| row.kind == kind && row.actor == "bob");
        assert_eq!(rows.filter(|row| row.cause == cause).count(), 1, "{kind}");
    }
    one.stop().await;
}

/// The other side of the cut has the database, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_back_also_where_it_went_on_meanwhile_but_not_under_a_hand() {
    for by_hand in [false, true] {
        let postgres = Postgres::start();
        let dir = tempfile::tempdir().unwrap();
        let (one, id) = cut_off(&postgres, dir.path()).await;
        back(&one.core, &id).await;
        kill(one);
        postgres.resume();
        let two = Running::open(config(dir.path(), &postgres.url(), "two"))
            .await
            .unwrap();
        let order = async |order| {
            let written = two.core.order_release(&id, order, "eve", None).await;
            written.unwrap();
        };
        order(Order::Promote).await;
        if by_hand {
            order(Order::Abort).await;
            let state = two.core.state();
            let mut plugin = state.plugin("release-shop").unwrap().object.clone();
            let rule = &mut plugin.gray.as_mut().unwrap().rules[0];
            rule.when.percent = serde_json::from_str("77").ok();
            let put = Change::PutPlugin {
                plugin: Box::new(plugin),
                expected: Expected::Any,
            };
            two.submit(put).await.unwrap();
        }
        let one = again(&postgres, dir.path()).await;
        agree(&one).await;
        let holds = if by_hand {
            ((ReleaseState::Aborted, 100), Some(77))
        } else {
            ((ReleaseState::RolledBack, 0), Some(0))
        };
        for core in [&one.core, &two.core] {
            until("both say the same", || {
                (stands(core, &id), share(core)) == holds
            })
            .await;
        }
        // Where it does not hold, the one at whose side it was said says so.
        let lost = |core: &Core| {
            let mut alarms = core.status().alarms.into_iter();
            let alarm = alarms.find(|alarm| alarm.code == crate::lost::CODE);
            alarm.map(|alarm| alarm.message)
        };
        let said = lost(&one.core);
        assert_eq!(said.is_some(), by_hand, "{said:?}");
        assert_eq!(lost(&two.core), None);
        if let Some(said) = said {
            let begins = format!("that bob rolled release `{id}` back while the database was away");
            assert!(said.starts_with(&begins), "{said}");
            assert!(said.contains("(errors) does not hold: "), "{said}");
            let noted = one
                .core
                .acknowledge(crate::lost::CODE, &Author::named("ann"))
                .await;
            noted.unwrap().unwrap();
            assert_eq!(lost(&one.core), None);
        }
        one.stop().await;
        two.stop().await;
    }
}
