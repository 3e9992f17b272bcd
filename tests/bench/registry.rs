//! The registry on PostgreSQL (fsync on) and SQLite beside Debian's etcd: durable writes at equal
//! concurrency, write → watcher, renewals.

mod renew;
mod watch;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Span,
    api::{BulkRegistration, KeyedRegistration, Registration},
};
use cardea_tests::{
    http1::Connection,
    load::percentile,
    postgres::Postgres,
    scratch::Scratch,
    site::{CLUSTER, Registry, RegistrySetup, Token, address_of, key},
};
use tokio::task::JoinSet;

use crate::{
    etcd::{self, Etcd},
    machine::cpu_ns,
    table::{Table, middle, ratios, shown},
};

/// Short turns and many of them: what the disk and the machine's other tenants do changes within seconds.
const SPAN: Duration = Duration::from_millis(500);
const ROUNDS: usize = 20;
/// Rounds that write the same keys: new ones and those that are there are written about equally often.
const KEPT: usize = 5;
/// Registrations in bulk: a round's length, and how many.
const BULK: (Duration, usize) = (Duration::from_secs(2), 5);
const SOON: Duration = Duration::from_secs(30);

/// Somebody who keeps durable writes.
enum Store {
    Etcd(Etcd),
    Registry {
        registry: Box<Registry>,
        postgres: Option<Postgres>,
    },
}

impl Store {
    /// The process ids whose CPU time the writes cost.
    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Etcd(etcd) => vec![etcd.process.pid()],
            Self::Registry { registry, postgres } => {
                let database = postgres.as_ref().and_then(Postgres::pid);
                [Some(registry.process().pid()), database]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        }
    }

    fn cpu_ns(&self) -> u64 {
        self.pids().into_iter().map(cpu_ns).sum()
    }
}

struct Candidate {
    name: String,
    store: Store,
}

/// What the registry keeps its data in, as the tables call it and as `CARDEA_BENCH_STORES` does.
#[derive(Clone, Copy)]
enum Kept {
    Socket,
    Tcp,
    Sqlite,
    Full,
}

impl Kept {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Socket, "socket", "cardea, PostgreSQL"),
        (Self::Tcp, "tcp", "cardea, PostgreSQL over TCP"),
        (Self::Sqlite, "sqlite", "cardea, SQLite"),
        (Self::Full, "full", "cardea, SQLite, full sync"),
    ];

    /// A registry of its own, of another build if its `program` is given.
    async fn start(self, name: &str, program: Option<&Path>, dir: &Path) -> Store {
        let postgres = match self {
            Self::Socket | Self::Tcp => Some(Postgres::start().await),
            Self::Sqlite | Self::Full => None,
        };
        let url = postgres.as_ref().map(|postgres| match self {
            Self::Socket => postgres.url_of_socket(),
            _ => postgres.url(),
        });
        let mut setup = RegistrySetup::new(name, url);
        if let Self::Full = self {
            setup = setup.setting("sqlite_full_sync = true");
        }
        if let Some(program) = program {
            setup = setup.program(program.to_owned());
        }
        Store::Registry {
            registry: Box::new(Registry::start(setup, dir).await),
            postgres,
        }
    }
}

/// etcd, and each kind of registry that is asked for; beside it, the one of another build's folder, if
/// `CARDEA_BENCH_BESIDE` names it.
async fn candidates(dir: &Path) -> Vec<Candidate> {
    let asked = std::env::var("CARDEA_BENCH_STORES").unwrap_or_default();
    let asked: Vec<&str> = asked.split(',').filter(|word| !word.is_empty()).collect();
    let beside = std::env::var_os("CARDEA_BENCH_BESIDE");
    let beside = beside.map(|folder| Path::new(&folder).join("cardea"));
    let mut all = vec![Candidate {
        name: "etcd".to_owned(),
        store: Store::Etcd(Etcd::start(dir).await),
    }];
    for (kept, word, name) in Kept::ALL {
        if !asked.is_empty() && !asked.contains(&word) {
            continue;
        }
        all.push(Candidate {
            name: name.to_owned(),
            store: kept.start(word, None, dir).await,
        });
        if let Some(program) = &beside {
            all.push(Candidate {
                name: format!("{name}, the other build"),
                store: kept
                    .start(&format!("{word}-other"), Some(program), dir)
                    .await,
            });
        }
    }
    all
}

/// What of the registry is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    Writes,
    Others,
}

/// Prints the tables.
pub(crate) async fn run(part: Part) {
    let scratch = Scratch::new("bench-registry");
    let candidates = candidates(scratch.path()).await;
    println!("### Registry beside etcd\n");
    println!(
        "PostgreSQL with fsync, synchronous_commit and full_page_writes on, asked through its Unix \
         socket (and, in a row of its own, over TCP); SQLite in WAL mode with \
         synchronous=NORMAL, and with FULL (`sqlite_full_sync`); etcd with its fsync on, over gRPC. \
         The same disk, values of the same size, {ROUNDS} rounds in which each has {} ms, median (least–most), of \
         ratios to etcd in the same round the median (middle half); load \
         on the same two cores, all of it on one thread, through hand-written clients that write a request \
         in one piece and read the answer on the same task, for etcd as for the registry. CPU is of the server with \
         its database.\n",
        SPAN.as_millis()
    );
    if part != Part::Others {
        durable_writes(&candidates).await;
    }
    if part != Part::Writes {
        watch::watchers(&candidates).await;
        bulk(&candidates).await;
        renew::renewals(&candidates).await;
    }
}

async fn durable_writes(candidates: &[Candidate]) {
    let mut table = Table::new(&[
        "durable writes",
        "clients",
        "writes/s",
        "× etcd",
        "p50 ms",
        "p99 ms",
        "CPU µs per write",
    ]);
    let asked = std::env::var("CARDEA_BENCH_CLIENTS").unwrap_or_default();
    let asked: Vec<usize> = asked.split(',').filter_map(|n| n.parse().ok()).collect();
    let numbers = if asked.is_empty() {
        &[1, 16, 64, 256][..]
    } else {
        &asked
    };
    for clients in numbers {
        writes(candidates, *clients, &mut table).await;
    }
    table.print();
}

/// What one candidate showed, a value for each round.
#[derive(Default)]
struct Seen {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
    latencies: Vec<u32>,
}

async fn writes(candidates: &[Candidate], clients: usize, table: &mut Table) {
    let mut seen: Vec<Seen> = candidates.iter().map(|_| Seen::default()).collect();
    for round in 0..=ROUNDS {
        let mut turns: Vec<_> = candidates.iter().zip(&mut seen).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (candidate, seen) in turns {
            let before = candidate.store.cpu_ns();
            let begun = Instant::now();
            let mut latencies = write_round(&candidate.store, clients, round).await;
            let elapsed = begun.elapsed().as_secs_f64();
            let spent = candidate.store.cpu_ns() - before;
            if round > 0 {
                seen.per_second.push(latencies.len() as f64 / elapsed);
                seen.cpu_us
                    .push(spent as f64 / 1000.0 / latencies.len() as f64);
                seen.latencies.append(&mut latencies);
            }
        }
    }
    let base = seen[0].per_second.clone();
    for (candidate, mut seen) in candidates.iter().zip(seen) {
        seen.latencies.sort_unstable();
        table.row([
            candidate.name.clone(),
            clients.to_string(),
            shown(&seen.per_second, 0),
            middle(&ratios(&seen.per_second, &base), 2),
            format!("{:.2}", percentile(&seen.latencies, 500) / 1000.0),
            format!("{:.2}", percentile(&seen.latencies, 990) / 1000.0),
            shown(&seen.cpu_us, 0),
        ]);
    }
}

/// Each client writes, waits until that is durable, and writes again. Microseconds of each write.
///
/// All clients share one thread: what they cost beside the server is then the least, and the same for
/// everybody.
async fn write_round(store: &Store, clients: usize, round: usize) -> Vec<u32> {
    let to = match store {
        Store::Etcd(etcd) => (true, etcd.address),
        Store::Registry { registry, .. } => (false, registry.api()),
    };
    let load = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let end = Instant::now() + SPAN;
            let mut tasks = JoinSet::new();
            for client in 0..clients {
                match to {
                    (true, etcd) => tasks.spawn(write_etcd(etcd, client, clients, round, end)),
                    (false, api) => tasks.spawn(write_registry(api, client, clients, round, end)),
                };
            }
            tasks.join_all().await.into_iter().flatten().collect()
        })
    };
    tokio::task::spawn_blocking(load).await.expect("the load")
}

/// Instances are registered again with another version each time: every write changes something.
fn registration(round: usize, number: u64) -> Registration {
    Registration {
        version: format!("1.{round}.{number}"),
        lease: Some(Span::secs(600)),
        ..Registration::at(address_of(SocketAddr::from(([10, 0, 0, 1], 9000))))
    }
}

async fn write_etcd(
    address: SocketAddr,
    client: usize,
    clients: usize,
    round: usize,
    end: Instant,
) -> Vec<u32> {
    let mut connection = etcd::Client::connect(address).await;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let number = latencies.len() as u64;
        let key = format!(
            "/default/bench-{clients}/r{}-c{client}-{}",
            round % KEPT,
            number % 50
        );
        let value = serde_json::to_vec(&registration(round, number)).expect("JSON");
        let begun = Instant::now();
        connection.put(&key, &value).await;
        latencies.push(micros(begun.elapsed()));
    }
    latencies
}

async fn write_registry(
    address: SocketAddr,
    client: usize,
    clients: usize,
    round: usize,
    end: Instant,
) -> Vec<u32> {
    let mut connection = Connection::open(address, SOON).await.expect("the registry");
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let number = latencies.len() as u64;
        let path = format!(
            "/v1/clusters/{CLUSTER}/services/bench-{clients}/instances/r{}-c{client}-{}",
            round % KEPT,
            number % 50
        );
        let body = serde_json::to_string(&registration(round, number)).expect("JSON");
        let request = put(&path, &body);
        let begun = Instant::now();
        let answer = connection
            .exchange(request.as_bytes(), SOON)
            .await
            .expect("an answer");
        latencies.push(micros(begun.elapsed()));
        assert!(answer.status < 300, "{} {}", answer.status, answer.text());
        assert!(
            answer.text().contains("\"durable\":true"),
            "{}",
            answer.text()
        );
    }
    latencies
}

fn put(path: &str, body: &str) -> String {
    format!(
        "PUT {path} HTTP/1.1\r\nHost: registry\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        Token::Agent.secret(),
        body.len()
    )
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

/// Registrations many at once: how a whole cluster comes back.
async fn bulk(candidates: &[Candidate]) {
    println!(
        "Registrations, 100 in a call, 16 calls at a time (each call is one change, all or nothing):\n"
    );
    let mut table = Table::new(&["", "registrations/s"]);
    for candidate in candidates {
        let Store::Registry { registry, .. } = &candidate.store else {
            continue;
        };
        let mut rounds = Vec::new();
        let (span, rounds_of) = BULK;
        for round in 0..=rounds_of {
            let done = Arc::new(AtomicU64::new(0));
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for caller in 0..16 {
                let (client, done) = (registry.client(), done.clone());
                tasks.spawn(async move {
                    let mut call = 0;
                    while begun.elapsed() < span {
                        let many = batch(&format!("bulk-{round}-{caller}"), 100, call);
                        client.register_many(&many).await.expect("registrations");
                        done.fetch_add(100, Ordering::Relaxed);
                        call += 1;
                    }
                });
            }
            tasks.join_all().await;
            if round > 0 {
                rounds.push(done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64());
            }
        }
        table.row([candidate.name.clone(), shown(&rounds, 0)]);
    }
    table.print();
}

/// `count` registrations of one service.
pub(crate) fn batch(service: &str, count: u64, version: u64) -> BulkRegistration {
    let keyed = |number: u64| KeyedRegistration {
        key: key(CLUSTER, service, &format!("i-{number}")),
        registration: Registration {
            address: address_of(SocketAddr::from((
                [10, 0, (number >> 8) as u8, number as u8],
                9000,
            ))),
            ..registration(0, version)
        },
    };
    BulkRegistration {
        instances: (0..count).map(keyed).collect(),
    }
}
