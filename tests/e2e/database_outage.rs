//! PostgreSQL is gone, frozen or emptied: callers must not notice, and nothing accepted is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Service, Span,
    api::{HistoryDecision, Keep, Mode},
    client::{Client, InstanceQuery, Precondition},
    problem::Code,
};
use cardea_tests::{
    backend::Backend,
    load::{Plan, Report},
    site::{CLUSTER, SOON, Site, address_of, key, name},
    wait,
};

use crate::gate;

const HOST: &str = "shop.test";
const SERVICE: &str = "shop";

/// Instances that the test registers and deregisters by the API, with their backends.
struct Crowd {
    backends: BTreeMap<String, Backend>,
    gone: Vec<Backend>,
    next: u32,
    slowest: Duration,
}

impl Crowd {
    async fn new(client: &Client, count: u32) -> Self {
        let mut crowd = Self {
            backends: BTreeMap::new(),
            gone: Vec::new(),
            next: 0,
            slowest: Duration::ZERO,
        };
        for _ in 0..count {
            crowd.come(client).await;
        }
        crowd
    }

    /// A new instance; asks again until the registry has accepted it.
    async fn come(&mut self, client: &Client) {
        let id = format!("crowd-{:03}", self.next);
        self.next += 1;
        let backend = Backend::start(&id).await;
        let registration = cardea_registry_api::api::Registration {
            lease: Some(Span::secs(600)),
            ..cardea_registry_api::api::Registration::at(address_of(backend.address()))
        };
        let begun = Instant::now();
        wait::until_ok("a registration is accepted", SOON, || async {
            let written = client
                .register(&key(CLUSTER, SERVICE, &id), &registration)
                .await;
            written.map_err(|e| e.to_string())
        })
        .await;
        self.slowest = self.slowest.max(begun.elapsed());
        self.backends.insert(id, backend);
    }

    /// The oldest one goes, as its agent would take it out: deregistered, waited for, stopped.
    async fn go(&mut self, client: &Client) {
        let (id, backend) = self.backends.pop_first().expect("somebody is there");
        let done = wait::until_ok("a deregistration is accepted", SOON, || async {
            let answer = client
                .deregister(&key(CLUSTER, SERVICE, &id), Span::secs(8))
                .await;
            answer.map_err(|e| e.to_string())
        })
        .await;
        assert!(done.pending.is_empty(), "not let go by {:?}", done.pending);
        // Kept running, so that a request that comes too late is seen, not refused.
        self.gone.push(backend);
    }

    fn ids(&self) -> BTreeSet<String> {
        self.backends.keys().cloned().collect()
    }
}

/// Configuration is read-only meanwhile, and says when to ask again.
async fn refuses_configuration(client: &Client) {
    let service = Service::named(name("later"));
    let error = client
        .put_service(&service, Precondition::None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable), "{error}");
    assert!(error.retry_after().is_some(), "no Retry-After");
}

/// Database, registry and routers have the same instances.
async fn all_agree(site: &Site, expected: &BTreeSet<String>) {
    let postgres = site.postgres.as_ref().unwrap();
    let keys = postgres
        .texts("SELECT key FROM instances WHERE key LIKE 'default/shop/%'")
        .await;
    let in_database: BTreeSet<String> = keys
        .iter()
        .filter_map(|key| key.rsplit('/').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(&in_database, expected, "the database");
    for registry in &site.registries {
        let query = InstanceQuery {
            service: Some(name(SERVICE)),
            ..InstanceQuery::default()
        };
        let found = registry.client().all_instances(query).await.unwrap();
        let in_registry: BTreeSet<String> = found
            .into_iter()
            .map(|found| found.object.id.to_string())
            .collect();
        assert_eq!(&in_registry, expected, "the registry");
    }
    site.settled().await;
    for router in &site.routers {
        let load = Plan::new(router.traffic(), HOST, 500.0)
            .gets()
            .label("agreement")
            .start();
        load.pass(expected.len() as u64 * 20, SOON).await;
        let report = load.stop().await;
        report.assert_clean();
        let in_router: BTreeSet<String> = report.instances.into_keys().collect();
        assert_eq!(&in_router, expected, "the router");
    }
}

/// Comes and goes for a while, then mends the database, and compares.
async fn outage(site: &mut Site, span: Duration, thaw: bool) -> (Report, Duration) {
    let client = site.client();
    let mut crowd = Crowd::new(&client, 6).await;
    site.add_agents(SERVICE, 2).await;
    site.settled().await;
    let load = Plan::new(site.routers[0].traffic(), HOST, 200.0)
        .label("database-outage")
        .start();
    load.pass(200, SOON).await;

    let begun = Instant::now();
    if thaw {
        site.postgres.as_ref().unwrap().freeze().await;
    } else {
        site.postgres.as_mut().unwrap().stop_immediate().await;
    }
    crowd.slowest = Duration::ZERO;
    crowd.come(&client).await;
    site.registries[0].wait_mode(Mode::DatabaseLost, SOON).await;
    refuses_configuration(&client).await;
    let mut rounds = 0;
    while begun.elapsed() < span {
        crowd.come(&client).await;
        crowd.go(&client).await;
        rounds += 1;
        wait::pass(Duration::from_secs(2)).await;
    }
    // An agent stops meanwhile, and another one starts.
    assert!(site.agents[0].stop().await.success());
    let newcomer = site
        .add_agent(SERVICE, |setup| setup)
        .await
        .name()
        .to_owned();

    if thaw {
        site.postgres.as_ref().unwrap().thaw();
    } else {
        site.postgres.as_mut().unwrap().resume().await;
    }
    let mended = Instant::now();
    let status = site.registries[0].wait_mode(Mode::Ok, SOON).await;
    println!(
        "{rounds} instances came and {rounds} went during {:.0} s without the database; slowest \
         registration {:.0} ms; all written {:.0} ms after it was back",
        begun.elapsed().as_secs_f64(),
        crowd.slowest.as_secs_f64() * 1000.0,
        mended.elapsed().as_secs_f64() * 1000.0
    );
    assert!(status.alarms.is_empty(), "{:?}", status.alarms);
    site.assert_none_expired().await;
    let mut expected = crowd.ids();
    expected.insert(site.agents[1].name().to_owned());
    expected.insert(newcomer);
    all_agree(site, &expected).await;
    crowd.come(&client).await;
    crowd.go(&client).await;
    site.settled().await;
    (load.stop().await, crowd.slowest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_for_a_minute_while_instances_come_and_go() {
    let _machine = gate::shared().await;
    let mut site = Site::on_postgres("postgres-stopped", 1, 1).await;
    site.route(HOST, SERVICE, |_| {}).await;
    let (report, _) = outage(&mut site, Duration::from_mins(1), false).await;
    println!("{report}");
    report.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_frozen_for_half_a_minute_while_instances_come_and_go() {
    let _machine = gate::shared().await;
    let mut site = Site::on_postgres("postgres-frozen", 1, 1).await;
    site.route(HOST, SERVICE, |_| {}).await;
    let (report, _) = outage(&mut site, Duration::from_secs(30), true).await;
    println!("{report}");
    report.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_database_wipes_no_router() {
    let _machine = gate::shared().await;
    let mut site = Site::on_postgres("postgres-emptied", 1, 2).await;
    site.route(HOST, SERVICE, |_| {}).await;
    site.add_agents(SERVICE, 3).await;
    site.settled().await;
    let mut plan = Plan::new(site.routers[0].traffic(), HOST, 200.0).label("emptied");
    plan.targets = site
        .routers
        .iter()
        .map(cardea_tests::site::Router::traffic)
        .collect();
    let load = plan.start();
    load.pass(200, SOON).await;

    // Emptied under a running registry: it keeps what it remembers, says so, and asks.
    site.postgres.as_ref().unwrap().empty().await;
    let status = site.registries[0].wait_mode(Mode::HistoryHeld, SOON).await;
    assert!(
        status
            .alarms
            .iter()
            .any(|alarm| alarm.code == "history_held"),
        "{:?}",
        status.alarms
    );
    refuses_configuration(&site.client()).await;
    let newcomer = site
        .add_agent(SERVICE, |setup| setup)
        .await
        .name()
        .to_owned();
    // The same after a restart: its disk snapshot remembers more than the database.
    site.registries[0].stop().await;
    site.registries[0].resume().await;
    site.registries[0].wait_mode(Mode::HistoryHeld, SOON).await;
    load.pass(600, SOON).await;
    assert!(
        load.report().instances.contains_key(&newcomer),
        "{}",
        load.report()
    );
    let decision = HistoryDecision { keep: Keep::Memory };
    site.client()
        .decide_history(decision)
        .await
        .expect("a decision");
    site.registries[0].wait_mode(Mode::Ok, SOON).await;
    let expected = site
        .agents
        .iter()
        .map(|agent| agent.name().to_owned())
        .collect();
    all_agree(&site, &expected).await;

    // Emptied together with the registry's own memory: now only the routers remember.
    site.registries[0].kill();
    site.postgres.as_ref().unwrap().empty().await;
    std::fs::remove_dir_all(site.registries[0].data_dir()).unwrap();
    site.registries[0].resume().await;
    let base = site.registries[0].status().await.epoch;
    for router in &site.routers {
        wait::until("the router has seen the new history", SOON, || async {
            let known = site.client().routers(None).await.ok()?;
            let known = known
                .items
                .into_iter()
                .find(|known| known.id == router.name())?;
            (known.epoch == base).then_some(())
        })
        .await;
    }
    load.pass(1000, SOON).await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
}
