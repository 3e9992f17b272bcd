//! WebSockets through the router.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use cardea_registry_api::{InstanceState, Span, api::InstancePatch, instance::Forced};
use cardea_tests::{
    backend::Backend,
    site::{CLUSTER, SOON, Site, key},
    wait,
};
use tungstenite::{Message, WebSocket};

use crate::gate;

pub(crate) type Socket = WebSocket<TcpStream>;

/// Opens one; `name` of the backend that serves it comes with it.
pub(crate) fn open(router: SocketAddr) -> (Socket, String) {
    let stream = TcpStream::connect(router).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let (mut socket, answer) = tungstenite::client("ws://chat.test/room", stream).unwrap();
    assert_eq!(answer.status(), 101);
    let said = echo(&mut socket, "hello").unwrap();
    let name = said.split(' ').next().unwrap().to_owned();
    (socket, name)
}

pub(crate) fn echo(socket: &mut Socket, text: &str) -> Result<String, tungstenite::Error> {
    socket.send(Message::text(text))?;
    Ok(socket.read()?.into_text()?.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_websocket_stays_open_through_100_table_updates_and_the_end_of_others() {
    let _machine = gate::shared().await;
    let site = Site::on_sqlite("websocket").await;
    site.route("chat.test", "chat", |_| {}).await;
    let mut backends = Vec::new();
    for id in ["a", "b", "c"] {
        let backend = Backend::start(id).await;
        site.register("chat", id, backend.address()).await;
        backends.push(backend);
    }
    site.settled().await;
    let traffic = site.routers[0].traffic();
    let (mut socket, own) = tokio::task::spawn_blocking(move || open(traffic))
        .await
        .unwrap();
    let begun = Instant::now();
    for update in 0..100 {
        let extra = format!("extra-{update}");
        let written = site
            .register("chat", &extra, "127.0.0.1:9".parse().unwrap())
            .await;
        site.routers[0].wait_applied(written.revision).await;
        if update % 10 == 0 {
            assert_eq!(echo(&mut socket, &extra).unwrap(), format!("{own} {extra}"));
        }
    }
    for other in ["a", "b", "c"].into_iter().filter(|id| *id != own) {
        let gone = site
            .client()
            .deregister(&key(CLUSTER, "chat", other), Span::secs(8))
            .await;
        assert!(gone.unwrap().pending.is_empty());
        assert_eq!(echo(&mut socket, other).unwrap(), format!("{own} {other}"));
    }
    // Also when the router looks after its tunnels, which it does each second.
    for second in ["one", "two", "three"] {
        wait::pass(Duration::from_secs(1)).await;
        assert_eq!(
            echo(&mut socket, second).unwrap(),
            format!("{own} {second}")
        );
    }
    println!(
        "open through 100 table updates and 2 deregistrations, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_draining_instance_keeps_its_websockets_until_the_ceiling() {
    const CEILING: Duration = Duration::from_secs(4);
    let _machine = gate::shared().await;
    let mut site = Site::empty("websocket-drain");
    site.add_registry(|setup| setup).await;
    site.add_router(|setup| setup.flag("--tunnel-ceiling", "4s"))
        .await;
    site.route("chat.test", "chat", |_| {}).await;
    let mut backends = Vec::new();
    for id in ["a", "b"] {
        let backend = Backend::start(id).await;
        site.register("chat", id, backend.address()).await;
        backends.push(backend);
    }
    site.settled().await;
    let traffic = site.routers[0].traffic();
    let (mut socket, own) = tokio::task::spawn_blocking(move || open(traffic))
        .await
        .unwrap();

    let drain = InstancePatch {
        forced: Some(Forced {
            state: Some(InstanceState::Draining),
            weight: None,
        }),
        ..InstancePatch::default()
    };
    let drained = Instant::now();
    let patched = site
        .client()
        .patch_instance(&key(CLUSTER, "chat", &own), &drain)
        .await
        .unwrap();
    site.routers[0].wait_applied(patched.revision).await;
    // New ones go elsewhere.
    for _ in 0..4 {
        let (_other, name) = tokio::task::spawn_blocking(move || open(traffic))
            .await
            .unwrap();
        assert_ne!(name, own, "a draining instance got a new connection");
    }
    let lasted = tokio::task::spawn_blocking(move || {
        assert!(echo(&mut socket, "still here").is_ok(), "cut at once");
        // Its end is all that comes now.
        let end = socket.read();
        assert!(end.is_err(), "{end:?}");
        assert!(drained.elapsed() < SOON, "open far beyond the ceiling");
        drained.elapsed()
    });
    let lasted = lasted.await.unwrap();
    println!(
        "a draining instance's WebSocket lasted {:.1} s; ceiling 4 s",
        lasted.as_secs_f64()
    );
    assert!(lasted >= CEILING.mul_f64(0.9), "cut after {lasted:?}");
}
