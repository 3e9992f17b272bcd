//! Instances that live but do not serve: out of rotation quickly, and back by themselves.

use std::time::{Duration, Instant};

use cardea_registry_api::Span;
use cardea_tests::{
    backend::{Backend, Mode},
    load::Plan,
    site::{Router, SOON, Site},
    wait,
};

use crate::gate;

/// What the issue allows: so many requests, or so long.
const REQUESTS: u64 = 5;
const TIME: Duration = Duration::from_secs(2);

async fn case(name: &str, mode: Mode) {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite(name).await;
    site.add_router(|setup| setup).await;
    site.route("sick.test", "sick", |service| {
        service.timeouts.first_byte = Span::millis(400);
        service.health.fail_timeout = Span::secs(1);
        service.health.statuses.push(500);
        service.retries.statuses.push(500);
    })
    .await;
    let mut backends = Vec::new();
    for id in ["good-1", "good-2", "bad"] {
        let backend = Backend::start(id).await;
        site.register("sick", id, backend.address()).await;
        backends.push(backend);
    }
    site.settled().await;
    let bad = backends.pop().unwrap();

    for router in &site.routers {
        let load = Plan::new(router.traffic(), "sick.test", 200.0)
            .gets()
            .label(name)
            .start();
        load.pass(200, SOON).await;
        let before = bad.state().stats().requests;
        assert!(before > 0, "the instance was never in rotation");

        let begun = Instant::now();
        bad.state().set_mode(mode);
        wait::until("the peer is marked", SOON, || async {
            is_down(router).await.then_some(())
        })
        .await;
        let out = begun.elapsed();
        let cost = bad.state().stats().requests - before;
        assert!(
            cost <= REQUESTS || out <= TIME,
            "out after {cost} requests and {out:?}"
        );

        load.pass(400, SOON).await;
        let healed = Instant::now();
        bad.state().set_mode(Mode::Ok);
        let sick = bad.state().stats().requests;
        wait::until("the peer is back", SOON, || async {
            (!is_down(router).await).then_some(())
        })
        .await;
        let back = healed.elapsed();
        wait::until_true("it serves again", SOON, || {
            bad.state().stats().requests > sick + 10
        })
        .await;
        let report = load.stop().await;
        println!(
            "{report}\n{mode} at {}: out after {cost} requests and {:.0} ms; back {:.0} ms after it healed",
            router.name(),
            out.as_secs_f64() * 1000.0,
            back.as_secs_f64() * 1000.0
        );
        report.assert_clean();
    }
}

async fn is_down(router: &Router) -> bool {
    let healthy = router.metric("cardea_router_peer_healthy", "bad").await;
    healthy == Some(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_never_answers_is_out_quickly_and_comes_back() {
    case("hang", Mode::Hang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_answers_500_is_out_quickly_and_comes_back() {
    case("status", Mode::Status(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_resets_is_out_quickly_and_comes_back() {
    case("reset", Mode::Reset).await;
}
