//! Services that are asked in HTTP/2.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};

use super::{
    client::{Client, get, read, request, soon},
    peer::Peer,
};
use crate::harness::{PATIENCE, Running, Setup, until};

fn pattern(n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

fn router(peers: &[&Peer]) -> Running {
    let setup = Setup::new(&[]).service("protocol = \"h2c\"");
    let setup = peers
        .iter()
        .fold(setup, |setup, peer| setup.peer(peer.address));
    setup.start()
}

#[test]
fn an_http1_client_is_served_by_an_http2_service() {
    let peer = Peer::echo();
    let router = router(&[&peer]);
    let mut client = router.client();
    for round in 0..3 {
        client.send(
            "PUT /a?b=c HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\nX-A: 1\r\nX-A: 2\r\n\
             TE: trailers\r\nKeep-Alive: x\r\nConnection: keep-alive, x-mine\r\nX-Mine: 1\r\n\r\nabc",
        );
        let answer = client.response();
        assert_eq!(
            (answer.status(), &*answer.body),
            (200, &b"abc"[..]),
            "{round}"
        );
    }
    assert_eq!(peer.connections(), 1);
    let head = &peer.heads()[0];
    assert_eq!(head.method(), "PUT");
    assert_eq!(head.uri(), "http://h.example/a?b=c");
    let values: Vec<_> = head.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(head.headers()["te"], "trailers");
    assert_eq!(head.headers()["content-length"], "3");
    assert_eq!(head.headers()["x-forwarded-for"], "127.0.0.1");
    for gone in [
        "connection",
        "keep-alive",
        "x-mine",
        "host",
        "transfer-encoding",
    ] {
        assert!(!head.headers().contains_key(gone), "{gone}");
    }
}

#[test]
fn bodies_and_trailers_go_through_http2_on_both_sides() {
    let peer = Peer::echo();
    let router = router(&[&peer]);
    let mut client = Client::connect(router.address);
    for size in [0, 1, 16_384, 70_000, 3_000_000] {
        let body = pattern(size);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from(size));
        let answer = client.ask_with(request("PUT", "/"), &body, Some(trailers.clone()));
        assert!(answer.body == body, "{size}");
        assert_eq!(answer.trailers, Some(trailers), "{size}");
        let mut sized = request("PUT", "/");
        sized
            .headers_mut()
            .insert("content-length", HeaderValue::from(size));
        assert!(client.ask(sized, &body).body == body, "{size}");
    }
    let answers: Vec<_> = (0..100).map(|_| client.open(get("/"), true).0).collect();
    client.runtime.block_on(async {
        for answer in answers {
            assert_eq!(soon(read(answer)).await.unwrap().status(), 200);
        }
    });
    assert_eq!(peer.connections(), 1, "streams share a connection");
}

#[test]
fn answers_without_a_body_have_none_on_either_side() {
    let peer = Peer::start(|mut call| {
        Box::pin(async move {
            let mut head = Response::builder();
            if call.path() == "/204" {
                head = head.status(204);
            }
            if call.head.method() == "HEAD" {
                head = head.header("content-length", 5);
            }
            call.answer(head.body(()).unwrap(), true);
        })
    });
    let router = router(&[&peer]);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().field("content-length"), Some("0"));
    client.send("GET /204 HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.response();
    assert_eq!(
        (answer.status(), answer.field("content-length")),
        (204, None)
    );
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_to(true).field("content-length"), Some("5"));
    assert_eq!(peer.connections(), 1);
}

#[test]
fn interim_answers_pass() {
    let peer = Peer::start(|mut call| {
        Box::pin(async move {
            let hints = Response::builder().status(103).header("link", "</a.css>");
            let hints = hints.body(()).unwrap();
            call.respond.send_informational(hints).unwrap();
            call.finish("ok", None).await;
        })
    });
    let router = router(&[&peer]);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let hints = client.response();
    assert_eq!(
        (hints.status(), hints.field("link")),
        (103, Some("</a.css>"))
    );
    assert_eq!(client.response().body, b"ok");
}

#[test]
fn what_was_refused_is_asked_elsewhere_even_if_it_may_not_be_repeated() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let counting = refusals.clone();
    let refusing = Peer::start(move |mut call| {
        counting.fetch_add(1, Ordering::SeqCst);
        call.respond.send_reset(Reason::REFUSED_STREAM);
        Box::pin(async {})
    });
    let fine = Peer::echo();
    let router = router(&[&refusing, &fine]);
    for _ in 0..4 {
        let answer = router.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!((answer.status(), &*answer.body), (200, &b"ok"[..]));
    }
    assert!(refusals.load(Ordering::SeqCst) > 0);
    // What was reset in the middle may have been done: POST is not repeated.
    let breaking = Peer::start(|mut call| {
        call.respond.send_reset(Reason::INTERNAL_ERROR);
        Box::pin(async {})
    });
    let router = self::router(&[&breaking]);
    let answer = router.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(answer.status(), 502);
    assert_eq!(breaking.heads().len(), 1);
}

#[test]
fn a_peer_that_says_goodbye_is_asked_on_a_new_connection_and_fails_nobody() {
    let peer = Peer::echo();
    let router = router(&[&peer]);
    let stop = Arc::new(AtomicBool::new(false));
    let loading: Vec<_> = (0..4)
        .map(|_| {
            let (address, stop) = (router.address, stop.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut asked = 0;
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.ask(request("POST", "/"), b"hello");
                    assert_eq!((answer.status(), &*answer.body), (200, &b"hello"[..]));
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for round in 1..=5 {
        until("a connection", || peer.connections() >= round);
        let before = peer.heads().len();
        until("requests", || peer.heads().len() > before + 50);
        peer.say_goodbye();
    }
    until("another connection", || peer.connections() > 5);
    stop.store(true, Ordering::SeqCst);
    for load in loading {
        assert!(load.join().unwrap() > 0);
    }
    assert_eq!(router.metric("cardea_router_upstream_errors_total{"), None);
}

#[test]
fn streams_beyond_what_the_peer_allows_get_another_connection() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waiting = gate.clone();
    let peer = Peer::with(
        h2::server::Builder::new().max_concurrent_streams(10),
        move |mut call| {
            let gate = waiting.clone();
            Box::pin(async move {
                let _permit = gate.acquire().await;
                call.finish("ok", None).await;
            })
        },
    );
    let router = router(&[&peer]);
    let mut client = Client::connect(router.address);
    // The first connection's limit is not known before it has been used.
    let (first, _) = client.open(get("/"), true);
    until("asked", || peer.heads().len() == 1);
    // One by one: a new connection's limit is not known before the peer has named it.
    let answers: Vec<_> = (0..35)
        .map(|i| {
            let (answer, _) = client.open(get("/"), true);
            until("asked", || peer.heads().len() == i + 2);
            answer
        })
        .collect();
    assert_eq!(peer.connections(), 4);
    gate.add_permits(100);
    client.runtime.block_on(async {
        for answer in answers.into_iter().chain([first]) {
            assert_eq!(soon(read(answer)).await.unwrap().body, b"ok");
        }
    });
}

#[test]
fn a_client_that_gives_up_cancels_the_stream_and_not_its_neighbours() {
    let (gone, saw) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let gone = Arc::new(gone);
    let peer = Peer::start(move |mut call| {
        let gone = gone.clone();
        Box::pin(async move {
            if call.path() == "/wait" {
                let reason = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await;
                gone.lock().unwrap().send(reason.unwrap()).unwrap();
                return;
            }
            call.finish("ok", None).await;
        })
    });
    let router = router(&[&peer]);
    let mut client = Client::connect(router.address);
    let given_up = client.open(get("/wait"), true);
    until("asked", || peer.heads().len() == 1);
    drop(given_up);
    let reason = saw.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reason, Reason::CANCEL);
    assert_eq!(client.ask(get("/"), b"").body, b"ok");
    assert_eq!(peer.connections(), 1);
    assert_eq!(router.metric("cardea_router_upstream_errors_total{"), None);
}

#[test]
fn a_slow_client_holds_up_no_neighbour_on_the_same_connection() {
    const LARGE: usize = 8 << 20;
    let peer = Peer::start(|mut call| {
        Box::pin(async move {
            let size = if call.path() == "/large" { LARGE } else { 2 };
            call.finish(vec![b'x'; size], None).await;
        })
    });
    let router = router(&[&peer]);
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(100_000)
        .initial_connection_window_size(64 << 20);
    let mut client = Client::with(router.address, &builder);
    let slow: Vec<_> = (0..50)
        .map(|_| client.open(get("/large"), true).0)
        .collect();
    until("asked", || peer.heads().len() == 50);
    for _ in 0..20 {
        assert_eq!(client.ask(get("/"), b"").body, b"xx");
    }
    assert_eq!(peer.connections(), 1);
    client.runtime.block_on(async {
        for answer in slow.into_iter().take(5) {
            assert!(soon(read(answer)).await.unwrap().body == vec![b'x'; LARGE]);
        }
    });
}

#[test]
fn a_connection_that_went_silent_is_not_used_again() {
    // Takes everything and answers nothing, on its first connection only.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counting = connections.clone();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            counting.fetch_add(1, Ordering::SeqCst);
            kept.push(stream);
        }
    });
    let router = Setup::new(&[])
        .service("protocol = \"h2c\"\ntimeouts = { first_byte = \"1500ms\" }\nretries = { attempts = 0 }")
        .peer(address)
        .start();
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(router.ask(get).status(), 504);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(router.ask(get).status(), 504);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_service_that_does_not_speak_http2_is_a_bad_gateway() {
    let upstream = crate::harness::Upstream::answering(crate::harness::OK);
    let router = Setup::new(&[&upstream])
        .service("protocol = \"h2c\"")
        .start();
    let answer = router.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answer.status(), 502);
}

#[test]
fn an_idle_connection_is_let_go() {
    let peer = Peer::echo();
    let router = Setup::new(&[])
        .service("protocol = \"h2c\"\ntimeouts = { keepalive = \"1s\" }")
        .peer(peer.address)
        .start();
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(router.ask(get).status(), 200);
    until("let go", || {
        router.ask(get);
        std::thread::sleep(Duration::from_millis(1500));
        peer.connections() > 1
    });
}

#[test]
fn uploads_stop_when_nobody_reads_them() {
    let peer = Peer::with(&h2::server::Builder::new(), |call| {
        Box::pin(async move {
            // Holds the stream open, and reads nothing.
            let _call = call;
            std::future::pending::<()>().await;
        })
    });
    let router = router(&[&peer]);
    let mut client = Client::connect(router.address);
    let (_answer, stream) = client.open(request("POST", "/"), false);
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    client.runtime.spawn(async move {
        let mut stream = stream;
        loop {
            stream.reserve_capacity(1 << 16);
            let Some(Ok(n)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return;
            };
            stream.send_data(Bytes::from(vec![0; n]), false).unwrap();
            counting.fetch_add(n, Ordering::SeqCst);
        }
    });
    let mut before = usize::MAX;
    until("it stands still", || {
        let now = sent.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut before, now) == now && now > 0
    });
    // The windows of both sides, and the buffers between them.
    assert!(before < 2 << 20, "{before}");
}

#[test]
fn checks_ask_in_http2_too() {
    let sick = Arc::new(AtomicBool::new(true));
    let reading = sick.clone();
    let peer = Peer::start(move |mut call| {
        let sick = reading.load(Ordering::SeqCst);
        Box::pin(async move {
            let status = if sick && call.path() == "/health" {
                503
            } else {
                200
            };
            let head = Response::builder().status(status).body(()).unwrap();
            call.answer(head, true);
        })
    });
    let fine = Peer::start(|mut call| {
        Box::pin(async move {
            let head = Response::builder().header("x-fine", "1").body(()).unwrap();
            call.answer(head, true);
        })
    });
    let router = Setup::new(&[])
        .service("protocol = \"h2c\"\nhealth = { active = { path = \"/health\", interval = \"100ms\" } }")
        .peer(peer.address)
        .peer(fine.address)
        .start();
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let fine = || {
        (0..4)
            .filter(|_| router.ask(get).field("x-fine").is_some())
            .count()
    };
    until("the sick one is out", || fine() == 4);
    sick.store(false, Ordering::SeqCst);
    until("it is back", || fine() == 2);
}
