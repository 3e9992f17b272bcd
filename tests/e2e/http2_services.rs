//! Services that are asked in HTTP/2, with TLS and without: from their definition in the registry to
//! real HTTP/2 servers, replaced one by one under load, and checked.

use cardea_registry_api::{
    Span,
    policy::{ActiveCheck, Protocol, UpstreamTls},
};
use cardea_tests::{
    backend::{Backend, Mode},
    load::Plan,
    site::{CLUSTER, SOON, Site, key},
    tls::Authority,
    wait,
};

use crate::gate;

const INSTANCES: usize = 4;
/// What the instances' certificate is for: their addresses are not in it.
const NAME: &str = "shop.internal";

async fn replaced_under_load(name: &str, protocol: Protocol) {
    let _machine = gate::shared().await;
    let site = Site::on_sqlite(name).await;
    let authority = Authority::new("ca");
    let pair = authority.sign(&[NAME]);
    let secure = protocol == Protocol::H2;
    let tls = secure.then(|| pair.server(&[b"h2"]));
    site.route("shop.test", "shop", |service| {
        service.protocol = protocol;
        service.tls = secure.then(|| UpstreamTls {
            ca: Some(authority.pem().as_str().into()),
            name: Some(NAME.to_owned()),
            ..UpstreamTls::default()
        });
        service.health.active = Some(ActiveCheck {
            path: Some("/healthz".to_owned()),
            interval: Span::millis(200),
            ..ActiveCheck::default()
        });
    })
    .await;
    let mut backends = Vec::new();
    for number in 0..INSTANCES {
        let id = format!("shop-{number}");
        let backend = Backend::speaking_http2(&id, tls.clone()).await;
        site.register("shop", &id, backend.address()).await;
        backends.push(backend);
    }
    site.settled().await;
    let router = &site.routers[0];

    let load = Plan::new(router.traffic(), "shop.test", 500.0).label(name);
    let load = load.start();
    load.pass(500, SOON).await;
    for number in 0..INSTANCES {
        let id = format!("shop-{}", INSTANCES + number);
        let next = Backend::speaking_http2(&id, tls.clone()).await;
        site.register("shop", &id, next.address()).await;
        backends.push(next);
        let old = key(CLUSTER, "shop", &format!("shop-{number}"));
        let gone = site.client().deregister(&old, Span::secs(8)).await.unwrap();
        assert!(gone.pending.is_empty(), "{gone:?}");
        // Says goodbye to streams that are open, and ends.
        drop(backends.remove(0));
        load.pass(200, SOON).await;
    }
    load.pass(500, SOON).await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
    for number in 0..2 * INSTANCES {
        let id = format!("shop-{number}");
        assert!(report.instances.contains_key(&id), "{id} never answered");
    }
    let errors = router.metric("cardea_router_upstream_errors_total", "");
    assert_eq!(errors.await, None);

    // Checks ask in the same manner.
    for backend in &backends {
        assert!(backend.state().stats().probes > 0, "{backend:?}");
    }
    let sick = format!("{}\"", backends[0].state().name());
    let healthy = || router.metric("cardea_router_peer_healthy", &sick);
    assert_eq!(healthy().await, Some(1.0));
    for (mode, wanted) in [(Mode::Status(503), 0.0), (Mode::Ok, 1.0)] {
        backends[0].state().set_mode(mode);
        wait::until("the check says so", SOON, || async {
            (healthy().await == Some(wanted)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_speak_h2c_are_replaced_one_by_one_under_load() {
    replaced_under_load("h2c", Protocol::H2c).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_speak_h2_are_replaced_one_by_one_under_load() {
    replaced_under_load("h2", Protocol::H2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_contradicts_itself_is_refused_with_the_fix() {
    let _machine = gate::shared().await;
    let mut site = Site::empty("h2-wrong");
    site.add_registry(|setup| setup).await;
    for (protocol, tls, says) in [
        (Protocol::H2, None, "say with `tls` whom to trust"),
        (Protocol::H2c, Some(UpstreamTls::default()), "ask in `h2`"),
    ] {
        let mut service = cardea_registry_api::Service::named("shop".parse().unwrap());
        service.protocol = protocol;
        service.tls = tls;
        let request = cardea_registry_api::api::ApplyRequest {
            services: vec![service],
            ..Default::default()
        };
        let refused = site.client().apply(&request, false).await.unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("services[0].protocol") && text.contains(says),
            "{text}"
        );
    }
}
