//! Write → watcher.

use std::time::{Duration, Instant};

use cardea_registry_api::api::{EPOCH_HEADER, REVISION_HEADER};
use cardea_tests::{
    http1::Connection,
    load::percentile,
    site::{Registry, Token},
};

use super::{Candidate, ROUNDS, SOON, Store, micros, put, registration};
use crate::{
    etcd::{self, Etcd},
    table::{Table, middle, ratios},
};

/// A turn's writes.
const TURN: u64 = 100;
/// Between two writes: whoever watches by long polls waits again by then.
const PAUSE: Duration = Duration::from_millis(1);

/// From just before a write is sent until a watcher that waits has it, one write at a time, in turns.
pub(super) async fn watchers(candidates: &[Candidate]) {
    println!(
        "Write → watcher, one write at a time, a millisecond between, from sending the write to the watcher having it; \
         {ROUNDS} rounds in which each writes {TURN} times, ratios of medians to etcd in the same round, median \
         (middle half):\n"
    );
    let mut watched = Vec::new();
    for candidate in candidates {
        watched.push(match &candidate.store {
            Store::Etcd(etcd) => Watched::etcd(etcd).await,
            Store::Registry { registry, .. } => Watched::registry(registry).await,
        });
    }
    let mut all = vec![Vec::new(); watched.len()];
    let mut medians = vec![Vec::new(); watched.len()];
    for round in 0..=ROUNDS {
        let mut turns: Vec<_> = (watched.iter_mut())
            .zip(all.iter_mut().zip(&mut medians))
            .collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (watched, (all, medians)) in turns {
            let mut delays = watched.turn(round).await;
            if round > 0 {
                delays.sort_unstable();
                medians.push(percentile(&delays, 500));
                all.append(&mut delays);
            }
        }
    }
    let mut table = Table::new(&["", "p50 ms", "× etcd", "p99 ms", "writes"]);
    let base = medians[0].clone();
    for ((candidate, mut delays), medians) in candidates.iter().zip(all).zip(medians) {
        delays.sort_unstable();
        table.row([
            candidate.name.clone(),
            format!("{:.2}", percentile(&delays, 500) / 1000.0),
            middle(&ratios(&medians, &base), 2),
            format!("{:.2}", percentile(&delays, 990) / 1000.0),
            delays.len().to_string(),
        ]);
    }
    table.print();
}

/// A writer, and somebody who watches what it writes.
enum Watched {
    Etcd {
        writer: etcd::Client,
        watch: etcd::Watch,
    },
    Registry {
        writer: Connection,
        reader: Connection,
        position: Option<(String, u64)>,
    },
}

impl Watched {
    async fn etcd(etcd: &Etcd) -> Self {
        let open = || etcd::Client::connect(etcd.address);
        Self::Etcd {
            writer: open().await,
            watch: open().await.watch("/watched/").await,
        }
    }

    async fn registry(registry: &Registry) -> Self {
        let open = || Connection::open(registry.api(), SOON);
        let mut writer = open().await.expect("the registry");
        let mut reader = open().await.expect("the registry");
        let first = serde_json::to_string(&registration(0, 0)).expect("JSON");
        write(&mut writer, &first).await;
        let mut position = None;
        pull(&mut reader, &mut position).await;
        Self::Registry {
            writer,
            reader,
            position,
        }
    }

    /// Microseconds of each write.
    async fn turn(&mut self, round: usize) -> Vec<u32> {
        let mut delays = Vec::new();
        for number in 1..=TURN {
            let body = serde_json::to_string(&registration(round, number)).expect("JSON");
            let (begun, seen) = match self {
                Self::Etcd { writer, watch } => {
                    let put = async {
                        tokio::time::sleep(PAUSE).await;
                        let begun = Instant::now();
                        writer.put("/watched/one", body.as_bytes()).await;
                        begun
                    };
                    let (begun, (_, seen)) = tokio::join!(put, watch.next());
                    (begun, seen)
                }
                Self::Registry {
                    writer,
                    reader,
                    position,
                } => {
                    let put = async {
                        tokio::time::sleep(PAUSE).await;
                        let begun = Instant::now();
                        write(writer, &body).await;
                        begun
                    };
                    let see = async {
                        pull(reader, position).await;
                        Instant::now()
                    };
                    tokio::join!(put, see)
                }
            };
            delays.push(micros(seen - begun));
        }
        delays
    }
}

async fn write(connection: &mut Connection, body: &str) {
    let request = put("/v1/clusters/watched/services/watched/instances/one", body);
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
