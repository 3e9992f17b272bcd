//! Heads: what is passed on, what stays behind, what is refused.

use std::fmt::Write as _;

use crate::harness::{GET, OK, Setup, Upstream, until};

#[test]
fn a_request_and_its_answer_to_the_byte() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 Fine\r\nServer: x\r\nDate: then\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nX-Request-Id: theirs\r\nContent-Length: 2\r\n\r\nok",
    );
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send(
        "GET /a/b?c=d HTTP/1.1\r\nHost: h.example:80\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
         Keep-Alive: 3\r\nProxy-Connection: x\r\nAccept: */*\r\nTE: trailers, deflate\r\n\
         X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: ftp\r\nX-Forwarded-Host: evil\r\n\
         X-Request-Id: mine-1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    );
    let answer = client.response();
    assert_eq!(
        answer.head,
        "HTTP/1.1 200 Fine\r\nServer: x\r\nDate: then\r\nContent-Length: 2\r\nX-Request-Id: mine-1\r\n\r\n"
    );
    assert_eq!(answer.body, b"ok");
    assert_eq!(
        upstream.seen(),
        [
            "GET /a/b?c=d HTTP/1.1\r\nHost: h.example:80\r\nAccept: */*\r\n\
          traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
          TE: trailers\r\nConnection: te\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\
          X-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:80\r\nX-Request-Id: mine-1\r\n\r\n"
        ]
    );
    let log = &router.log(1)[0];
    for (name, value) in [
        ("request_id", "mine-1"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("method", "GET"),
        ("host", "h.example:80"),
        ("path", "/a/b"),
        ("route", "r"),
        ("service", "s"),
        ("peer", &upstream.address.to_string()),
    ] {
        assert_eq!(log[name], value, "{name}");
    }
    assert_eq!(
        (&log["status"], &log["bytes_out"]),
        (&200.into(), &2.into())
    );
    let counted = r#"cardea_router_requests_total{cluster="default",route="r",service="s",code="200",method="GET",protocol="http1"}"#;
    router.comes_to(counted, 1.0);
}

#[test]
fn a_request_without_a_sane_id_gets_one() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    for field in ["", "X-Request-Id: a b\r\n", "X-Request-Id: \"quoted\"\r\n"] {
        let answer = router.ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n"));
        let id = answer.field("x-request-id").unwrap();
        assert!(
            id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(upstream.count(&format!("X-Request-Id: {id}\r\n")), 1);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            let path = request.head.split(' ').nth(1).unwrap().to_owned();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ));
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    let mut all = String::new();
    for i in 0..50 {
        let rest = match i % 3 {
            0 => "\r\n",
            1 => "Content-Length: 3\r\n\r\nabc",
            _ => "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        };
        let method = if i % 3 == 0 { "GET" } else { "POST" };
        write!(all, "{method} /{i} HTTP/1.1\r\nHost: h\r\n{rest}").unwrap();
    }
    client.send(all);
    for i in 0..50 {
        assert_eq!(client.response().body, format!("/{i}").as_bytes());
    }
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    for _ in 0..10 {
        client.send_slowly(GET);
        assert_eq!(client.response().body, b"ok");
    }
    assert_eq!(upstream.connections(), 1);
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("close"));
    client.assert_closed();
}

#[test]
fn http10_is_served_and_kept_when_asked() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("keep-alive"));
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("close"));
    client.assert_closed();
    assert_eq!(upstream.count("HTTP/1.1\r\n"), 2);
}

#[test]
fn what_cannot_be_read_beyond_doubt_is_refused_and_closed() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let long = "x".repeat(70_000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .into(),
            400,
        ),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB : c\r\n\r\n".into(), 400),
        ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}".into(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n"),
            431,
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".into(), 505),
    ] {
        let mut client = router.client();
        client.send(&request);
        let answer = client.response();
        assert_eq!(answer.status(), status, "{request:.80}");
        assert_eq!(answer.field("connection"), Some("close"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            body["error"]["request_id"],
            answer.field("x-request-id").unwrap()
        );
        client.assert_closed();
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn nothing_after_a_refused_request_is_believed() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n{GET}"
    ));
    assert_eq!(client.response().status(), 400);
    client.assert_closed();
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_head_that_does_not_end_is_timed_out() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.header_timeout = std::time::Duration::from_secs(1))
        .start();
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n");
    assert_eq!(client.response().status(), 408);
    client.assert_closed();
    // Who says nothing at all is owed no answer.
    router.client().assert_closed();
}

#[test]
fn what_no_route_takes_is_not_found() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).host("h").path("/a").start();
    let mut client = router.client();
    for (target, host, status) in [
        ("/a", "h", 200),
        ("/a/b?c", "H", 200),
        ("http://h/a", "h", 200),
        ("/b", "h", 404),
        ("/", "h", 404),
        ("/a", "i", 404),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.response();
        assert_eq!(answer.status(), status, "{target} {host}");
        assert_eq!(answer.field("connection"), None);
    }
    // `OPTIONS *` is about a whole host: only a route for all of it takes it.
    client.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().status(), 404);
    assert_eq!(upstream.count("GET "), 3);
    let whole = Setup::new(&[&upstream]).start();
    let answer = whole.ask("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(answer.status(), 200);
    assert_eq!(upstream.count("OPTIONS * HTTP/1.1\r\n"), 1);
}

/// What was known of one request's host is worth nothing for the next one on the connection.
#[test]
fn the_host_is_each_requests_own() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).host("h").start();
    let mut client = router.client();
    for (target, host, status) in [
        ("/", "Host: h\r\n", 200),
        ("/", "", 404),
        ("http://h/", "", 200),
        ("http://i/", "", 404),
        ("/", "Host: i\r\n", 404),
        ("/", "Host: h:80\r\n", 200),
        ("/", "Host: i\r\n", 404),
        ("/", "Accept: */*\r\nHost: h.\r\n", 200),
    ] {
        client.send(format!(
            "GET {target} HTTP/1.0\r\n{host}Connection: keep-alive\r\n\r\n"
        ));
        let answer = client.response();
        assert_eq!(answer.status(), status, "{target} {host}");
    }
}

#[test]
fn interim_answers_are_passed_on() {
    let upstream = Upstream::start(|mut wire, _| {
        let head = wire.head();
        assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
        wire.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(wire.take(3), b"abc");
        wire.send(OK);
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert_eq!(client.response().status(), 200);
}

#[test]
fn an_answer_may_come_before_the_request_ends() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
        while wire.fill() {}
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nbegin");
    let answer = client.response();
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (413, Some("close"))
    );
    client.close_sending();
    client.assert_closed();
    until("log", || router.log(1)[0]["status"] == 413);
}

/// What frames and routes a message is written in one way, however it came.
#[test]
fn framing_and_host_are_written_anew() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length:\t002 \r\n\r\nok");
    let router = Setup::new(&[&upstream]).start();
    for (lines, body, seen) in [
        ("Host:\th\t\r\n", "", "\r\nHost: h\r\n"),
        (
            "Host:h\r\nContent-Length:3\r\n",
            "abc",
            "Content-Length: 3\r\n",
        ),
        (
            "Host: h\r\nContent-Length: 003\r\n",
            "abc",
            "Content-Length: 3\r\n",
        ),
        (
            "Host: h\r\nContent-Length:\t 3 \t\r\n",
            "abc",
            "Content-Length: 3\r\n",
        ),
        (
            "Host: h\r\nContent-Length: 00\r\n",
            "",
            "Content-Length: 0\r\n",
        ),
        (
            "Host: h\r\nTransfer-Encoding: Chunked\r\n",
            "1\r\na\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        (
            "Host: h\r\ntransfer-encoding:\tchunked \r\n",
            "1\r\na\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        // What is as usual is left alone.
        (
            "host: h\r\ntransfer-encoding: chunked\r\n",
            "1\r\na\r\n0\r\n\r\n",
            "host: h\r\ntransfer-encoding: chunked\r\n",
        ),
    ] {
        let before = upstream.count(seen);
        let answer = router.ask(format!("PUT / HTTP/1.1\r\n{lines}A: b\r\n\r\n{body}"));
        assert_eq!(answer.status(), 200, "{lines}");
        assert!(
            answer.head.contains("\r\nContent-Length: 2\r\n"),
            "{}",
            answer.head
        );
        assert_eq!(upstream.count(seen), before + 1, "{lines:?}");
        let all = upstream.seen().concat().to_ascii_lowercase();
        let last = all.rsplit("put / ").next().unwrap();
        for name in ["\r\nhost:", "\r\ncontent-length:", "\r\ntransfer-encoding:"] {
            assert!(last.matches(name).count() <= 1, "{last}");
        }
    }
}
