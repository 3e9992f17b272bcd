//! Write → watcher.

use std::{net::SocketAddr, time::Instant};

use cardea_registry_api::api::{EPOCH_HEADER, REVISION_HEADER};
use cardea_tests::{
    http1::Connection,
    load::percentile,
    site::{Registry, Token},
};

use super::{Candidate, SOON, Store, micros, put, registration};
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
            candidate.name.clone(),
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
    let open = || Connection::open(registry.api(), SOON);
    let mut writer = open().await.expect("the registry");
    let mut reader = open().await.expect("the registry");
    write(&mut writer, 0).await;
    let mut position = None;
    pull(&mut reader, &mut position).await;
    let mut delays = Vec::new();
    for number in 1..=WATCHED {
        let begun = Instant::now();
        let see = async {
            pull(&mut reader, &mut position).await;
            Instant::now()
        };
        let ((), seen) = tokio::join!(write(&mut writer, number), see);
        delays.push(micros(seen - begun));
    }
    delays
}

async fn write(connection: &mut Connection, number: u64) {
    let body = serde_json::to_string(&registration(number)).expect("JSON");
    let request = put("/v1/clusters/watched/services/watched/instances/one", &body);
    let answer = connection.exchange(request.as_bytes(), SOON).await;
    let answer = answer.expect("an answer to a write");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Waits for an update after the epoch and revision of the last.
async fn pull(connection: &mut Connection, position: &mut Option<(String, u64)>) {
    let after = position
        .as_ref()
        .map_or_else(String::new, |(epoch, revision)| {
            format!("?after={revision}&epoch={epoch}&wait=30s")
        });
    let request = format!(
        "GET /v1/clusters/watched/snapshot{after} HTTP/1.1\r\nHost: registry\r\n\
         Accept-Encoding: zstd\r\nAuthorization: Bearer {}\r\n\r\n",
        Token::Router.secret()
    );
    let answer = connection.exchange(request.as_bytes(), SOON).await;
    let answer = answer.expect("an update");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let header = |name: &str| answer.header(name).expect("a position").to_owned();
    let revision = header(REVISION_HEADER).parse().expect("a revision");
    *position = Some((header(EPOCH_HEADER), revision));
}
