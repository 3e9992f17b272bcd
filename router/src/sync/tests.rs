//! Against a fake registry on real sockets.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{self, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use cardea_registry_api::{
    api::ROUTERS_HEADER,
    feed::{Coding, kind},
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

use super::{replica::tests::Registry, *};
use crate::{
    fixtures::{instance, name, route},
    plugin::WHOLE,
    shared::Readiness,
};

mod copy;
mod others;

const DEADLINE: Duration = Duration::from_secs(10);

/// What the fake does with its next answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Honest,
    /// Flips a byte in every body.
    Damaged,
    /// Promises another checksum in deltas.
    LyingDeltas,
    /// Says that nothing is newer, at once, as a registry does that stops.
    Leaving,
}

#[derive(Clone)]
struct Fake {
    registry: watch::Sender<Registry>,
    /// Of cluster `b`.
    other: watch::Sender<Registry>,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<HashMap<String, String>>>>,
    asked_of_other: Arc<Mutex<Vec<HashMap<String, String>>>>,
    farewells: Arc<AtomicUsize>,
    farewells_of: Arc<Mutex<Vec<String>>>,
    /// How many it says are live.
    routers: Arc<AtomicU64>,
}

/// Dropping it kills the registry with all its connections.
struct Running {
    fake: Fake,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fake {
    fn start(registry: Registry) -> Running {
        Self::start_at(registry, "127.0.0.1:0".parse().unwrap())
    }

    fn start_at(registry: Registry, address: SocketAddr) -> Running {
        let fake = Self {
            registry: watch::Sender::new(registry),
            other: watch::Sender::new(Registry::of("b", "e1")),
            mood: Arc::new(Mutex::new(Mood::Honest)),
            asked: Arc::default(),
            asked_of_other: Arc::default(),
            farewells_of: Arc::default(),
            farewells: Arc::default(),
            routers: Arc::new(AtomicU64::new(4)),
        };
        let routes = Router::new()
            .route("/v1/clusters/{cluster}/snapshot", get(snapshot))
            .route("/v1/routers/{cluster}/{id}", delete(farewell))
            .with_state(fake.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, routes).await.unwrap();
        });
        Running {
            fake,
            address,
            runtime: Some(runtime),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Registry)) {
        self.registry.send_modify(change);
    }

    fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> Vec<HashMap<String, String>> {
        self.asked.lock().unwrap().clone()
    }

    /// The revision that the router proved to have applied.
    fn acknowledged(&self) -> Option<u64> {
        let asked = self.asked();
        asked
            .iter()
            .rev()
            .find_map(|q| q.get("after")?.parse().ok())
    }
}

async fn snapshot(
    State(fake): State<Fake>,
    extract::Path(cluster): extract::Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let source = if cluster == "b" {
        let mut asked = query.clone();
        asked.insert("cluster".to_owned(), cluster);
        fake.asked_of_other.lock().unwrap().push(asked);
        &fake.other
    } else {
        fake.asked.lock().unwrap().push(query.clone());
        &fake.registry
    };
    let mut changes = source.subscribe();
    let after: Option<u64> = query.get("after").and_then(|text| text.parse().ok());
    let full = query.get("full").is_some_and(|text| text == "true");
    let mood = *fake.mood.lock().unwrap();
    let routers = || {
        [(
            ROUTERS_HEADER,
            fake.routers.load(Ordering::Relaxed).to_string(),
        )]
    };
    if mood == Mood::Leaving && after.is_some() {
        return (StatusCode::NOT_MODIFIED, routers()).into_response();
    }
    let here = |registry: &Registry| query.get("epoch") == Some(&registry.epoch);
    if let Some(after) = after.filter(|_| !full) {
        let newer = |registry: &Registry| !here(registry) || registry.revision > after;
        let wait = Duration::from_secs(10);
        if tokio::time::timeout(wait, changes.wait_for(newer))
            .await
            .is_err()
        {
            return StatusCode::NOT_MODIFIED.into_response();
        }
    }
    let registry = source.borrow().clone();
    let mood = *fake.mood.lock().unwrap();
    let from = after.filter(|_| !full && here(&registry));
    let mut bytes = registry.bytes(from);
    if mood == Mood::LyingDeltas && from.is_some() {
        // The base is right; the set it promises is not the one it leads to.
        let mut liar = registry;
        liar.lines.clear();
        bytes = liar.bytes(from);
    }
    if mood == Mood::Damaged {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    let body = Coding::Zstd.encode(&bytes).unwrap();
    let coding = [(header::CONTENT_ENCODING, "zstd")];
    (routers(), coding, Body::from(body)).into_response()
}

async fn farewell(
    State(fake): State<Fake>,
    extract::Path((cluster, id)): extract::Path<(String, String)>,
) -> StatusCode {
    if cluster == "dc" && id == "r1" {
        fake.farewells.fetch_add(1, Ordering::SeqCst);
    }
    let of = format!("{id} of {cluster}");
    fake.farewells_of.lock().unwrap().push(of);
    StatusCode::NO_CONTENT
}

fn filled() -> Registry {
    let mut registry = Registry::new("e1");
    registry.put(kind::ROUTE, "r", &route("r", "h", "/", "s"));
    for number in 0..3 {
        registry.instance(&instance("s", number, 100));
    }
    registry
}

struct Follower {
    shared: Arc<Shared>,
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

fn settings(addresses: &[SocketAddr], dir: Option<&TempDir>) -> Settings {
    Settings {
        zone: None,
        home: None,
        cluster: name("dc"),
        router: "r1".to_owned(),
        client: ClientConfig {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ..ClientConfig::default()
        },
        state_dir: dir.map(|dir| dir.path().to_owned()),
        lowest_tls: crate::tls::Version::V12,
    }
}

fn follow(addresses: &[SocketAddr], dir: Option<&TempDir>) -> Follower {
    let shared = Arc::new(Shared::default());
    let sync = Sync::new(settings(addresses, dir), Arc::clone(&shared), &[]).unwrap();
    Follower::of(sync, shared)
}

impl Follower {
    fn of(sync: Sync, shared: Arc<Shared>) -> Self {
        let stopping = CancellationToken::new();
        let task = tokio::spawn(sync.run(stopping.clone()));
        Self {
            shared,
            stopping,
            task,
        }
    }

    async fn stop(self) {
        self.stopping.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .unwrap()
            .unwrap();
    }

    fn revision(&self) -> u64 {
        self.shared.table_full().map_or(0, |table| table.revision)
    }

    fn peers(&self) -> usize {
        let table = self.shared.table_full();
        table.map_or(0, |t| t.upstreams().map(|u| u.members().len()).sum())
    }

    fn degraded(&self) -> Vec<String> {
        self.shared.degraded().into_iter().map(|c| c.code).collect()
    }

    fn alarms(&self) -> Vec<String> {
        self.shared.alarms().into_iter().map(|c| c.code).collect()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, waiting).await;
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let timed = tokio::time::timeout(DEADLINE, future).await;
    timed.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[tokio::test]
async fn follows_and_acknowledges_at_once() {
    let registry = Fake::start(filled());
    let router = follow(&[registry.address], None);
    until("first table", || router.peers() == 3).await;
    assert_eq!(router.degraded(), Vec::<String>::new());
    let now = clock::millis(Instant::now());
    assert_eq!(router.shared.plugins.share.parts(now), 4 * WHOLE);
    for number in 10..30 {
        registry
            .fake
            .change(|r| r.instance(&instance("s", number, 100)));
        let revision = registry.fake.registry.borrow().revision;
        let began = Instant::now();
        until("acknowledged", || {
            registry.fake.acknowledged() == Some(revision)
        })
        .await;
        assert!(began.elapsed() < Duration::from_secs(1));
        assert!(
            router.revision() >= revision,
            "acknowledged before it was applied"
        );
    }
    assert_eq!(router.peers(), 23);
    let asked = registry.fake.asked();
    assert_eq!(asked[0].get("full").map(String::as_str), Some("true"));
    assert!(asked[1..].iter().all(|q| !q.contains_key("full")));
    assert!(asked.iter().all(|q| q["router"] == "r1"));
    let fake = registry.fake.clone();
    router.stop().await;
    assert_eq!(fake.farewells.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_damaged_set_is_refused_whole_and_reported() {
    let registry = Fake::start(filled());
    registry.fake.mood(Mood::Damaged);
    let router = follow(&[registry.address], None);
    until("alarm", || router.alarms() == ["refused_update"]).await;
    assert_eq!(router.shared.readiness(), Readiness::NoTable);
    registry.fake.mood(Mood::Honest);
    until("table", || router.peers() == 3).await;
    until("alarm gone", || router.alarms().is_empty()).await;
    router.stop().await;
}

#[tokio::test]
async fn a_delta_that_leads_elsewhere_is_answered_with_a_full_pull() {
    let registry = Fake::start(filled());
    let router = follow(&[registry.address], None);
    until("first table", || router.peers() == 3).await;
    registry.fake.mood(Mood::LyingDeltas);
    registry
        .fake
        .change(|r| r.instance(&instance("s", 10, 100)));
    until("the true set", || router.peers() == 4).await;
    let full = |q: &&HashMap<String, String>| q.get("full").is_some();
    assert!(registry.fake.asked().iter().filter(full).count() >= 2);
    assert_eq!(
        router.shared.counts.pulls_refused.load(Ordering::Relaxed),
        1
    );
    router.stop().await;
}

#[tokio::test]
async fn the_registry_goes_and_comes_back() {
    let registry = Fake::start(filled());
    let address = registry.address;
    let router = follow(&[address], None);
    until("first table", || router.peers() == 3).await;
    let mut kept = registry.fake.registry.borrow().clone();
    let revision = kept.revision;
    drop(registry);
    until("noticed", || router.degraded() == ["registry_unreachable"]).await;
    assert_eq!(router.revision(), revision);
    assert!(matches!(router.shared.readiness(), Readiness::Ready(_)));
    kept.instance(&instance("s", 10, 100));
    let _back = Fake::start_at(kept, address);
    until("followed again", || router.peers() == 4).await;
    until("no longer degraded", || router.degraded().is_empty()).await;
    router.stop().await;
}

#[tokio::test]
async fn moves_over_to_another_registry() {
    let one = Fake::start(filled());
    let two = Fake::start(filled());
    let router = follow(&[one.address, two.address], None);
    until("first table", || router.peers() == 3).await;
    let change = |r: &mut Registry| r.instance(&instance("s", 10, 100));
    two.fake.change(change);
    drop(one);
    until("moved over", || router.peers() == 4).await;
    assert_eq!(router.degraded(), Vec::<String>::new());
    router.stop().await;
}

#[tokio::test]
async fn a_registry_that_stops_is_left_without_a_storm_of_polls() {
    let one = Fake::start(filled());
    let two = Fake::start(filled());
    let router = follow(&[one.address, two.address], None);
    until("first table", || router.peers() == 3).await;
    one.fake.mood(Mood::Leaving);
    // Wakes the poll that waits.
    one.fake.change(|r| r.revision += 1);
    two.fake.change(|r| {
        r.revision += 1;
        r.instance(&instance("s", 10, 100));
    });
    until("moved over", || router.peers() == 4).await;
    assert!(one.fake.asked().len() < 6, "{}", one.fake.asked().len());
    router.stop().await;
}

#[tokio::test]
async fn without_registry_and_copy_it_is_not_ready() {
    let dir = TempDir::new().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let router = follow(&[address], Some(&dir));
    until("tried", || {
        router.shared.counts.pulls_failed.load(Ordering::Relaxed) > 0
    })
    .await;
    assert_eq!(router.shared.readiness(), Readiness::NoTable);
    assert_eq!(router.degraded(), ["registry_unreachable"]);
    router.stop().await;
}

#[tokio::test]
async fn an_emptied_registry_does_not_empty_the_router() {
    let registry = Fake::start(filled());
    let router = follow(&[registry.address], None);
    until("first table", || router.peers() == 3).await;
    registry.fake.change(|r| *r = Registry::new("e2"));
    until("guarded", || router.degraded() == ["retained"]).await;
    assert_eq!(router.peers(), 3);
    assert!(
        router
            .shared
            .table_full()
            .unwrap()
            .route(b"h", b"/")
            .is_ok()
    );
    registry.fake.change(|r| {
        r.revision += 1;
        r.accepted = true;
    });
    until("accepted", || router.degraded().is_empty()).await;
    assert_eq!(router.peers(), 0);
    router.stop().await;
}
