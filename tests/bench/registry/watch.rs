//! Write → watcher.

use std::{net::SocketAddr, time::Instant};

use cardea_registry_api::{
    Span,
    client::{Client, Position, Pull, Pulled},
};
use cardea_tests::{
    load::percentile,
    site::{Registry, key, name},
};

use super::{Candidate, Store, micros, registration};
use crate::{etcd, table::Table};

/// From just before a write is sent until a watcher has it, one write at a time.
pub(super) async fn watchers(candidates: &[Candidate]) {
    println!(
        "Write → watcher, one write at a time, from sending the write to the watcher having it:\n"
    );
    let mut table = Table::new(&["", "p50 ms", "p99 ms", "writes"]);
    for candidate in candidates {
        let mut delays = match &candidate.store {
            Store::Etcd(etcd) => watch_etcd(etcd.address).await,
            Store::Registry { registry, .. } => watch_registry(registry).await,
        };
        delays.sort_unstable();
        table.row([
            candidate.name.to_owned(),
            format!("{:.2}", percentile(&delays, 500) / 1000.0),
            format!("{:.2}", percentile(&delays, 990) / 1000.0),
            delays.len().to_string(),
        ]);
    }
    table.print();
}

const WATCHED: u64 = 1000;

async fn watch_etcd(address: SocketAddr) -> Vec<u32> {
    let mut writer = etcd::Client::connect(address).await;
    let mut watch = etcd::Client::connect(address)
        .await
        .watch("/watched/")
        .await;
    let mut delays = Vec::new();
    for number in 0..WATCHED {
        let value = serde_json::to_vec(&registration(number)).expect("JSON");
        let begun = Instant::now();
        let ((), (_, seen)) = tokio::join!(writer.put("/watched/one", &value), watch.next());
        delays.push(micros(seen - begun));
    }
    delays
}

async fn watch_registry(registry: &Registry) -> Vec<u32> {
    let writer = registry.client();
    let reader = registry.client();
    let instance = key("watched", "watched", "one");
    let first = writer
        .register(&instance, &registration(0))
        .await
        .expect("a registration");
    let mut position: Option<Position> = None;
    while position
        .as_ref()
        .is_none_or(|at| at.revision < first.revision)
    {
        position = pull(&reader, position).await;
    }
    let mut delays = Vec::new();
    for number in 1..=WATCHED {
        let registration = registration(number);
        let begun = Instant::now();
        let see = async {
            let before = position.as_ref().map(|at| at.revision);
            let mut now = position.clone();
            while now.as_ref().map(|at| at.revision) == before {
                now = pull(&reader, now).await;
            }
            (now, Instant::now())
        };
        let (written, (now, seen)) = tokio::join!(writer.register(&instance, &registration), see);
        written.expect("a registration");
        position = now;
        delays.push(micros(seen - begun));
    }
    delays
}

async fn pull(reader: &Client, applied: Option<Position>) -> Option<Position> {
    let pull = Pull {
        cluster: name("watched"),
        applied: applied.clone(),
        wait: Span::secs(10),
        router: None,
        version: String::new(),
        full: false,
    };
    match reader.pull(&pull).await.expect("a pull") {
        Pulled::Update { update, .. } => Some(Position {
            epoch: update.head.epoch.clone(),
            revision: update.head.revision,
        }),
        Pulled::NotModified { .. } => applied,
    }
}
