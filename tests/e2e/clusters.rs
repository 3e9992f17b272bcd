//! Data centres as processes: each with routers and agents of its own. Traffic moves between them by
//! plain edits, and by itself when one of them is gone.

use std::time::{Duration, Instant};

use cardea_registry_api::{
    Cluster, Span, Traffic, TrafficKey, client::Precondition, traffic::Failover,
};
use cardea_tests::{
    backend::Backend,
    http1,
    load::{Load, Plan},
    site::{Router, SOON, Site, name, register},
    wait,
};

use crate::{
    gate,
    websocket::{echo, open},
};

const HOST: &str = "shop.test";
const CENTRES: [&str; 3] = ["dc-a", "dc-b", "dc-c"];
/// From the registry's answer to the last router.
const MOVED: Duration = Duration::from_secs(2);

/// Two registries on one database, and so many data centres: each with a router and two instances. The
/// first has two routers.
async fn centres(test: &str, count: usize) -> Site {
    let mut site = Site::on_postgres(test, 2, 0).await;
    let client = site.client();
    for centre in &CENTRES[..count] {
        let cluster = Cluster::named(name(centre));
        client
            .put_cluster(&cluster, Precondition::None)
            .await
            .unwrap();
    }
    site.route(HOST, "shop", |_| {}).await;
    for centre in ["dc-a"].into_iter().chain(CENTRES[..count].iter().copied()) {
        site.add_router(|setup| setup.cluster(centre)).await;
    }
    for centre in &CENTRES[..count] {
        for _ in 0..2 {
            site.add_agent("shop", |setup| setup.cluster(centre)).await;
        }
    }
    for router in &site.routers {
        serves(router, HOST).await;
    }
    site
}

/// Its own cluster's instances are known. (What another cluster's feed has moves no revision here.)
pub(crate) async fn serves(router: &Router, host: &str) {
    wait::until_ok("the router serves", SOON, || async {
        let answer = router.get(host, "/echo").await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(format!("{}", answer.status))
        }
    })
    .await;
}

fn traffic(weights: &[(&str, u8)], order: &[&str]) -> Traffic {
    let mut traffic = Traffic::of(TrafficKey {
        cluster: name("dc-a"),
        service: None,
    });
    traffic.weights = weights.iter().map(|(of, w)| (name(of), *w)).collect();
    if !order.is_empty() {
        let order = order.iter().map(|one| name(one)).collect();
        traffic.failover = Some(Failover::to(order));
    }
    traffic
}

/// Says where requests of the first centre go; how long it takes until all routers there have it.
async fn lead(site: &Site, traffic: &Traffic) -> Duration {
    let written = site
        .client()
        .put_traffic(traffic, Precondition::Any)
        .await
        .unwrap();
    let answered = Instant::now();
    for router in &site.routers[..2] {
        router.wait_applied(written.revision).await;
    }
    answered.elapsed()
}

/// A load on the routers of the first centre.
fn load(site: &Site, rate: f64, label: &str) -> Load {
    let mut plan = Plan::new(site.routers[0].traffic(), HOST, rate)
        .gets()
        .label(label);
    plan.targets.push(site.routers[1].traffic());
    plan.start()
}

/// How many requests the first centre's routers have sent to each centre.
async fn went(site: &Site) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for router in &site.routers[..2] {
        let to = CENTRES.map(|centre| format!("to=\"{centre}\""));
        let to = to.each_ref().map(String::as_str);
        let counts = router.metrics("cardea_router_cluster_requests_total", to);
        for (sum, count) in sums.iter_mut().zip(counts.await) {
            *sum += count;
        }
    }
    sums
}

/// Where the next requests go, at least so many, in percent.
async fn shares(site: &Site, load: &Load, requests: u64) -> [f64; 3] {
    let before = went(site).await;
    load.pass(requests, SOON).await;
    let after = went(site).await;
    let sum: f64 = after.iter().sum::<f64>() - before.iter().sum::<f64>();
    [0, 1, 2].map(|at| (after[at] - before[at]) * 100.0 / sum)
}

fn off(shares: [f64; 3], wanted: [u8; 3]) -> f64 {
    let off = shares
        .iter()
        .zip(wanted)
        .map(|(share, wanted)| (share - f64::from(wanted)).abs());
    off.fold(0.0, f64::max)
}

/// The first centre is named, and all the others are followed.
async fn acquainted(site: &Site, load: &Load) {
    let even = traffic(&[("dc-a", 34), ("dc-b", 33), ("dc-c", 33)], &[]);
    lead(site, &even).await;
    wait::until_ok("all centres are known", SOON, || async {
        let shares = shares(site, load, 300).await;
        if shares.iter().all(|share| *share > 20.0) {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn weights_move_2000_requests_a_second_without_one_failing() {
    let _machine = gate::shared().await;
    let site = centres("clusters-weights", 3).await;
    let background = load(&site, 2000.0, "background");
    background.pass(500, SOON).await;
    acquainted(&site, &background).await;
    let steps: [[u8; 3]; 6] = [
        [90, 10, 0],
        [50, 50, 0],
        [20, 30, 50],
        [0, 100, 0],
        [0, 0, 100],
        [100, 0, 0],
    ];
    for weights in steps {
        let named: Vec<(&str, u8)> = CENTRES.into_iter().zip(weights).collect();
        let took = lead(&site, &traffic(&named, &[])).await;
        let shares = shares(&site, &background, 1000).await;
        println!("{weights:?}: {shares:.2?} %, at all routers after {took:.1?}");
        assert!(took < MOVED, "{took:?}");
        assert!(off(shares, weights) <= 1.0, "{shares:?}");
    }
    let report = background.stop().await;
    println!("{report}");
    report.assert_clean();
}

/// How many requests are made that last until the first centre is dead.
const UNDER_WAY: usize = 20;

/// How often the first centre's routers have tried again.
async fn retries(site: &Site) -> f64 {
    let mut sum = 0.0;
    for router in &site.routers[..2] {
        let count = router.metric("cardea_router_retries_total", "").await;
        sum += count.unwrap_or_default();
    }
    sum
}

/// Requests that the first centre's instances have right now.
async fn in_flight(site: &Site) -> f64 {
    let mut sum = 0.0;
    for router in &site.routers[..2] {
        let answer = router.admin_get("/v1/peers?service=shop").await;
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        for peer in told["peers"].as_array().into_iter().flatten() {
            sum += peer["in_flight"].as_f64().unwrap_or_default();
        }
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_data_centre_is_left_within_2_s_and_comes_back_bit_by_bit() {
    let _machine = gate::shared().await;
    let mut site = centres("clusters-dead", 2).await;
    let background = load(&site, 2000.0, "background");
    background.pass(500, SOON).await;
    lead(&site, &traffic(&[("dc-a", 100), ("dc-b", 0)], &["dc-b"])).await;
    // Those of the other centre are known before it is needed.
    let client = site.client();
    wait::until_ok("the routers follow the other centre", SOON, || async {
        let following = client.routers(Some(&name("dc-b"))).await.unwrap().items;
        let visitors = following
            .iter()
            .filter(|router| router.id.starts_with("dc-a/"))
            .count();
        if visitors == 2 {
            Ok(())
        } else {
            Err(format!("{following:?}"))
        }
    })
    .await;
    assert!(off(shares(&site, &background, 500).await, [100, 0, 0]) < 0.1);

    // Requests that will be under way when it dies: they are answered by the other one.
    let retried = retries(&site).await;
    let under_way: Vec<_> = (0..UNDER_WAY)
        .map(|at| {
            let router = site.routers[at % 2].traffic();
            tokio::spawn(http1::get(router, HOST, "/slow?ms=3000"))
        })
        .collect();
    wait::until_ok("they are under way", SOON, || async {
        let in_flight = in_flight(&site).await;
        if in_flight >= UNDER_WAY as f64 {
            Ok(())
        } else {
            Err(format!("{in_flight}"))
        }
    })
    .await;
    for agent in &mut site.agents[..2] {
        agent.kill();
    }
    let died = Instant::now();
    let all_moved = wait::until_ok("all requests go to the other centre", SOON, || async {
        let shares = shares(&site, &background, 200).await;
        if off(shares, [0, 100, 0]) < 1.0 {
            Ok(died.elapsed())
        } else {
            Err(format!("{shares:?}"))
        }
    })
    .await;
    println!(
        "moved after {all_moved:.1?}, {} failed",
        background.failed()
    );
    assert!(all_moved < MOVED);
    for answer in under_way {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, 200);
        let by = answer.text();
        assert!(by.starts_with("shop-3") || by.starts_with("shop-4"), "{by}");
    }
    let retried = retries(&site).await - retried;
    println!("{UNDER_WAY} that were under way were answered by the other one; {retried} retries");
    assert!(retried >= UNDER_WAY as f64 / 2.0, "{retried}");

    for agent in &mut site.agents[..2] {
        agent.resume();
    }
    // From the first request that a router sends there again.
    let mut steps: Vec<f64> = Vec::new();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_mins(1), "{steps:.1?}");
        let share = shares(&site, &background, 400).await[0];
        if share > 1.0 {
            steps.push(share);
        }
        if share > 99.0 {
            break;
        }
    }
    println!("back: {steps:.0?} %");
    assert!(steps[0] < 50.0, "bit by bit: {steps:?}");
    assert!(
        steps.iter().filter(|share| **share < 90.0).count() >= 5,
        "{steps:?}"
    );
    let report = background.stop().await;
    println!("{report}");
    report.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_sides_serve_while_one_side_s_registry_is_gone_and_agree_after() {
    let _machine = gate::shared().await;
    let mut site = centres("clusters-registry", 2).await;
    let background = load(&site, 500.0, "background");
    acquainted_two(&site, &background).await;
    // Nobody can be told anything: the one database is there, but no registry.
    for registry in &mut site.registries {
        registry.kill();
    }
    let half = shares(&site, &background, 1000).await;
    assert!(off(half, [50, 50, 0]) <= 1.0, "{half:?}");
    site.registries[1].resume().await;
    let took = lead_by(&site, 1, &traffic(&[("dc-a", 20), ("dc-b", 80)], &[])).await;
    let moved = shares(&site, &background, 1000).await;
    println!("by the other registry after {took:.1?}: {moved:.2?} %");
    assert!(off(moved, [20, 80, 0]) <= 1.0, "{moved:?}");
    site.registries[0].resume().await;
    lead_by(&site, 0, &traffic(&[("dc-a", 70), ("dc-b", 30)], &[])).await;
    let agreed = shares(&site, &background, 1000).await;
    assert!(off(agreed, [70, 30, 0]) <= 1.0, "{agreed:?}");
    background.stop().await.assert_clean();
}

async fn acquainted_two(site: &Site, load: &Load) {
    lead(site, &traffic(&[("dc-a", 50), ("dc-b", 50)], &[])).await;
    wait::until_ok("both centres are known", SOON, || async {
        let shares = shares(site, load, 100).await;
        if shares[1] > 20.0 {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    })
    .await;
}

async fn lead_by(site: &Site, registry: usize, traffic: &Traffic) -> Duration {
    let client = site.registries[registry].client();
    let written = client
        .put_traffic(traffic, Precondition::Any)
        .await
        .unwrap();
    let answered = Instant::now();
    for router in &site.routers[..2] {
        router.wait_applied(written.revision).await;
    }
    answered.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn websockets_stay_where_they_are_when_weights_move() {
    let _machine = gate::shared().await;
    let mut site = Site::empty("clusters-websocket");
    site.add_registry(|setup| setup).await;
    site.add_router(|setup| setup.cluster("dc-a")).await;
    site.route("chat.test", "chat", |_| {}).await;
    let mut backends = Vec::new();
    for centre in ["dc-a", "dc-b"] {
        let backend = Backend::start(centre).await;
        register(&site.client(), centre, "chat", centre, backend.address()).await;
        backends.push(backend);
    }
    serves(&site.routers[0], "chat.test").await;
    let at = site.routers[0].traffic();
    let (mut old, own) = tokio::task::spawn_blocking(move || open(at)).await.unwrap();
    assert_eq!(own, "dc-a");
    let moved = traffic(&[("dc-a", 0), ("dc-b", 100)], &[]);
    let written = site
        .client()
        .put_traffic(&moved, Precondition::Any)
        .await
        .unwrap();
    site.routers[0].wait_applied(written.revision).await;
    let new = wait::until_ok("new ones go to the other centre", SOON, || async {
        let (socket, own) = tokio::task::spawn_blocking(move || open(at)).await.unwrap();
        if own == "dc-b" { Ok(socket) } else { Err(own) }
    })
    .await;
    for second in ["one", "two", "three"] {
        wait::pass(Duration::from_secs(1)).await;
        assert_eq!(echo(&mut old, second).unwrap(), format!("dc-a {second}"));
    }
    drop(new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_router_that_is_replaced_knows_the_other_centre_from_the_first_request_on() {
    let _machine = gate::shared().await;
    let mut site = centres("clusters-upgrade", 2).await;
    let background = load(&site, 500.0, "background");
    acquainted_two(&site, &background).await;
    lead(&site, &traffic(&[("dc-a", 0), ("dc-b", 100)], &[])).await;
    for agent in &mut site.agents[..2] {
        let left = agent.stop().await;
        assert!(left.success());
    }
    let mut before = Vec::new();
    for _ in 0..3 {
        before.push(site.routers[0].upgrade(&[]).await);
        background.pass(200, SOON).await;
    }
    // It is waited for, under its own name, when an instance of the other centre goes.
    let agent = &site.agents[3];
    let gone = site
        .client()
        .deregister(&agent.key(), Span::secs(8))
        .await
        .unwrap();
    assert!(gone.pending.is_empty(), "{gone:?}");
    let by = |id: &str| gone.acknowledged.iter().any(|one| one == id);
    assert!(
        by("dc-a/router-1") && by("dc-a/router-2") && by("router-3"),
        "{gone:?}"
    );
    background.pass(200, SOON).await;
    background.stop().await.assert_clean();
    // And from its copy on disk, with no registry at all.
    for registry in &mut site.registries {
        registry.kill();
    }
    site.routers[1].kill();
    site.routers[1].resume().await;
    let answer = site.routers[1].get(HOST, "/echo").await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(
        text.starts_with("shop-3") || text.starts_with("shop-4"),
        "{text}"
    );
    for mut process in before {
        process.wait_end(SOON).await;
    }
}
