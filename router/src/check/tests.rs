use std::sync::atomic::{AtomicU16, Ordering};

use cardea_registry_api::{Address, Service, Span};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::fixtures::{World, instance, name};

fn check(path: Option<&str>) -> ActiveCheck {
    ActiveCheck {
        path: path.map(str::to_owned),
        interval: Span::millis(100),
        timeout: Span::millis(300),
        ..ActiveCheck::default()
    }
}

#[test]
fn results_in_a_row_decide() {
    let check = ActiveCheck {
        fails: 3,
        passes: 2,
        ..ActiveCheck::default()
    };
    let mut tally = Tally::default();
    let results = [
        (false, false),
        (false, false),
        (true, false),
        (false, false),
        (false, false),
        (false, true),
        (false, false),
        (true, false),
        (false, false),
        (true, false),
        (true, true),
        (true, false),
    ];
    for (number, (passed, changes)) in results.into_iter().enumerate() {
        assert_eq!(tally.count(passed, &check), changes, "{number}");
    }
    assert!(!tally.down);
}

/// Answers with the status it is told; 0: not at all.
async fn server(status: Arc<AtomicU16>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap_or(0);
            if read == 0 {
                continue;
            }
            assert!(request.starts_with(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1:"));
            match status.load(Ordering::SeqCst) {
                0 => silent.push(stream),
                code => {
                    let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    });
    (address, task)
}

fn world(address: SocketAddr, active: ActiveCheck) -> World {
    let mut service = Service::named(name("s"));
    service.health.active = Some(active);
    let mut world = World::with(service, &[]);
    let mut own = instance("s", 0, 100);
    own.address = address.to_string().parse::<Address>().unwrap();
    world.instance(own);
    world.publish(std::time::Instant::now());
    world
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn takes_a_peer_out_and_back() {
    let status = Arc::new(AtomicU16::new(200));
    let (address, server) = server(Arc::clone(&status)).await;
    let mut world = world(address, check(Some("/health")));
    let peer = Arc::clone(&world.upstream("s").members()[0].peer);
    let task = tokio::spawn(Checks::new(Arc::clone(&world.shared)).run());
    for bad in [500, 0] {
        status.store(bad, Ordering::SeqCst);
        until("out", || peer.word().checks_down()).await;
        let reason = peer.report(std::time::Instant::now()).reason.unwrap();
        let word = if bad == 0 {
            "no answer within 300ms"
        } else {
            "answered 500"
        };
        assert!(reason.contains(word), "{reason}");
        status.store(204, Ordering::SeqCst);
        until("back", || !peer.word().checks_down()).await;
    }
    // No longer asked for: no longer out.
    status.store(500, Ordering::SeqCst);
    until("out", || peer.word().checks_down()).await;
    world.service(Service::named(name("s")));
    world.publish(std::time::Instant::now());
    until("back", || !peer.word().checks_down()).await;
    task.abort();
    server.abort();
}

fn target(address: Option<SocketAddr>) -> Target<'static> {
    Target {
        address,
        authority: "x",
        host: "x",
        security: &Security::Plain,
        protocol: Protocol::Http1,
    }
}

#[tokio::test]
async fn a_connection_is_enough_without_a_path() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    run(target(Some(address)), &check(None)).await.unwrap();
    drop(listener);
    let why = run(target(Some(address)), &check(None)).await.unwrap_err();
    assert!(why.starts_with("connect: "), "{why}");
    let why = run(target(None), &check(None)).await.unwrap_err();
    assert!(why.contains("the name of x is not resolved"), "{why}");
}

#[tokio::test]
async fn an_answer_that_is_no_http_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
    };
    let check = check(Some("/"));
    let (result, ()) = tokio::join!(run(target(Some(address)), &check), answer);
    assert!(result.unwrap_err().starts_with("no HTTP"));
}
