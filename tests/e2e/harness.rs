//! The harness itself: what the other suites rely on.

use std::time::Duration;

use cardea_tests::{
    backend::{Backend, Mode},
    binary, http1,
    load::{self, Plan},
    ports,
    postgres::Postgres,
    process::Spawn,
    proxy::Proxy,
    scratch::Scratch,
    wait,
};
use sqlx::{Connection, PgConnection, postgres::PgListener};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_counts_failures_by_kind_and_finds_posts_executed_twice() {
    let scratch = Scratch::new("load");
    let record = scratch.join("posts");
    let backend = Backend::with_record("one", Some(&record)).await;
    let load = Plan::new(backend.address(), "any", 1000.0)
        .label("clean")
        .start();
    load.pass(500, SOON).await;
    let report = load.stop().await;
    report.assert_clean();
    assert_eq!(report.instances["one"], report.sent);
    load::check_posts(&report, std::slice::from_ref(&record));

    // The same ids again: the record now has them twice.
    let load = Plan::new(backend.address(), "any", 1000.0)
        .label("clean")
        .start();
    load.pass(200, SOON).await;
    let again = load.stop().await;
    let twice =
        std::panic::catch_unwind(|| load::check_posts(&again, std::slice::from_ref(&record)));
    assert!(twice.is_err(), "a POST executed twice goes unnoticed");
    let lost = std::panic::catch_unwind(|| load::check_posts(&again, &[scratch.join("none")]));
    assert!(lost.is_err(), "a POST not executed goes unnoticed");

    for (mode, kind) in [
        (Mode::Status(503), "GET: status 503"),
        (Mode::Reset, "GET: reset (BeforeAnswer)"),
        (Mode::Hang, "GET: timeout (BeforeAnswer)"),
    ] {
        backend.state().set_mode(mode);
        let mut plan = Plan::new(backend.address(), "any", 100.0).gets();
        plan.timeout = Duration::from_millis(300);
        let load = plan.start();
        load.pass(20, SOON).await;
        let report = load.stop().await;
        assert_eq!(report.failed, report.sent, "{report}");
        assert_eq!(report.failures[kind].count, report.sent, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_finishes_its_requests_before_it_ends() {
    let scratch = Scratch::new("backend");
    let port = ports::reserve();
    let address = format!("127.0.0.1:{port}");
    let mut process = Spawn::new("backend", binary::find("cardea-test-backend"))
        .args(["--listen", &address, "--name", "slow"])
        .start(scratch.path());
    process
        .wait_log("that it listens", SOON, |log| {
            log.contains("listens").then_some(())
        })
        .await;
    let address = address.parse().unwrap();
    let slow = tokio::spawn(http1::get(address, "any", "/slow?ms=400"));
    wait::until("the request is there", SOON, || async {
        let stats = http1::get(address, "any", "/__stats").await.ok()?;
        stats.text().contains("\"requests\":1").then_some(())
    })
    .await;
    assert!(process.stop(SOON).await.success());
    assert_eq!(slow.await.unwrap().unwrap().status, 200);
    let chunked = Backend::start("chunks").await;
    let answer = http1::get(chunked.address(), "any", "/chunked?bytes=2500")
        .await
        .unwrap();
    assert_eq!(answer.body.len(), 2500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_can_be_stopped_frozen_and_emptied() {
    let mut postgres = Postgres::start().await;
    postgres
        .execute("CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (7)")
        .await
        .unwrap();
    assert_eq!(postgres.texts("SHOW fsync").await, ["on"]);

    postgres.stop_immediate().await;
    assert!(postgres.execute("SELECT 1").await.is_err());
    postgres.resume().await;
    assert_eq!(postgres.number("SELECT n FROM t").await, 7);

    let mut held = PgConnection::connect(&postgres.url()).await.unwrap();
    postgres.freeze().await;
    let answer = tokio::time::timeout(
        Duration::from_millis(300),
        sqlx::query("SELECT 1").execute(&mut held),
    )
    .await;
    assert!(answer.is_err(), "a frozen server answered");
    postgres.thaw();
    assert_eq!(postgres.number("SELECT n FROM t").await, 7);

    postgres.empty().await;
    assert!(postgres.execute("SELECT n FROM t").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_swallows_notifications_and_can_be_cut() {
    let postgres = Postgres::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await;
    let url = postgres.url_through(proxy.address().port());
    let mut listener = PgListener::connect(&url).await.unwrap();
    listener.listen("hint").await.unwrap();
    postgres.execute("NOTIFY hint").await.unwrap();
    listener.recv().await.unwrap();

    proxy.swallow_notifications(true);
    postgres.execute("NOTIFY hint").await.unwrap();
    wait::until_true("the notification is swallowed", SOON, || {
        proxy.swallowed() == 1
    })
    .await;
    proxy.swallow_notifications(false);
    postgres.execute("NOTIFY hint, 'second'").await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "second");

    let mut held = PgConnection::connect(&url).await.unwrap();
    proxy.cut();
    assert!(sqlx::query("SELECT 1").execute(&mut held).await.is_err());
    assert!(PgConnection::connect(&url).await.is_err());
    proxy.mend();
    PgConnection::connect(&url).await.unwrap();
}
