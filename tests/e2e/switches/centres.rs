//! More than two data centres, and centres that reach each other through their routers only.

use cardea_tests::site::RouterSetup;

use super::*;
use crate::gate;

const CENTRES: [&str; 3] = ["dc-a", "dc-b", "dc-c"];

/// So many data centres, each with a backend; the first one has two routers. `gateways`: the others are
/// reached through their router only, which trusts those of the first.
async fn some(test: &str, count: usize, gateways: bool) -> (Site, Vec<Backend>) {
    let mut site = Site::on_postgres(test, 2, 0).await;
    let client = site.client();
    for centre in &CENTRES[..count] {
        let cluster = Cluster::named(name(centre));
        let put = client.put_cluster(&cluster, Precondition::None).await;
        put.unwrap();
    }
    site.route(HOST, "shop", |_| {}).await;
    let trusts = |setup: RouterSetup| {
        if gateways {
            setup.flag("--trusted-proxies", "127.0.0.0/8")
        } else {
            setup
        }
    };
    for centre in ["dc-a"].into_iter().chain(CENTRES[..count].iter().copied()) {
        site.add_router(|setup| trusts(setup.cluster(centre))).await;
    }
    let mut backends = Vec::new();
    for (at, centre) in CENTRES[..count].iter().enumerate() {
        let backend = Backend::start(centre).await;
        register(&site, centre, "shop", &backend, None).await;
        backends.push(backend);
        if gateways && at > 0 {
            let mut cluster = Cluster::named(name(centre));
            cluster.gateway = vec![cardea_tests::site::address_of(
                site.routers[at + 1].traffic(),
            )];
            let put = client.put_cluster(&cluster, Precondition::Any).await;
            put.unwrap();
        }
    }
    for router in &site.routers {
        serves(router, HOST).await;
    }
    (site, backends)
}

/// Where the next requests are answered, in percent.
async fn shares(backends: &[Backend], load: &Load, requests: u64) -> Vec<f64> {
    let went = || -> Vec<f64> {
        let each = backends.iter().map(|one| one.state().stats().requests);
        each.map(|requests| requests as f64).collect()
    };
    let before = went();
    load.pass(requests, SOON).await;
    let new: Vec<f64> = went().iter().zip(before).map(|(a, b)| a - b).collect();
    let sum: f64 = new.iter().sum();
    new.iter().map(|one| one * 100.0 / sum).collect()
}

/// Stage by stage under load, each within a point; nothing fails; back at once.
async fn moves(site: &Site, backends: &[Backend], to: &[(&str, u8)], stages: [&[f64]; 3]) {
    let background = load(site, 2000.0);
    figures(site).await;
    let to = to.iter().map(|(of, share)| (name(of), *share)).collect();
    let mut asked = NewSwitch::new(name("dc-a"), None, to);
    asked.watch = Span::secs(5);
    "power".clone_into(&mut asked.reason);
    let id = begin(site, &asked).await;
    for (stage, wanted) in stages.into_iter().enumerate() {
        until(site, &id, "the stage is at all routers", |switch| {
            switch.stage == stage && switch.converged_at.is_some()
        })
        .await;
        let shares = shares(backends, &background, 2000).await;
        println!("stage {}: {shares:.2?} % of {wanted:?}", stage + 1);
        let off = shares
            .iter()
            .zip(wanted)
            .map(|(is, wanted)| (is - wanted).abs());
        assert!(off.fold(0.0, f64::max) <= 1.0, "{shares:?}");
    }
    until(site, &id, "it is done", |s| s.state == SwitchState::Done).await;
    let took = undo(site, &id).await;
    let back = shares(backends, &background, 1000).await;
    println!("undone at all routers after {took:.1?}: {back:.2?} %");
    assert!(took < MOVED, "{took:?}");
    assert!(back[0] > 99.99, "{back:?}");
    let report = background.stop().await;
    println!("{report}");
    report.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_centre_s_requests_go_to_two_others_in_stages() {
    let _machine = gate::shared().await;
    let (site, backends) = some("switches-three", 3, false).await;
    let to = [("dc-a", 0), ("dc-b", 60), ("dc-c", 40)];
    let stages: [&[f64]; 3] = [&[90.0, 6.0, 4.0], &[50.0, 30.0, 20.0], &[0.0, 60.0, 40.0]];
    moves(&site, &backends, &to, stages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_move_through_the_other_centre_s_routers() {
    let _machine = gate::shared().await;
    let (site, backends) = some("switches-gateways", 3, true).await;
    let to = [("dc-a", 0), ("dc-b", 70), ("dc-c", 30)];
    let stages: [&[f64]; 3] = [&[90.0, 7.0, 3.0], &[50.0, 35.0, 15.0], &[0.0, 70.0, 30.0]];
    moves(&site, &backends, &to, stages).await;
    // It was their routers that served: they count what came through them.
    for (at, centre) in [(2, "dc-b"), (3, "dc-c")] {
        let served = site.routers[at]
            .metric("cardea_router_requests_total", "code=\"200\"")
            .await
            .unwrap_or_default();
        println!("the router of {centre} has served {served}");
        assert!(served > 500.0, "{served}");
    }
}
