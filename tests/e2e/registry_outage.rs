//! The registry is gone: callers must not notice.

use std::time::Duration;

use cardea_registry_api::api::Mode;
use cardea_tests::{
    load::{Plan, check_posts},
    site::{SOON, Site},
    wait,
};

use crate::gate;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_killed_for_a_minute_and_then_its_database_too() {
    let _machine = gate::shared().await;
    let mut site = Site::on_postgres("registry-outage", 1, 1).await;
    site.route("shop.test", "shop", |_| {}).await;
    site.add_agents("shop", 3).await;
    site.settled().await;
    let traffic = site.routers[0].traffic();
    let load = Plan::new(traffic, "shop.test", 200.0)
        .label("registry-outage")
        .start();
    load.pass(200, SOON).await;

    site.registries[0].kill();
    wait::pass(Duration::from_mins(1)).await;
    assert_eq!(load.failed(), 0, "{}", load.report());
    site.registries[0].resume().await;
    site.registries[0].wait_mode(Mode::Ok, SOON).await;
    // It goes on as if nothing had been: instances come and go.
    site.add_agent("shop", |setup| setup).await;
    assert!(site.agents[0].stop().await.success());
    site.settled().await;
    load.pass(400, SOON).await;
    // All leases were over when it came back: nobody could have renewed his.
    site.assert_none_expired().await;
    site.registries[0]
        .client()
        .write_snapshot()
        .await
        .expect("a snapshot");

    site.registries[0].kill();
    site.postgres.as_mut().unwrap().stop_immediate().await;
    wait::pass(Duration::from_secs(20)).await;
    // Its database stays away: it serves from its disk snapshot and takes registrations.
    site.registries[0].resume().await;
    let status = site.registries[0].wait_mode(Mode::DatabaseLost, SOON).await;
    assert_eq!(status.started_from, "snapshot");
    site.add_agent("shop", |setup| setup).await;
    let newest = site.agents.last().unwrap().name().to_owned();
    assert!(site.agents[1].stop().await.success());
    wait::pass(Duration::from_secs(10)).await;
    let served = load.report();
    assert!(
        served.instances.contains_key(&newest),
        "{newest} never answered: {served}"
    );

    site.postgres.as_mut().unwrap().resume().await;
    let status = site.registries[0].wait_mode(Mode::Ok, SOON).await;
    assert!(status.alarms.is_empty(), "{:?}", status.alarms);
    site.settled().await;
    load.pass(400, SOON).await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
    check_posts(&report, &site.records());
    let rows = site
        .postgres
        .as_ref()
        .unwrap()
        .number("SELECT count(*) FROM instances")
        .await;
    assert_eq!(rows, 3, "instances in the database");
    site.assert_none_expired().await;
}
