//! Upgrades: tunnels only after the peer's `101`.

use std::time::Duration;

use crate::harness::{OK, Setup, Upstream, until};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

fn echoing() -> Upstream {
    Upstream::start(|mut wire, _| {
        let head = wire.head();
        assert!(
            head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"),
            "{head}"
        );
        assert!(head.contains("Sec-WebSocket-Key: x\r\n"));
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\nhello");
        loop {
            let piece = wire.take(1);
            wire.send(&piece);
            if piece == b"\n" {
                return;
            }
        }
    })
}

#[test]
fn bytes_flow_both_ways_after_the_101() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    // The first frame comes with the request: it is held back until the upgrade is agreed on.
    client.send(format!("{UPGRADE}frame"));
    let head = client.head();
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"),
        "{head}"
    );
    assert!(head.contains("Sec-WebSocket-Accept: y\r\n"));
    assert_eq!(client.take(10), b"helloframe");
    until("counted", || {
        router.metric("cardea_router_active_connections{protocol=\"upgrade\"}") == Some(1.0)
    });
    for _ in 0..100 {
        client.send("ping");
        assert_eq!(client.take(4), b"ping");
    }
    client.send("\n");
    assert_eq!(client.take(1), b"\n");
    client.assert_closed();
    drop(client);
    until("counted", || {
        router.metric("cardea_router_active_connections{protocol=\"upgrade\"}") == Some(0.0)
    });
    assert_eq!(router.log(1)[0]["status"], 101);
}

#[test]
fn without_a_101_it_stays_http() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    for _ in 0..2 {
        client.send(UPGRADE);
        assert_eq!(client.response().body, b"ok");
    }
}

#[test]
fn a_half_closed_tunnel_still_answers() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let (all, end) = wire.rest();
        end.unwrap();
        wire.send(all.repeat(2));
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    client.send("abc");
    client.close_sending();
    assert_eq!(client.rest().0, b"abcabc");
}

#[test]
fn a_side_that_does_not_end_after_the_other_is_not_waited_for() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.idle_timeout = Duration::from_millis(50))
        .start();
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    client.send("\n");
    assert_eq!(client.take(6), b"hello\n");
    client.assert_closed();
    until("counted", || {
        router.metric("cardea_router_active_connections{protocol=\"upgrade\"}") == Some(0.0)
    });
}

#[test]
fn a_tunnel_has_no_idle_limit() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream])
        .service("timeouts = { idle = \"50ms\", first_byte = \"50ms\" }")
        .config(|c| c.limits.idle_timeout = Duration::from_millis(50))
        .start();
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    assert_eq!(client.take(5), b"hello");
    std::thread::sleep(Duration::from_millis(300));
    client.send("still");
    assert_eq!(client.take(5), b"still");
}
