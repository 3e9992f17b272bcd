//! Requests over HTTP/2, as the upstream sees them.

use std::{sync::mpsc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use proptest::prelude::*;

use super::client::{Client, get, read, request, send_all, soon};
use crate::harness::{OK, PATIENCE, Setup, Upstream, until};

fn pattern(n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

#[test]
fn a_request_arrives_as_http1_and_its_answer_as_http2() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nx-a: 2\r\nKeep-Alive: timeout=5\r\n\
         Connection: keep-alive, x-mine\r\nX-Mine: 1\r\n\r\nok",
    );
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    let mut asked = get("/a?b=c");
    asked
        .headers_mut()
        .insert("x-request-id", HeaderValue::from_static("id-1"));
    let answer = client.ask(asked, b"");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.body, b"ok");
    assert_eq!(answer.field("content-length"), Some("2"));
    assert_eq!(answer.field("x-request-id"), Some("id-1"));
    let values: Vec<_> = answer.head.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    for gone in ["connection", "keep-alive", "transfer-encoding", "x-mine"] {
        assert_eq!(answer.field(gone), None, "{gone}");
    }
    let seen = upstream.seen().concat();
    assert!(
        seen.starts_with("GET /a?b=c HTTP/1.1\r\nhost: h.example\r\n"),
        "{seen}"
    );
    assert!(!seen.to_lowercase().contains("connection"), "{seen}");
    assert!(seen.contains("X-Forwarded-Proto: http\r\n"), "{seen}");
    let log = &router.log(1)[0];
    assert_eq!(log["protocol"], "HTTP/2");
    assert_eq!(log["host"], "h.example");
    assert_eq!(log["bytes_out"], 2);
    router.comes_to("cardea_router_requests_total{cluster=\"default\",route=\"r\",service=\"s\",code=\"200\",method=\"GET\",protocol=\"http2\"}", 1.0);
    router.comes_to("cardea_router_active_connections{protocol=\"http2\"}", 1.0);
    drop(client);
    until("uncounted", || {
        router.metric("cardea_router_active_connections{protocol=\"http2\"}") == Some(0.0)
            && router.metric("cardea_router_active_connections{protocol=\"http1\"}") == Some(0.0)
    });
}

#[test]
fn many_streams_share_a_connection_and_upstream_connections_are_kept() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    for _ in 0..50 {
        assert_eq!(client.ask(get("/"), b"").body, b"ok");
    }
    assert_eq!(upstream.connections(), 1);
    let answers: Vec<_> = (0..100).map(|_| client.open(get("/"), true).0).collect();
    client.runtime.block_on(async {
        for answer in answers {
            assert_eq!(soon(read(answer)).await.unwrap().body, b"ok");
        }
    });
    assert_eq!(upstream.count("GET / HTTP/1.1"), 150);
}

/// Answers with the request's body, in chunks with a trailer if it is asked for so.
fn echo() -> Upstream {
    Upstream::start(|mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            let trailers = request.trailers;
            if request.head.starts_with("PUT /chunks") {
                wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in request.body.chunks(10_007) {
                    wire.send(format!("{:x}\r\n", piece.len()));
                    wire.send(piece);
                    wire.send("\r\n");
                }
                wire.send(format!("0\r\n{trailers}\r\n"));
            } else {
                let n = request.body.len();
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n"));
                wire.send(&request.body);
            }
        }
    })
}

#[test]
fn bodies_and_trailers_come_back_whole_in_every_framing() {
    let upstream = echo();
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    for size in [1, 1000, 16_384, 70_000, 3_000_000] {
        let body = pattern(size);
        for path in ["/length", "/chunks"] {
            let mut asked = request("PUT", path);
            let length = HeaderValue::from(size);
            asked.headers_mut().insert("content-length", length);
            assert!(client.ask(asked, &body).body == body, "{path} {size}");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from(size));
            let trailers = (path == "/chunks").then_some(trailers);
            let answer = client.ask_with(request("PUT", path), &body, trailers.clone());
            assert!(answer.body == body, "{path} {size}");
            assert_eq!(answer.trailers, trailers, "{path} {size}");
        }
    }
    let seen = upstream.seen().concat();
    assert!(seen.contains("content-length: 3000000\r\n"));
    assert!(seen.contains("transfer-encoding: chunked\r\n"));
}

#[test]
fn bodiless_answers_end_with_their_head() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let head = wire.request().head;
            wire.send(if head.starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            } else if head.contains("/204") {
                "HTTP/1.1 204 No Content\r\n\r\n"
            } else if head.contains("/304") {
                "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            });
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    for (method, path, status, length) in [
        ("HEAD", "/", 200, Some("5")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("5")),
        ("GET", "/", 200, Some("0")),
    ] {
        let (answer, _) = client.open(request(method, path), true);
        client.runtime.block_on(async {
            let answer = soon(answer).await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
            let got = answer.headers().get("content-length");
            assert_eq!(got.map(|v| v.to_str().unwrap()), length, "{method} {path}");
            assert!(answer.body().is_end_stream(), "{method} {path}");
        });
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        wire.send(OK);
        wire.peek();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    let (mut answer, _) = client.open(get("/"), true);
    client.runtime.block_on(soon(async {
        let interim = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        let interim = interim.unwrap().unwrap();
        assert_eq!(interim.status().as_u16(), 103);
        assert_eq!(interim.headers()["link"], "</a.css>");
        assert_eq!(read(answer).await.unwrap().body, b"ok");
    }));
}

#[test]
fn a_request_that_is_given_up_is_cancelled_at_the_peer_and_marks_nobody() {
    let (gone, saw) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Upstream::start(move |mut wire, _| {
        let head = wire.request().head;
        if head.contains("/stream") {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        }
        // Until the router closes the connection.
        assert!(!wire.peek());
        gone.lock().unwrap().send(head).unwrap();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    for (path, body) in [("/wait", false), ("/stream", false), ("/upload", true)] {
        let (answer, mut stream) = client.open(request("POST", path), !body);
        until("asked", || upstream.count(path) == 1);
        if path == "/stream" {
            client.runtime.block_on(async {
                let mut answer = soon(answer).await.unwrap();
                assert_eq!(soon(answer.body_mut().data()).await.unwrap().unwrap(), "a");
                drop(answer);
                drop(stream);
            });
        } else {
            stream.send_reset(h2::Reason::CANCEL);
            drop(answer);
        }
        // The upstream reads a request's body as a whole: an unfinished one never is.
        if !body {
            let head = saw.recv_timeout(PATIENCE).unwrap();
            assert!(head.contains(path), "{head}");
        }
    }
    for line in router.log(3) {
        assert_eq!(line["error"], "client_gone", "{line}");
    }
    let errors = "cardea_router_upstream_errors_total{";
    assert_eq!(router.metric(errors), None);
}

#[test]
fn an_answer_that_breaks_off_ends_with_a_reset() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    let (answer, _) = client.open(get("/"), true);
    client.runtime.block_on(async {
        // What had come may be lost with the rest; it never looks complete.
        let error = soon(read(answer)).await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    });
    // The connection is as good as before.
    assert_eq!(client.ask(request("TRACE", "/"), b"").status(), 501);
}

#[test]
fn the_routers_own_answers_leave_the_connection_open() {
    let router = Setup::new(&[]).start();
    let mut client = Client::connect(router.address);
    for (asked, body, status) in [
        (get("/"), 0, 503),
        (request("TRACE", "/"), 0, 501),
        (get("/a/%2e%2e/b"), 0, 400),
        (request("POST", "/"), 3_000_000, 503),
    ] {
        let answer = client.ask(asked, &pattern(body));
        assert_eq!(answer.status(), status);
        assert!(answer.body.starts_with(b"{\"error\":"));
    }
}

#[test]
fn an_early_answer_ends_the_upload() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        wire.close_sending();
        let _ = wire.rest();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    let answer = client.ask(request("POST", "/"), &pattern(5_000_000));
    assert_eq!((answer.status(), &*answer.body), (403, &b"no"[..]));
    assert_eq!(client.ask(request("TRACE", "/"), b"").status(), 501);
}

#[test]
fn a_slow_reader_and_a_slow_upload_hold_up_nobody() {
    const LARGE: usize = 8 << 20;
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let head = wire.head();
            if head.starts_with("PUT") {
                // Never reads on.
                std::thread::park();
            }
            if head.contains("/large") {
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"
                ));
                wire.send(pattern(LARGE));
            } else {
                wire.send(OK);
            }
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(100_000)
        .initial_connection_window_size(64 << 20);
    let mut client = Client::with(router.address, &builder);
    let slow: Vec<_> = (0..20)
        .map(|_| client.open(get("/large"), true).0)
        .collect();
    let uploads: Vec<_> = (0..20)
        .map(|_| client.open(request("PUT", "/upload"), false))
        .collect();
    let mut answers = Vec::new();
    for (answer, stream) in uploads {
        let body = pattern(4 << 20);
        client.runtime.spawn(send_all(stream, body, None, false));
        answers.push(answer);
    }
    until("uploads", || upstream.count("PUT /upload") == 20);
    for _ in 0..20 {
        assert_eq!(client.ask(get("/"), b"").body, b"ok");
    }
    // Who reads at last gets everything.
    client.runtime.block_on(async {
        for answer in slow {
            let answer = soon(read(answer)).await.unwrap();
            assert!(answer.body == pattern(LARGE));
        }
    });
}

#[test]
fn a_stopping_router_finishes_what_it_has_and_takes_what_is_on_its_way() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |mut wire, _| {
        wire.request();
        wait.lock().unwrap().recv().unwrap();
        wire.send(OK);
    });
    let router = Setup::new(&[&upstream])
        .config(|c| c.drain = 10 * PATIENCE)
        .start();
    let mut client = Client::connect(router.address);
    let (answer, _) = client.open(get("/"), true);
    until("asked", || upstream.count("GET") == 1);
    let stopping = router.stop();
    // GOAWAY: no new streams after it.
    until("told", || {
        let mut send = client.send.clone();
        client.runtime.block_on(async {
            let ready = std::future::poll_fn(|cx| send.poll_ready(cx));
            match tokio::time::timeout(Duration::from_millis(10), ready).await {
                Ok(Err(_)) => true,
                _ => send.send_request(get("/"), true).is_err(),
            }
        })
    });
    for _ in 0..1000 {
        let _ = go.send(());
    }
    client.runtime.block_on(async {
        assert_eq!(soon(read(answer)).await.unwrap().body, b"ok");
    });
    assert!(stopping.join().unwrap() < PATIENCE);
}

#[test]
fn an_idle_connection_is_told_to_go() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.keepalive = Duration::from_secs(1))
        .start();
    let mut client = Client::connect(router.address);
    assert_eq!(client.ask(get("/"), b"").body, b"ok");
    until("closed", || {
        router.metric("cardea_router_active_connections{protocol=\"http2\"}") == Some(0.0)
    });
    router.comes_to("cardea_router_http2_refused_total", 0.0);
}

#[test]
fn an_overloaded_worker_refuses_streams_that_may_be_tried_elsewhere() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        std::thread::park();
    });
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.connections = 2)
        .start();
    let mut client = Client::connect(router.address);
    let held: Vec<_> = (0..2).map(|_| client.open(get("/"), true)).collect();
    let (answer, _) = client.open(get("/"), true);
    client.runtime.block_on(async {
        let error = soon(answer).await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM));
    });
    drop(held);
    let refused = "cardea_router_http2_refused_total{reason=\"overload\"}";
    router.comes_to(refused, 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any fields and any body, in any pieces, with or without a length, come out as they went in.
    #[test]
    fn requests_and_answers_come_through_as_they_were(
        fields in prop::collection::vec(("x-[a-z]{1,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..10),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..8),
        sized: bool,
        chunks: bool,
        trailer in prop::option::of("[!-~]{1,20}"),
    ) {
        use std::sync::OnceLock;
        static SITE: OnceLock<(crate::harness::Running, std::sync::Mutex<Client>, Upstream)> = OnceLock::new();
        let (_, client, _) = SITE.get_or_init(|| {
            let upstream = Upstream::start(|mut wire, _| {
                while wire.peek() {
                    let asked = wire.request();
                    let lines = asked.head.split_inclusive("\r\n");
                    let fields: String = lines.filter(|line| line.starts_with("x-")).collect();
                    let n = asked.body.len();
                    if asked.head.starts_with("PUT /chunks") {
                        wire.send(format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"));
                        if n > 0 {
                            wire.send(format!("{n:x}\r\n"));
                            wire.send(&asked.body);
                            wire.send("\r\n");
                        }
                        wire.send(format!("0\r\n{}\r\n", asked.trailers));
                    } else {
                        wire.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {n}\r\n\r\n"));
                        wire.send(&asked.body);
                    }
                }
            });
            let router = Setup::new(&[&upstream]).start();
            let client = Client::connect(router.address);
            (router, client.into(), upstream)
        });
        let mut client = client.lock().unwrap();
        let path = if chunks { "/chunks" } else { "/length" };
        let mut asked = Request::builder().method("PUT").uri(format!("http://h{path}"));
        for (name, value) in &fields {
            asked = asked.header(name, value);
        }
        let whole = pieces.concat();
        if sized {
            asked = asked.header("content-length", whole.len());
        }
        let asked = asked.body(()).unwrap();
        let mut expected = asked.headers().clone();
        expected.remove("content-length");
        // A body of known length has no room for a trailer in HTTP/1.1.
        let trailers = trailer.filter(|_| !sized).map(|value| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", value.parse().unwrap());
            trailers
        });
        let (answer, mut stream) = client.open(asked, false);
        let answer = client.runtime.block_on(async {
            for piece in pieces {
                stream.send_data(Bytes::from(piece), false).unwrap();
            }
            // A body whose length is known may be answered before this.
            let _ = match trailers.clone() {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            };
            soon(read(answer)).await.unwrap()
        });
        prop_assert_eq!(answer.status(), 200);
        prop_assert!(answer.body == whole);
        prop_assert_eq!(answer.trailers, trailers.filter(|_| chunks));
        for name in expected.keys() {
            let sent: Vec<_> = expected.get_all(name).iter().collect();
            let got: Vec<_> = answer.head.headers().get_all(name).iter().collect();
            prop_assert_eq!(sent, got);
        }
    }
}
