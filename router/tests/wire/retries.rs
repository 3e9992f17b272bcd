//! Retries: never where something could be done twice.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::harness::{GET, Message, OK, Running, Setup, Upstream, refusing, until};

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";

/// Reads a request, then closes without an answer.
fn swallowing() -> Upstream {
    Upstream::start(|mut wire, _| {
        wire.request();
    })
}

fn ask_until_retried(router: &Running, request: &str) -> Message {
    let mut last = None;
    until("a retry", || {
        last = Some(router.ask(request));
        router.metric("cardea_router_retries_total") > Some(0.0)
    });
    last.unwrap()
}

#[test]
fn a_refused_connection_is_tried_elsewhere_whatever_the_method() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).peer(refusing()).start();
    for request in [GET, POST] {
        for _ in 0..10 {
            assert_eq!(router.ask(request).status(), 200);
        }
    }
    assert_eq!(upstream.count("POST"), 10);
}

#[test]
fn a_get_is_tried_elsewhere_and_a_post_is_not() {
    let (good, bad) = (Upstream::answering(OK), swallowing());
    let router = Setup::new(&[&good, &bad])
        .service("health = { max_fails = 0 }")
        .start();
    assert_eq!(ask_until_retried(&router, GET).status(), 200);
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(router.ask(POST).status());
    }
    assert!(
        statuses.contains(&502) && statuses.contains(&200),
        "{statuses:?}"
    );
    assert_eq!(good.count("POST") + bad.count("POST"), 10);
}

#[test]
fn a_put_is_sent_again_with_its_whole_body() {
    let good = Upstream::answering(OK);
    let bad = swallowing();
    let router = Setup::new(&[&good, &bad])
        .service("health = { max_fails = 0 }")
        .start();
    let body = "x".repeat(40_000);
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    until("a retry", || {
        let mut client = router.client();
        client.send(&head);
        for piece in body.as_bytes().chunks(7000) {
            client.send(piece);
        }
        assert_eq!(client.response().status(), 200);
        router.metric("cardea_router_retries_total") > Some(0.0)
    });
    for seen in good.seen() {
        for request in seen.split("PUT ").skip(1) {
            assert!(request.ends_with(&format!("\r\n\r\n{body}")));
        }
    }
}

/// What was on its way to the peer that broke off does not go out a second time behind what was kept.
#[test]
fn a_put_that_broke_off_midway_is_sent_again_from_its_beginning() {
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
    for chunked in [false, true] {
        let bad = Upstream::start(|mut wire, _| {
            wire.head();
            wire.take(1_000_000);
            // More has come, or is coming: the connection is reset.
        });
        let expected = body.clone();
        let good = Upstream::start(move |mut wire, _| {
            while wire.peek() {
                assert!(wire.request().body == expected);
                wire.send(OK);
            }
        });
        let router = Setup::new(&[&good, &bad])
            .service("health = { max_fails = 0 }\nretries = { body_limit = 16777216 }")
            .start();
        until("a retry", || {
            let mut client = router.client();
            if chunked {
                client.send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(100_000) {
                    client.send(format!("{:x}\r\n", piece.len()));
                    client.send(piece);
                    client.send("\r\n");
                }
                client.send("0\r\n\r\n");
            } else {
                let n = body.len();
                client.send(format!(
                    "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n"
                ));
                client.send(&body);
            }
            assert_eq!(client.response().status(), 200);
            router.metric("cardea_router_retries_total") > Some(0.0)
        });
    }
}

#[test]
fn a_body_too_large_to_keep_is_not_sent_again() {
    let bad = swallowing();
    let good = Upstream::answering(OK);
    let router = Setup::new(&[&good, &bad])
        .service("health = { max_fails = 0 }\nretries = { body_limit = 1000 }")
        .start();
    let body = "x".repeat(200_000);
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(router.ask(&request).status());
    }
    assert!(statuses.contains(&502), "{statuses:?}");
    router.comes_to("cardea_router_retries_total", 0.0);
}

#[test]
fn a_status_that_the_service_names_is_tried_elsewhere() {
    let good = Upstream::answering(OK);
    let bad = Upstream::answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let router = Setup::new(&[&good, &bad])
        .service("health = { max_fails = 0 }")
        .start();
    for _ in 0..10 {
        assert_eq!(router.ask(GET).status(), 200);
    }
    let statuses: Vec<_> = (0..4).map(|_| router.ask(POST).status()).collect();
    assert!(statuses.contains(&503), "{statuses:?}");
}

#[test]
fn the_last_answer_stands_when_there_is_nobody_else() {
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
    let (a, b) = (Upstream::answering(busy), Upstream::answering(busy));
    let router = Setup::new(&[&a, &b]).start();
    let answer = router.ask(GET);
    assert_eq!((answer.status(), &answer.body[..]), (503, &b"busy"[..]));
    assert_eq!((a.count("GET"), b.count("GET")), (1, 1));
}

#[test]
fn a_pooled_connection_that_was_closed_is_no_failure() {
    // Each connection serves one request and is closed at the next, before any answer.
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        wire.send(OK);
        wire.peek();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    for _ in 0..5 {
        client.send(GET);
        assert_eq!(client.response().status(), 200);
    }
    assert!(
        !router
            .metrics()
            .contains("cardea_router_upstream_errors_total{")
    );
    // What was sent on such a connection may have been done: a POST is not sent again.
    client.send(POST);
    assert_eq!(client.response().status(), 502);
    assert_eq!(upstream.count("POST"), 1);
}

#[test]
fn a_post_does_not_meet_a_connection_that_is_known_to_be_closed() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&closed);
    let upstream = Upstream::start(move |mut wire, _| {
        wire.request();
        wire.send(OK);
        // On loopback its FIN is at the other end when this returns.
        drop(wire);
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    for round in 1..20 {
        client.send(POST);
        assert_eq!(client.response().status(), 200, "round {round}");
        until("closed", || closed.load(Ordering::SeqCst) == round);
    }
}

/// An upstream in trouble gets a few retries more, and then none: its load is not multiplied.
#[test]
fn retries_end_with_their_budget() {
    const REQUESTS: u32 = 60;
    let (a, b) = (swallowing(), swallowing());
    let router = Setup::new(&[&a, &b])
        .service("health = { max_fails = 0 }\nretries = { attempts = 1, budget_percent = 20 }")
        .start();
    let begun = std::time::Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(router.ask(GET).status(), 502);
    }
    // Of 60 requests, 12 may be retried; ten in ten seconds always may.
    let windows = 1.0 + begun.elapsed().as_secs_f64() / 10.0;
    let retries = router.metric("cardea_router_retries_total").unwrap();
    assert!(
        (10.0..=12.0 * windows).contains(&retries),
        "{retries} retries in {windows} windows"
    );
    // A peer may close before it has written down what it was sent.
    until("every try is at a peer", || {
        let arrived = a.count("GET ") + b.count("GET ");
        (arrived as f64 - f64::from(REQUESTS) - retries).abs() < 0.1
    });
}
