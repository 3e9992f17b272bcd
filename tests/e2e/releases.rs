//! Releases over real processes: a faulty version goes back, a clean one goes to its end whoever dies, and
//! people have the last word.

use std::time::{Duration, Instant};

use cardea_registry_api::{
    Name, Plugin, ReleasePlan, Span,
    api::Registration,
    client::Precondition,
    release::{Happened, ReleaseInfo, ReleaseState},
};
use cardea_tests::{
    backend::{Backend, Mode},
    load::{Load, Plan},
    site::{CLUSTER, Router, SOON, Site, address_of, key, name},
    wait,
};

use crate::{
    gate,
    plugins::{ctl, ok},
};

mod away;
mod experiments;
mod gone;
mod orders;
mod recording;

const HOST: &str = "shop.test";
/// The promise: a faulty version is back within this time.
const BACK: Duration = Duration::from_secs(30);
/// Figures come each 5 s; what waits for several of them.
const LONG: Duration = Duration::from_mins(2);

/// The service `shop` with an instance of version 1 and one of version 2, which is the group `v2`.
struct Shop {
    site: Site,
    old: Backend,
    new: Backend,
}

impl Shop {
    async fn start(site: Site) -> Self {
        let (old, new) = (Backend::start("old").await, Backend::start("new").await);
        let groups = serde_json::json!({"v2": {"version": "2"}});
        site.route(HOST, "shop", |service| {
            service.groups = serde_json::from_value(groups).unwrap();
        })
        .await;
        for (backend, version) in [(&old, "1"), (&new, "2")] {
            let registration = Registration {
                version: version.to_owned(),
                source: cardea_registry_api::Source::Manual,
                lease: None,
                ..Registration::at(address_of(backend.address()))
            };
            let key = key(CLUSTER, "shop", &format!("v{version}"));
            site.client().register(&key, &registration).await.unwrap();
        }
        site.settled().await;
        Self { site, old, new }
    }

    fn load(&self, rate: f64) -> Load {
        let mut plan = Plan::new(self.site.routers[0].traffic(), HOST, rate).gets();
        plan.targets = self.site.routers.iter().map(Router::traffic).collect();
        plan.start()
    }

    async fn begin(&self, plan: &ReleasePlan) -> Name {
        let answer = self.site.client().begin_release(plan, false).await.unwrap();
        answer.release.unwrap().release.id
    }

    async fn see(&self, id: &Name) -> ReleaseInfo {
        self.site.client().release(id).await.unwrap()
    }

    /// Waits until a release is so.
    async fn wait(&self, id: &Name, what: &str, is: impl Fn(&ReleaseInfo) -> bool) -> ReleaseInfo {
        wait::until_ok(what, LONG, || async {
            let info = self
                .site
                .client()
                .release(id)
                .await
                .map_err(|e| e.to_string())?;
            if is(&info) {
                Ok(info)
            } else {
                Err(format!("{info:?}"))
            }
        })
        .await
    }

    /// Waits until routers have the plugins as they are; releases themselves are not told to them.
    async fn applied(&self) {
        let plugins = self.site.client().all_plugins().await.unwrap();
        let revision = plugins.iter().map(|plugin| plugin.revision).max().unwrap();
        for router in &self.site.routers {
            router.wait_applied(revision).await;
        }
    }

    /// Who answers how many of some requests, once routers have the plugins as they are.
    async fn answered(&self, requests: u64) -> (u64, u64) {
        self.applied().await;
        let before = (
            self.old.state().stats().requests,
            self.new.state().stats().requests,
        );
        let load = self.load(400.0);
        load.pass(requests, SOON * 3).await;
        load.stop().await;
        let after = (
            self.old.state().stats().requests,
            self.new.state().stats().requests,
        );
        (after.0 - before.0, after.1 - before.1)
    }
}

fn plan(steps: &[&str]) -> ReleasePlan {
    let mut plan = ReleasePlan::of(name("shop"), name("v2"), "a test");
    plan.steps = steps.iter().map(|step| step.parse().unwrap()).collect();
    plan
}

fn state(info: &ReleaseInfo) -> ReleaseState {
    info.release.state
}

/// With every default, from the start's answer to the state that says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_with_two_points_more_errors_is_back_within_30_seconds() {
    let _machine = gate::alone().await;
    let shop = Shop::start(Site::on_sqlite("release-faulty").await).await;
    shop.new.state().set_mode(Mode::Failing(20));
    // Nobody has asked yet: the rule is there before the first request.
    let id = shop.begin(&plan(&[])).await;
    let load = shop.load(200.0);
    let begun = Instant::now();
    let over = shop
        .wait(&id, "it is back", |info| state(info).is_over())
        .await;
    let took = begun.elapsed();
    println!("back after {took:?}: {:?}", over.release.why);
    assert_eq!(state(&over), ReleaseState::RolledBack);
    assert!(took < BACK, "{took:?}");
    let why = over.release.why.unwrap();
    assert!(why.starts_with("`v2` has more errors at 25 %"), "{why}");
    let report = load.stop().await;
    println!("{report}");
    // Nobody is at the candidate any more: neither by the rule, nor like other instances.
    let (old, new) = shop.answered(400).await;
    assert!(old >= 400);
    assert_eq!(new, 0);
}

/// Two replicas and two routers; the one that drives is killed in the middle of a step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_version_goes_to_its_end_though_the_driver_is_killed_and_no_request_fails() {
    let _machine = gate::shared().await;
    let mut shop = Shop::start(Site::on_postgres("release-clean", 2, 2).await).await;
    let id = shop.begin(&plan(&["25:10s", "50:10s", "100:0s"])).await;
    let load = shop.load(200.0);
    let at = |step| move |info: &ReleaseInfo| info.release.step >= step;
    shop.wait(&id, "the second step", at(1)).await;
    let postgres = shop.site.postgres.as_ref().unwrap();
    let holder = postgres
        .texts("SELECT holder FROM jobs WHERE name = 'operations'")
        .await;
    println!("driven by {holder:?}");
    let replicas = &mut shop.site.registries;
    let driver =
        (0..replicas.len()).find(|at| holder[0].starts_with(&format!("registry-{}", at + 1)));
    let driver = driver.unwrap_or_else(|| panic!("{holder:?}"));
    replicas[driver].kill();
    let over = shop
        .wait(&id, "its end", |info| state(info).is_over())
        .await;
    assert_eq!(state(&over), ReleaseState::Finished, "{over:?}");
    let what: Vec<Happened> = over.release.events.iter().map(|event| event.what).collect();
    assert_eq!(
        what,
        [
            Happened::Started,
            Happened::Promoted,
            Happened::Promoted,
            Happened::Finished
        ],
        "each step once"
    );
    // Nobody is at the baseline any more.
    let (old, new) = shop.answered(400).await;
    assert_eq!(old, 0);
    assert!(new >= 400);
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
}

/// The only registry is killed in the middle of a step, and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sides_change_all_at_once_and_a_restart_forgets_nothing() {
    let _machine = gate::shared().await;
    let mut shop = Shop::start(Site::on_sqlite("release-sides").await).await;
    let mut sides = plan(&["100:15s"]);
    sides.blue_green = Some(cardea_registry_api::release::BySide {});
    let load = shop.load(100.0);
    load.pass(300, SOON).await;
    let id = shop.begin(&sides).await;
    shop.applied().await;
    shop.site.registries[0].kill();
    load.pass(200, SOON).await;
    shop.site.registries[0].resume().await;
    let stands = shop.see(&id).await;
    assert_eq!(
        (state(&stands), stands.release.step),
        (ReleaseState::Running, 0)
    );
    let over = shop
        .wait(&id, "its end", |info| state(info).is_over())
        .await;
    assert_eq!(state(&over), ReleaseState::Finished, "{over:?}");
    let (old, new) = shop.answered(200).await;
    assert_eq!(old, 0);
    assert!(new >= 200);
    // It is over, and can go back all the same.
    let back = ctl(&shop.site, &["release", "rollback", id.as_str(), "--yes"]);
    assert!(back.status.success(), "{back:?}");
    let (old, new) = shop.answered(200).await;
    assert!(old >= 200);
    assert_eq!(new, 0);
    load.stop().await.assert_clean();
}
