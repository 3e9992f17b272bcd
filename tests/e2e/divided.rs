//! A limit that is divided among the live routers of a cluster, with real ones that come and go under
//! ten times the load that it allows.

use std::time::{Duration, Instant};

use cardea_registry_api::{Plugin, client::Precondition};
use cardea_tests::{
    backend::Backend,
    load::Plan,
    site::{Router, SOON, Site},
    wait,
};
use serde_json::json;

use crate::gate;

/// What all routers together allow in a second.
const RATE: u32 = 90;
/// How long what gets through is counted.
const SPAN: Duration = Duration::from_secs(3);
/// A change is known within ten seconds, and counts in full after ten more.
const DEADLINE: Duration = Duration::from_mins(1);

/// What each of these routers lets through in a second.
async fn rates(site: &Site, routers: &[usize]) -> Vec<f64> {
    let mut begun = Vec::new();
    for at in routers {
        begun.push((Instant::now(), through(site, *at).await));
    }
    wait::pass(SPAN).await;
    let mut rates = Vec::new();
    for (at, (since, before)) in routers.iter().zip(begun) {
        let span = since.elapsed().as_secs_f64();
        rates.push((through(site, *at).await - before) / span);
    }
    rates
}

async fn through(site: &Site, router: usize) -> f64 {
    let name = "cardea_router_requests_total";
    let passed = site.routers[router].metric(name, "code=\"200\"").await;
    passed.unwrap_or(0.0)
}

/// Waits until each of these routers lets its part through, and all of them the whole.
async fn shared_among(site: &Site, routers: &[usize]) {
    let rate = f64::from(RATE);
    let part = rate / routers.len() as f64;
    let what = format!("{routers:?} share the limit");
    wait::until_ok(&what, DEADLINE, || async {
        let rates = rates(site, routers).await;
        let near = |rate: &f64, wanted: f64, by: f64| (rate / wanted - 1.0).abs() <= by;
        let sum: f64 = rates.iter().sum();
        let fine = rates.iter().all(|rate| near(rate, part, 0.1)) && near(&sum, rate, 0.05);
        let seen = format!("{sum:.1} of {RATE} a second: {rates:.1?}");
        if fine {
            println!("{what}: {seen}");
            return Ok(());
        }
        Err(seen)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_divided_limit_holds_over_routers_that_come_and_go() {
    let _machine = gate::alone().await;
    let mut site = Site::empty("divided");
    site.add_registry(|setup| setup.setting("routers.live = \"2s\""))
        .await;
    let backend = Backend::start("shop").await;
    for _ in 0..3 {
        site.add_router(|setup| setup).await;
    }
    site.route("shop.test", "shop", |_| {}).await;
    site.register("shop", "one", backend.address()).await;
    let limit: Plugin = serde_json::from_value(json!({"name": "fair", "route": "shop.test",
        "limit": {"rate": RATE, "burst": 9, "count": "divided"}}))
    .unwrap();
    let client = site.client();
    client.put_plugin(&limit, Precondition::Any).await.unwrap();
    site.settled().await;

    let mut plan = Plan::new(
        site.routers[0].traffic(),
        "shop.test",
        10.0 * f64::from(RATE),
    )
    .connections(30)
    .gets()
    .label("divided");
    plan.targets = site.routers.iter().map(Router::traffic).collect();
    let load = plan.start();
    load.pass(100, SOON).await;
    shared_among(&site, &[0, 1, 2]).await;
    // One dies: nobody says so, and it is live for a while.
    site.routers[2].kill();
    shared_among(&site, &[0, 1]).await;
    // One stops, and says so.
    site.routers[1].stop().await;
    shared_among(&site, &[0]).await;
    // Both are back: the others hear of it.
    site.routers[1].resume().await;
    site.routers[2].resume().await;
    shared_among(&site, &[0, 1, 2]).await;
    let report = load.stop().await;
    assert!(report.failed > 0, "{report:?}");
}
