//! Live figures: 1,000 routers that report 200 routes each, every 5 s, to one registry.

use std::{
    fmt::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cardea_registry_api::{
    Span,
    client::FiguresQuery,
    figures::{By, Figures, Histogram, Peers, Report, Series, WINDOW_MS},
};
use cardea_tests::{
    http1::Connection,
    load::percentile,
    postgres::Postgres,
    scratch::Scratch,
    site::{CLUSTER, Registry, RegistrySetup, Token, name},
    wait,
};
use tokio::task::JoinSet;

use crate::{machine::cpu_ns, table::Table};

const ROUTERS: usize = 1000;
const ROUTES: usize = 200;
const WINDOWS: i64 = 6;
/// Routers report within the first second of a window.
const SPREAD: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 50;
const SOON: Duration = Duration::from_secs(30);

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// A report as a busy router makes it: each route with some 500 requests, whose durations spread over a
/// dozen buckets and a tail.
fn report(router: usize, at: i64) -> Report {
    let mut lot = router as u64 * 7919 + at.unsigned_abs();
    let mut draw = |below: u64| {
        lot = lot
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (lot >> 33) % below
    };
    let series = (0..ROUTES).map(|route| {
        let mut latency = Histogram::default();
        let requests = 300 + draw(400);
        for _ in 0..requests {
            let tail = if draw(100) == 0 { 20_000 } else { 0 };
            latency.observe(1000 + draw(1500) + draw(1500) + tail);
        }
        let errors = draw(3);
        Series {
            route: Some(name(&format!("route-{route:03}"))),
            service: Some(name(&format!("service-{:02}", route / 5))),
            group: None,
            figures: Figures {
                classes: [0, requests - errors, 0, 0, errors],
                latency,
                in_flight: draw(4),
                ..Figures::default()
            },
        }
    });
    let peers = (0..ROUTES / 5).map(|service| Peers {
        cluster: None,
        service: name(&format!("service-{service:02}")),
        healthy: 8,
        total: 8,
    });
    Report {
        process: name(&format!("p{router}")),
        at,
        series: series.collect(),
        peers: peers.collect(),
        left_out: 0,
        dropped: 0,
    }
}

/// One report as a request; the window is filled in when it is sent.
fn request(router: usize) -> Vec<u8> {
    let body = serde_json::to_string(&report(router, 1_000_000_000_000)).unwrap();
    let mut text = String::new();
    write!(
        text,
        "POST /v1/clusters/{CLUSTER}/routers/router-{router}/figures HTTP/1.1\r\nHost: registry\r\n\
         Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        Token::Router.secret(),
        body.len()
    )
    .unwrap();
    text.into_bytes()
}

/// Sends some routers' reports of each window as it ends; how long each answer took, in microseconds.
async fn send(api: SocketAddr, mut requests: Vec<(usize, Vec<u8>)>, first: i64) -> Vec<u32> {
    let mut connection = Connection::open(api, SOON).await.expect("the registry");
    let mut took = Vec::new();
    let place = |request: &[u8]| {
        let mut all = request.windows(13);
        all.position(|piece| piece == b"1000000000000").unwrap()
    };
    let places: Vec<usize> = requests.iter().map(|(_, request)| place(request)).collect();
    for window in 0..WINDOWS {
        let at = first + window * WINDOW_MS;
        for ((router, request), place) in requests.iter_mut().zip(&places) {
            let turn = SPREAD.mul_f64(*router as f64 / ROUTERS as f64);
            let due = at + WINDOW_MS + i64::try_from(turn.as_millis()).unwrap();
            let wait = Duration::from_millis((due - now_ms()).max(0).unsigned_abs());
            tokio::time::sleep(wait).await;
            request[*place..place + 13].copy_from_slice(at.to_string().as_bytes());
            let begun = Instant::now();
            let answer = connection.exchange(request, SOON).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            took.push(u32::try_from(begun.elapsed().as_micros()).unwrap());
        }
    }
    took
}

/// Reports for half a minute, and what they cost.
pub(crate) async fn run() {
    println!("## Live figures\n");
    println!(
        "{ROUTERS} routers that report {ROUTES} routes each, every 5 s, to one registry, {WINDOWS} windows; \
         each report in the first second of the next window, over {CONNECTIONS} connections:\n"
    );
    let scratch = Scratch::new("bench-figures");
    let postgres = Postgres::start().await;
    let setup = RegistrySetup::new("on-postgres", Some(postgres.url_of_socket()));
    let on_postgres = Registry::start(setup, scratch.path()).await;
    let on_sqlite = Registry::start(RegistrySetup::new("on-sqlite", None), scratch.path()).await;
    let requests: Arc<Vec<Vec<u8>>> = Arc::new((0..ROUTERS).map(request).collect());
    let bytes = requests.iter().map(Vec::len).sum::<usize>() / ROUTERS;
    let mut table = Table::new(&[
        "registry on",
        "reports",
        "bytes a report",
        "registry's cores",
        "database's cores",
        "CPU ms per report",
        "answered p50 / p99 ms",
        "registry's PSS MiB",
    ]);
    for (store, registry, database) in [
        ("PostgreSQL", &on_postgres, postgres.pid()),
        ("SQLite", &on_sqlite, None),
    ] {
        let pid = registry.process().pid();
        let first = now_ms() - now_ms().rem_euclid(WINDOW_MS);
        let cpu = || (cpu_ns(pid), database.map_or(0, cpu_ns));
        let before = cpu();
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let own = (0..ROUTERS).filter(|router| router % CONNECTIONS == connection);
            let own: Vec<_> = own
                .map(|router| (router, requests[router].clone()))
                .collect();
            tasks.spawn(send(registry.api(), own, first));
        }
        let mut took: Vec<u32> = tasks.join_all().await.into_iter().flatten().collect();
        let (after, span) = (cpu(), begun.elapsed().as_secs_f64());
        took.sort_unstable();
        let (own, other) = (
            (after.0 - before.0) as f64 / 1e9,
            (after.1 - before.1) as f64 / 1e9,
        );
        let at = |per_mille| percentile(&took, per_mille) / 1000.0;
        table.row([
            store.to_owned(),
            took.len().to_string(),
            bytes.to_string(),
            format!("{:.2}", own / span),
            format!("{:.3}", other / span),
            format!("{:.2}", (own + other) * 1000.0 / took.len() as f64),
            format!("{:.0} / {:.0}", at(500), at(990)),
            (crate::machine::pss_kib(pid) >> 10).to_string(),
        ]);
        ask(registry, took.len() as u64).await;
    }
    println!();
    table.print();
    let rows = postgres.number("SELECT COUNT(*) FROM figures").await;
    let each = postgres
        .number("SELECT (AVG(LENGTH(body)))::bigint FROM figures")
        .await;
    let marks = postgres.number("SELECT COUNT(*) FROM figure_reports").await;
    let size = "SELECT (pg_total_relation_size('figures') + pg_total_relation_size('figure_reports'))::bigint";
    let size = postgres.number(size).await;
    println!(
        "Rows in PostgreSQL: {rows} of windows ({each} bytes each on the average; one a window and replica, 720 an \
         hour, then 1,440 of minutes), {marks} of router processes; {} KiB on disk with indexes.\n",
        size >> 10
    );
}

/// Everything that was reported is told, and how long telling takes.
async fn ask(registry: &Registry, reports: u64) {
    let told = async |window, by| {
        let query = FiguresQuery {
            by,
            window: Some(Span::secs(window)),
            step: Some(Span::secs(window)),
            ..FiguresQuery::default()
        };
        let told = registry.client().figures(&name(CLUSTER), &query).await;
        let told = told.unwrap();
        let seen: u64 = told.points.iter().map(|point| point.reports).sum();
        (told, seen)
    };
    // Of a window of its own: what is measured is not asked for before.
    wait::until("every report is in", SOON, || async {
        let (_, seen) = told(600, By::Service).await;
        (seen == reports).then_some(())
    })
    .await;
    for (window, by) in [(300, By::Service), (3600, By::Route)] {
        for again in ["first", "again"] {
            let begun = Instant::now();
            let (told, seen) = told(window, by).await;
            let took = begun.elapsed();
            assert_eq!(seen, reports, "every report is counted");
            let series = told.points[0].series.len();
            println!("- told of {window} s by {by}, {again}: {series} series in {took:.1?}");
        }
    }
}
