//! A peer's answers: what cannot be framed is a 502 that counts, and a connection whose end of an
//! answer is in doubt is not used again.

use std::sync::mpsc;

use crate::{
    failures::errors,
    harness::{GET, Message, OK, Running, Setup, Upstream, until},
};

/// Asks once; the answer, and what became of the peer's connection: whether the next request came
/// on it.
fn ask_twice(answer: &str, request: &str) -> (Running, Upstream, Message, bool) {
    let upstream = Upstream::answering(answer);
    let router = Setup::new(&[&upstream]).start();
    let bodiless = request.starts_with("HEAD");
    let mut client = router.client();
    client.send(request);
    let first = client.response_to(bodiless);
    client.send(request);
    client.response_to(bodiless);
    let reused = upstream.connections() == 1;
    (router, upstream, first, reused)
}

#[test]
fn what_cannot_be_framed_is_a_502_that_counts() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(3000));
    let mut answers = vec![long, many];
    let with = |text: &str| format!("HTTP/1.1 200 OK\r\n{text}");
    answers.extend(
        [
            "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
            "Content-Length: 1, 1\r\n\r\nx",
            "Content-Length: +1\r\n\r\nx",
            "Content-Length: -1\r\n\r\nx",
            "Content-Length: 0x1\r\n\r\nx",
            "Content-Length: 1 \u{b}\r\n\r\nx",
            "Content-Length:\r\n\r\nx",
            "Content-Length: 18446744073709551616\r\n\r\nx",
            "Transfer-Encoding: gzip\r\n\r\nx",
            "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: identity\r\n\r\nx",
            "Transfer-Encoding:\r\n\r\nx",
            "A: b\nC: d\r\n\r\nx",
            "A: b\r\n\nx",
            "A: b\r\n c: d\r\n\r\nx",
            " A: b\r\n\r\nx",
            "A : b\r\n\r\nx",
            ": b\r\n\r\nx",
            "A\r\n\r\nx",
            "A: b\0\r\n\r\nx",
            "A: b\rSet-Cookie: c\r\n\r\nx",
            "A: \u{1b}[0m\r\n\r\nx",
            "A\u{e4}: b\r\n\r\nx",
            "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
            "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nA\r\n\r\n",
        ]
        .map(with),
    );
    answers.push(with(&format!(
        "Transfer-Encoding: chunked\r\n\r\n{trailers}"
    )));
    answers.extend(
        [
            "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1 999 OK\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 -20 OK\r\n\r\n",
            "HTTP/1.1 200OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 200 O\u{1}K\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
            "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "hello\r\n\r\n",
            "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
            "HTTP/1.1 103 Hints\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 100 Go\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ]
        .map(str::to_owned),
    );
    for answer in answers {
        let (router, upstream, first, reused) = ask_twice(&answer, GET);
        let what = format!("{:.90}", answer.escape_debug().to_string());
        assert_eq!(first.status(), 502, "{what}");
        assert!(!first.head.contains("Set-Cookie"), "{what}");
        assert!(!reused, "{what}");
        assert!((errors(&router, "protocol") - 2.0).abs() < 0.1, "{what}");
        assert_eq!(upstream.connections(), 2, "{what}");
    }
}

#[test]
fn an_answer_in_single_bytes_is_the_same_answer() {
    for (answer, body) in [
        (OK, "ok"),
        (
            "HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;a=b\r\nk\r\n0\r\nA: b\r\n\r\n",
            "ok",
        ),
    ] {
        let upstream = Upstream::start(move |mut wire, _| {
            while wire.peek() {
                wire.request();
                wire.send_slowly(answer);
            }
        });
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        for _ in 0..3 {
            client.send(GET);
            let mut got = client.response();
            if got.status() == 103 {
                got = client.response();
            }
            assert_eq!(got.body, body.as_bytes());
        }
        assert_eq!(upstream.connections(), 1);
    }
}

#[test]
fn a_connection_whose_answer_may_go_on_is_not_used_again() {
    for (answer, request, reused) in [
        (OK, GET, true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX",
            GET,
            false,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nX", GET, false),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
            GET,
            false,
        ),
        ("HTTP/1.1 304 No\r\n\r\nX", GET, false),
        ("HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", GET, true),
        ("HTTP/1.1 204 No\r\n\r\n", GET, true),
        ("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", GET, true),
        ("HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\n", GET, false),
        (
            "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            GET,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            GET,
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", GET, false),
    ] {
        let (_router, _upstream, first, was) = ask_twice(answer, request);
        assert!(matches!(first.status(), 200 | 204 | 304), "{answer:?}");
        assert_eq!(was, reused, "{answer:?}");
        assert!(!first.head.contains('X') || first.field("x-request-id").is_some());
        if first.status() == 204 {
            assert_eq!(first.field("content-length"), None);
            assert_eq!(first.field("transfer-encoding"), None);
        }
    }
}

/// The end of a body that was passed on piece by piece, with more behind it in the same segment.
#[test]
fn what_comes_behind_a_long_answer_closes_its_connection() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (head, end) in [
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "0\r\n\r\n"),
        ("Content-Length: 4\r\n\r\nok", "ok"),
        ("Content-Length: 100002\r\n\r\n", "long"),
    ] {
        let (go, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let upstream = Upstream::start(move |mut wire, _| {
            while wire.peek() {
                wire.request();
                wire.send(format!("HTTP/1.1 200 OK\r\n{head}"));
                wait.lock().unwrap().recv().unwrap();
                if end == "long" {
                    wire.send("x".repeat(100_002) + EVIL);
                } else {
                    wire.send(format!("{end}{EVIL}"));
                }
            }
        });
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        for connections in 1..4 {
            client.send(GET);
            let begun = client.head();
            go.send(()).unwrap();
            let answer = client.body(begun, true);
            assert!(!answer.body.ends_with(b"evil"), "{head:?}");
            assert_eq!(upstream.connections(), connections, "{head:?}");
        }
    }
}

#[test]
fn an_answer_without_a_date_gets_one() {
    let upstream = Upstream::start(|mut wire, n| {
        wire.request();
        let date = if n == 0 { "Date: then\r\n" } else { "" };
        wire.send(format!(
            "HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\n\r\n"
        ));
    });
    let router = Setup::new(&[&upstream]).start();
    assert_eq!(router.ask(GET).field("date"), Some("then"));
    let answer = router.ask(GET);
    let date = answer.field("date").unwrap();
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
}

#[test]
fn nothing_but_what_was_understood_reaches_the_client() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 A  b\tc\r\nConnection: close, X-A\r\nX-a: 1\r\nProxy-Connection: x\r\n\
         Keep-Alive: timeout=1\r\nUpgrade: h2c\r\nX-B: \t 1 \t \r\nX-C:\r\nTransfer-Encoding: chunked\r\n\
         Date: d\r\nTrailer: X-T\r\n\r\n2;a=\"b\"\r\nok\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\
         Transfer-Encoding: x\r\nHost: x\r\nConnection: x\r\n\r\n",
    );
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: i\r\nConnection: close\r\n\r\n");
    let (all, end) = client.rest();
    end.unwrap();
    assert_eq!(
        String::from_utf8(all).unwrap(),
        "HTTP/1.1 200 A  b\tc\r\nX-B: \t 1 \t \r\nX-C:\r\nDate: d\r\nTrailer: X-T\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\nX-Request-Id: i\r\n\r\n\
         2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
    );
}

/// While a peer thinks, its client goes away: the request is cancelled, and nobody is blamed.
#[test]
fn a_client_that_goes_away_while_the_peer_thinks() {
    let (tell, told) = mpsc::channel();
    let upstream = Upstream::start(move |mut wire, _| {
        let head = wire.request().head;
        if head.starts_with("GET /events") {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        }
        // Without an answer: the router's end is all that comes.
        let (rest, _) = wire.rest();
        tell.send(rest.is_empty()).unwrap();
    });
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 1 }")
        .start();
    for (round, (request, reset)) in [
        (GET, false),
        (GET, true),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
            false,
        ),
        ("GET /events HTTP/1.1\r\nHost: h\r\n\r\n", false),
        ("GET /events HTTP/1.1\r\nHost: h\r\n\r\n", true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = router.client();
        client.send(request);
        if request.contains("events") {
            client.take_until("a\r\n");
        } else {
            until("the peer has it", || {
                upstream.count("\r\n\r\n") == round + 1
            });
        }
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        assert!(
            told.recv_timeout(crate::harness::PATIENCE).unwrap(),
            "{request}"
        );
        let log = &router.log(round + 1)[round];
        assert_eq!(log["error"], "client_gone");
        let status = if request.contains("events") { 200 } else { 499 };
        assert_eq!(log["status"], status);
    }
    assert!(!router.metrics().contains("upstream_errors_total{"));
    let marked = router.metric("cardea_router_peer_healthy");
    assert_eq!(marked, Some(1.0));
}

/// A client that has sent its next request already is still waited for, and answered in order.
#[test]
fn a_pipelining_client_is_not_taken_for_gone() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            let path = wire.request().head.split(' ').nth(1).unwrap().to_owned();
            wait.lock().unwrap().recv().unwrap();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{path}"
            ));
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the peer has it", || upstream.count("GET /1") == 1);
    client.send("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    go.send(()).unwrap();
    go.send(()).unwrap();
    for body in ["/1", "/2"] {
        assert_eq!(client.response().body, body.as_bytes());
    }
}
