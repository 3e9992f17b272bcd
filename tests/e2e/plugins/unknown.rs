//! A registry that is newer than the router: plugins of kinds that the router does not know.

use cardea_registry_api::{
    Route, Service,
    api::{EPOCH_HEADER, REVISION_HEADER},
    feed::{self, Encoder, Head, SetChecksum, set_line},
};
use cardea_tests::{
    backend::Backend,
    http1,
    site::{CLUSTER, Router, RouterSetup, SOON, Site, name},
    wait,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::gate;

/// An update's revision and bytes.
type Served = (u64, Vec<u8>);

fn update(revision: u64, objects: &[(&str, &str, Value)]) -> Served {
    let mut checksum = SetChecksum::default();
    let lines: Vec<_> = objects
        .iter()
        .map(|(kind, key, value)| set_line(kind, key, value).unwrap())
        .inspect(|line| checksum.add(line.hash))
        .collect();
    let head = Head {
        format: feed::FORMAT,
        cluster: CLUSTER.to_owned(),
        epoch: "later".to_owned(),
        revision,
        after: None,
        checksum,
        objects: lines.len() as u64,
        accepted: false,
        degraded: false,
    };
    let mut encoder = Encoder::new(&head).unwrap();
    lines.iter().for_each(|line| encoder.set(line));
    (revision, encoder.finish())
}

/// Answers polls with what is served now, and holds those that have it.
async fn serve(listener: TcpListener, served: watch::Receiver<Served>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        tasks.spawn(poll(stream, served.clone()));
    }
}

async fn poll(mut stream: TcpStream, mut served: watch::Receiver<Served>) -> Option<()> {
    let mut head = Vec::new();
    loop {
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        head.clear();
        let now = served.borrow_and_update().0;
        if text.contains(&format!("after={now}&")) {
            served.changed().await.ok()?;
        }
        let (revision, bytes) = served.borrow().clone();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n{REVISION_HEADER}: {revision}\r\n\
             {EPOCH_HEADER}: later\r\nContent-Length: {}\r\n\r\n",
            feed::CONTENT_TYPE,
            bytes.len()
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.write_all(&bytes).await.ok()?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_the_router_does_not_know_is_left_out_or_refused_and_kept() {
    let _machine = gate::shared().await;
    let site = Site::empty("plugin-unknown");
    let backend = Backend::start("one").await;
    let service = serde_json::to_value(Service::named(name("shop"))).unwrap();
    let route = |id: &str| {
        let route = Route {
            id: name(id),
            host: id.parse().unwrap(),
            prefix: "/".parse().unwrap(),
            service: name("shop"),
        };
        ("route", id.to_owned(), serde_json::to_value(route).unwrap())
    };
    let instance =
        cardea_registry_api::api::Registration::at(backend.address().to_string().parse().unwrap())
            .into_instance(cardea_tests::site::key(CLUSTER, "shop", "i"), 0);
    let instance = serde_json::to_value(instance).unwrap();
    let teleport = |required: bool| {
        json!({"name": "t", "route": "a.test", "required": required,
            "teleport": {"to": "the future"}})
    };
    let objects = |revision, plugin: &Value| {
        let (a, b) = (route("a.test"), route("b.test"));
        let objects = [
            ("service", "shop", service.clone()),
            (a.0, a.1.as_str(), a.2.clone()),
            (b.0, b.1.as_str(), b.2.clone()),
            ("plugin", "t", plugin.clone()),
            ("instance", "default/shop/i", instance.clone()),
        ];
        update(revision, &objects)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = listener.local_addr().unwrap();
    let (change, served) = watch::channel(objects(1, &teleport(false)));
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, served));

    let mut router = Router::start(RouterSetup::new("older", &[registry]), site.dir()).await;
    router.wait_applied(1).await;
    assert_eq!(router.get("a.test", "/").await.status, 200, "left out");

    change.send_replace(objects(2, &teleport(true)));
    router.wait_applied(2).await;
    let refused = router.get("a.test", "/").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(
        router.get("b.test", "/").await.status,
        200,
        "the others go on"
    );

    // The copy on disk has all of it, for the newer router that comes next.
    let copy = router.data_dir().join("table.ndjson");
    let line = set_line("plugin", "t", &teleport(true)).unwrap();
    let line = String::from_utf8(line.bytes.into()).unwrap();
    wait::until("the copy on disk has it whole", SOON, || async {
        let text = std::fs::read_to_string(&copy).ok()?;
        text.lines().any(|found| found == line).then_some(())
    })
    .await;
    router.kill();
    tasks.abort_all();
    router.resume().await;
    assert_eq!(
        router.get("a.test", "/").await.status,
        503,
        "from the copy on disk"
    );
    let other = http1::get(router.traffic(), "b.test", "/").await.unwrap();
    assert_eq!(other.status, 200);
}
