//! The PROXY protocol: whose connection it is, from those who may say so.

use std::time::Duration;

use crate::{
    harness::{GET, OK, PATIENCE, Running, Setup, Upstream, Wire, until},
    proxies::networks,
};

const V1: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n";
/// `203.0.113.9:56324`, with an extra; then the proxy's own.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x09\xc0\0\x02\x01\xdc\x04\x01\xbb\x05\0\x02ab";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A router to which the loopback network is a proxy.
fn behind_a_proxy(upstream: &Upstream) -> Setup {
    Setup::new(&[upstream]).config(|c| c.proxy_protocol = networks(&["127.0.0.0/8"]))
}

/// The connections refused for a reason.
fn refused(router: &Running, reason: &str) -> Option<f64> {
    router.metric(&format!(
        "cardea_router_connections_refused_total{{reason=\"{reason}\"}}"
    ))
}

/// Waits until a connection ends, in whichever way.
fn assert_ended(mut client: Wire) {
    let (rest, _) = client.rest();
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

#[test]
fn the_header_says_whose_connection_it_is() {
    let upstream = Upstream::answering(OK);
    let router = behind_a_proxy(&upstream).start();
    for header in [V1.as_bytes(), V2] {
        for slowly in [false, true] {
            let mut client = router.client();
            if slowly {
                client.send_slowly(header);
            } else {
                client.send([header, GET.as_bytes()].concat());
                assert_eq!(client.response().status(), 200);
            }
            client.send(GET);
            assert_eq!(client.response().status(), 200);
        }
    }
    let lines = router.log(6);
    for line in &lines {
        assert_eq!(line["client"], "203.0.113.9:56324", "{line}");
        assert!(
            line["via"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
    }
    assert_eq!(upstream.count("X-Forwarded-For: 203.0.113.9\r\n"), 6);
    assert_eq!(upstream.count("X-Real-IP: 203.0.113.9\r\n"), 6);
    assert_eq!(upstream.count("127.0.0.1"), 0);
}

#[test]
fn a_proxys_own_connection_is_its_own() {
    let upstream = Upstream::answering(OK);
    let router = behind_a_proxy(&upstream).start();
    for header in [&b"PROXY UNKNOWN what ever\r\n"[..], V2_LOCAL] {
        let answer = router.ask([header, GET.as_bytes()].concat());
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(upstream.count("X-Forwarded-For: 127.0.0.1\r\n"), 2);
    for line in router.log(2) {
        assert!(
            line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
        assert!(line.get("via").is_none(), "{line}");
    }
}

#[test]
fn without_a_sound_header_a_proxys_connection_is_closed() {
    let upstream = Upstream::answering(OK);
    let router = behind_a_proxy(&upstream).start();
    let broken = V1.replace("56324", "99999");
    let bad: [&[u8]; 4] = [
        GET.as_bytes(),
        broken.as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\0",
        b"\x16\x03\x01\x02\0",
    ];
    for (before, bytes) in bad.into_iter().enumerate() {
        let mut client = router.client();
        client.send([bytes, GET.as_bytes()].concat());
        assert_ended(client);
        until("counted", || {
            refused(&router, "proxy_header") == Some(before as f64 + 1.0)
        });
    }
    // One that ends within the header; one that says nothing is a health check.
    let mut client = router.client();
    client.send(&V2[..20]);
    client.close_sending();
    client.assert_closed();
    let mut client = router.client();
    client.close_sending();
    client.assert_closed();
    until("counted", || refused(&router, "proxy_header") == Some(5.0));
    assert_eq!(refused(&router, "proxy_timeout"), Some(0.0));
    assert_eq!(upstream.connections(), 0);
    assert_eq!(router.ask([V1, GET].concat()).status(), 200);
}

#[test]
fn a_stranger_has_no_header() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.proxy_protocol = networks(&["10.0.0.0/8"]);
            c.trusted_proxies = networks(&["127.0.0.0/8"]);
        })
        .start();
    assert_eq!(router.ask([V1, GET].concat()).status(), 400);
    let mut client = router.client();
    client.send([V2, GET.as_bytes()].concat());
    assert_eq!(client.response().status(), 400);
    assert_eq!(router.ask(GET).status(), 200);
    assert_eq!(upstream.count("203.0.113.9"), 0);
}

#[test]
fn a_header_comes_once() {
    let upstream = Upstream::answering(OK);
    let router = behind_a_proxy(&upstream).start();
    let mut client = router.client();
    client.send([V1, GET, V1, GET].concat());
    assert_eq!(client.response().status(), 200);
    assert_eq!(client.response().status(), 400);
}

#[test]
fn the_client_that_it_names_may_be_a_trusted_proxy_too() {
    let upstream = Upstream::answering(OK);
    let ask = |trusted: &str| {
        let router = behind_a_proxy(&upstream)
            .config(|c| c.trusted_proxies = networks(&[trusted]))
            .start();
        let request = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n";
        assert_eq!(router.ask([V1, request].concat()).status(), 200);
        router.log(1)[0]["client"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask("203.0.113.0/24"), "198.51.100.7");
    assert_eq!(
        upstream.count("X-Forwarded-For: 198.51.100.7, 203.0.113.9\r\n"),
        1
    );
    // The proxy that passes bytes on is trusted, but it is not whose request this is.
    assert_eq!(ask("127.0.0.0/8"), "203.0.113.9:56324");
    assert_eq!(upstream.count("X-Forwarded-For: 203.0.113.9\r\n"), 1);
}

#[test]
fn a_header_has_to_come_in_time() {
    let upstream = Upstream::answering(OK);
    let router = behind_a_proxy(&upstream)
        .config(|c| c.limits.header_timeout = Duration::from_millis(150))
        .start();
    let silent = router.client();
    let mut slow = router.client();
    slow.send(&V1[..20]);
    assert_ended(silent);
    assert_ended(slow);
    until("both are counted", || {
        refused(&router, "proxy_timeout") == Some(2.0)
    });
}

#[test]
fn a_stop_does_not_wait_for_headers() {
    let upstream = Upstream::answering(OK);
    let router = behind_a_proxy(&upstream)
        .config(|c| c.drain = 10 * PATIENCE)
        .start();
    let silent = router.client();
    let mut begun = router.client();
    begun.send(&V1[..20]);
    until("accepted", || {
        router.metric("cardea_router_active_connections{protocol=\"http1\"}") == Some(2.0)
    });
    let stopping = router.stop();
    assert_ended(silent);
    assert_ended(begun);
    assert!(stopping.join().unwrap() < PATIENCE);
}
