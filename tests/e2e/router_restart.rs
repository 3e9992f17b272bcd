//! A router that starts while the registry is dead.

use std::{
    fs::OpenOptions,
    time::{Duration, Instant},
};

use cardea_registry_api::api::{BulkRegistration, KeyedRegistration, Registration};
use cardea_tests::{
    backend::Backend,
    http1,
    load::Plan,
    site::{CLUSTER, Router, RouterSetup, SOON, Site, address_of, key},
    wait,
};

use crate::gate;

/// The router's newest file of its last table.
fn newest_copy(router: &Router) -> Option<std::path::PathBuf> {
    let mut files: Vec<_> = walk(&router.data_dir())
        .into_iter()
        .filter(|path| !path.to_string_lossy().contains("damaged"))
        .filter(|path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 1000))
        .collect();
    files.sort_by_key(|path| {
        std::fs::metadata(path)
            .and_then(|meta| meta.modified())
            .ok()
    });
    files.pop()
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Registers `count` instances of other services, 1000 at a time.
pub(crate) async fn fill(site: &Site, count: u32) {
    let client = site.client();
    let address = address_of("127.0.0.1:9".parse().unwrap());
    let all: Vec<KeyedRegistration> = (0..count)
        .map(|number| KeyedRegistration {
            key: key(
                CLUSTER,
                &format!("other-{:03}", number % 100),
                &format!("i-{number}"),
            ),
            registration: Registration {
                source: cardea_registry_api::Source::Manual,
                lease: None,
                ..Registration::at(address.clone())
            },
        })
        .collect();
    for part in all.chunks(1000) {
        let many = BulkRegistration {
            instances: part.to_vec(),
        };
        client.register_many(&many).await.expect("registrations");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_serves_from_its_disk_copy_when_the_registry_is_dead() {
    let _machine = gate::alone().await;
    let mut site = Site::on_sqlite("router-restart").await;
    site.route("shop.test", "shop", |_| {}).await;
    let backend = Backend::start("only").await;
    site.register("shop", "only", backend.address()).await;
    fill(&site, 10_000).await;
    site.settled().await;
    wait::until_true("the table is on disk", SOON, || {
        newest_copy(&site.routers[0])
            .and_then(|copy| std::fs::metadata(copy).ok())
            .is_some_and(|meta| meta.len() > 10_000)
    })
    .await;
    site.registries[0].kill();

    let traffic = site.routers[0].traffic();
    site.routers[0].stop().await;
    let begun = Instant::now();
    site.routers[0].spawn();
    wait::until("the router answers", SOON, || async {
        let answer = http1::get(traffic, "shop.test", "/").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    println!(
        "10,000 instances, registry dead: first answer {:.0} ms after the router's start",
        begun.elapsed().as_secs_f64() * 1000.0
    );
    site.routers[0].wait_ready(SOON).await;
    let ready = site.routers[0].admin_get("/readyz").await;
    assert!(ready.text().contains("degraded"), "{}", ready.text());
    let load = Plan::new(traffic, "shop.test", 200.0)
        .label("router-restart")
        .start();
    load.pass(400, SOON).await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();

    // The last bytes are cut off: the copy is set aside, the one before it is used.
    site.routers[0].kill();
    let copy = newest_copy(&site.routers[0]).expect("a disk copy");
    let length = std::fs::metadata(&copy).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&copy)
        .unwrap()
        .set_len(length - 20)
        .unwrap();
    site.routers[0].resume().await;
    assert_eq!(site.routers[0].get("shop.test", "/").await.status, 200);
    let names: Vec<String> = walk(&site.routers[0].data_dir())
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    assert!(
        names.iter().any(|name| name.contains(".damaged-")),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_without_any_table_is_not_ready_and_never_says_404() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("router-empty").await;
    site.route("shop.test", "shop", |_| {}).await;
    let backend = Backend::start("only").await;
    site.register("shop", "only", backend.address()).await;
    site.settled().await;
    site.registries[0].kill();

    let setup = RouterSetup::new("router-new", &site.registry_addresses());
    let mut router = Router::prepare(setup, site.dir());
    router.spawn();
    let (traffic, admin) = (router.traffic(), router.admin());
    wait::until("the admin port answers", SOON, || async {
        http1::get(admin, "localhost", "/healthz")
            .await
            .ok()
            .filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(router.admin_get("/readyz").await.status, 503);
    let mut asked = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        // Nobody listens, or 503: both say "not here, not now".
        if let Ok(answer) = http1::get(traffic, "shop.test", "/").await {
            assert_eq!(answer.status, 503, "{}", answer.text());
            asked += 1;
        }
    }
    site.registries[0].resume().await;
    router.wait_ready(SOON).await;
    assert_eq!(router.get("shop.test", "/").await.status, 200);
    assert_eq!(router.get("nobody.test", "/").await.status, 404);
    println!("{asked} requests to a router without a table: each 503");
}
