//! Proxies before the router: whom it believes, and what services and logs are told.

use cardea_router::{BelieveIds, Network, Networks};

use crate::harness::{OK, Setup, Upstream};

/// What a request may claim about its client.
const CLAIMS: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: claimed\r\nX-Forwarded-Port: 99\r\nX-Real-IP: 203.0.113.9\r\n\
                      Forwarded: for=203.0.113.9;proto=https;host=claimed\r\n\
                      X_Forwarded_For: 203.0.113.9\r\nX_Real_Ip: 203.0.113.9\r\n";

pub(crate) fn networks(texts: &[&str]) -> Networks {
    texts
        .iter()
        .map(|t| t.parse::<Network>().unwrap())
        .collect()
}

fn request(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

#[test]
fn a_stranger_cannot_pass_for_somebody_else() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.trusted_proxies = networks(&["10.0.0.0/8"]))
        .start();
    assert_eq!(router.ask(request(CLAIMS)).status(), 200);
    let seen = &upstream.seen()[0];
    assert!(
        !seen.contains("203.0.113.9") && !seen.contains("claimed"),
        "{seen}"
    );
    assert!(
        !seen.contains("X-Forwarded-Port") && !seen.contains("https"),
        "{seen}"
    );
    for field in [
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Real-IP: 127.0.0.1\r\n",
        "X-Forwarded-Proto: http\r\n",
        "X-Forwarded-Host: h\r\n",
    ] {
        assert_eq!(seen.matches(field).count(), 1, "{field}: {seen}");
    }
    let line = &router.log(1)[0];
    assert!(
        line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
    assert!(line.get("via").is_none(), "{line}");
}

#[test]
fn a_trusted_proxy_is_believed_and_its_chain_goes_on() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.trusted_proxies = networks(&["127.0.0.0/8", "10.0.0.0/8"]))
        .start();
    let claims = CLAIMS.replace(
        "203.0.113.9\r\nX-Forwarded-Proto",
        "6.6.6.6, 203.0.113.9, 10.0.0.4\r\nX-Forwarded-Proto",
    );
    assert_eq!(router.ask(request(&claims)).status(), 200);
    let seen = &upstream.seen()[0];
    for field in [
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.4, 127.0.0.1\r\n",
        "X-Real-IP: 203.0.113.9\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: claimed\r\n",
        "X-Forwarded-Port: 99\r\n",
    ] {
        assert_eq!(seen.matches(field).count(), 1, "{field}: {seen}");
    }
    assert!(
        !seen.contains("Forwarded: for") && !seen.contains('_'),
        "{seen}"
    );
    let line = &router.log(1)[0];
    assert_eq!(line["client"], "203.0.113.9", "{line}");
    assert!(
        line["via"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
}

#[test]
fn one_connection_of_a_proxy_carries_many_clients() {
    let upstreams: Vec<_> = (0..4).map(|_| Upstream::answering(OK)).collect();
    let router = Setup::new(&upstreams.iter().collect::<Vec<_>>())
        .config(|c| c.trusted_proxies = networks(&["127.0.0.1"]))
        .service("balance = { hash = \"client\" }")
        .start();
    let mut proxy = router.client();
    for _ in 0..3 {
        for client in 0..64 {
            proxy.send(request(&format!("X-Forwarded-For: 192.0.2.{client}\r\n")));
            assert_eq!(proxy.response().status(), 200);
        }
    }
    // Each client has its instance, all the same each time; not all clients have the same.
    let mut used = 0;
    for upstream in &upstreams {
        used += usize::from(upstream.count("GET ") > 0);
        for client in 0..64 {
            let count = upstream.count(&format!("X-Real-IP: 192.0.2.{client}\r\n"));
            assert!(count == 0 || count == 3, "{client}: {count}");
        }
    }
    assert!(used > 1);
    let lines = router.log(192);
    assert_eq!(lines[65]["client"], "192.0.2.1");
}

#[test]
fn ids_of_strangers_are_replaced_if_so_configured() {
    const IDS: &str = "X-Request-Id: mine\r\ntracestate: a=b\r\n\
                       traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    for (believe, trusted, kept) in [
        (BelieveIds::Anyone, "10.0.0.0/8", true),
        (BelieveIds::Trusted, "10.0.0.0/8", false),
        (BelieveIds::Trusted, "127.0.0.0/8", true),
    ] {
        let upstream = Upstream::answering(OK);
        let router = Setup::new(&[&upstream])
            .config(|c| {
                c.believe_ids = believe;
                c.trusted_proxies = networks(&[trusted]);
            })
            .start();
        let answer = router.ask(request(IDS));
        assert_eq!(answer.field("x-request-id") == Some("mine"), kept);
        let seen = &upstream.seen()[0];
        for field in ["X-Request-Id: mine", "traceparent: 00", "tracestate: a"] {
            assert_eq!(seen.contains(field), kept, "{believe:?} {trusted} {field}");
        }
        let line = &router.log(1)[0];
        assert_eq!(line.get("trace_id").is_some(), kept);
    }
}
