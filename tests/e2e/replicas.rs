//! Two registries on one PostgreSQL.

use std::time::{Duration, Instant};

use cardea_registry_api::{
    Span,
    api::Mode,
    client::{Client, InstanceQuery, Position, Pull, Pulled},
};
use cardea_tests::{
    backend::Backend,
    load::{Plan, check_posts, percentile},
    proxy::Proxy,
    site::{CLUSTER, SOON, Site, name, register},
    wait,
};

use crate::gate;

/// Waits, as a router does, until `reader` has something newer than `after`, up to `revision`.
async fn see(reader: &Client, after: &mut Option<Position>, revision: u64) {
    let begun = Instant::now();
    loop {
        assert!(
            begun.elapsed() < SOON,
            "revision {revision} never came; the reader is at {after:?}"
        );
        let pull = Pull {
            cluster: name(CLUSTER),
            applied: after.clone(),
            wait: Span::secs(10),
            router: None,
            version: String::new(),
            full: false,
        };
        match reader.pull(&pull).await.expect("a pull") {
            Pulled::Update { update, .. } => {
                let head = &update.head;
                *after = Some(Position {
                    epoch: head.epoch.clone(),
                    revision: head.revision,
                });
                if head.revision >= revision {
                    return;
                }
            }
            Pulled::NotModified { .. } => {}
        }
    }
}

/// How long each of `rounds` writes at `writer` takes to reach `reader`'s feed, in microseconds,
/// from when the write's answer was there.
async fn delays(writer: &Client, reader: &Client, rounds: u32) -> Vec<u32> {
    let mut after = None;
    let first = register(
        writer,
        CLUSTER,
        "far",
        "first",
        "127.0.0.1:9".parse().unwrap(),
    )
    .await;
    see(reader, &mut after, first.revision).await;
    let mut delays = Vec::new();
    for round in 0..rounds {
        let reader = reader.clone();
        let mut position = after.clone();
        let expected = after.as_ref().unwrap().revision + 1;
        let waiting = tokio::spawn(async move {
            see(&reader, &mut position, expected).await;
            (Instant::now(), position)
        });
        let address = format!("127.0.0.1:{}", 10 + round % 1000).parse().unwrap();
        register(writer, CLUSTER, "far", "first", address).await;
        let written = Instant::now();
        let (seen, position) = waiting.await.unwrap();
        after = position;
        let delay = seen.saturating_duration_since(written);
        delays.push(u32::try_from(delay.as_micros()).unwrap());
    }
    delays.sort_unstable();
    delays
}

fn shown(delays: &[u32]) -> String {
    let at = |per_mille| percentile(delays, per_mille) / 1000.0;
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(500),
        at(990),
        at(1000)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_see_one_anothers_writes() {
    let _machine = gate::alone().await;
    let mut site = Site::on_postgres("replicas-see", 1, 0).await;
    let postgres = site.postgres.as_ref().unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await;
    let through = postgres.url_through(proxy.address().port());
    site.add_registry(|setup| setup.database(through)).await;
    let (one, two) = (site.registries[0].client(), site.registries[1].client());
    for (writer, reader, way) in [(&one, &two, "1 → 2"), (&two, &one, "2 → 1")] {
        let delays = delays(writer, reader, 100).await;
        println!(
            "write's answer → the other replica's feed, {way}, 100 writes: {}",
            shown(&delays)
        );
        // The median: a busy machine delays some, a registry that waits for its timer delays all.
        let median = percentile(&delays, 500);
        assert!(median <= 20_000.0, "the aim is 20 ms: {}", shown(&delays));
    }
    // Notifications are lost: the timer finds it.
    proxy.swallow_notifications(true);
    let delays = delays(&one, &two, 5).await;
    println!(
        "the same with notifications lost, 5 writes: {}",
        shown(&delays)
    );
    assert!(
        proxy.swallowed() >= 5,
        "only {} notifications were lost",
        proxy.swallowed()
    );
    let median = percentile(&delays, 500);
    assert!(median <= 3_000_000.0, "the aim is 3 s: {}", shown(&delays));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_replica_dies_and_agents_and_routers_move_over() {
    let _machine = gate::shared().await;
    let mut site = Site::on_postgres("replicas-die", 2, 2).await;
    site.route("shop.test", "shop", |_| {}).await;
    site.add_agents("shop", 4).await;
    site.settled().await;
    let mut plan = Plan::new(site.routers[0].traffic(), "shop.test", 200.0).label("replicas");
    plan.targets = site
        .routers
        .iter()
        .map(cardea_tests::site::Router::traffic)
        .collect();
    let load = plan.start();
    load.pass(200, SOON).await;
    let mut records = site.records();
    for victim in [0, 1] {
        site.registries[victim].kill();
        // Longer than the agents' leases of 3 s: who did not move over would expire.
        wait::pass(Duration::from_secs(8)).await;
        let survivor = site.registries[1 - victim].client();
        let begun = Instant::now();
        let id = format!("newcomer-{victim}");
        let record = site.scratch.join(&format!("{id}.posts"));
        let backend = Backend::with_record(&id, Some(&record)).await;
        records.push(record);
        let written = register(&survivor, CLUSTER, "shop", &id, backend.address()).await;
        for router in &site.routers {
            router.wait_applied(written.revision).await;
        }
        println!(
            "registry {} dead: a registration at the other one is applied by both routers after {:.0} ms",
            victim + 1,
            begun.elapsed().as_secs_f64() * 1000.0
        );
        let instances = survivor
            .all_instances(InstanceQuery::default())
            .await
            .unwrap();
        let agents = instances
            .iter()
            .filter(|found| found.object.id.as_str().starts_with("shop-"));
        assert_eq!(agents.count(), 4, "an agent did not move over");
        let gone = cardea_tests::site::key(CLUSTER, "shop", &id);
        let answer = survivor.deregister(&gone, Span::secs(8)).await.unwrap();
        assert_eq!(answer.pending, Vec::<String>::new());
        assert_eq!(answer.acknowledged.len(), 2, "{answer:?}");
        site.registries[victim].resume().await;
        site.registries[victim].wait_mode(Mode::Ok, SOON).await;
    }
    site.settled().await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
    check_posts(&report, &records);
}
