//! `cardea router --upgrade`, and listening sockets that outlive the router.

use std::{
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    time::{Duration, Instant},
};

use cardea_registry_api::Span;
use cardea_tests::{
    backend::Backend,
    binary, http1,
    load::{Load, Plan},
    process::{self, Process, Spawn},
    scratch::Scratch,
    site::{CLUSTER, SOON, Site, key},
    wait,
};
use nix::sys::signal::Signal;

use crate::{
    gate,
    websocket::{self, echo},
};

/// One registry, one router with these flags, two instances of `shop`.
async fn site(name: &str, flags: &[(&str, &str)]) -> (Site, Vec<Backend>) {
    let mut site = Site::empty(name);
    site.add_registry(|setup| setup).await;
    site.add_router(|setup| {
        let add = |setup: cardea_tests::site::RouterSetup, (flag, value): &(&str, &str)| {
            setup.flag(flag, value)
        };
        flags.iter().fold(setup, add)
    })
    .await;
    site.route("shop.test", "shop", |_| {}).await;
    site.route("chat.test", "shop", |_| {}).await;
    let mut backends = Vec::new();
    for id in ["a", "b"] {
        let backend = Backend::start(id).await;
        site.register("shop", id, backend.address()).await;
        backends.push(backend);
    }
    site.settled().await;
    (site, backends)
}

/// Busy connections, fresh ones, and some that are idle most of the time.
fn loads(traffic: SocketAddr) -> [Load; 3] {
    let plan = |rate, label: &str| Plan::new(traffic, "shop.test", rate).label(label);
    [
        plan(400.0, "busy").connections(8).start(),
        plan(200.0, "fresh").connections(8).fresh().start(),
        plan(16.0, "idle").connections(16).start(),
    ]
}

async fn assert_clean(loads: [Load; 3]) {
    for load in loads {
        let report = load.stop().await;
        println!("{report}");
        report.assert_clean();
    }
}

async fn ends_well(mut process: Process) {
    let status = process.wait_end(SOON).await;
    assert!(status.success(), "{status}: {}", process.log_text());
}

async fn listed(site: &Site) -> Vec<String> {
    let routers = site.client().routers(None).await.expect("the routers");
    routers.items.into_iter().map(|router| router.id).collect()
}

async fn upgrades(site: &Site, result: &str) -> Option<f64> {
    let label = format!("result=\"{result}\"");
    let metric = site.routers[0].metric("cardea_router_upgrades_total", &label);
    metric.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_upgrades_in_a_row_under_load_fail_no_request() {
    const UPGRADES: u32 = 100;
    let _machine = gate::alone().await;
    let (mut site, _backends) = site("upgrade-100", &[("--drain", "10s")]).await;
    let loads = loads(site.routers[0].traffic());
    for load in &loads {
        load.pass(10, SOON).await;
    }
    let begun = Instant::now();
    let mut before = Vec::new();
    for _ in 0..UPGRADES {
        before.push(site.routers[0].upgrade(&[]).await);
    }
    let took = begun.elapsed();
    for load in &loads {
        load.pass(10, SOON).await;
    }
    assert_clean(loads).await;
    println!(
        "{UPGRADES} upgrades in {:.1} s under load, 0 failed requests",
        took.as_secs_f64()
    );
    assert_eq!(upgrades(&site, "done").await, Some(f64::from(UPGRADES)));
    for process in before {
        ends_well(process).await;
    }
    assert_eq!(listed(&site).await, ["router-1"]);
    site.routers[0].stop().await;
    assert!(listed(&site).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_and_fewer_workers_serve_every_connection() {
    let _machine = gate::shared().await;
    let (mut site, _backends) =
        site("upgrade-workers", &[("--drain", "10s"), ("--threads", "2")]).await;
    let traffic = site.routers[0].traffic();
    let fresh = Plan::new(traffic, "shop.test", 300.0)
        .label("fresh")
        .fresh();
    let load = fresh.start();
    for threads in ["1", "4", "3", "2"] {
        load.pass(100, SOON).await;
        let before = site.routers[0].upgrade(&["--threads", threads]).await;
        load.pass(100, SOON).await;
        ends_well(before).await;
    }
    load.pass(100, SOON).await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_lives_through_an_upgrade_until_the_drain_is_over() {
    const DRAIN: Duration = Duration::from_secs(3);
    let _machine = gate::shared().await;
    let (mut site, _backends) = site("upgrade-websocket", &[("--drain", "3s")]).await;
    let traffic = site.routers[0].traffic();
    let open = move || tokio::task::spawn_blocking(move || websocket::open(traffic));
    let (mut socket, name) = open().await.unwrap();
    let before = site.routers[0].upgrade(&[]).await;
    let upgraded = Instant::now();
    let old = format!("router-1~{}", before.pid());
    assert_eq!(echo(&mut socket, "on").unwrap(), format!("{name} on"));

    // Both processes may still send requests: an instance is gone when both have let go of it.
    wait::until("the registry knows both", SOON, || async {
        (listed(&site).await == ["router-1", &old]).then_some(())
    })
    .await;
    let other = if name == "a" { "b" } else { "a" };
    let gone = site
        .client()
        .deregister(&key(CLUSTER, "shop", other), Span::secs(8))
        .await
        .unwrap();
    assert!(gone.pending.is_empty(), "{gone:?}");
    assert_eq!(gone.acknowledged, ["router-1", &old]);
    assert!(upgraded.elapsed() < DRAIN, "too slow to be of use");

    let (mut new_socket, _) = open().await.unwrap();
    let lasted = tokio::task::spawn_blocking(move || {
        while echo(&mut socket, "still").is_ok() {
            assert!(upgraded.elapsed() < SOON, "open far beyond the drain");
            std::thread::sleep(Duration::from_millis(20));
        }
        upgraded.elapsed()
    });
    let lasted = lasted.await.unwrap();
    println!(
        "a WebSocket lasted {:.2} s; drain 3 s",
        lasted.as_secs_f64()
    );
    assert!(lasted >= DRAIN.mul_f64(0.9), "cut after {lasted:?}");
    ends_well(before).await;
    assert_eq!(listed(&site).await, ["router-1"]);
    echo(&mut new_socket, "new").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_fails_leaves_the_old_one_as_it_was() {
    let _machine = gate::shared().await;
    let (mut site, _backends) = site("upgrade-fails", &[("--drain", "10s")]).await;
    let traffic = site.routers[0].traffic();
    let loads = loads(traffic);
    let pid = site.routers[0].process().pid();

    // Wrong settings: it does not even ask.
    let mut wrong = site.routers[0].spawn_upgrade(&["--max-head", "1"]);
    assert_eq!(wrong.wait_end(SOON).await.code(), Some(78));
    // Another cluster: refused.
    let mut wrong = site.routers[0].spawn_upgrade(&["--cluster", "other"]);
    assert_eq!(wrong.wait_end(SOON).await.code(), Some(1));
    assert!(
        wrong.log_text().contains("cluster `default`"),
        "{}",
        wrong.log_text()
    );
    // A port that is taken.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let mut wrong = site.routers[0].spawn_upgrade(&["--listen", &taken]);
    assert_eq!(wrong.wait_end(SOON).await.code(), Some(1));

    // Killed in the middle: it waits for a registry that is not there.
    let mut killed = site.routers[0].spawn_upgrade(&["--registry", "http://127.0.0.1:9"]);
    killed
        .wait_log("that it takes over", SOON, |log| {
            log.contains("taking over from a running router")
                .then_some(())
        })
        .await;
    killed.kill_now();
    wait::until_true("the old one says so", SOON, || {
        let log = site.routers[0].process().log_text();
        log.matches("the hand-over failed").count() == 3
    })
    .await;
    for load in &loads {
        load.pass(20, SOON).await;
    }
    assert_eq!(site.routers[0].process().pid(), pid);
    assert_eq!(upgrades(&site, "failed").await, Some(3.0));
    wait::until("the registry knows the old one alone", SOON, || async {
        (listed(&site).await == ["router-1"]).then_some(())
    })
    .await;

    let before = site.routers[0].upgrade(&[]).await;
    assert_eq!(upgrades(&site, "failed").await, Some(3.0));
    assert_eq!(upgrades(&site, "done").await, Some(1.0));
    for load in &loads {
        load.pass(20, SOON).await;
    }
    assert_clean(loads).await;
    ends_well(before).await;

    // The registry gone: the old one's table is handed over.
    site.registries[0].kill();
    drop(std::fs::remove_file(
        site.routers[0].data_dir().join("table.ndjson"),
    ));
    drop(std::fs::remove_file(
        site.routers[0].data_dir().join("table.1.ndjson"),
    ));
    let before = site.routers[0].upgrade(&[]).await;
    assert_eq!(site.routers[0].get("shop.test", "/").await.status, 200);
    let source = site.routers[0].metric("cardea_router_config_source", "handed_over");
    assert_eq!(source.await, Some(1.0));
    ends_well(before).await;
}

/// A file with one route to this backend.
fn static_file(scratch: &Scratch, backend: &Backend) -> String {
    let text = format!(
        "[[service]]\nname = \"shop\"\n[[service.instance]]\naddress = \"{}\"\n\
         [[route]]\nhost = \"shop.test\"\nprefix = \"/\"\nservice = \"shop\"\n",
        backend.address()
    );
    let path = scratch.write("services.toml", &text);
    path.display().to_string()
}

/// Starts a router as a service manager does that has opened its listening socket.
fn activated(
    scratch: &Scratch,
    socket: &TcpListener,
    listen: SocketAddr,
    flags: &[&str],
) -> Process {
    let pass = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ \
                LISTEN_FDNAMES=cardea-router.socket; exec \"$0\" router \"$@\"";
    Spawn::new("activated", "sh")
        .args(["-c", pass])
        .args([binary::cardea()])
        .args(flags)
        .args(["--listen", &listen.to_string(), "--admin", "127.0.0.1:0"])
        .args(["--access-log", "off", "--threads", "2", "--drain", "10s"])
        .stdin(OwnedFd::from(socket.try_clone().unwrap()))
        .start(scratch.path())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_wait_in_an_activated_socket_while_the_router_is_dead() {
    let _machine = gate::shared().await;
    let scratch = Scratch::new("activation");
    let backend = Backend::start("one").await;
    let file = static_file(&scratch, &backend);
    let door = scratch.path().join("upgrade.sock");
    let flags = [
        "--static",
        &file,
        "--upgrade-socket",
        door.to_str().unwrap(),
    ];
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let traffic = socket.local_addr().unwrap();
    let mut router = activated(&scratch, &socket, traffic, &flags);
    let serves = |log: &str| (log.matches("the router serves").count() == 1).then_some(());
    router.wait_log("that it serves", SOON, serves).await;
    assert_eq!(
        http1::get(traffic, "shop.test", "/").await.unwrap().status,
        200
    );

    router.kill_now();
    let ask = || tokio::spawn(async move { http1::get(traffic, "shop.test", "/").await });
    let waiting: Vec<_> = (0..20).map(|_| ask()).collect();
    let mut router = activated(&scratch, &socket, traffic, &flags);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }

    // The one socket is handed over as well, and served by both workers.
    let fresh = Plan::new(traffic, "shop.test", 200.0)
        .label("fresh")
        .fresh();
    let load = fresh.start();
    load.pass(50, SOON).await;
    let mut next = Spawn::new("next", binary::cardea())
        .args(["router", "--upgrade"])
        .args(flags)
        .args(["--listen", &traffic.to_string(), "--admin", "127.0.0.1:0"])
        .args(["--access-log", "off", "--threads", "2"])
        .start(scratch.path());
    next.wait_log("that it serves", SOON, serves).await;
    let status = router.wait_end(SOON).await;
    assert!(status.success(), "{}", router.log_text());
    load.pass(50, SOON).await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
    assert!(next.stop(SOON).await.success());
    assert!(!door.exists(), "the socket file is left behind");

    // A socket that nobody would serve is an error.
    let mut wrong = activated(&scratch, &socket, "127.0.0.1:1".parse().unwrap(), &flags);
    assert_eq!(wrong.wait_end(SOON).await.code(), Some(1));
    let said = wrong.log_text();
    assert!(said.contains("neither that of `listen`"), "{said}");
}

/// What a service manager is told, line by line, until `wanted` finds something.
fn told<T>(manager: &UnixDatagram, wanted: impl Fn(&str) -> Option<T>) -> T {
    let mut buffer = [0; 4096];
    loop {
        let length = manager.recv(&mut buffer).expect("a word to the manager");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if let Some(found) = text.lines().find_map(&wanted) {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_reloads_and_follows_the_new_process() {
    let _machine = gate::shared().await;
    let scratch = Scratch::new("upgrade-reload");
    let manager = UnixDatagram::bind(scratch.path().join("notify.sock")).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let backend = Backend::start("one").await;
    let file = static_file(&scratch, &backend);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let traffic = socket.local_addr().unwrap().to_string();
    drop(socket);
    let door = scratch.path().join("upgrade.sock");
    let run = |name: &str, flags: &[&str]| {
        Spawn::new(name, binary::cardea())
            .args(["router", "--static", &file, "--listen", &traffic])
            .args(["--admin", "127.0.0.1:0", "--access-log", "off"])
            .args(["--upgrade-socket", door.to_str().unwrap()])
            .args(flags)
            .env("NOTIFY_SOCKET", scratch.path().join("notify.sock"))
            .start(scratch.path())
    };
    let mut first = run("first", &[]);
    told(&manager, |line| (line == "READY=1").then_some(()));

    // What is wrong is said where `systemctl reload` shows it; the running one stays the main process.
    let mut wrong = run("wrong", &["--upgrade", "--detach", "--cluster", "other"]);
    assert_eq!(wrong.wait_end(SOON).await.code(), Some(1));
    assert!(
        wrong.log_text().contains("cluster `default`"),
        "{}",
        wrong.log_text()
    );
    assert!(first.ended().is_none());

    let mut reload = run("reload", &["--upgrade", "--detach"]);
    let status = reload.wait_end(SOON).await;
    assert!(status.success(), "{}", reload.log_text());
    let main: u32 = told(&manager, |line| line.strip_prefix("MAINPID=")?.parse().ok());
    assert_ne!(main, first.pid());
    assert!(first.wait_end(SOON).await.success());
    let answer = http1::get(traffic.parse().unwrap(), "shop.test", "/").await;
    assert_eq!(answer.unwrap().status, 200);
    process::signal(main, Signal::SIGTERM);
    told(&manager, |line| (line == "STOPPING=1").then_some(()));
    wait::until_true("it has gone", SOON, || !door.exists()).await;
}
