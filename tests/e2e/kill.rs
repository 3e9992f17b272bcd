//! Instances that die without a word, under load.

use cardea_tests::{
    load::{Plan, check_posts},
    process,
    site::{SOON, Site},
};
use nix::sys::signal::Signal;

use crate::gate;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_instances_cost_no_get_and_no_post_is_executed_twice() {
    let _machine = gate::alone().await;
    let mut site = Site::on_postgres("kill", 1, 2).await;
    site.route("shop.test", "shop", |_| {}).await;
    site.add_agents("shop", 7).await;
    site.settled().await;

    // Slow answers, so that each victim dies over requests that it has and has not answered: of them a
    // GET is asked again elsewhere, a POST never.
    let mut plan = Plan::new(site.routers[0].traffic(), "shop.test", 1000.0)
        .connections(128)
        .label("kill");
    "/slow?ms=50".clone_into(&mut plan.path);
    plan.targets = site
        .routers
        .iter()
        .map(cardea_tests::site::Router::traffic)
        .collect();
    let load = plan.start();
    load.pass(1000, SOON).await;
    // The instance alone: its agent sees it end.
    for victim in 0..3 {
        process::signal(site.agents[victim].instance_pid(), Signal::SIGKILL);
        let status = site.agents[victim].process().wait_end(SOON).await;
        assert_eq!(
            status.code(),
            Some(128 + 9),
            "the agent passes the end on: {status}"
        );
        load.pass(1000, SOON).await;
    }
    // Agent and instance at once, as when a machine dies: nobody tells the registry.
    for victim in 3..5 {
        site.agents[victim].kill();
        load.pass(1500, SOON).await;
    }
    let report = load.stop().await;
    let failed_posts = report.failed - report.failed_gets;
    println!(
        "{report}\n5 of 7 instances killed; {failed_posts} POSTs failed that may have been executed"
    );
    assert_eq!(report.failed_gets, 0, "{report}");
    check_posts(&report, &site.records());
}
