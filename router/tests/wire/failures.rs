//! Answers of the router's own, and who is to blame.

use std::time::Duration;

use crate::harness::{GET, Setup, Upstream, refusing, until};

const ERRORS: &str = "cardea_router_upstream_errors_total";

pub(crate) fn errors(router: &crate::harness::Running, kind: &str) -> f64 {
    let metrics = router.metrics();
    metrics
        .lines()
        .filter(|l| l.starts_with(ERRORS) && l.contains(&format!("kind=\"{kind}\"")))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_peer_that_does_not_answer_is_a_504() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.request();
        }
    });
    let router = Setup::new(&[&upstream])
        .service("timeouts = { first_byte = \"50ms\" }")
        .start();
    let answer = router.ask(GET);
    assert_eq!(answer.status(), 504);
    assert!((errors(&router, "first_byte_timeout") - 1.0).abs() < 0.1);
}

#[test]
fn a_peer_that_stops_in_the_middle_is_cut() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        wire.peek();
    });
    let router = Setup::new(&[&upstream])
        .service("timeouts = { idle = \"50ms\" }")
        .start();
    let mut client = router.client();
    client.send(GET);
    client.head();
    assert!(client.rest().0.len() <= 3);
    assert!((errors(&router, "idle_timeout") - 1.0).abs() < 0.1);
}

#[test]
fn a_refused_connection_is_a_502_and_no_peer_a_503() {
    let router = Setup::new(&[]).peer(refusing()).start();
    assert_eq!(router.ask(GET).status(), 502);
    assert!((errors(&router, "connect") - 1.0).abs() < 0.1);
    let router = Setup::new(&[]).start();
    let answer = router.ask(GET);
    assert_eq!(answer.status(), 503);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"]["code"], "no_instance");
}

#[test]
fn an_error_keeps_the_connection_where_that_is_safe() {
    let router = Setup::new(&[]).start();
    let mut client = router.client();
    for body in ["", "abc"] {
        let n = body.len();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n{body}"
        ));
        assert_eq!(client.response().status(), 503);
    }
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_to(true).status(), 503);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(client.response().field("connection"), Some("close"));
    client.close_sending();
    client.assert_closed();
}

#[test]
fn a_client_that_goes_away_marks_nobody() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.head();
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            let piece = vec![b'x'; 1 << 16];
            while std::io::Write::write_all(&mut wire.stream, &piece).is_ok() {}
        }
    });
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 1 }")
        .start();
    for _ in 0..5 {
        let mut client = router.client();
        client.send(GET);
        client.head();
        client.reset();
        let mut client = router.client();
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
        client.reset();
    }
    router.log(6);
    until("no error is counted", || {
        router
            .metrics()
            .lines()
            .filter(|l| l.starts_with(ERRORS))
            .count()
            == 0
    });
}

#[test]
fn a_slow_request_body_is_the_clients_fault() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.fill();
        }
    });
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.idle_timeout = Duration::from_millis(50))
        .start();
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.response().status(), 408);
    assert!(!router.metrics().lines().any(|l| l.starts_with(ERRORS)));
}
