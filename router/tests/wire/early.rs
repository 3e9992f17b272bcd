//! Answers at odd times: before the request's end, in place of a `100`, again and again, or when
//! nobody has asked. None of them may be taken for the answer to another request.

use std::sync::mpsc;

use crate::{
    failures::errors,
    harness::{GET, OK, Setup, Upstream, until},
};

/// An answer that nobody has asked for.
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// What a peer says on an idle connection closes it, however soon the next request comes.
#[test]
fn an_answer_that_nobody_asked_for_answers_nobody() {
    let (go, wait) = mpsc::channel::<()>();
    let (said, saying) = mpsc::channel();
    let (wait, said) = (std::sync::Mutex::new(wait), std::sync::Mutex::new(said));
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            wire.request();
            wire.send(OK);
            wait.lock().unwrap().recv().unwrap();
            let _ = wire.try_send(EVIL);
            said.lock().unwrap().send(()).unwrap();
        }
    });
    let router = Setup::new(&[&upstream]).start();
    for round in 1..=20 {
        let method = if round % 2 == 0 { "GET" } else { "POST" };
        let answer = router.ask(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.body, b"ok", "round {round}");
        assert_eq!(upstream.connections(), round);
        go.send(()).unwrap();
        saying.recv().unwrap();
    }
}

#[test]
fn an_early_answer_takes_its_connection_out_of_use() {
    // As many bytes as make another request to whoever counts wrongly.
    let rest = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n".repeat(30);
    for (framing, end) in [
        (format!("Content-Length: {}\r\n\r\n", rest.len() + 1), ""),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", rest.len() + 1),
            "\r\n0\r\n\r\n",
        ),
    ] {
        let upstream = Upstream::start(|mut wire, _| {
            let head = wire.head();
            wire.send("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
            if head.starts_with("POST") {
                while wire.fill() {}
            }
        });
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}x"));
        let answer = client.response();
        assert_eq!(
            (answer.status(), answer.field("connection")),
            (413, Some("close"))
        );
        // It goes on as if nothing had been said.
        client.send(format!("{rest}{end}"));
        client.close_sending();
        client.assert_closed();
        assert_eq!(router.ask(GET).status(), 413);
        assert_eq!(upstream.connections(), 2, "{framing:?}");
        assert!(!upstream.seen()[1].contains("hidden"));
        assert!(errors(&router, "protocol") < 0.5);
    }
}

/// The final answer may come in place of the `100`: the body is never sent, and nothing that comes is
/// read as another request.
#[test]
fn an_expectation_may_be_answered_at_once() {
    for answer in [
        "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ] {
        let upstream = Upstream::start(move |mut wire, _| {
            while wire.peek() {
                wire.head();
                wire.send(answer);
            }
        });
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        let head =
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 35\r\n\r\n";
        client.send(head);
        let got = client.response();
        assert_eq!(
            (&got.body[..], got.field("connection")),
            (&b"no"[..], Some("close"))
        );
        let _ = client.try_send("GET /hidden HTTP/1.1\r\nHost: h\r\n\r\nxxx");
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        assert!(client.rest().0.is_empty());
        assert_ne!(router.ask(GET).status(), 200);
        // Whoever has not heard the request's end is not asked on the same connection.
        assert_eq!(upstream.connections(), 2);
        assert!(!upstream.seen()[1].contains("hidden"));
    }
}

/// A peer that breaks off after its `100` is replaced by another one: the body is sent as a whole
/// again, and the client hears at most one more `100`.
#[test]
fn an_expectation_outlives_a_peer_that_breaks_off() {
    for after_body in [false, true] {
        let bad = Upstream::start(move |mut wire, _| {
            let head = wire.head();
            if after_body {
                wire.send("HTTP/1.1 100 Continue\r\n\r\n");
                wire.body(head, false);
            }
        });
        let good = Upstream::start(|mut wire, _| {
            while wire.peek() {
                let head = wire.head();
                wire.send("HTTP/1.1 100 Continue\r\n\r\n");
                assert_eq!(wire.body(head, false).body, b"abc");
                wire.send(OK);
            }
        });
        let router = Setup::new(&[&good, &bad])
            .service("health = { max_fails = 0 }")
            .start();
        until("a retry", || {
            let mut client = router.client();
            client.send(
                "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
            );
            assert_eq!(client.response().status(), 100);
            client.send("abc");
            let mut answer = client.response();
            if answer.status() == 100 {
                answer = client.response();
            }
            assert_eq!((answer.status(), &answer.body[..]), (200, &b"ok"[..]));
            router.metric("cardea_router_retries_total") > Some(0.0)
        });
    }
}

#[test]
fn interim_answers_have_an_end() {
    for (interims, version, status) in [(100, 1, 200), (101, 1, 502), (100, 0, 200), (101, 0, 502)]
    {
        let upstream = Upstream::start(move |mut wire, _| {
            wire.request();
            for _ in 0..interims {
                let _ = wire.try_send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
            }
            let _ = wire.try_send(OK);
            wire.peek();
        });
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        client.send(format!("GET / HTTP/1.{version}\r\nHost: h\r\n\r\n"));
        let mut heard = 0;
        let last = loop {
            let answer = client.response();
            if answer.status() != 103 {
                break answer.status();
            }
            heard += 1;
        };
        assert_eq!((last, heard), (status, 100 * version), "{interims}");
        assert!((errors(&router, "protocol") > 0.5) == (status == 502));
    }
}

/// An upload that breaks off has no end at the peer either, and says nothing against it.
#[test]
fn an_upload_that_breaks_off_breaks_off_at_the_peer() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let upstream = Upstream::start(move |mut wire, _| {
        let head = wire.head();
        tell.lock().unwrap().send((head, wire.rest().0)).unwrap();
    });
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 1 }")
        .start();
    for (round, framing) in [
        "Content-Length: 9\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        for (reset, n) in [(false, 1), (true, 2)] {
            let mut client = router.client();
            client.send(format!("PUT / HTTP/1.1\r\nHost: h\r\n{framing}"));
            until("it has begun", || upstream.count("half") == 2 * round + n);
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            let (head, body) = told.recv_timeout(crate::harness::PATIENCE).unwrap();
            assert!(
                body.ends_with(b"half") || body.ends_with(b"half\r\n"),
                "{head}"
            );
            let log = router.log(2 * round + n);
            assert_eq!(log[2 * round + n - 1]["error"], "client_gone");
        }
    }
    assert!(!router.metrics().contains("upstream_errors_total{"));
    assert_eq!(router.metric("cardea_router_peer_healthy"), Some(1.0));
}

/// A client that sends without listening still finds out why it was not wanted.
#[test]
fn a_refusal_is_there_for_who_sends_on() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.body = Some(1000))
        .start();
    for framing in [
        "Content-Length: 900000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\ndbba0\r\n",
    ] {
        let mut client = router.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}"));
        for _ in 0..90 {
            client.send([b'x'; 10_000]);
        }
        assert_eq!(client.response().status(), 413, "{framing}");
        client.close_sending();
        client.assert_closed();
    }
}

/// What follows a refused upgrade is HTTP as before.
#[test]
fn requests_behind_a_declined_upgrade_are_answered_in_order() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let path = wire.request().head.split(' ').nth(1).unwrap().to_owned();
            let n = path.len();
            wire.send(format!(
                "HTTP/1.1 426 No\r\nContent-Length: {n}\r\n\r\n{path}"
            ));
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(format!(
        "{upgrade}PUT /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab{upgrade}GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    ));
    for path in ["/ws", "/1", "/ws", "/2"] {
        assert_eq!(client.response().body, path.as_bytes());
    }
    assert_eq!(upstream.connections(), 1);
}

/// Content where there must be none is not passed on, nor read as the next answer.
#[test]
fn content_where_there_is_none_goes_nowhere() {
    for status in ["204 No Content", "304 Not Modified"] {
        let upstream = Upstream::answering(format!("HTTP/1.1 {status}\r\n\r\n{EVIL}"));
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        for _ in 0..10 {
            client.send(GET);
            let answer = client.response();
            assert_eq!(answer.status().to_string(), status[..3]);
        }
        assert_eq!(upstream.connections(), 10);
    }
    // 205 says that there is none, but frames it as any other (RFC 9110, 15.3.6).
    let upstream = Upstream::answering("HTTP/1.1 205 Reset\r\nContent-Length: 2\r\n\r\nok");
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    for _ in 0..2 {
        client.send(GET);
        assert_eq!(client.response().body, b"ok");
    }
    assert_eq!(upstream.connections(), 1);
}
