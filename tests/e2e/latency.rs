//! How fast a change reaches the traffic.

use std::time::{Duration, Instant};

use cardea_registry_api::{Source, Span, api::Registration};
use cardea_tests::{
    backend::Backend,
    load::{Load, Plan, percentile},
    site::{CLUSTER, SOON, Site, address_of, key},
    wait,
};

use crate::{gate, router_restart::fill};

const ROUNDS: u32 = 200;

/// Microseconds from the answer to `register` until the first request is at the new instance, and
/// from the answer to `deregister` until the last one was; each ascending.
async fn rounds(site: &Site, load: &Load) -> (Vec<u32>, Vec<u32>) {
    let client = site.client();
    let (mut to_first, mut to_last) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let id = format!("new-{round}");
        let backend = Backend::start(&id).await;
        let key = key(CLUSTER, "shop", &id);
        let registration = Registration {
            weight: 1000,
            source: Source::Manual,
            lease: None,
            ..Registration::at(address_of(backend.address()))
        };
        client.register(&key, &registration).await.unwrap();
        let registered = Instant::now();
        wait::until_true("the new instance is used", SOON, || {
            backend.state().seen().is_some()
        })
        .await;
        let (first, _) = backend.state().seen().unwrap();
        to_first.push(micros(first.saturating_duration_since(registered)));

        let answer = client.deregister(&key, Span::secs(0)).await.unwrap();
        let deregistered = Instant::now();
        site.routers[0].wait_applied(answer.written.revision).await;
        load.pass(50, SOON).await;
        let (_, last) = backend.state().seen().unwrap();
        to_last.push(micros(last.saturating_duration_since(deregistered)));
    }
    to_first.sort_unstable();
    to_last.sort_unstable();
    (to_first, to_last)
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap()
}

fn shown(micros: &[u32]) -> String {
    let at = |per_mille| percentile(micros, per_mille) / 1000.0;
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(500),
        at(990),
        at(1000)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_is_used_and_a_deregistration_is_obeyed_within_milliseconds() {
    let _machine = gate::alone().await;
    let site = Site::on_postgres("latency", 1, 1).await;
    site.route("shop.test", "shop", |_| {}).await;
    let steady = Backend::start("steady").await;
    let key = key(CLUSTER, "shop", "steady");
    let registration = Registration {
        weight: 1,
        source: Source::Manual,
        lease: None,
        ..Registration::at(address_of(steady.address()))
    };
    site.client().register(&key, &registration).await.unwrap();
    site.settled().await;
    // A request is due each millisecond: that is how finely "first" and "last" are seen.
    let plan = Plan::new(site.routers[0].traffic(), "shop.test", 1000.0)
        .connections(8)
        .label("latency");
    let load = plan.start();
    for (others, aim) in [(0, 10), (10_000, 20)] {
        fill(&site, others).await;
        site.settled().await;
        let (to_first, to_last) = rounds(&site, &load).await;
        println!(
            "{ROUNDS} rounds with {others} other instances in the cluster (aim: p99 under {aim} ms):\n  \
             register's answer → first request: {}\n  deregister's answer → last request: {}",
            shown(&to_first),
            shown(&to_last)
        );
    }
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
}
