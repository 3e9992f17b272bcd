//! Requests that are refused: what could be read in two ways is answered once and closed, however it
//! arrives, and nothing behind it is believed.

use crate::harness::{GET, OK, Running, Setup, Upstream, Wire};

/// What must never arrive at a peer.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// A request's first line and `Host`.
const PLAIN: &str = "GET / HTTP/1.1\r\nHost: h\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\n";

/// Nothing more is said. Who goes on sending for longer than the router listens may be reset.
fn assert_over(mut client: Wire) {
    let _ = client.stream.shutdown(std::net::Shutdown::Write);
    let (rest, _) = client.rest();
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

/// The answer to `bytes`, sent as a whole, byte by byte, and behind a good request; it is the same
/// each time, and nothing arrives at the peer.
fn assert_refused(router: &Running, upstream: &Upstream, bytes: &[u8], status: u16) {
    let smuggling = [bytes, SMUGGLED.as_bytes()].concat();
    let seen = upstream.count("\r\n\r\n");
    for way in ["whole", "bytes", "behind"] {
        let mut client = router.client();
        match way {
            "whole" => client.send(&smuggling),
            "bytes" => client.try_send_slowly(&smuggling),
            _ => {
                client.send([GET.as_bytes(), &smuggling].concat());
                assert_eq!(client.response().status(), 200);
            }
        }
        let answer = client.response();
        let what = bytes.escape_ascii();
        assert_eq!(answer.status(), status, "{way}: {what}");
        assert_eq!(answer.field("connection"), Some("close"), "{way}: {what}");
        assert_over(client);
    }
    assert_eq!(
        upstream.count("\r\n\r\n"),
        seen + 1,
        "{}",
        bytes.escape_ascii()
    );
}

fn all_refused(cases: &[(impl AsRef<str>, u16)]) {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    for (request, status) in cases {
        assert_refused(&router, &upstream, request.as_ref().as_bytes(), *status);
    }
    assert_eq!(upstream.count("smuggled"), 0);
}

fn fields_refused(first: &str, cases: &[&str]) {
    let request = |fields| (format!("{first}{fields}\r\n\r\n"), 400);
    all_refused(&cases.iter().map(request).collect::<Vec<_>>());
}

#[test]
fn hosts() {
    fields_refused(
        "GET / HTTP/1.1\r\n",
        &[
            "A: b",
            "Host: a\r\nHost: b",
            "Host: a\r\nHost: a",
            "Host: a\r\nhost:",
            "Host:",
            "Host: a b",
            "Host: a,b",
            "Host: a@b",
            "Host: a/b",
            "Host: a:b",
            "Host: a:1:2",
            "Host: a:123456",
            "Host: :80",
            "Host: [::1",
            "Host: [x]",
            "Host: a%2e",
            "Host: \u{e4}",
            "Host: a\tb",
            "Host: a\\b",
            "Host: a?b",
            "Host: a#b",
        ],
    );
}

#[test]
fn targets() {
    let cases = [
        ("http://b/", "a"),
        ("http://a:81/", "a:80"),
        ("http://a:80/", "a"),
        ("http://a.b/", "a"),
        ("http://u@a/", "a"),
        ("http://u@a/", "u@a"),
        ("http:///", "a"),
        ("http://", "a"),
        ("http:/a", "a"),
        ("ftp://a/", "a"),
        ("//a\\", "a\\"),
        ("a", "a"),
        ("a:80", "a:80"),
        ("*", "a"),
        ("/#x", "a"),
        ("/\u{e4}", "a"),
        ("/\u{7f}", "a"),
        ("/a\tb", "a"),
        ("/\u{1}", "a"),
        ("/a/../b", "a"),
        ("/a/%2e%2E/b", "a"),
        ("/%", "a"),
        ("/%00", "a"),
    ];
    let request = |(target, host)| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        (request, 400)
    };
    all_refused(&cases.map(request));
}

#[test]
fn lengths_and_encodings() {
    fields_refused(
        POST,
        &[
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nContent-length: 1",
            "Content-Length: 1, 1",
            "Content-Length: 1,",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length: 1 1",
            "Content-Length: 1;a",
            "Content-Length: \u{661}",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Content-Length: 99999999999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: chun\u{b}ked",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ],
    );
    fields_refused(
        "POST / HTTP/1.0\r\nHost: h\r\n",
        &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    );
}

#[test]
fn lines() {
    all_refused(
        &[
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: h\r\n\r\n",
            "GET / HTTP/1.1\r\n\tHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n",
        ]
        .map(|request| (request, 400)),
    );
    fields_refused(
        PLAIN,
        &[
            "A: b\r\n c",
            "A: b\r\n\tc",
            "A: b\r\n ",
            "A : b",
            "A\t: b",
            " A: b",
            ": b",
            "A",
            "A\0: b",
            "A: b\0",
            "A: \u{1}",
            "A: b\u{7f}c",
            "A: b\u{1b}[0m",
            "A: b\rc",
            "A: b\r",
            "A\u{e4}: b",
            "A(: b",
            "A,B: c",
            "A B: c",
            "A\": c",
            "\u{7f}: c",
        ],
    );
}

#[test]
fn methods_and_versions() {
    let cases = [
        ("G(T / HTTP/1.1", 400),
        ("G\u{e4}T / HTTP/1.1", 400),
        ("G,T / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/1.1 x", 400),
        ("GET / x HTTP/1.1", 400),
        ("GET /", 400),
        ("GET", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP1.1", 400),
        ("GET / HTP/1.1", 400),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.0", 505),
        ("TRACE / HTTP/1.1", 501),
        ("CONNECT h:80 HTTP/1.1", 501),
        ("CONNECT / HTTP/1.1", 501),
    ];
    all_refused(&cases.map(|(first, status)| (format!("{first}\r\nHost: h\r\n\r\n"), status)));
}

#[test]
fn expectations_and_upgrades() {
    all_refused(&[
        (format!("{POST}Expect: tea\r\n\r\n"), 417),
        (format!("{POST}Expect: 100-continue, tea\r\n\r\n"), 417),
        (
            format!("{POST}Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\na"),
            400,
        ),
    ]);
}

#[test]
fn chunks() {
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(257));
    let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(3000));
    let hidden = format!("0\r\n{}\r\n", "Host: b\r\n".repeat(2000));
    for body in [
        "\r\n",
        ";\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\na\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "1\na\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1\r\nab\r\n",
        "1\r\naX\n0\r\n\r\n",
        "1\r\na\rX0\r\n\r\n",
        "1\ra\r\n",
        "1\r\na\r\n0\n\r\n",
        "1\r\na\r\n0\r\n\n",
        "1\r\na\r\n0\r\n\rx",
        "1;a\u{1}\r\na\r\n",
        "1;a\nb\r\na\r\n",
        "1;a\0\r\na\r\n",
        "1,1\r\na\r\n",
        "fffffffffffffffff\r\n",
        "10000000000000001\r\na\r\n",
        "0000000000000001\r\na\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nA: b\r\n c\r\n\r\n",
        "0\r\nA: b\0\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA\u{e4}: b\r\n\r\n",
        &long,
        &many,
        &hidden,
    ] {
        let upstream = Upstream::start(|mut wire, _| while wire.peek() && wire.fill() {});
        let router = Setup::new(&[&upstream]).start();
        for slowly in [false, true] {
            let mut client = router.client();
            let request = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}");
            if slowly {
                client.try_send_slowly(&request);
            } else {
                client.send(&request);
            }
            let answer = client.response();
            assert_eq!(answer.status(), 400, "slowly: {slowly}: {body:.40?}");
            assert_over(client);
        }
        assert_eq!(upstream.count("smuggled"), 0);
        // Whatever had gone upstream before the fault was seen: no end was made up for it.
        for seen in upstream.seen() {
            assert!(!seen.contains("\r\n0\r\n"), "{}", seen.escape_debug());
        }
        assert!(!router.metrics().contains("upstream_errors_total{"));
    }
}

#[test]
fn what_is_too_long() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.head = 8192)
        .start();
    let x = |n: usize| "x".repeat(n);
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", x(8192)), 414),
        (format!("GET /{}", x(70_000)), 414),
        (format!("{PLAIN}A: {}\r\n\r\n", x(8192)), 431),
        (format!("{PLAIN}{}: a\r\n\r\n", x(8192)), 431),
        (format!("{PLAIN}A: {}", x(70_000)), 431),
        (format!("{PLAIN}{}\r\n", "A: b\r\n".repeat(101)), 431),
        (format!("{PLAIN}{}\r\n", "Abc: defghi\r\n".repeat(90)), 200),
    ] {
        let mut answers = Vec::new();
        for slowly in [false, true] {
            let mut client = router.client();
            if slowly {
                request.as_bytes().chunks(1000).for_each(|piece| {
                    let _ = client.try_send(piece);
                });
            } else {
                let _ = client.try_send(&request);
            }
            answers.push(client.response().status());
        }
        assert_eq!(answers, [status, status], "{request:.60}");
    }
}

#[test]
fn other_protocols_on_the_port() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n",
        b"SSH-2.0-x\r\n",
        b"EHLO h\r\n",
        b"\x05\x01\0\r\n",
        b"\xff\xf4\xff\xfd\x06\r\n",
    ] {
        let mut client = Wire::connect(router.address);
        client.send(bytes);
        assert_eq!(client.response().status(), 400, "{}", bytes.escape_ascii());
        client.assert_closed();
    }
    assert_eq!(upstream.connections(), 0);
}
