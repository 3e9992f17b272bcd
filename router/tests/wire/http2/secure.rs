//! Services that are asked in HTTP/2 within TLS: who is believed, what must be agreed on, and that a
//! shared connection serves nobody on other terms than its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use h2::server::Builder;
use http::Response;
use rustls::ServerConfig;

use super::{
    client::{Client, get, read, request, soon},
    peer::{Call, Peer, Serving},
};
use crate::{
    harness::{GET, Running, Setup, Upstream, until},
    tls::authority::{Authority, Pair},
    upstream_tls::errors,
};

/// A server's side that speaks these inside of TLS.
pub(crate) fn speaking(pair: &Pair, inside: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = pair.server();
    let alpn = inside.iter().map(|name| name.to_vec()).collect();
    Arc::make_mut(&mut config).alpn_protocols = alpn;
    config
}

fn echo(mut call: Call) -> Serving {
    Box::pin(async move {
        let (body, trailers) = call.read().await;
        call.finish(body, trailers).await;
    })
}

fn secure(pair: &Pair) -> Peer {
    let config = speaking(pair, &[b"h2", b"http/1.1"]);
    Peer::secure(config, Builder::new().initial_window_size(1 << 20), echo)
}

/// What a service says to be asked so.
fn wanted(tls: &str) -> String {
    format!("protocol = \"h2\"\ntls = {{ {tls} }}")
}

pub(crate) fn setup(peers: &[&Peer], ca: &Authority, more: &str) -> Setup {
    let setup = Setup::new(&[])
        .file("ca.pem", &ca.pem())
        .service(&wanted(&format!("ca_file = \"ca.pem\"{more}")));
    peers
        .iter()
        .fold(setup, |setup, peer| setup.peer(peer.address))
}

fn post(router: &Running) -> u16 {
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    router.ask(post).status()
}

#[test]
fn requests_of_all_clients_share_one_connection() {
    let ca = Authority::new("ca");
    let peer = secure(&ca.sign(&["127.0.0.1"]));
    let router = setup(&[&peer], &ca, "").start();
    let mut http1 = router.client();
    for _ in 0..20 {
        http1.send("PUT /a?b HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(http1.response().body, b"abc");
    }
    assert_eq!(peer.heads()[0].uri(), "https://h.example/a?b");
    let mut client = Client::connect(router.address);
    let answers: Vec<_> = (0..100).map(|_| client.open(get("/"), true).0).collect();
    client.runtime.block_on(async {
        for answer in answers {
            assert_eq!(soon(read(answer)).await.unwrap().status(), 200);
        }
    });
    let body = vec![b'x'; 3_000_000];
    assert!(client.ask(request("PUT", "/"), &body).body == body);
    assert_eq!(peer.connections(), 1);
    assert_eq!(router.metric("cardea_router_upstream_errors_total{"), None);
}

#[test]
fn a_name_stands_for_the_address_and_verify_none_for_anybody() {
    let ca = Authority::new("ca");
    let peer = secure(&ca.sign(&["search.internal"]));
    let router = setup(&[&peer], &ca, ", name = \"search.internal\"").start();
    assert_eq!(router.ask(GET).status(), 200);
    let anybody = Setup::new(&[]).service(&wanted("verify = \"none\""));
    assert_eq!(anybody.peer(peer.address).start().ask(GET).status(), 200);
}

#[test]
fn whom_nobody_vouches_for_is_not_asked() {
    let ca = Authority::new("ca");
    for (pair, tls) in [
        (&Authority::new("other").sign(&["127.0.0.1"]), ""),
        (&ca.sign(&["127.0.0.2"]), ""),
        (&ca.sign(&["127.0.0.1"]), ", name = \"search.internal\""),
    ] {
        let peer = secure(pair);
        let router = setup(&[&peer], &ca, tls).start();
        assert_eq!(post(&router), 502);
        assert_eq!(errors(&router, "tls"), 1);
        assert_eq!(peer.heads().len(), 0);
    }
}

#[test]
fn who_does_not_agree_on_http2_is_not_asked_and_it_counts() {
    let ca = Authority::new("ca");
    let pair = ca.sign(&["127.0.0.1"]);
    // Says no; knows nothing of the question; agrees on what it was not asked.
    for inside in [&[&b"http/1.1"[..]][..], &[]] {
        let peer = Peer::secure(speaking(&pair, inside), &Builder::new(), echo);
        let router = setup(&[&peer], &ca, "").start();
        assert_eq!(post(&router), 502, "{inside:?}");
        assert_eq!(errors(&router, "alpn"), 1, "{inside:?}");
        assert_eq!(errors(&router, "tls"), 0, "{inside:?}");
        let last = router.log(1).remove(0);
        assert_eq!(last["error"], "alpn", "{last}");
        assert_eq!(peer.heads().len(), 0);
    }
    // Another one does: the request goes there, and soon none is tried at the first.
    let wrong = Peer::secure(speaking(&pair, &[b"http/1.1"]), &Builder::new(), echo);
    let right = secure(&pair);
    let router = setup(&[&wrong, &right], &ca, "").start();
    for _ in 0..20 {
        assert_eq!(post(&router), 200);
    }
    assert_eq!(errors(&router, "alpn"), 3, "it is marked down");
    // What speaks no TLS at all is another matter.
    let plain = Upstream::start(|mut wire, _| wire.send("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let router = Setup::new(&[&plain]).file("ca.pem", &ca.pem());
    let router = router.service(&wanted("ca_file = \"ca.pem\"")).start();
    assert_eq!(post(&router), 502);
    assert_eq!(errors(&router, "tls"), 1);
}

#[test]
fn a_connection_serves_only_on_the_terms_it_was_made_on() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waiting = gate.clone();
    let peer = Peer::secure(
        speaking(&ca.sign(&["127.0.0.1"]), &[b"h2"]),
        &Builder::new(),
        move |mut call| {
            let gate = waiting.clone();
            Box::pin(async move {
                if call.path() == "/wait" {
                    gate.acquire().await.unwrap().forget();
                }
                call.finish("ok", None).await;
            })
        },
    );
    let router = setup(&[&peer], &ca, "").start();
    let mut client = Client::connect(router.address);
    let (open, _stream) = client.open(get("/wait"), true);
    until("it waits", || peer.heads().len() == 1);
    assert_eq!(router.ask(GET).status(), 200);
    assert_eq!(peer.connections(), 1);
    // Another authority: whoever is asked from now on must show that it is of that one.
    std::fs::write(router.dir.path().join("ca.pem"), other.pem()).unwrap();
    until("the new terms hold", || post(&router) == 502);
    let served = peer.heads().len();
    for _ in 0..10 {
        assert_eq!(post(&router), 502);
    }
    assert_eq!(
        peer.heads().len(),
        served,
        "asked on a connection of before"
    );
    // What was open goes on.
    gate.add_permits(1);
    let answer = client.runtime.block_on(soon(read(open))).unwrap();
    assert_eq!((answer.status(), &*answer.body), (200, &b"ok"[..]));
    // And back again: on a new connection.
    let before = peer.connections();
    std::fs::write(router.dir.path().join("ca.pem"), ca.pem()).unwrap();
    until("the first terms hold again", || post(&router) == 200);
    assert!(peer.connections() > before);
}

#[test]
fn another_protocol_is_another_connection() {
    let ca = Authority::new("ca");
    let config = speaking(&ca.sign(&["127.0.0.1"]), &[b"h2"]);
    let strict = Peer::secure(config, &Builder::new(), echo);
    let router = setup(&[&strict], &ca, "").start();
    assert_eq!(post(&router), 200);
    // Now it is to be asked in HTTP/1.1, on which it does not agree.
    router.edit(|text| text.replace("protocol = \"h2\"", "protocol = \"http/1.1\""));
    assert_eq!(post(&router), 502);
    assert_eq!(errors(&router, "alpn"), 1);
    assert_eq!(errors(&router, "protocol"), 0);
    router.edit(|text| text.replace("protocol = \"http/1.1\"", "protocol = \"h2\""));
    assert_eq!(post(&router), 200);
}

#[test]
fn checks_ask_so_too() {
    let ca = Authority::new("ca");
    let sick = Arc::new(AtomicBool::new(false));
    let reading = sick.clone();
    let peer = Peer::secure(
        speaking(&ca.sign(&["127.0.0.1"]), &[b"h2"]),
        &Builder::new(),
        move |mut call| {
            let status = if reading.load(Ordering::SeqCst) {
                503
            } else {
                200
            };
            Box::pin(async move {
                let head = Response::builder().status(status).body(()).unwrap();
                call.answer(head, true);
            })
        },
    );
    let path = "health = { active = { path = \"/health\", interval = \"100ms\" } }";
    let router = setup(&[&peer], &ca, "").service(path).start();
    let healthy = |router: &Running| router.metric("cardea_router_peer_healthy");
    until("it is checked", || peer.heads().len() >= 2);
    assert_eq!(peer.heads()[0].uri().scheme_str(), Some("https"));
    assert_eq!(healthy(&router), Some(1.0));
    sick.store(true, Ordering::SeqCst);
    until("it is down", || healthy(&router) == Some(0.0));
    sick.store(false, Ordering::SeqCst);
    until("it is back", || healthy(&router) == Some(1.0));
    // A check without a path asks for the handshake alone, and HTTP/2 is a part of it.
    let connect = "health = { active = { interval = \"100ms\" } }";
    let router = setup(&[&peer], &ca, "").service(connect).start();
    let before = peer.connections();
    until("it is checked", || peer.connections() >= before + 2);
    assert_eq!(healthy(&router), Some(1.0));
    let config = speaking(&ca.sign(&["127.0.0.1"]), &[]);
    let wrong = Peer::secure(config, &Builder::new(), echo);
    let router = setup(&[&wrong], &ca, "").service(connect).start();
    until("it is down", || healthy(&router) == Some(0.0));
}

/// Accepts WebSockets, and sends back what it hears.
fn sockets(mut call: Call) -> Serving {
    Box::pin(async move {
        let Some(protocol) = call.protocol.clone() else {
            return call.finish("ok", None).await;
        };
        assert_eq!(protocol.as_str(), "websocket");
        let head = Response::builder().header("sec-websocket-protocol", "chat");
        if call.path() == "/no" {
            let head = head.status(403).body(()).unwrap();
            call.answer(head, true);
            return;
        }
        // The proof is the router's to give.
        let head = head.header("sec-websocket-accept", "x");
        let mut to = call.answer(head.body(()).unwrap(), false);
        while let Some(piece) = call.body.data().await {
            let Ok(piece) = piece else { return };
            let _ = call.body.flow_control().release_capacity(piece.len());
            to.send_data(piece, false).unwrap();
        }
        let _ = to.send_data(Bytes::from_static(b"bye"), true);
    })
}

/// In the clear and within TLS, to a service with these settings.
fn both(settings: &Builder) -> [(Peer, Running); 2] {
    let ca = Authority::new("ca");
    let plain = Peer::with(settings, sockets);
    let in_clear = Setup::new(&[]).service("protocol = \"h2c\"");
    let in_clear = in_clear.peer(plain.address).start();
    let config = speaking(&ca.sign(&["127.0.0.1"]), &[b"h2"]);
    let hidden = Peer::secure(config, settings, sockets);
    let within = setup(&[&hidden], &ca, "").start();
    [(plain, in_clear), (hidden, within)]
}

fn upgrade(path: &str, to: &str, key: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h.example\r\nConnection: upgrade\r\nUpgrade: {to}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n{key}\r\n"
    )
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_websocket_is_opened_in_http2_where_the_service_takes_it() {
    let mut settings = Builder::new();
    settings.enable_connect_protocol();
    for (peer, router) in both(&settings) {
        let mut wire = router.client();
        wire.send(upgrade("/chat?a", "WebSocket", KEY));
        let head = wire.head().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        for line in [
            "upgrade: websocket\r\n",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
            "sec-websocket-protocol: chat\r\n",
        ] {
            assert_eq!(head.matches(line).count(), 1, "{head}");
        }
        let asked = peer.heads().remove(0);
        assert_eq!(asked.method(), "CONNECT");
        assert_eq!(asked.uri().path_and_query().unwrap(), "/chat?a");
        assert_eq!(asked.uri().authority().unwrap(), "h.example");
        assert_eq!(asked.headers()["sec-websocket-version"], "13");
        for gone in ["sec-websocket-key", "upgrade", "connection", "host"] {
            assert!(!asked.headers().contains_key(gone), "{gone}");
        }
        // Another request shares the connection, and the tunnel outlives it.
        for round in 0..50 {
            wire.send(format!("{round:03}"));
            assert_eq!(wire.take(3), format!("{round:03}").as_bytes());
            assert_eq!(router.ask(GET).body, b"ok");
        }
        assert_eq!(peer.connections(), 1);
        let tunnels = "cardea_router_active_connections{protocol=\"upgrade\"}";
        router.comes_to(tunnels, 1.0);
        // What one side ends the other hears of, and may still answer.
        wire.close_sending();
        assert_eq!(wire.rest().0, b"bye");
        until("uncounted", || router.metric(tunnels) == Some(0.0));
        // A service may say no.
        let answer = router.ask(upgrade("/no", "websocket", KEY));
        assert_eq!(answer.status(), 403);
    }
}

#[test]
fn an_upgrade_that_http2_cannot_carry_is_refused_and_marks_nobody() {
    let mut takes = Builder::new();
    takes.enable_connect_protocol();
    for (settings, path, to, key, status, code) in [
        (
            &Builder::new(),
            "/",
            "websocket",
            KEY,
            501,
            "upgrade_not_served",
        ),
        (&takes, "/", "chat", KEY, 501, "upgrade_not_served"),
        (
            &takes,
            "/",
            "websocket, chat",
            KEY,
            501,
            "upgrade_not_served",
        ),
        (&takes, "/", "websocket", "", 400, "bad_request"),
        (
            &takes,
            "/",
            "websocket",
            "Sec-WebSocket-Key: eA==\r\n",
            400,
            "bad_request",
        ),
    ] {
        for (peer, router) in both(settings) {
            let answer = router.ask(upgrade(path, to, key));
            assert_eq!(answer.status(), status, "{to} {key}");
            let body = String::from_utf8(answer.body).unwrap();
            assert!(body.contains(code), "{body}");
            assert_eq!(peer.heads().len(), 0);
            assert_eq!(router.ask(GET).body, b"ok");
            assert_eq!(router.metric("cardea_router_upstream_errors_total{"), None);
        }
    }
}
