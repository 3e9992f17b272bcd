//! TLS with peers: who is believed, and that a connection is only used on the terms it was made on.

use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, crypto::aws_lc_rs};

use crate::{
    harness::{GET, OK, Running, Setup, Upstream, Wire, until},
    tls::authority::{Authority, Pair},
};

impl Pair {
    /// A server's side, which knows nothing of ALPN.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain(), self.private())
            .unwrap();
        Arc::new(config)
    }
}

/// Speaks TLS with this certificate, then follows the script.
fn secure(pair: &Pair, script: impl Fn(Wire) + Send + Sync + 'static) -> Upstream {
    let config = pair.server();
    Upstream::start(move |mut wire, _| {
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        wire.session = Some(Box::new(session.into()));
        if wire.handshake().is_ok() {
            script(wire);
        }
    })
}

fn answering(pair: &Pair) -> Upstream {
    secure(pair, |mut wire| {
        while wire.peek() {
            wire.request();
            wire.send(OK);
        }
    })
}

fn setup(upstream: &Upstream, ca: &Authority, tls: &str) -> Setup {
    Setup::new(&[upstream])
        .file("ca.pem", &ca.pem())
        .service(&format!("tls = {{ ca_file = \"ca.pem\"{tls} }}"))
}

/// How many requests failed at peers in this manner.
pub(crate) fn errors(router: &Running, kind: &str) -> usize {
    let metrics = router.metrics();
    let label = format!("kind=\"{kind}\"");
    let lines = metrics
        .lines()
        .filter(|l| l.starts_with("cardea_router_upstream_errors_total") && l.contains(&label));
    lines
        .filter_map(|l| l.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

#[test]
fn a_trusted_peer_is_asked_on_one_connection() {
    let ca = Authority::new("ca");
    let upstream = answering(&ca.sign(&["127.0.0.1"]));
    let router = setup(&upstream, &ca, "").start();
    let mut client = router.client();
    for _ in 0..20 {
        client.send(GET);
        assert_eq!(client.response().body, b"ok");
    }
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    client.send(post);
    assert_eq!(client.response().body, b"ok");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn large_bodies_pass_both_ways() {
    let ca = Authority::new("ca");
    let upstream = secure(&ca.sign(&["127.0.0.1"]), |mut wire| {
        while wire.peek() {
            let request = wire.request();
            let n = request.body.len();
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n"));
            wire.send(&request.body);
        }
    });
    let router = setup(&upstream, &ca, "").start();
    let body: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i ^ (i >> 9)).to_le_bytes()[0])
        .collect();
    let mut client = router.client();
    for _ in 0..2 {
        let n = body.len();
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n"
        ));
        client.send(&body);
        assert!(client.response().body == body);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_name_stands_for_the_address() {
    let ca = Authority::new("ca");
    let upstream = answering(&ca.sign(&["search.internal"]));
    let router = setup(&upstream, &ca, ", name = \"search.internal\"").start();
    assert_eq!(router.ask(GET).body, b"ok");
}

#[test]
fn whom_nobody_vouches_for_is_not_asked() {
    let ca = Authority::new("ca");
    let expired = ca.sign_with(&["127.0.0.1"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let other = Authority::new("other").sign(&["127.0.0.1"]);
    for (pair, tls) in [
        (&other, ""),
        (&ca.sign(&["127.0.0.2"]), ""),
        (&ca.sign(&["127.0.0.1"]), ", name = \"search.internal\""),
        (&expired, ""),
    ] {
        let upstream = answering(pair);
        let router = setup(&upstream, &ca, tls).start();
        let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(router.ask(post).status(), 502);
        assert_eq!(errors(&router, "tls"), 1);
    }
    // Unless that is what was asked for.
    let upstream = answering(&other);
    let router = Setup::new(&[&upstream])
        .service("tls = { verify = \"none\" }")
        .start();
    assert_eq!(router.ask(GET).body, b"ok");
}

#[test]
fn a_peer_that_speaks_no_tls_or_nothing_fails_in_time() {
    let ca = Authority::new("ca");
    let plain = Upstream::start(|mut wire, _| wire.send("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let router = setup(&plain, &ca, "").start();
    assert_eq!(router.ask(GET).status(), 502);
    assert_eq!(errors(&router, "tls"), 1);
    let silent = Upstream::start(|mut wire, _| while wire.fill() {});
    let router = setup(&silent, &ca, "")
        .service("timeouts = { connect = \"100ms\" }")
        .start();
    assert_eq!(router.ask(GET).status(), 504);
    assert_eq!(errors(&router, "connect_timeout"), 1);
}

#[test]
fn an_answer_that_is_cut_off_never_looks_complete() {
    let ca = Authority::new("ca");
    let upstream = secure(&ca.sign(&["127.0.0.1"]), |mut wire| {
        wire.request();
        // To the end of the connection, which then ends without a farewell.
        wire.send("HTTP/1.1 200 OK\r\n\r\nabc");
    });
    let router = setup(&upstream, &ca, "").start();
    let mut client = router.client();
    client.send(GET);
    client.head();
    let (said, _) = client.rest();
    assert!(!said.ends_with(b"0\r\n\r\n"), "{}", said.escape_ascii());
    assert_eq!(errors(&router, "reset"), 1);
    let polite = secure(&ca.sign(&["127.0.0.1"]), |mut wire| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\n\r\nabc");
        wire.close_sending();
    });
    let router = setup(&polite, &ca, "").start();
    let mut client = router.client();
    client.send(GET);
    assert_eq!(client.response().body, b"abc");
}

#[test]
fn a_connection_is_used_only_on_the_terms_it_was_made_on() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let upstream = answering(&ca.sign(&["127.0.0.1"]));
    let router = setup(&upstream, &ca, "").start();
    let mut client = router.client();
    client.send(GET);
    assert_eq!(client.response().body, b"ok");
    std::fs::write(router.dir.path().join("ca.pem"), other.pem()).unwrap();
    until("the new terms hold", || {
        client.send(GET);
        client.response().status() == 502
    });
    assert_eq!(upstream.connections(), 1 + errors(&router, "tls"));
}

#[test]
fn checks_go_through_tls_too() {
    let ca = Authority::new("ca");
    let upstream = answering(&ca.sign(&["127.0.0.1"]));
    let check = "health = { active = { path = \"/ready\", interval = \"100ms\" } }";
    let router = setup(&upstream, &ca, "").service(check).start();
    until("it is checked", || upstream.connections() >= 3);
    let healthy = "cardea_router_peer_healthy";
    assert_eq!(router.metric(healthy), Some(1.0));
    let stranger = answering(&Authority::new("other").sign(&["127.0.0.1"]));
    let router = setup(&stranger, &ca, "").service(check).start();
    until("it is down", || router.metric(healthy) == Some(0.0));
}
