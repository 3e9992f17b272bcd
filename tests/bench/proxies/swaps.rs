//! Tables that change ten times a second while requests come at a fixed rate.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cardea_registry_api::{
    Address, Cluster, Route,
    api::{ApplyRequest, KeyedRegistration, Registration},
    client::Client,
    policy::{Balance, HashKey},
};
use cardea_tests::{
    site::{CLUSTER, Site, key, name},
    wait,
};

use super::{
    rate::{Paced, RATE},
    stand::{Answers, SOON, Stand},
};
use crate::{
    machine::cpu_ns,
    table::{Table, spread},
};

const ROUTES: usize = 10_000;
const HASHED: usize = 10_000;
const ROUNDS: usize = 32;
const SECONDS: u64 = 1;
const EVERY: Duration = Duration::from_millis(100);

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    Nothing,
    /// The weight of an instance of another cluster: the registry works, the router hears nothing.
    Elsewhere,
    /// The weight of an instance that takes the requests.
    Instance,
    /// A route.
    Route,
    /// The weight of one of 10,000 instances of a service that balances by hash.
    Hashed,
}

const ALL: [(Changes, &str); 6] = [
    (Changes::Nothing, "nothing"),
    (Changes::Nothing, "nothing, once more"),
    (
        Changes::Elsewhere,
        "an instance of another cluster: the registry's share",
    ),
    (
        Changes::Instance,
        "an instance of the service that is asked",
    ),
    (Changes::Route, "a route"),
    (
        Changes::Hashed,
        "an instance of a service of 10,000, balanced by hash",
    ),
];

pub(super) async fn run() {
    let stand = Stand::new("swaps", 4, Answers::Small).await;
    let mut site = Site::empty("bench-swaps");
    site.add_registry(|setup| setup).await;
    let client = site.registries[0].client();
    fill(&client, &stand.upstreams).await;
    let router = site.add_router(|setup| setup.flag("--threads", "1")).await;
    let (address, pid) = (router.traffic(), router.process().pid());
    bind(pid, "0");
    bind(site.registries[0].process().pid(), "1");
    site.settled().await;
    wait::until_ok("the router routes", SOON, || async {
        match cardea_tests::http1::get(address, "h0.svc.local", "/api/v1/x").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let mut turn = 0;
    let mut all: Vec<(Paced, Vec<f64>)> =
        ALL.iter().map(|_| (Paced::default(), Vec::new())).collect();
    for round in 0..=ROUNDS {
        let mut order: Vec<usize> = (0..ALL.len()).collect();
        // Whoever comes first, or behind whom, is another one each time.
        order.rotate_left(round % ALL.len());
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (changes, (seen, control)) = (&ALL[at].0, &mut all[at]);
            let stop = Arc::new(AtomicBool::new(false));
            let writer = tokio::spawn(change(
                client.clone(),
                *changes,
                stand.upstreams[0],
                turn,
                stop.clone(),
            ));
            let (before, worker) = (cpu_ns(pid), worker_ns(pid));
            let mut one = std::mem::take(seen);
            one = tokio::task::spawn_blocking(move || {
                one.round(address, Some(pid), SECONDS, round > 0);
                one
            })
            .await
            .expect("a round");
            *seen = one;
            let others = (cpu_ns(pid) - before) - (worker_ns(pid) - worker);
            if round > 0 {
                control.push(others as f64 / 1e6 / (SECONDS as f64 / EVERY.as_secs_f64()));
            }
            stop.store(true, Ordering::Relaxed);
            turn = writer.await.expect("the writer ends");
        }
    }
    println!("### Tables that change\n");
    println!(
        "{ROUTES} routes from a registry; {RATE:.0} requests/s as above, and ten changes a second. The \
         router's worker and its control thread share a core here. {ROUNDS} rounds of {SECONDS} s, \
         in an order that changes; medians. Each round is compared with the first row's of the same \
         round: median of the differences in µs, and between which the middle half of them lies.\n"
    );
    let mut table = Table::new(&[
        "what changes",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "p50 more",
        "p99 more",
        "control thread, ms per change",
        "failed",
    ]);
    let base = &all[0].0;
    for ((changes, title), (seen, control)) in ALL.iter().zip(&all) {
        table.row([
            (*title).to_owned(),
            seen.latency(0),
            seen.latency(1),
            seen.latency(2),
            seen.more(base, 0),
            seen.more(base, 1),
            if matches!(changes, Changes::Nothing | Changes::Elsewhere) {
                "–".to_owned()
            } else {
                format!("{:.1}", spread(control).0)
            },
            seen.failed.to_string(),
        ]);
    }
    table.print();
}

/// CPU time of the threads that serve requests.
fn worker_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.contains("worker"))
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

fn bind(pid: u32, core: &str) {
    let done = Command::new("taskset")
        .args(["-a", "-p", "-c", core, &pid.to_string()])
        .output();
    assert!(done.is_ok_and(|out| out.status.success()), "taskset");
}

async fn fill(client: &Client, upstreams: &[u16]) {
    let mut hashed = cardea_registry_api::Service::named(name("hashed"));
    hashed.balance = Balance::Hash(HashKey::Client);
    let request = ApplyRequest {
        clusters: vec![Cluster::named(name("elsewhere"))],
        services: vec![hashed, cardea_registry_api::Service::named(name("search"))],
        ..ApplyRequest::default()
    };
    client.apply(&request, false).await.expect("services");
    for first in (0..ROUTES).step_by(1000) {
        let request = ApplyRequest {
            routes: (first..first + 1000)
                .map(|at| route(at, "search"))
                .collect(),
            ..ApplyRequest::default()
        };
        client.apply(&request, false).await.expect("routes");
    }
    for (at, port) in upstreams.iter().enumerate() {
        let address = SocketAddr::from(([127, 0, 0, 1], *port));
        register(client, "search", at, address, 4).await;
    }
    for first in (0..HASHED).step_by(1000) {
        let instances = (first..first + 1000).map(|at| KeyedRegistration {
            key: key(CLUSTER, "hashed", &format!("i{at}")),
            registration: registration(hashed_address(at), 100),
        });
        let request = ApplyRequest {
            instances: instances.collect(),
            ..ApplyRequest::default()
        };
        client.apply(&request, false).await.expect("instances");
    }
}

fn route(at: usize, service: &str) -> Route {
    Route {
        id: name(&format!("r{at}")),
        host: format!("h{at}.svc.local").parse().expect("a host"),
        prefix: "/api/v1".parse().expect("a prefix"),
        service: name(service),
    }
}

fn hashed_address(at: usize) -> SocketAddr {
    let host = u8::try_from(at / 1000).expect("less than 256 thousand") + 1;
    let port = u16::try_from(at % 1000).expect("less than a thousand") + 1;
    SocketAddr::from(([127, 9, 9, host], port))
}

fn registration(address: SocketAddr, weight: u16) -> Registration {
    let address: Address = cardea_tests::site::address_of(address);
    Registration {
        source: cardea_registry_api::Source::Manual,
        lease: None,
        weight,
        ..Registration::at(address)
    }
}

async fn register(client: &Client, service: &str, at: usize, address: SocketAddr, weight: u16) {
    let registration = registration(address, weight);
    let key = key(CLUSTER, service, &format!("i{at}"));
    client
        .register(&key, &registration)
        .await
        .expect("a registration");
}

/// Ten changes a second until it is told to stop, counted on from `turn`: each is one.
async fn change(
    client: Client,
    changes: Changes,
    upstream: u16,
    turn: usize,
    stop: Arc<AtomicBool>,
) -> usize {
    let mut ticks = tokio::time::interval(EVERY);
    let mut count = turn;
    while changes != Changes::Nothing && !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        count += 1;
        // Another one than this instance ever had.
        let weight = u16::try_from(1 + count % 1000).expect("a weight");
        match changes {
            Changes::Nothing => {}
            Changes::Elsewhere => {
                let address = SocketAddr::from(([127, 0, 0, 1], upstream));
                let key = key("elsewhere", "search", "i0");
                let registration = registration(address, weight);
                client
                    .register(&key, &registration)
                    .await
                    .expect("a registration");
            }
            Changes::Instance => {
                let address = SocketAddr::from(([127, 0, 0, 1], upstream));
                register(&client, "search", 0, address, weight).await;
            }
            Changes::Route => {
                let service = if count.is_multiple_of(2) {
                    "search"
                } else {
                    "hashed"
                };
                let request = ApplyRequest {
                    routes: vec![route(ROUTES - 1, service)],
                    ..ApplyRequest::default()
                };
                client.apply(&request, false).await.expect("a route");
            }
            Changes::Hashed => {
                let at = count % HASHED;
                let weight = 101 + weight % 50;
                register(&client, "hashed", at, hashed_address(at), weight).await;
            }
        }
    }
    count
}
