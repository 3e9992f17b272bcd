//! TLS with clients: which certificate they get, and that bytes are bytes.

use std::{
    net::{Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::ProtocolVersion;

use crate::harness::{GET, OK, Running, Setup, Upstream, until};

#[path = "tls/authority.rs"]
pub(crate) mod authority;
#[path = "tls/clients.rs"]
mod clients;

use authority::{Authority, Client, Pair};

const HANDSHAKES: &str = "cardea_router_tls_handshakes_total";
const FAILURES: &str = "cardea_router_tls_handshake_failures_total";

fn with_tls(setup: Setup) -> Setup {
    setup.config(|c| c.listen_tls = Some("127.0.0.1:0".parse().unwrap()))
}

impl Running {
    fn tls(&self) -> SocketAddr {
        self.tls.unwrap()
    }

    fn failed(&self, reason: &str) -> u64 {
        let metric = format!("{FAILURES}{{reason=\"{reason}\"}}");
        let metrics = self.metrics();
        let line = metrics.lines().find(|l| l.starts_with(&metric)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// A router with one certificate for `h`, and a client that trusts it.
fn simple(upstream: &Upstream) -> (Running, Client) {
    let authority = Authority::new("ca");
    let pair = authority.sign(&["h"]);
    let router = with_tls(Setup::new(&[upstream]))
        .tables(&pair.table("h", ""))
        .start();
    (router, Client::trusting(&authority))
}

#[test]
fn a_request_over_tls_is_served_and_the_service_is_told() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let pair = authority.sign(&["h"]);
    let router = with_tls(Setup::new(&[&upstream]))
        .tables(&pair.table("h", ""))
        .start();
    for (versions, spoken, label) in [
        (
            &[&rustls::version::TLS12][..],
            ProtocolVersion::TLSv1_2,
            "1.2",
        ),
        (&[&rustls::version::TLS13], ProtocolVersion::TLSv1_3, "1.3"),
    ] {
        let client = Client::of(&authority, versions, None);
        let mut wire = client.try_connect(router.tls(), "h").unwrap();
        assert_eq!(wire.version(), spoken);
        for _ in 0..3 {
            wire.send(GET);
            assert_eq!(wire.response().body, b"ok");
        }
        let metric = format!("{HANDSHAKES}{{version=\"{label}\",resumed=\"false\"}}");
        router.comes_to(&metric, 1.0);
    }
    assert_eq!(upstream.count("X-Forwarded-Proto: https"), 6);
    // The plain port goes on beside it.
    assert_eq!(router.ask(GET).body, b"ok");
    assert_eq!(upstream.count("X-Forwarded-Proto: http\r\n"), 1);
    assert_eq!(router.log(7)[5]["tls"], "1.3");
    assert!(router.log(7)[6].get("tls").is_none());
}

#[test]
fn a_router_may_speak_tls_1_3_alone_and_on_no_other_port() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let pair = authority.sign(&["h"]);
    let router = with_tls(Setup::new(&[&upstream]))
        .config(|config| {
            config.listen = None;
            config.tls_min_version = cardea_router::TlsVersion::V13;
        })
        .tables(&pair.table("h", ""))
        .start();
    assert_eq!(router.router.as_ref().unwrap().traffic_address(), None);
    let old = Client::of(&authority, &[&rustls::version::TLS12], None);
    assert!(old.try_connect(router.tls(), "h").is_err());
    until("it is counted", || router.failed("incompatible") == 1);
    let new = Client::of(&authority, &[&rustls::version::TLS13], None);
    let mut wire = new.try_connect(router.tls(), "h").unwrap();
    wire.send(GET);
    assert_eq!(wire.response().body, b"ok");
    // A new set of certificates is no weaker.
    router.edit(|text| text.replace("[[certificate]]", "[[certificate]]\ndefault = true"));
    for _ in 0..3 {
        assert!(old.try_connect(router.tls(), "h").is_err());
    }
}

#[test]
fn the_host_that_a_client_names_chooses_the_certificate() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let exact = authority.sign(&["a.shop.example"]);
    // It would do for another host, too, if it were served for that.
    let wild = authority.sign(&["*.shop.example", "c.b.shop.example"]);
    let default = authority.sign(&["fallback.test"]);
    let router = with_tls(Setup::new(&[&upstream]))
        .tables(&exact.table("exact", ""))
        .tables(&wild.table("wild", "hosts = [\"*.shop.example\"]"))
        .tables(&default.table("default", "default = true"))
        .start();
    let client = Client::trusting(&authority);
    for (host, pair) in [
        ("a.shop.example", &exact),
        ("A.SHOP.EXAMPLE", &exact),
        ("b.shop.example", &wild),
        ("fallback.test", &default),
    ] {
        let wire = client.try_connect(router.tls(), host).unwrap();
        assert_eq!(wire.peer(), pair.chain()[0], "{host}");
    }
    // A `*` is one label: the default one comes, which is not for this host.
    assert!(
        client
            .try_connect(router.tls(), "c.b.shop.example")
            .is_err()
    );
    until("the refusal is counted", || router.failed("alert") == 1);
}

#[test]
fn without_a_fitting_certificate_there_is_no_handshake() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let router = with_tls(Setup::new(&[&upstream]))
        .tables(&authority.sign(&["a.shop.example"]).table("a", ""))
        .tables(&authority.sign(&["b.shop.example"]).table("b", ""))
        .start();
    let client = Client::trusting(&authority);
    assert!(client.try_connect(router.tls(), "c.shop.example").is_err());
    until("it is counted", || router.failed("no_certificate") == 1);
}

#[test]
fn failures_are_counted_by_reason() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let router = with_tls(Setup::new(&[&upstream]))
        .tables(&authority.sign(&["h"]).table("h", ""))
        .config(|c| c.limits.header_timeout = Duration::from_secs(2))
        .start();
    let stranger = Client::trusting(&Authority::new("other"));
    assert!(stranger.try_connect(router.tls(), "h").is_err());
    until("alert", || router.failed("alert") == 1);
    let mut plain = crate::harness::Wire::connect(router.tls());
    plain.send(GET);
    let (said, _) = plain.rest();
    assert_eq!(said[0], 21, "an alert");
    until("not_tls", || router.failed("not_tls") == 1);
    drop(crate::harness::Wire::connect(router.tls()));
    until("closed", || router.failed("closed") == 1);
    // Nothing, and a part of a hello.
    let mut silent = crate::harness::Wire::connect(router.tls());
    let mut slow = crate::harness::Wire::connect(router.tls());
    slow.send([22, 3, 1]);
    silent.assert_closed();
    slow.assert_closed();
    until("timeout", || router.failed("timeout") == 2);
}

/// Bytes that tell if one is missing.
fn pattern(n: usize) -> Vec<u8> {
    let byte = |i: usize| (i ^ (i >> 8) ^ (i >> 16)).to_le_bytes()[0];
    (0..n).map(byte).collect()
}

#[test]
fn large_bodies_pass_both_ways_and_requests_can_be_pipelined() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            let n = request.body.len();
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n"));
            wire.send(&request.body);
        }
    });
    let (router, client) = simple(&upstream);
    let mut wire = client.try_connect(router.tls(), "h").unwrap();
    for n in [1, 16_384, 16_385, 100_000, 5_000_000] {
        let body = pattern(n);
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n");
        wire.send(head);
        wire.send(&body);
        let answer = wire.response();
        assert!(answer.body == body, "{n} bytes came back changed");
    }
    let many = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".repeat(500);
    wire.send(many);
    for _ in 0..500 {
        assert_eq!(wire.response().body, b"abc");
    }
    // One byte a record.
    wire.send_slowly(GET);
    assert_eq!(wire.response().status(), 200);
}

#[test]
fn who_says_farewell_is_told_farewell() {
    let upstream = Upstream::answering(OK);
    let (router, client) = simple(&upstream);
    let mut wire = client.try_connect(router.tls(), "h").unwrap();
    wire.send(GET);
    assert_eq!(wire.response().body, b"ok");
    wire.close_sending();
    // It ends with a farewell: without one, this were an error.
    wire.assert_closed();
}

#[test]
fn a_body_that_ends_with_the_connection_ends_with_a_farewell() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\n\r\n");
        wire.send(pattern(300_000));
    });
    let (router, client) = simple(&upstream);
    let mut wire = client.try_connect(router.tls(), "h").unwrap();
    wire.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    wire.head();
    let (body, end) = wire.rest();
    end.unwrap();
    assert!(body == pattern(300_000));
}

#[test]
fn a_body_that_is_cut_off_never_looks_complete() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        wire.peek();
    });
    let authority = Authority::new("ca");
    let router = with_tls(Setup::new(&[&upstream]))
        .tables(&authority.sign(&["h"]).table("h", ""))
        .service("timeouts = { idle = \"50ms\" }")
        .start();
    let client = Client::trusting(&authority);
    let mut wire = client.try_connect(router.tls(), "h").unwrap();
    wire.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    wire.head();
    let (_, end) = wire.rest();
    end.unwrap_err();
}

#[test]
fn a_request_that_ends_without_a_farewell_is_not_complete() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.fill();
        }
    });
    let (router, client) = simple(&upstream);
    let mut wire = client.try_connect(router.tls(), "h").unwrap();
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    until("the beginning is there", || upstream.count("abc") == 1);
    wire.stream.shutdown(Shutdown::Write).unwrap();
    let log = router.log(1);
    assert_eq!(log[0]["error"], "client_gone");
    // A line by itself: a request id may end in a nought.
    assert_eq!(upstream.count("\r\n0\r\n\r\n"), 0);
}

#[test]
fn sessions_are_taken_up_again_when_there_is_a_new_certificate() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let (first, second) = (authority.sign(&["h"]), authority.sign(&["h"]));
    let router = with_tls(Setup::new(&[&upstream]))
        .tables(&first.table("h", ""))
        .start();
    let client = Client::trusting(&authority).resuming();
    let ask = || {
        let mut wire = client.try_connect(router.tls(), "h").unwrap();
        wire.send(GET);
        assert_eq!(wire.response().body, b"ok");
    };
    ask();
    let text = |pair: &Pair| pair.table("h", "");
    router.edit(|file| file.replace(&text(&first), &text(&second)));
    let fresh = Client::trusting(&authority);
    let wire = fresh.try_connect(router.tls(), "h").unwrap();
    assert_eq!(wire.peer(), second.chain()[0]);
    ask();
    let metric = format!("{HANDSHAKES}{{version=\"1.3\",resumed=\"true\"}}");
    router.comes_to(&metric, 1.0);
}

#[test]
fn sessions_are_taken_up_again() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let router = with_tls(Setup::new(&[&upstream]))
        .tables(&authority.sign(&["h"]).table("h", ""))
        .config(|c| c.threads = 2)
        .start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::of(&authority, &[version], None).resuming();
        for _ in 0..8 {
            let mut wire = client.try_connect(router.tls(), "h").unwrap();
            wire.send(GET);
            assert_eq!(wire.response().body, b"ok");
        }
    }
    for version in ["1.2", "1.3"] {
        let metric = format!("{HANDSHAKES}{{version=\"{version}\",resumed=\"true\"}}");
        // Whichever worker it comes to.
        router.comes_to(&metric, 7.0);
    }
}

fn write(router: &Running, pair: &Pair) {
    std::fs::write(router.dir.path().join("key.pem"), &pair.key).unwrap();
    std::fs::write(router.dir.path().join("cert.pem"), &pair.cert).unwrap();
}

#[test]
fn a_new_certificate_is_taken_into_use_without_a_failure() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let first = authority.sign(&["h"]);
    let router = with_tls(Setup::new(&[&upstream]))
        .tables("[[certificate]]\nname = \"h\"\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"")
        .file("cert.pem", &first.cert)
        .file("key.pem", &first.key)
        .start();
    let client = Client::trusting(&authority);
    let mut kept = client.try_connect(router.tls(), "h").unwrap();
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let load: Vec<_> = (0..3)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            let (client, address) = (client.clone(), router.tls());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut wire = client.try_connect(address, "h").unwrap();
                    for _ in 0..3 {
                        wire.send(GET);
                        assert_eq!(wire.response().body, b"ok");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for _ in 0..2 {
        let next = authority.sign(&["h"]);
        write(&router, &next);
        until("the new one is served", || {
            let wire = client.try_connect(router.tls(), "h").unwrap();
            wire.peer() == next.chain()[0]
        });
        kept.send(GET);
        assert_eq!(kept.response().body, b"ok");
    }
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 20);
    // A bad pair keeps the good one.
    std::fs::write(router.dir.path().join("key.pem"), &first.key).unwrap();
    until("the bad pair is named", || {
        router.metric("cardea_router_degraded") == Some(1.0)
    });
    client.try_connect(router.tls(), "h").unwrap();
}

#[test]
fn a_certificate_whose_files_do_not_fit_holds_up_no_other() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new("ca");
    let pairs = ["a.test", "b.test"].map(|host| authority.sign(&[host]));
    let setup = with_tls(Setup::new(&[&upstream]));
    let setup = ["a", "b"]
        .iter()
        .zip(&pairs)
        .fold(setup, |setup, (name, pair)| {
            setup
                .tables(&format!(
                    "[[certificate]]\nname = \"{name}\"\ncert_file = \"{name}.pem\"\n\
                 key_file = \"{name}.key\""
                ))
                .file(&format!("{name}.pem"), &pair.cert)
                .file(&format!("{name}.key"), &pair.key)
        });
    let router = setup.start();
    let write = |name: &str, text: &str| {
        std::fs::write(router.dir.path().join(name), text).unwrap();
    };
    let client = Client::trusting(&authority);
    let served = |host: &str| client.try_connect(router.tls(), host).unwrap().peer();
    let degraded = || router.metric("cardea_router_degraded");
    // The first one's key is another one's: named, and the pair before it stays in force.
    write("a.key", &pairs[1].key);
    until("it is named", || degraded() == Some(1.0));
    // The second one is renewed meanwhile.
    let next = authority.sign(&["b.test"]);
    write("b.key", &next.key);
    write("b.pem", &next.cert);
    until("the other one is renewed", || {
        served("b.test") == next.chain()[0]
    });
    assert_eq!(served("a.test"), pairs[0].chain()[0]);
    assert_eq!(degraded(), Some(1.0));
    write("a.key", &pairs[0].key);
    until("all is well", || degraded() == Some(0.0));
}
