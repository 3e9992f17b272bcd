//! A full pull of 10,000 instances, and memory at 100,000.

use std::time::{Duration, Instant};

use cardea_tests::{
    http1::Connection,
    scratch::Scratch,
    site::{CLUSTER, Registry, RegistrySetup, Router, RouterSetup, Site, Token},
};

use crate::{
    machine::{cpu_ns, pss_kib},
    registry::batch,
    table::{Table, shown},
};

const SOON: Duration = Duration::from_mins(1);
const PER_SERVICE: u64 = 100;

/// Registers so many instances, over services of 100.
async fn fill(registry: &Registry, count: u64) {
    let client = registry.client();
    for service in 0..count / PER_SERVICE {
        let many = batch(&format!("service-{service}"), PER_SERVICE, 1);
        client.register_many(&many).await.expect("registrations");
    }
}

/// Prints the tables for a full pull.
pub(crate) async fn pulls() {
    let scratch = Scratch::new("bench-pull");
    let registry = Registry::start(RegistrySetup::new("registry", None), scratch.path()).await;
    fill(&registry, 10_000).await;
    println!("### A full pull of 10,000 instances (100 services)\n");
    let mut table = Table::new(&["coding", "bytes on the wire", "ms", "registry's CPU ms"]);
    let pid = registry.process().pid();
    for coding in ["zstd", "gzip", "identity"] {
        let (mut times, mut cpu, mut size) = (Vec::new(), Vec::new(), 0);
        let mut connection = Connection::open(registry.api(), SOON)
            .await
            .expect("the registry");
        for round in 0..=7 {
            let request = format!(
                "GET /v1/clusters/{CLUSTER}/snapshot?full=true HTTP/1.1\r\nHost: registry\r\n\
                 Accept-Encoding: {coding}\r\nAuthorization: Bearer {}\r\n\r\n",
                Token::Router.secret()
            );
            let before = cpu_ns(pid);
            let begun = Instant::now();
            let answer = connection
                .exchange(request.as_bytes(), SOON)
                .await
                .expect("a pull");
            let took = begun.elapsed();
            let spent = cpu_ns(pid) - before;
            assert_eq!(answer.status, 200, "{}", answer.text());
            size = answer.body.len();
            if round == 0 {
                // The first one encodes; it is shown by itself.
                table.row([
                    format!("{coding}, first"),
                    size.to_string(),
                    format!("{:.1}", took.as_secs_f64() * 1000.0),
                    format!("{:.1}", spent as f64 / 1e6),
                ]);
            } else {
                times.push(took.as_secs_f64() * 1000.0);
                cpu.push(spent as f64 / 1e6);
            }
        }
        table.row([
            coding.to_owned(),
            size.to_string(),
            shown(&times, 2),
            shown(&cpu, 2),
        ]);
    }
    table.print();

    let mut table = Table::new(&["router", "ms"]);
    let (mut starts, mut builds) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let setup = RouterSetup::new(&format!("router-{round}"), &[registry.api()]);
        let mut router = Router::prepare(setup, scratch.path());
        let begun = Instant::now();
        router.spawn();
        router.wait_ready(SOON).await;
        starts.push(begun.elapsed().as_secs_f64() * 1000.0);
        let build = "cardea_router_config_build_seconds";
        let spent = router.metric(&format!("{build}_sum"), "").await;
        let tables = router.metric(&format!("{build}_count"), "").await;
        builds.extend(
            spent
                .zip(tables)
                .map(|(spent, tables)| spent / tables * 1000.0),
        );
        router.stop().await;
    }
    table.row([
        "from its start to ready with 10,000 instances".to_owned(),
        shown(&starts, 0),
    ]);
    if !builds.is_empty() {
        table.row(["building the table".to_owned(), shown(&builds, 1)]);
    }
    table.print();
}

/// Prints memory at 100,000 instances.
pub(crate) async fn memory() {
    let mut site = Site::empty("bench-memory");
    site.postgres = Some(cardea_tests::postgres::Postgres::start().await);
    site.add_registry(|setup| setup).await;
    site.add_router(|setup| setup).await;
    let fresh = [
        pss_kib(site.registries[0].process().pid()),
        pss_kib(site.routers[0].process().pid()),
    ];
    let begun = Instant::now();
    fill(&site.registries[0], 100_000).await;
    let filled = begun.elapsed();
    site.settled().await;
    let full = [
        pss_kib(site.registries[0].process().pid()),
        pss_kib(site.routers[0].process().pid()),
    ];
    println!("### Memory at 100,000 instances (1,000 services), PSS\n");
    println!(
        "Registered on PostgreSQL in calls of 100, one after another, in {:.1} s.\n",
        filled.as_secs_f64()
    );
    let mut table = Table::new(&["", "fresh MiB", "with 100,000 MiB", "bytes per instance"]);
    for (i, name) in ["registry", "router"].into_iter().enumerate() {
        table.row([
            name.to_owned(),
            format!("{:.1}", fresh[i] as f64 / 1024.0),
            format!("{:.1}", full[i] as f64 / 1024.0),
            format!(
                "{:.0}",
                (full[i] as f64 - fresh[i] as f64) * 1024.0 / 100_000.0
            ),
        ]);
    }
    table.print();
}
