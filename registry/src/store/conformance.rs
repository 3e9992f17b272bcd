//! One suite for every store: the same expectations, on SQLite and on a real Postgres.

use cardea_registry_api::api::RouterInfo;

use super::*;
use crate::{
    change::Kind,
    core::config::StoreConfig,
    record::{Digest, Point, Record},
    state::tests::name,
    testing::{Postgres, sqlite_url},
};

mod postgres;
mod sqlite;

/// A row that continues a history.
fn row(from: &Point, kind: Kind, key: &str, after: Option<&str>) -> Record {
    let mut record = Record {
        revision: from.revision + 1,
        at: 7,
        actor: "me".into(),
        cause: "applied".into(),
        kind,
        key: key.to_owned(),
        before: None,
        after: after.map(Into::into),
        unit: format!("u{}", from.revision + 1).into(),
        digest: from.digest.clone(),
    };
    record.digest = from.digest.then(&record);
    record
}

/// Rows for some objects, and the point they lead to.
fn rows(from: &Point, objects: &[(Kind, &str, Option<&str>)]) -> (Vec<Record>, Point) {
    let mut at = from.clone();
    let mut records = Vec::new();
    for (kind, key, after) in objects {
        let record = row(&at, *kind, key, *after);
        at.revision = record.revision;
        at.digest = record.digest.clone();
        records.push(record);
    }
    (records, at)
}

async fn commit(store: &Store, from: &Point, objects: &[(Kind, &str, Option<&str>)]) -> Point {
    let (records, to) = rows(from, objects);
    let mut session = store.session(false).await.unwrap();
    assert!(matches!(
        session.begin(from, &to).await.unwrap(),
        Begun::Moved
    ));
    session.write(&records).await.unwrap();
    session.commit(true).await.unwrap();
    to
}

async fn suite(url: &str) {
    let config = StoreConfig {
        url: url.to_owned(),
        ..StoreConfig::default()
    };
    let store = Store::new(&config).unwrap();
    a_new_history_gets_the_first_name(&store).await;
    what_is_committed_is_read_back(&store).await;
    many_rows_of_any_number(&store).await;
    in_one_step_it_is_the_same_or_nothing(&store).await;
    one_record_in_one_step(&store).await;
    what_is_not_committed_never_was(&store).await;
    who_is_behind_gets_the_rows_under_the_lock(&store).await;
    a_row_is_written_once(&store).await;
    what_is_removed_leaves_a_chain(&store).await;
    rewriting_replaces_everything(&store).await;
    jobs_have_one_holder(&store).await;
    leases_and_routers_are_shared(&store).await;
}

async fn a_new_history_gets_the_first_name(store: &Store) {
    let head = store.prepare("first").await.unwrap();
    assert_eq!(&*head.point.epoch, "first");
    assert_eq!(head.point.revision, 0);
    assert_eq!(head.point.digest, Digest::root("first"));
    assert_eq!(store.prepare("second").await.unwrap(), head);
    assert!(store.changes_from(0, 10).await.unwrap().is_empty());
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.objects.len(), loaded.instances.len()), (0, 0));
}

async fn what_is_committed_is_read_back(store: &Store) {
    let from = store.head().await.unwrap().point;
    let objects = [
        (Kind::Cluster, "a", Some("{\"name\":\"a\"}")),
        (
            Kind::Instance,
            "a/s/1",
            Some("{\"quote\":\"'; DROP TABLE head; --\"}"),
        ),
        (Kind::Instance, "a/s/2", Some("{\"umlaut\":\"ä 名\"}")),
        (Kind::Instance, "a/s/1", Some("{\"n\":2}")),
        (Kind::Instance, "a/s/2", None),
        (Kind::Cluster, "b", Some("{}")),
        (Kind::Cluster, "b", None),
    ];
    let to = commit(store, &from, &objects).await;
    assert_eq!(store.head().await.unwrap().point, to);
    let (expected, _) = rows(&from, &objects);
    assert_eq!(store.changes_from(1, 100).await.unwrap(), expected);
    assert_eq!(store.changes_from(3, 2).await.unwrap(), expected[2..4]);
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.head.point, to);
    assert_eq!(
        loaded.objects,
        [("cluster".into(), "a".into(), 1, "{\"name\":\"a\"}".into())]
    );
    assert_eq!(loaded.instances, [("a/s/1".into(), 4, "{\"n\":2}".into())]);
    let mut units = store.units_after(5).await.unwrap();
    units.sort();
    assert_eq!(units, ["u6", "u7"]);
}

async fn many_rows_of_any_number(store: &Store) {
    for count in [1, 2, 9, 63, 127, 128, 129, 300] {
        let from = store.head().await.unwrap().point;
        let keys: Vec<String> = (0..count).map(|n| format!("many/s/{n}")).collect();
        let objects: Vec<_> = keys
            .iter()
            .map(|key| (Kind::Instance, key.as_str(), Some("{}")))
            .collect();
        let at = commit(store, &from, &objects).await;
        assert_eq!(at.revision, from.revision + count);
        let loaded = store.load().await.unwrap().instances;
        assert_eq!(loaded.len() as u64, 1 + count);
        let gone: Vec<_> = keys
            .iter()
            .map(|key| (Kind::Instance, key.as_str(), None))
            .collect();
        commit(store, &at, &gone).await;
        assert_eq!(store.load().await.unwrap().instances.len(), 1);
    }
}

async fn in_one_step_it_is_the_same_or_nothing(store: &Store) {
    let mut from = store.head().await.unwrap().point;
    let before = store.load().await.unwrap();
    let mut session = store.session(false).await.unwrap();
    // Configuration, and more than a few, go step by step.
    let many: Vec<String> = (0..257).map(|n| format!("one/s/{n}")).collect();
    let many: Vec<_> = (many.iter())
        .map(|key| (Kind::Instance, key.as_str(), Some("{}")))
        .collect();
    for objects in [&[(Kind::Cluster, "one", Some("{}"))][..], &many] {
        let (records, to) = rows(&from, objects);
        let written = session.write_at_once(&from, &to, &records, true).await;
        assert_eq!(written.unwrap(), None);
    }
    // What is both set and removed goes in one step only where each key's last form is made out first.
    let both = [
        (Kind::Instance, "one/s/0", Some("{}")),
        (Kind::Instance, "one/s/0", None),
    ];
    let (records, to) = rows(&from, &both);
    let written = session.write_at_once(&from, &to, &records, true).await;
    if written.unwrap() == Some(true) {
        from = to;
    }
    let mut there = std::collections::BTreeMap::new();
    for size in [2, 3, 5, 9, 17, 33, 65, 97, 130, 256] {
        // A key twice, whose last form holds; at odd sizes one that goes, and one that never was.
        let mut objects: Vec<(String, Option<String>)> = (1..size)
            .map(|n| {
                (
                    format!("one/s/{n}"),
                    Some(format!("{{\"'\":{n},\"in\":{size}}}")),
                )
            })
            .chain([("one/s/1".to_owned(), Some("{\"last\":true}".to_owned()))])
            .collect();
        if size % 2 == 1 {
            objects[size - 2] = ("one/s/1000".to_owned(), None);
            objects[0] = ("never/was/there".to_owned(), None);
        } else {
            objects[0] = ("one/s/1000".to_owned(), Some("{}".to_owned()));
        }
        let borrowed: Vec<_> = (objects.iter())
            .map(|(key, body)| (Kind::Instance, key.as_str(), body.as_deref()))
            .collect();
        let (mut records, to) = rows(&from, &borrowed);
        records[1].before = Some("{\"before\":1}".into());
        // From a point that holds no more, nothing is written.
        let stale = Point {
            digest: Digest::root("elsewhere"),
            ..from.clone()
        };
        let written = session.write_at_once(&stale, &to, &records, true).await;
        assert_eq!(written.unwrap(), Some(false));
        assert_eq!(store.head().await.unwrap().point, from);
        assert_eq!(store.changes_from(from.revision + 1, 1).await.unwrap(), []);
        let written = session.write_at_once(&from, &to, &records, true).await;
        assert_eq!(written.unwrap(), Some(true), "{size}");
        assert_eq!(store.head().await.unwrap().point, to);
        let logged = store.changes_from(from.revision + 1, 300).await.unwrap();
        assert_eq!(logged, records, "{size}");
        for (record, (key, body)) in records.iter().zip(&objects) {
            match body {
                Some(body) => there.insert(key.clone(), (record.revision, body.clone())),
                None => there.remove(key),
            };
        }
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.objects, before.objects);
        let now: std::collections::BTreeMap<_, _> = (loaded.instances.into_iter())
            .filter(|(key, ..)| key.starts_with("one/"))
            .map(|(key, revision, body)| (key, (revision, body)))
            .collect();
        assert_eq!(now, there, "{size}");
        from = to;
    }
    session.keep();
    let gone: Vec<_> = (there.keys())
        .map(|key| (Kind::Instance, key.as_str(), None))
        .collect();
    commit(store, &from, &gone).await;
    assert_eq!(
        store.load().await.unwrap().instances.len(),
        before.instances.len()
    );
}

async fn one_record_in_one_step(store: &Store) {
    let mut from = store.head().await.unwrap().point;
    let before = store.load().await.unwrap();
    let mut session = store.session(false).await.unwrap();
    let key = "one/s/alone";
    let mut logged = Vec::new();
    for body in [Some("{\"n\":1}"), Some("{\"n\":'\"2\"'}"), None, None] {
        let (records, to) = rows(&from, &[(Kind::Instance, key, body)]);
        // Once from where the head stands no more, once from where it stands.
        let stale = Point {
            digest: Digest::root("elsewhere"),
            ..from.clone()
        };
        for (from, done) in [(&stale, false), (&from, true)] {
            let written = session.write_at_once(from, &to, &records, done).await;
            assert_eq!(written.unwrap(), Some(done));
            let head = store.head().await.unwrap().point;
            assert_eq!(head == to, done);
            let loaded = store.load().await.unwrap();
            let now = loaded.instances.iter().find(|(have, ..)| have == key);
            if done {
                let wanted = body.map(|body| (key.to_owned(), to.revision, body.to_owned()));
                assert_eq!(now, wanted.as_ref());
            }
        }
        logged.extend(records);
        from = to;
    }
    session.keep();
    let first = logged[0].revision;
    assert_eq!(store.changes_from(first, 100).await.unwrap(), logged);
    assert_eq!(
        store.load().await.unwrap().instances.len(),
        before.instances.len()
    );
}

async fn what_is_not_committed_never_was(store: &Store) {
    let from = store.head().await.unwrap().point;
    let (records, to) = rows(&from, &[(Kind::Cluster, "ghost", Some("{}"))]);
    let mut session = store.session(false).await.unwrap();
    session.begin(&from, &to).await.unwrap();
    session.write(&records).await.unwrap();
    drop(session);
    // The lock is let go of, too.
    commit(store, &from, &[(Kind::Cluster, "c", Some("{}"))]).await;
    let loaded = store.load().await.unwrap();
    assert!(loaded.objects.iter().all(|(_, key, _, _)| key != "ghost"));
}

async fn who_is_behind_gets_the_rows_under_the_lock(store: &Store) {
    let behind = store.head().await.unwrap().point;
    let now = commit(store, &behind, &[(Kind::Cluster, "d", Some("{}"))]).await;
    let (_, to) = rows(&behind, &[(Kind::Cluster, "e", Some("{}"))]);
    let mut session = store.session(false).await.unwrap();
    let Begun::Elsewhere(head, Some(rows_since)) = session.begin(&behind, &to).await.unwrap()
    else {
        panic!("the head has moved");
    };
    assert_eq!(head.point, now);
    let seen: Vec<u64> = rows_since.iter().map(|row| row.revision).collect();
    assert_eq!(seen, [behind.revision, now.revision], "from its own row on");
    let (records, to) = rows(&now, &[(Kind::Cluster, "e", Some("{}"))]);
    let head = Head {
        point: to.clone(),
        ..head
    };
    session.set_head(&head).await.unwrap();
    session.write(&records).await.unwrap();
    session.commit(true).await.unwrap();
    assert_eq!(store.head().await.unwrap().point, to);
}

async fn a_row_is_written_once(store: &Store) {
    let from = store.head().await.unwrap().point;
    let own = store.changes_from(from.revision, 1).await.unwrap();
    let mut session = store.session(false).await.unwrap();
    session.lock().await.unwrap();
    let error = session.write(&own).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    drop(session);
    assert_eq!(store.head().await.unwrap().point, from);
}

async fn what_is_removed_leaves_a_chain(store: &Store) {
    let head = store.head().await.unwrap().point;
    let before = store.load().await.unwrap();
    let all = store.changes_from(0, 10_000).await.unwrap();
    assert_eq!(all[0].revision, 1);
    store.prune(1).await.unwrap();
    assert_eq!(store.changes_from(0, 10_000).await.unwrap(), all);

    store.prune(100).await.unwrap();
    let kept = store.changes_from(0, 10_000).await.unwrap();
    assert_eq!(kept, all[99..]);
    for pair in kept.windows(2) {
        assert_eq!(pair[0].digest.then(&pair[1]), pair[1].digest);
    }
    assert_eq!(kept.last().unwrap().digest, head.digest);
    let after = store.load().await.unwrap();
    assert_eq!(
        (after.objects, after.instances),
        (before.objects, before.instances)
    );
    assert_eq!(store.head().await.unwrap().point, head);
    let at = |revision| Point {
        revision,
        ..head.clone()
    };
    for (revision, begins_after) in [(0, true), (1, true), (99, true), (100, false), (101, false)] {
        let says = store.begins_after(&at(revision)).await.unwrap();
        assert_eq!(says, begins_after, "{revision}");
    }
    // And it goes on.
    commit(store, &head, &[(Kind::Cluster, "later", Some("{}"))]).await;
}

async fn rewriting_replaces_everything(store: &Store) {
    let mut session = store.session(false).await.unwrap();
    let mut head = session.lock().await.unwrap();
    let rows = [
        Current {
            kind: Kind::Cluster,
            key: "new",
            revision: 3,
            body: Some("{}"),
        },
        Current {
            kind: Kind::Instance,
            key: "new/s/1",
            revision: 4,
            body: Some("{}"),
        },
    ];
    session.rewrite(&rows).await.unwrap();
    head.supersedes = vec!["first".to_owned(), "other".to_owned()];
    head.accepted_at = 99;
    head.point.epoch = "third".into();
    session.set_head(&head).await.unwrap();
    session.commit(true).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.head, head);
    assert_eq!(loaded.objects.len() + loaded.instances.len(), 2);
}

async fn jobs_have_one_holder(store: &Store) {
    assert!(store.take_job("j", "one", 0, 10).await.unwrap());
    assert!(!store.take_job("j", "two", 5, 15).await.unwrap());
    assert!(store.take_job("j", "one", 5, 20).await.unwrap(), "keeps it");
    assert!(store.take_job("j", "two", 21, 30).await.unwrap(), "lapsed");
    assert!(!store.take_job("j", "one", 22, 40).await.unwrap());
    let jobs = store.jobs().await.unwrap();
    assert_eq!(
        (jobs.len(), &*jobs[0].holder, jobs[0].until),
        (1, "two", 30)
    );
    store.drop_jobs("two").await.unwrap();
    assert!(store.take_job("j", "one", 22, 40).await.unwrap());
}

async fn leases_and_routers_are_shared(store: &Store) {
    store.put_leases("one", 5, "a").await.unwrap();
    store.put_leases("one", 7, "b").await.unwrap();
    store.put_leases("two", 7, "c").await.unwrap();
    let seen = store.leases("two", 6).await.unwrap();
    assert_eq!(seen, [("one".into(), 7, "b".into())]);
    assert!(store.leases("two", 7).await.unwrap().is_empty());

    let router = |id: &str, revision, last_seen| RouterInfo {
        id: id.to_owned(),
        cluster: name("a"),
        version: "0.1".to_owned(),
        epoch: "e".to_owned(),
        revision,
        last_seen,
        live: false,
        plugin_kinds: None,
        unknown_plugins: Vec::new(),
    };
    store
        .put_routers(&[router("r1", 1, 10), router("r2", 1, 10)])
        .await
        .unwrap();
    store.put_routers(&[router("r1", 2, 20)]).await.unwrap();
    // What an older replica's late word says does not count.
    store.put_routers(&[router("r1", 1, 15)]).await.unwrap();
    let mut seen = store.routers().await.unwrap();
    seen.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(seen, [router("r1", 2, 20), router("r2", 1, 10)]);
    assert!(store.drop_router("a", "r2").await.unwrap());
    assert!(!store.drop_router("a", "r2").await.unwrap());
    store.sweep(21).await.unwrap();
    assert!(store.routers().await.unwrap().is_empty());
    assert!(store.leases("x", 0).await.unwrap().is_empty());
    assert_eq!(store.jobs().await.unwrap().len(), 1, "until 40");
}

#[tokio::test]
async fn sqlite_conforms() {
    let dir = tempfile::tempdir().unwrap();
    suite(&sqlite_url(dir.path())).await;
}

#[tokio::test]
async fn postgres_conforms() {
    let postgres = Postgres::start();
    suite(&postgres.url()).await;
}
