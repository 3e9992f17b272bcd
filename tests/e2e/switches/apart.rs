//! The two sides lose sight of each other: the database is on one of them.

use cardea_registry_api::{
    Traffic,
    api::Mode,
    client::{Client, ClientError},
};
use cardea_tests::{
    proxy::Proxy,
    site::{Registry, RegistrySetup, RouterSetup},
};

use super::{commands::ctl_at, *};
use crate::gate;

/// How long they do.
const APART: Duration = Duration::from_mins(1);

fn traffic(centre: &str, weights: [u8; 2]) -> Traffic {
    let mut traffic = Traffic::of(centre.parse().unwrap());
    traffic.weights = [(name("dc-a"), weights[0]), (name("dc-b"), weights[1])].into();
    traffic
}

/// The share of the next requests of the far side's router that goes to the near side, in percent.
async fn crosses(site: &Site, load: &Load) -> f64 {
    let sent = async || {
        let name = "cardea_router_cluster_requests_total";
        let to = ["to=\"dc-a\"", "to=\"dc-b\""];
        site.routers[1].metrics(name, to).await
    };
    let before = sent().await;
    load.pass(200, SOON).await;
    let after = sent().await;
    let [a, b] = [0, 1].map(|at| after[at] - before[at]);
    a * 100.0 / (a + b)
}

/// Waits until so many percent of the far side's requests go to the near side.
async fn crossing(site: &Site, load: &Load, percent: f64) {
    let what = format!("{percent} % of the far side's requests cross");
    wait::until_ok(&what, SOON, || async {
        let share = crosses(site, load).await;
        if (share - percent).abs() <= 2.0 {
            Ok(())
        } else {
            Err(format!("{share}"))
        }
    })
    .await;
}

/// Waits until both registries have the same history and the same traffic.
async fn agreed(near: &Client, far: &Client) {
    wait::until_ok("both say the same", SOON, || async {
        let text = |error: ClientError| error.to_string();
        let one = near.all_traffic().await.map_err(text)?;
        let two = far.all_traffic().await.map_err(text)?;
        let here = near.status().await.map_err(text)?;
        let there = far.status().await.map_err(text)?;
        let same = (&here.epoch, here.revision) == (&there.epoch, there.revision);
        if one == two && same && there.mode == Mode::Ok && there.pending_changes == 0 {
            Ok(())
        } else {
            Err(format!("{here:?} {there:?}"))
        }
    })
    .await;
}

/// Each side's registry knows the database, the second one through something that can be cut; each side's
/// router asks its own registry only.
async fn sides() -> (Site, Proxy, Vec<Backend>) {
    let mut site = Site::on_postgres("switches-apart", 1, 0).await;
    let postgres = site.postgres.as_ref().unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await;
    let url = postgres.url_through(proxy.address().port());
    let setup = RegistrySetup::new("registry-2", Some(url));
    let far = Registry::start(setup, site.dir()).await;
    site.registries.push(far);
    let client = site.registries[0].client();
    for centre in ["dc-a", "dc-b"] {
        let cluster = Cluster::named(name(centre));
        client
            .put_cluster(&cluster, Precondition::None)
            .await
            .unwrap();
    }
    site.route(HOST, "shop", |_| {}).await;
    let mut backends = Vec::new();
    for (side, centre) in ["dc-a", "dc-b"].into_iter().enumerate() {
        let at = [site.registries[side].api()];
        let setup = RouterSetup::new(&format!("router-{centre}"), &at).cluster(centre);
        let router = Router::start(setup, site.dir()).await;
        site.routers.push(router);
        let backend = Backend::start(centre).await;
        register(&site, centre, "shop", &backend, None).await;
        backends.push(backend);
        // Both centres are named, and followed.
        let even = traffic(centre, [50, 50]);
        client.put_traffic(&even, Precondition::None).await.unwrap();
    }
    for router in &site.routers {
        serves(router, HOST).await;
    }
    (site, proxy, backends)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operators_on_both_sides_act_for_a_minute_apart_and_all_come_to_the_same() {
    let _machine = gate::shared().await;
    let (site, proxy, backends) = sides().await;
    let loads: Vec<Load> = (site.routers.iter())
        .map(|router| {
            Plan::new(router.traffic(), HOST, 200.0)
                .gets()
                .label(router.name())
                .start()
        })
        .collect();
    for load in &loads {
        wait::until_ok("each side knows both", SOON, || async {
            let share = share(&backends, load, 200).await;
            if (30.0..70.0).contains(&share) {
                Ok(())
            } else {
                Err(format!("{share}"))
            }
        })
        .await;
    }
    proxy.cut();
    let cut = Instant::now();
    let [near, far] = [0, 1].map(|side| site.registries[side].client());
    wait::until_ok("the far side notices", SOON, || async {
        let status = far.status().await.map_err(|e| e.to_string())?;
        if status.mode == Mode::DatabaseLost {
            Ok(())
        } else {
            Err(format!("{:?}", status.mode))
        }
    })
    .await;
    // An ordinary write waits for the database; one that is meant for this time does not.
    let stay = traffic("dc-b", [0, 100]);
    far.put_traffic(&stay, Precondition::Any).await.unwrap_err();
    let said = Instant::now();
    let words = [
        "switch",
        "start",
        "dc-b",
        "--to",
        "dc-a=0,dc-b=100",
        "--while-away",
        "--reason",
        "cut off",
    ];
    let dry = ctl_at(&site, 1, &[&words[..], &["--dry-run"]].concat());
    assert!(dry.contains("nothing was written"), "{dry}");
    let kept = ctl_at(&site, 1, &[&words[..], &["--yes"]].concat());
    println!("{kept}");
    assert!(
        kept.starts_with("traffic `dc-b` becomes dc-a=0 dc-b=100"),
        "{kept}"
    );
    crossing(&site, &loads[1], 0.0).await;
    let stays = said.elapsed();
    println!("the far side follows within {stays:.1?}");
    let refused = far
        .put_traffic_while_away(&traffic("dc-a", [0, 100]), "x")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("no router of `dc-a` asks this registry"),
        "{refused}"
    );
    // The near side has the database: it moves its own, and thinks of the other what it likes.
    near.put_traffic(&traffic("dc-a", [100, 0]), Precondition::Any)
        .await
        .unwrap();
    let own = traffic("dc-b", [20, 80]);
    near.put_traffic(&own, Precondition::Any).await.unwrap();
    assert_eq!(
        far.traffic(&"dc-b".parse().unwrap()).await.unwrap().object,
        stay
    );
    wait::pass(APART.saturating_sub(cut.elapsed())).await;
    assert!(loads.iter().all(|load| load.failed() == 0));
    proxy.mend();
    agreed(&near, &far).await;
    // What was changed where the database is holds.
    assert_eq!(
        far.traffic(&"dc-b".parse().unwrap()).await.unwrap().object,
        own
    );
    crossing(&site, &loads[1], 20.0).await;
    // Whoever said otherwise is told so, until somebody takes note.
    let status = ctl_at(&site, 1, &["get", "status"]);
    println!("{status}");
    assert!(
        status.contains("ALARM away_write_lost")
            && status.contains("what test-operator said of traffic `dc-b`"),
        "{status}"
    );
    assert!(!ctl_at(&site, 0, &["get", "status"]).contains("ALARM"));
    let noted = ctl_at(&site, 1, &["acknowledge", "away_write_lost", "--yes"]);
    assert!(noted.contains("alarms        none"), "{noted}");
    for load in loads {
        let report = load.stop().await;
        println!("{report}");
        report.assert_clean();
    }
}
