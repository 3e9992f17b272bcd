//! Live figures: two routers report to two replicas on one PostgreSQL; what is told is what went on.

use cardea_registry_api::{
    Span,
    api::Mode,
    client::FiguresQuery,
    figures::{By, Told, ToldSeries},
};
use cardea_tests::{
    backend::{self, Backend},
    binary,
    load::{Plan, Report},
    process::{self, Spawn},
    site::{CLUSTER, Registry, Router, RouterSetup, SOON, Site, Token, name},
    wait,
};
use nix::sys::signal::Signal;

use crate::gate;

const HOST: &str = "figures.test";

/// Two registries on PostgreSQL; each router asks another one first. A backend that takes its time.
async fn site(test: &str) -> (Site, Backend) {
    let mut site = Site::on_postgres(test, 2, 0).await;
    let backend = Backend::start("one").await;
    backend.state().set_mode(backend::Mode::Slow(20));
    site.route(HOST, "shown", |_| {}).await;
    site.register("shown", "one", backend.address()).await;
    let mut registries = site.registry_addresses();
    for router in ["router-1", "router-2"] {
        let setup = RouterSetup::new(router, &registries).flag("--threads", "2");
        site.routers
            .push(Router::start(setup, site.scratch.path()).await);
        registries.reverse();
    }
    site.settled().await;
    (site, backend)
}

fn plan(site: &Site, rate: f64) -> Plan {
    let mut plan = Plan::new(site.routers[0].traffic(), HOST, rate).gets();
    plan.targets = site.routers.iter().map(Router::traffic).collect();
    plan
}

/// What a replica tells of the last ten minutes.
async fn told(registry: &Registry) -> Told {
    let ten_minutes = Some(Span::secs(600));
    let query = FiguresQuery {
        service: Some(name("shown")),
        route: None,
        by: By::Service,
        window: ten_minutes,
        step: ten_minutes,
    };
    let told = registry.client().figures(&name(CLUSTER), &query).await;
    told.expect("figures")
}

fn series(told: &Told) -> Option<&ToldSeries> {
    told.points.first()?.series.first()
}

fn requests(told: &Told) -> u64 {
    series(told).map_or(0, |series| series.requests)
}

/// Waits until each of these replicas tells of so many requests.
async fn wait_for(registries: &[&Registry], sent: u64) -> Vec<Told> {
    let mut all = Vec::new();
    for registry in registries {
        let what = format!("{sent} requests are told of");
        let found = wait::until_ok(&what, SOON, || async {
            let told = told(registry).await;
            let seen = requests(&told);
            assert!(
                seen <= sent,
                "{seen} of {sent}: something was counted twice"
            );
            if seen == sent {
                Ok(told)
            } else {
                Err(format!("{seen}"))
            }
        });
        all.push(found.await);
    }
    all
}

/// A router's time for a request lies within the load's time for it; so do their quantiles, up to the
/// width of a bucket.
fn compare_quantiles(series: &ToldSeries, report: &Report) {
    for (found, per_mille) in [
        (series.p50_us, 500),
        (series.p90_us, 900),
        (series.p99_us, 990),
    ] {
        let found = found.expect("a quantile") as f64;
        let most = report.percentile(per_mille) * 1000.0;
        println!("p{per_mille}: {found} µs at the routers, {most} µs at the load");
        assert!(
            found >= 20_000.0 * 7.0 / 8.0,
            "the backend takes 20 ms: {found}"
        );
        assert!(found <= most * 9.0 / 8.0 + 16.0, "{found} > {most}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_replicas_tell_what_the_load_counted() {
    let _machine = gate::shared().await;
    let (site, _backend) = site("figures-alike").await;
    let load = plan(&site, 300.0).start();
    load.pass(3000, SOON * 3).await;
    let report = load.stop().await;
    report.assert_clean();
    let replicas: Vec<&Registry> = site.registries.iter().collect();
    let both = wait_for(&replicas, report.sent).await;
    for told in &both {
        let series = series(told).expect("the service");
        println!("{} requests, classes {:?}", series.requests, series.classes);
        assert_eq!(series.classes, [0, report.sent, 0, 0, 0]);
        assert_eq!(
            (series.peers_healthy, series.peers_total),
            (Some(1), Some(1))
        );
        compare_quantiles(series, &report);
    }
    let (one, two) = (series(&both[0]).unwrap(), series(&both[1]).unwrap());
    let shown = |s: &ToldSeries| {
        (
            s.requests, s.classes, s.mean_us, s.p50_us, s.p90_us, s.p99_us,
        )
    };
    assert_eq!(shown(one), shown(two));
    // A router has reported to each.
    let postgres = site.postgres.as_ref().unwrap();
    let runs = postgres.texts("SELECT DISTINCT run FROM figures").await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    // Nothing of it is in the log.
    let log = postgres.number("SELECT COUNT(*) FROM changes WHERE kind NOT IN ('cluster', 'service', 'route', 'instance', 'token', 'history')");
    assert_eq!(log.await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicas_death_an_upgrade_and_a_stop_lose_nothing_and_count_nothing_twice() {
    let _machine = gate::shared().await;
    let (mut site, _backend) = site("figures-death").await;
    let load = plan(&site, 300.0).start();
    load.pass(1800, SOON * 3).await;
    // What a router was told is in the database; what it was not told it says again, to the other one.
    site.registries[0].kill();
    load.pass(1800, SOON * 3).await;
    let mut before = site.routers[0].upgrade(&[]).await;
    load.pass(900, SOON * 3).await;
    let report = load.stop().await;
    report.assert_clean();
    before.wait_end(SOON * 2).await;
    // A router that stops reports what it has at once.
    site.routers[0].stop().await;
    wait_for(&[&site.registries[1]], report.sent).await;
    site.registries[0].resume().await;
    wait_for(&[&site.registries[0], &site.registries[1]], report.sent).await;
    println!(
        "{} requests sent, {} told of by both",
        report.sent, report.sent
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_memory_goes_on() {
    let _machine = gate::shared().await;
    let (mut site, _backend) = site("figures-outage").await;
    let load = plan(&site, 100.0).start();
    load.pass(300, SOON * 3).await;
    site.postgres.as_mut().unwrap().stop_immediate().await;
    for registry in &site.registries {
        registry.wait_mode(Mode::DatabaseLost, SOON).await;
        let growing = wait::until_ok("figures of the outage", SOON * 2, || async {
            let told = told(registry).await;
            let seen = requests(&told);
            if told.degraded.is_some() && seen > 0 {
                Ok(())
            } else {
                Err(format!("{seen}"))
            }
        });
        growing.await;
    }
    site.postgres.as_mut().unwrap().resume().await;
    for registry in &site.registries {
        registry.wait_mode(Mode::Ok, SOON).await;
    }
    // Figures of the outage may be lost; from here on both tell the same again.
    load.pass(300, SOON * 3).await;
    let sent = load.stop().await.sent;
    let alike = wait::until_ok("both tell the same", SOON * 2, || async {
        let (one, two) = (
            told(&site.registries[0]).await,
            told(&site.registries[1]).await,
        );
        let news = one.newest.is_some_and(|newest| newest >= one.to);
        let same = one.from == two.from && series(&one) == series(&two) && news;
        let whole = one.degraded.is_none() && two.degraded.is_none();
        if same && whole {
            Ok(one)
        } else {
            Err(format!("{one:?} {two:?}"))
        }
    });
    let seen = requests(&alike.await);
    println!("{sent} requests sent, {seen} told of after the outage");
    assert!(seen > 0 && seen <= sent, "{seen} of {sent}");
}

/// What `ctl top --once` prints.
fn top_once(site: &Site, args: &[&str]) -> String {
    let mut command = std::process::Command::new(binary::cardea());
    command
        .args(["ctl", "top", "--once"])
        .args(args)
        .env(
            "CARDEA_REGISTRY",
            format!("http://{}", site.registries[0].api()),
        )
        .env("CARDEA_TOKEN", Token::Viewer.secret())
        .current_dir(site.dir());
    let out = process::output(&mut command, SOON);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_on_is_shown_until_somebody_stops_it() {
    let _machine = gate::shared().await;
    let (mut site, _backend) = site("figures-top").await;
    let load = plan(&site, 100.0).start();
    let shown = wait::until_ok("the service is shown with its load", SOON * 2, || async {
        let text = top_once(&site, &[]);
        let row = text.lines().find(|line| line.starts_with("shown "));
        let rate = row.and_then(|row| row.split_whitespace().nth(1)?.parse::<f64>().ok());
        // The first report is of one router.
        let whole = text.contains("cluster default   2 routers");
        if whole && rate.is_some_and(|rate| rate > 50.0) {
            Ok(text)
        } else {
            Err(text)
        }
    });
    let text = shown.await;
    assert!(!text.contains("stale"), "{text}");
    let told: Told = serde_json::from_str(&top_once(&site, &["--json"])).unwrap();
    assert!(requests(&told) > 0);
    // Ctrl-C ends it cleanly.
    let mut live = Spawn::new("top", binary::cardea())
        .args(["ctl", "top", "--every", "1s", "--json"])
        .env(
            "CARDEA_REGISTRY",
            format!("http://{}", site.registries[0].api()),
        )
        .env("CARDEA_TOKEN", Token::Viewer.secret())
        .start(site.dir());
    live.wait_log("two looks", SOON, |log| {
        (log.lines().count() >= 2).then_some(())
    })
    .await;
    live.signal(Signal::SIGINT);
    let end = live.wait_end(SOON).await;
    assert_eq!(end.code(), Some(0), "{}", live.log_text());
    load.stop().await;
    // Routers that report no more: it says so.
    for router in &mut site.routers {
        router.stop().await;
    }
    let stale = wait::until_ok("it says that the figures are old", SOON * 2, || async {
        let text = top_once(&site, &[]);
        if text.contains("[stale: ") {
            Ok(())
        } else {
            Err(text)
        }
    });
    stale.await;
}
