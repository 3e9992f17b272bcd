//! Instances that go and come in good order, under load.

use std::time::{Duration, Instant};

use cardea_tests::{
    load::{Plan, check_posts},
    site::{SOON, Site},
};

use crate::gate;

const INSTANCES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_redeploy_of_ten_instances_at_2000_requests_a_second() {
    let _machine = gate::alone().await;
    let mut site = Site::on_postgres("redeploy", 1, 1).await;
    site.route("shop.test", "shop", |_| {}).await;
    site.add_agents("shop", INSTANCES).await;
    site.settled().await;

    let traffic = site.routers[0].traffic();
    let load = Plan::new(traffic, "shop.test", 2000.0)
        .connections(64)
        .label("redeploy")
        .start();
    load.pass(4000, SOON).await;
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for old in 0..INSTANCES {
        let one = Instant::now();
        let status = site.agents[old].stop().await;
        assert!(
            status.success(),
            "{} ended with {status}",
            site.agents[old].name()
        );
        site.agents[old].assert_left_before_its_process_ended();
        slowest = slowest.max(one.elapsed());
        site.add_agent("shop", |setup| setup).await;
        load.pass(1000, SOON).await;
    }
    let took = begun.elapsed();
    site.settled().await;
    load.pass(4000, SOON).await;
    let report = load.stop().await;
    println!(
        "{report}\n{INSTANCES} instances replaced in {:.1} s; TERM to the end of agent and instance at most {:.0} ms",
        took.as_secs_f64(),
        slowest.as_secs_f64() * 1000.0
    );
    report.assert_clean();
    check_posts(&report, &site.records());
    for agent in &site.agents {
        assert!(
            report.instances.contains_key(agent.name()),
            "{} never answered",
            agent.name()
        );
    }
}
