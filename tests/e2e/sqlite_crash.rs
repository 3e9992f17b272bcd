//! `kill -9` in the midst of writes to SQLite: what was acknowledged is there.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use cardea_registry_api::{
    InstanceKey, Source,
    api::Registration,
    client::{Client, InstanceQuery},
};
use cardea_tests::{
    scratch::Scratch,
    site::{CLUSTER, Registry, RegistrySetup, SOON, address_of, key},
    wait,
};

use crate::gate;

const ROUNDS: usize = 4;
const WRITERS: usize = 8;

/// What the registry has acknowledged: each instance's newest number.
type Acknowledged = Arc<Mutex<BTreeMap<InstanceKey, u64>>>;

/// Registers instances again and again, each time with a higher number, until the registry is gone.
async fn write(registry: Client, writer: usize, from: Arc<AtomicU64>, acknowledged: Acknowledged) {
    loop {
        let number = from.fetch_add(1, Ordering::Relaxed);
        let key = key(CLUSTER, "shop", &format!("w{writer}-{}", number % 20));
        let registration = Registration {
            version: number.to_string(),
            source: Source::Manual,
            lease: None,
            ..Registration::at(address_of(SocketAddr::from(([10, 0, 0, 1], 9000))))
        };
        match registry.register(&key, &registration).await {
            Ok(written) if written.durable => {
                acknowledged.lock().unwrap().insert(key, number);
            }
            _ => return,
        }
    }
}

async fn rounds(name: &str, settings: &str) {
    let _machine = gate::shared().await;
    let scratch = Scratch::new(name);
    let setup = RegistrySetup::new(name, None).setting(settings);
    let mut registry = Registry::start(setup, scratch.path()).await;
    let acknowledged = Acknowledged::default();
    let numbers = Arc::new(AtomicU64::new(1));
    for round in 0..ROUNDS {
        let begun = numbers.load(Ordering::Relaxed);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, from, to) = (registry.client(), numbers.clone(), acknowledged.clone());
                tokio::spawn(write(client, writer, from, to))
            })
            .collect();
        wait::until_true("some hundred writes", SOON, || {
            numbers.load(Ordering::Relaxed) > begun + 400
        })
        .await;
        registry.kill();
        for writer in writers {
            writer.abort();
            drop(writer.await);
        }
        registry.resume().await;
        let there: BTreeMap<InstanceKey, u64> = (registry.client())
            .all_instances(InstanceQuery::default())
            .await
            .unwrap()
            .into_iter()
            .map(|found| (found.object.key(), found.object.version.parse().unwrap()))
            .collect();
        let acknowledged = acknowledged.lock().unwrap();
        for (key, number) in &*acknowledged {
            let kept = there.get(key);
            assert!(
                kept >= Some(number),
                "round {round}: {key}: {kept:?} of {number}"
            );
        }
        println!(
            "{name}, round {round}: {} acknowledged, all there",
            acknowledged.len()
        );
    }
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_writes_to_sqlite_a_registry_has_what_it_acknowledged() {
    rounds("sqlite-crash", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_writes_to_sqlite_with_full_sync_too() {
    rounds("sqlite-full-crash", "sqlite_full_sync = true").await;
}
