//! Bodies: every framing on both sides, and never a clean end to what was cut.

use std::{io::Write, sync::mpsc, time::Duration};

use crate::harness::{GET, Setup, Upstream, Wire};

pub(crate) fn pattern(n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

fn echo(chunked: bool) -> Upstream {
    Upstream::start(move |mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            if chunked {
                wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in request.body.chunks(10_007) {
                    wire.send(format!("{:x};ext=1\r\n", piece.len()));
                    wire.send(piece);
                    wire.send("\r\n");
                }
                wire.send(format!(
                    "0\r\nX-Sum: {}\r\nHost: no\r\n\r\n",
                    request.body.len()
                ));
            } else {
                let n = request.body.len();
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n"));
                wire.send(&request.body);
            }
        }
    })
}

#[test]
fn large_bodies_come_back_whole_in_every_framing() {
    for chunked_back in [false, true] {
        let upstream = echo(chunked_back);
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        for (round, size) in [1, 1000, 16_384, 70_000, 3_000_000].into_iter().enumerate() {
            let body = pattern(size);
            let mut sender = Wire::new(client.stream.try_clone().unwrap());
            let sent = body.clone();
            let writing = std::thread::spawn(move || {
                if round % 2 == 0 {
                    sender.send(format!(
                        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
                        sent.len()
                    ));
                    sender.send(&sent);
                } else {
                    sender.send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for piece in sent.chunks(33_333) {
                        sender.send(format!("{:X}\r\n", piece.len()));
                        sender.send(piece);
                        sender.send("\r\n");
                    }
                    sender.send("0\r\nA: b\r\n\r\n");
                }
            });
            let answer = client.response();
            writing.join().unwrap();
            assert!(answer.body == body, "{size}: {}", answer.body.len());
            if chunked_back {
                assert_eq!(answer.trailers, format!("X-Sum: {size}\r\n"));
            }
        }
        assert_eq!(upstream.connections(), 1);
    }
}

#[test]
fn fragments_make_no_difference() {
    let upstream = Upstream::start(|mut wire, _| {
        let request = wire.request();
        assert_eq!(
            (&request.body[..], &request.trailers[..]),
            (&b"abcde"[..], "A: b\r\n")
        );
        wire.send_slowly(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\nC: d\r\n\r\n",
        );
        wire.peek();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send_slowly("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\nA: b\r\n\r\n");
    let answer = client.response();
    assert_eq!(
        (&answer.body[..], &answer.trailers[..]),
        (&b"xyz"[..], "C: d\r\n")
    );
}

#[test]
fn answers_without_bodies() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            let answer = match request.head.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            };
            wire.send(answer);
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_to(true).field("content-length"), Some("5"));
    client.send("GET /204 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().field("content-length"), None);
    client.send("GET /304 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().field("content-length"), Some("5"));
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_to(true).status(), 200);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_answer_that_ends_with_its_connection() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\n\r\nto the end");
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send(GET);
    let answer = client.response();
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.body, b"to the end");
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(
        (answer.field("connection"), &answer.body[..]),
        (Some("close"), &b"to the end"[..])
    );
}

#[test]
fn chunks_are_taken_apart_for_http10() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n",
    );
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(
        (answer.field("connection"), &answer.body[..]),
        (Some("close"), &b"abcde"[..])
    );
}

#[test]
fn what_was_cut_short_never_ends_cleanly() {
    for (answer, reset) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdeXX",
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nabc", true),
    ] {
        for version in ["1.1", "1.0"] {
            // A head of its own, so that the answer has begun before its body goes wrong.
            let (head, body) = answer.split_at(answer.find("\r\n\r\n").unwrap() + 4);
            let (go, gone) = mpsc::channel::<()>();
            let gone = std::sync::Mutex::new(gone);
            let upstream = Upstream::start(move |mut wire, _| {
                wire.request();
                wire.send(head);
                gone.lock().unwrap().recv().unwrap();
                wire.send(body);
                if reset {
                    wire.reset();
                }
            });
            let router = Setup::new(&[&upstream]).start();
            let mut client = router.client();
            client.send(format!("GET / HTTP/{version}\r\nHost: h\r\n\r\n"));
            client.head();
            go.send(()).unwrap();
            let (rest, end) = client.rest();
            let rest = String::from_utf8(rest).unwrap();
            let clean = end.is_ok()
                && (rest.ends_with("0\r\n\r\n") || version == "1.0" && !answer.contains("Length"));
            assert!(!clean, "{answer:?} {version}: {rest:?} {end:?}");
            assert_eq!(router.log(1)[0]["status"], 200);
            assert!(router.log(1)[0]["error"].is_string());
        }
    }
}

#[test]
fn a_malformed_request_body_goes_nowhere() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.fill();
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["x\r\n", "1\r\nabc\r\n", "1\n", "fffffffffffffffff\r\n"] {
        let mut client = router.client();
        client.send(format!("{chunked}{body}"));
        assert_eq!(client.response().status(), 400, "{body:?}");
        client.assert_closed();
        // The same after the request has gone upstream already.
        let mut client = router.client();
        client.send(format!("{chunked}2\r\nab\r\n"));
        client.send_slowly(body);
        assert_eq!(client.response().status(), 400, "{body:?}");
        client.assert_closed();
    }
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let upstream = Upstream::answering(crate::harness::OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.body = Some(10))
        .start();
    for (fields, body) in [
        ("Content-Length: 11", "01234567890"),
        (
            "Transfer-Encoding: chunked",
            "b\r\n01234567890\r\n0\r\n\r\n",
        ),
    ] {
        let mut client = router.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}"
        ));
        assert_eq!(client.response().status(), 413);
        client.assert_closed();
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_slow_reader_slows_the_peer() {
    const ALL: usize = 256 << 20;
    let (tell, told) = mpsc::channel();
    let upstream = Upstream::start(move |mut wire, _| {
        wire.request();
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {ALL}\r\n\r\n"));
        wire.stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let (piece, mut written) = (vec![b'x'; 1 << 20], 0);
        while let Ok(n) = wire.stream.write(&piece) {
            written += n;
            if written >= ALL {
                break;
            }
        }
        tell.send(written).unwrap();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send(GET);
    client.head();
    let written = told.recv().unwrap();
    assert!(
        written < ALL / 4,
        "{written} bytes were taken for a client that reads nothing"
    );
}

#[test]
fn the_body_of_a_refused_request_is_never_read_as_another_request() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let router = Setup::new(&[&upstream]).host("h").start();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len());
    let chunk = format!(
        "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
        hidden.len()
    );
    for body in [length, chunk] {
        for whole in [true, false] {
            let mut client = router.client();
            // The first request's state is there when the second one comes in the same read.
            let refused = format!("POST / HTTP/1.1\r\nHost: nowhere\r\n{body}");
            let head = refused.find("\r\n\r\n").unwrap() + 4;
            let (now, later) = refused.split_at(if whole { refused.len() } else { head + 2 });
            client.send(format!(
                "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx{now}"
            ));
            assert_eq!(client.response().status(), 200);
            assert_eq!(client.response().status(), 404);
            client.send(later);
            if whole {
                // It was skipped as a whole: the connection goes on behind it.
                client.send(GET);
                assert_eq!(client.response().status(), 200);
            } else {
                client.assert_closed();
            }
        }
    }
    assert_eq!(upstream.count("/hidden"), 0);
}

/// What has to be known before the content does not go on behind it: nobody on the way has looked at
/// it (RFC 9110, 6.5.1).
#[test]
fn trailers_hold_nothing_that_has_to_be_known_before() {
    const NAMES: [&str; 28] = [
        "Authorization",
        "cookie",
        "Set-Cookie",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Content-Type",
        "content_type",
        "Content-Encoding",
        "Content-Range",
        "Trailer",
        "TE",
        "Range",
        "If-Match",
        "If-None-Match",
        "If-Range",
        "Cache-Control",
        "Max-Forwards",
        "Expect",
        "Connection",
        "Upgrade",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X-Real-IP",
        "X-Request-Id",
        "Forwarded",
        "Proxy-Authorization",
        "WWW-Authenticate",
    ];
    let lines = NAMES.map(|name| format!("{name}: evil\r\n")).concat();
    let trailers = format!("X-Sum: 1\r\n{lines}grpc-status: 0\r\n");
    let kept = "X-Sum: 1\r\ngrpc-status: 0\r\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n"
    );
    let upstream = Upstream::answering(answer);
    let router = Setup::new(&[&upstream]).start();
    let got = router.ask(format!(
        "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{trailers}\r\n"
    ));
    assert_eq!(got.trailers, kept);
    assert_eq!(upstream.count(&format!("0\r\n{kept}\r\n")), 1);
    assert_eq!(upstream.count("evil"), 0);
    // Over HTTP/2 too. What belongs to a connection makes a stream malformed: clients do not send it.
    let mut client = crate::http2::client::Client::connect(router.address);
    let of_connection = ["TE", "Connection", "Upgrade", "Transfer-Encoding"];
    for name in NAMES
        .into_iter()
        .filter(|name| !of_connection.contains(name))
    {
        let mut sent = http::HeaderMap::new();
        let name = http::HeaderName::try_from(name).unwrap();
        sent.insert(name, http::HeaderValue::from_static("evil"));
        sent.insert("x-sum", http::HeaderValue::from_static("1"));
        let request = crate::http2::client::request("PUT", "/");
        let answer = client.ask_with(request, b"x", Some(sent));
        let mut got: Vec<_> = answer.trailers.iter().flat_map(|t| t.keys()).collect();
        got.sort_by_key(|name| name.as_str());
        assert_eq!(got, ["grpc-status", "x-sum"]);
    }
    assert_eq!(upstream.count("evil"), 0);
}
