//! WebSocket over HTTP/2 (RFC 8441).

use bytes::Bytes;
use h2::{Reason, ext::Protocol};
use http::Request;

use super::client::{Client, get, read_body, send_all, soon};
use crate::{
    harness::{OK, Setup, Upstream, until},
    websocket::cases,
};

fn connect(protocol: &'static str) -> Request<()> {
    Request::builder()
        .method("CONNECT")
        .uri("http://h.example/chat")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

fn echoing() -> Upstream {
    Upstream::start(|mut wire, _| {
        let head = wire.head();
        if head.contains("/ordinary") || !head.contains("/chat") {
            wire.send(OK);
            return;
        }
        assert!(
            head.starts_with("GET /chat HTTP/1.1\r\nhost: h.example\r\n"),
            "{head}"
        );
        assert!(
            head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"),
            "{head}"
        );
        assert!(head.contains("sec-websocket-version: 13\r\n"), "{head}");
        assert_eq!(head.matches("sec-websocket-key: ").count(), 1, "{head}");
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello");
        loop {
            let Some(piece) = wire.try_take(1) else {
                return;
            };
            wire.send(&piece);
            if piece == b"\n" {
                return;
            }
        }
    })
}

#[test]
fn bytes_flow_both_ways_beside_other_requests() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    until("SETTINGS", || {
        client.send.is_extended_connect_protocol_enabled()
    });
    let (answer, mut stream) = client.open(connect("websocket"), false);
    let mut body = client.runtime.block_on(async {
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        for gone in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!answer.headers().contains_key(gone), "{gone}");
        }
        answer.into_body()
    });
    let tunnels = "cardea_router_active_connections{protocol=\"upgrade\"}";
    until("counted", || router.metric(tunnels) == Some(1.0));
    assert_eq!(client.ask(get("/ordinary"), b"").body, b"ok");
    let heard = client.runtime.block_on(async {
        for _ in 0..100 {
            stream
                .send_data(Bytes::from_static(b"ping"), false)
                .unwrap();
        }
        stream.send_data(Bytes::from_static(b"\n"), false).unwrap();
        soon(read_body(&mut body)).await.unwrap().0
    });
    assert_eq!(
        heard,
        [b"hello".to_vec(), b"ping".repeat(100), b"\n".to_vec()].concat()
    );
    stream.send_data(Bytes::new(), true).unwrap();
    until("uncounted", || router.metric(tunnels) == Some(0.0));
    router.comes_to("cardea_router_active_connections{protocol=\"http1\"}", 0.0);
}

#[test]
fn a_client_that_leaves_ends_the_tunnel() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    until("SETTINGS", || {
        client.send.is_extended_connect_protocol_enabled()
    });
    let (answer, mut stream) = client.open(connect("websocket"), false);
    let _answer = client.runtime.block_on(soon(answer)).unwrap();
    stream.send_reset(Reason::CANCEL);
    let tunnels = "cardea_router_active_connections{protocol=\"upgrade\"}";
    until("uncounted", || {
        router.log(1)[0]["status"] == 101 && router.metric(tunnels) == Some(0.0)
    });
}

#[test]
fn anything_but_a_101_is_no_tunnel() {
    let upstream = Upstream::start(|mut wire, connection| {
        wire.head();
        wire.send(if connection == 0 {
            OK
        } else {
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
        });
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    until("SETTINGS", || {
        client.send.is_extended_connect_protocol_enabled()
    });
    for status in [502, 403] {
        let (answer, _stream) = client.open(connect("websocket"), false);
        let answer = client.runtime.block_on(soon(answer)).unwrap();
        assert_eq!(answer.status().as_u16(), status);
    }
    // No other protocol is tunnelled; nor is a connection to somewhere.
    let (answer, _stream) = client.open(connect("connect-udp"), false);
    let answer = client.runtime.block_on(soon(answer)).unwrap();
    assert_eq!(answer.status().as_u16(), 501);
    let somewhere = Request::builder().method("CONNECT").uri("h.example:80");
    let (answer, _stream) = client.open(somewhere.body(()).unwrap(), false);
    let answer = client.runtime.block_on(soon(answer)).unwrap();
    assert_eq!(answer.status().as_u16(), 501);
    assert_eq!(upstream.connections(), 2);
}

/// What passes untouched over HTTP/1.1 does so over HTTP/2, in whatever pieces the windows cut it.
#[test]
fn frames_of_every_kind_pass_untouched_over_http2() {
    let upstream = Upstream::start(|mut wire, _| {
        let head = wire.head();
        assert!(head.contains("sec-websocket-extensions: permessage-deflate\r\n"));
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        let mut to = wire.stream.try_clone().unwrap();
        std::io::copy(&mut wire.stream, &mut to).unwrap();
        wire.close_sending();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    until("SETTINGS", || {
        client.send.is_extended_connect_protocol_enabled()
    });
    for (class, bytes) in cases() {
        let mut asked = connect("websocket");
        let extension = http::HeaderValue::from_static("permessage-deflate");
        asked
            .headers_mut()
            .insert("sec-websocket-extensions", extension);
        let (answer, stream) = client.open(asked, false);
        let said = client.runtime.block_on(async {
            let answer = soon(answer).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(
                answer.headers()["sec-websocket-extensions"],
                "permessage-deflate"
            );
            let sending = tokio::spawn(send_all(stream, bytes.clone(), None, false));
            let said = soon(read_body(&mut answer.into_body())).await.unwrap().0;
            sending.await.unwrap();
            said
        });
        assert!(
            said == bytes,
            "{class}: {} of {} bytes",
            said.len(),
            bytes.len()
        );
    }
}
