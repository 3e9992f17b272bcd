//! Hand-overs between routers, looked at closely: listeners that speak TLS and the PROXY protocol,
//! under load; and new processes that fail at each step, played by the test itself, after which the
//! running router must be what it was: under its own name at the registry, at its own socket.

use std::{net::SocketAddr, time::Duration};

use cardea_registry_api::Span;
use cardea_tests::{
    backend::Backend,
    http1::{Dial, Stage, Stream},
    load::{Load, Plan},
    ports,
    site::{CLUSTER, Router, RouterSetup, SOON, Site, key},
    tls::{self, Authority},
    wait,
};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::gate;

const HOST: &str = "shop.test";
/// What a proxy says first (PROXY protocol, version 1).
const HEADER: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n";
const UPGRADES: u32 = 20;

fn reserve() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::reserve()))
}

/// Busy connections and fresh ones, within TLS and without.
fn loads(plain: SocketAddr, tls: SocketAddr, authority: &Authority, first: &str) -> Vec<Load> {
    let clear = Dial::default().saying(first);
    let secure = Dial::tls(&authority.client(), HOST).saying(first);
    let plan = |to, rate, label: &str, dial: &Dial| {
        let plan = Plan::new(to, HOST, rate).label(label).connections(8);
        plan.dial(dial.clone())
    };
    vec![
        plan(plain, 100.0, "plain", &clear).fresh().start(),
        plan(tls, 200.0, "tls", &secure).start(),
        plan(tls, 100.0, "tls-fresh", &secure).fresh().start(),
    ]
}

async fn pass(loads: &[Load], requests: u64) {
    for load in loads {
        load.pass(requests, SOON).await;
    }
}

async fn handed_over_under_load(router: &mut Router, loads: Vec<Load>) {
    pass(&loads, 20).await;
    let mut before = Vec::new();
    for _ in 0..UPGRADES {
        before.push(router.upgrade(&[]).await);
        pass(&loads, 5).await;
    }
    pass(&loads, 20).await;
    for load in loads {
        let report = load.stop().await;
        println!("{report}");
        report.assert_clean();
    }
    let done = router.metric("cardea_router_upgrades_total", "result=\"done\"");
    assert_eq!(done.await, Some(f64::from(UPGRADES)));
    let failed = router.metric("cardea_router_tls_handshake_failures_total", "");
    assert_eq!(failed.await, Some(0.0));
    for mut process in before {
        let status = process.wait_end(SOON).await;
        assert!(status.success(), "{status}: {}", process.log_text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_with_tls_and_the_proxy_protocol_are_handed_over_under_load() {
    let _machine = gate::shared().await;
    let mut site = Site::empty("handover-registry");
    site.add_registry(|setup| setup).await;
    let tls = reserve();
    site.add_router(|setup| {
        setup
            .flag("--listen-tls", &tls.to_string())
            .flag("--proxy-protocol", "127.0.0.0/8")
            .flag("--drain", "10s")
    })
    .await;
    let authority = Authority::new("ca");
    let request = authority.sign(&[HOST]).to_apply("shop");
    site.client().apply(&request, false).await.unwrap();
    site.route(HOST, "shop", |_| {}).await;
    let backend = Backend::start("one").await;
    site.register("shop", "one", backend.address()).await;
    site.settled().await;
    let router = &mut site.routers[0];
    let loads = loads(router.traffic(), tls, &authority, HEADER);
    handed_over_under_load(router, loads).await;
}

/// A router in static mode, with the certificate in files, and where it speaks TLS.
async fn with_files(site: &Site, authority: &Authority, backend: &Backend) -> (Router, SocketAddr) {
    let pair = authority.sign(&[HOST]);
    site.scratch.write("shop.pem", &pair.cert);
    site.scratch.write("shop.key", &pair.key);
    let text = format!(
        "[[service]]\nname = \"shop\"\n[[service.instance]]\naddress = \"{}\"\n\
         [[route]]\nhost = \"{HOST}\"\nservice = \"shop\"\n\
         [[certificate]]\nname = \"shop\"\ncert_file = \"shop.pem\"\nkey_file = \"shop.key\"\n",
        backend.address()
    );
    let file = site.scratch.write("services.toml", &text);
    let tls = reserve();
    let door = site.scratch.join("upgrade.sock");
    let setup = RouterSetup::new("router-1", &[])
        .flag("--static", file.to_str().unwrap())
        .flag("--listen-tls", &tls.to_string())
        .flag("--upgrade-socket", door.to_str().unwrap())
        .flag("--drain", "10s");
    (Router::start(setup, site.dir()).await, tls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_with_certificates_from_files_is_handed_over_under_load() {
    let _machine = gate::shared().await;
    let site = Site::empty("handover-files");
    let (authority, backend) = (Authority::new("ca"), Backend::start("one").await);
    let (mut router, tls) = with_files(&site, &authority, &backend).await;
    let loads = loads(router.traffic(), tls, &authority, "");
    handed_over_under_load(&mut router, loads).await;
}

/// One request on a connection of its own; how hands were shaken.
async fn shaken(dial: &Dial, to: SocketAddr) -> HandshakeKind {
    let stream = dial.connect(to, &mut Stage::Connect).await.unwrap();
    let Stream::Tls(mut stream) = stream else {
        unreachable!("it dials TLS")
    };
    let request = format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        answer.escape_ascii()
    );
    stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_taken_up_again_by_the_next_process_and_the_one_after() {
    let _machine = gate::shared().await;
    let site = Site::empty("handover-sessions");
    let (authority, backend) = (Authority::new("ca"), Backend::start("one").await);
    let (mut router, address) = with_files(&site, &authority, &backend).await;
    let dial = Dial::tls(&tls::resuming(&authority.client()), HOST);
    assert_eq!(shaken(&dial, address).await, HandshakeKind::Full);
    for _ in 0..2 {
        let mut before = router.upgrade(&[]).await;
        assert!(before.wait_end(SOON).await.success());
        assert_eq!(shaken(&dial, address).await, HandshakeKind::Resumed);
    }
    // A process that takes over from nobody knows no tickets.
    router.stop().await;
    router.resume().await;
    assert_eq!(shaken(&dial, address).await, HandshakeKind::Full);
}

/// A process that asks to take over: the test itself.
struct Newcomer(UnixStream);

impl Newcomer {
    /// Connects and says who it is.
    async fn hello(router: &Router, protocol: u32, cluster: &str, patience_ms: u64) -> Self {
        let door = router.data_dir().join("upgrade.sock");
        let stream = UnixStream::connect(door).await.expect("an upgrade socket");
        let mut newcomer = Self(stream);
        let hello = format!(
            "{{\"hello\":{{\"protocol\":{protocol},\"version\":\"0\",\"cluster\":\"{cluster}\",\
             \"id\":\"{}\",\"patience_ms\":{patience_ms}}}}}",
            router.name()
        );
        newcomer.say(&hello).await;
        newcomer
    }

    async fn say(&mut self, text: &str) {
        let length = u32::try_from(text.len()).unwrap();
        let frame = [&length.to_be_bytes(), text.as_bytes()].concat();
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next thing that the running router says; sockets beside it are let go.
    async fn hear(&mut self) -> String {
        let frame = async {
            let length = self.0.read_u32().await.unwrap();
            let mut frame = vec![0; length as usize];
            self.0.read_exact(&mut frame).await.unwrap();
            String::from_utf8_lossy(&frame).into_owned()
        };
        tokio::time::timeout(SOON, frame).await.expect("a word")
    }

    /// Takes everything that is offered.
    async fn take(&mut self) {
        let offer = self.hear().await;
        assert!(offer.starts_with("{\"offer\""), "{offer}");
        assert!(offer.contains("\"table\":true"), "{offer}");
        while self.hear().await.starts_with("{\"sockets\"") {}
    }
}

async fn listed(site: &Site) -> Vec<String> {
    let routers = site.client().routers(None).await.expect("the routers");
    routers.items.into_iter().map(|router| router.id).collect()
}

/// A registry, a router that others may take over from, and a load on it.
struct Scene {
    site: Site,
    backend: Backend,
    load: Load,
    failures: f64,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let site = Site::on_sqlite(name).await;
        site.route(HOST, "shop", |_| {}).await;
        let backend = Backend::start("one").await;
        site.register("shop", "one", backend.address()).await;
        site.settled().await;
        let load = Plan::new(site.routers[0].traffic(), HOST, 200.0);
        let load = load.label(name).connections(8).fresh().start();
        load.pass(20, SOON).await;
        Self {
            site,
            backend,
            load,
            failures: 0.0,
        }
    }

    fn router(&self) -> &Router {
        &self.site.routers[0]
    }

    async fn hello(&self) -> Newcomer {
        Newcomer::hello(self.router(), 1, CLUSTER, 30_000).await
    }

    /// The running router has given its name away.
    async fn name_is_given(&self) {
        let alias = format!("router-1~{}", self.router().process().pid());
        wait::until("it goes by another name", SOON, || async {
            listed(&self.site).await.contains(&alias).then_some(())
        })
        .await;
    }

    /// The running router says that this hand-over failed, and has everything back.
    async fn is_as_before(&mut self) {
        self.failures += 1.0;
        let failed = || {
            self.router()
                .metric("cardea_router_upgrades_total", "result=\"failed\"")
        };
        wait::until("it says that it failed", SOON + SOON, || async {
            (failed().await == Some(self.failures)).then_some(())
        })
        .await;
        wait::until("it goes by its own name alone", SOON, || async {
            (listed(&self.site).await == ["router-1"]).then_some(())
        })
        .await;
        // And answers for it: what goes is acknowledged by nobody else.
        let key = key(CLUSTER, "shop", "two");
        self.site
            .register("shop", "two", self.backend.address())
            .await;
        let client = self.site.client();
        let gone = client.deregister(&key, Span::secs(8)).await.unwrap();
        assert!(gone.pending.is_empty(), "{gone:?}");
        assert_eq!(gone.acknowledged, ["router-1"]);
        self.load.pass(20, SOON).await;
    }

    /// A real process takes over after all, and no request was lost in all that time.
    async fn ends_well(mut self) {
        let mut before = self.site.routers[0].upgrade(&[]).await;
        self.load.pass(20, SOON).await;
        let status = before.wait_end(SOON).await;
        assert!(status.success(), "{status}: {}", before.log_text());
        assert_eq!(listed(&self.site).await, ["router-1"]);
        let report = self.load.stop().await;
        println!("{report}");
        report.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_fails_to_take_over_at_whichever_step_leaves_the_running_router_as_it_was() {
    let _machine = gate::shared().await;
    let mut scene = Scene::new("handover-fails").await;

    // It is gone before it has taken anything.
    let newcomer = scene.hello().await;
    scene.name_is_given().await;
    drop(newcomer);
    scene.is_as_before().await;

    // It is gone with everything in its hands.
    let mut newcomer = scene.hello().await;
    newcomer.take().await;
    scene.name_is_given().await;
    drop(newcomer);
    scene.is_as_before().await;

    // It cannot start, and says why.
    let mut newcomer = scene.hello().await;
    newcomer.take().await;
    scene.name_is_given().await;
    newcomer
        .say("{\"refused\":{\"reason\":\"no ports\"}}")
        .await;
    scene.is_as_before().await;
    assert!(scene.router().process().log_text().contains("no ports"));

    // It says what nobody expects.
    let mut newcomer = scene.hello().await;
    newcomer.take().await;
    scene.name_is_given().await;
    newcomer.say("\"released\"").await;
    assert!(newcomer.hear().await.starts_with("{\"refused\""));
    scene.is_as_before().await;

    // It says that it serves, and is gone before the running router has heard it.
    let mut newcomer = scene.hello().await;
    newcomer.take().await;
    scene.name_is_given().await;
    scene.router().process().freeze().await;
    newcomer.say("\"ready\"").await;
    drop(newcomer);
    scene.router().process().thaw();
    scene.is_as_before().await;

    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_ready_in_time_leaves_the_running_router_as_it_was() {
    let _machine = gate::shared().await;
    let mut scene = Scene::new("handover-late").await;
    let router = scene.router();
    let mut newcomer = Newcomer::hello(router, 1, CLUSTER, 0).await;
    newcomer.take().await;
    scene.name_is_given().await;
    let reason = tokio::time::timeout(Duration::from_mins(1), newcomer.0.read_u32());
    reason.await.expect("a word in time").unwrap();
    scene.is_as_before().await;
    drop(newcomer);
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_fit_is_refused_before_anything_is_given_away() {
    let _machine = gate::shared().await;
    let mut scene = Scene::new("handover-refused").await;
    for (protocol, cluster, says) in [
        (7, CLUSTER, "takes over by 7"),
        (1, "other", "serves cluster"),
    ] {
        let mut newcomer = Newcomer::hello(scene.router(), protocol, cluster, 30_000).await;
        let refused = newcomer.hear().await;
        assert!(refused.contains(says), "{refused}");
        assert_eq!(listed(&scene.site).await, ["router-1"]);
        scene.is_as_before().await;
    }
    // Who only looks whether somebody is there is no failure.
    let door = scene.router().data_dir().join("upgrade.sock");
    drop(UnixStream::connect(door).await.unwrap());
    scene.ends_well().await;
}
