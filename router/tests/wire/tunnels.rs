//! Upgrades: tunnels only after the peer's `101`.

use std::time::{Duration, Instant};

use crate::harness::{OK, Running, Setup, Upstream, Wire, until};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

fn echoing() -> Upstream {
    Upstream::start(|mut wire, _| {
        let head = wire.head();
        assert!(
            head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"),
            "{head}"
        );
        assert!(head.contains("Sec-WebSocket-Key: x\r\n"));
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\nhello");
        loop {
            let piece = wire.take(1);
            wire.send(&piece);
            if piece == b"\n" {
                return;
            }
        }
    })
}

#[test]
fn bytes_flow_both_ways_after_the_101() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    // The first frame comes with the request: it is held back until the upgrade is agreed on.
    client.send(format!("{UPGRADE}frame"));
    let head = client.head();
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"),
        "{head}"
    );
    assert!(head.contains("Sec-WebSocket-Accept: y\r\n"));
    assert_eq!(client.take(10), b"helloframe");
    until("counted", || {
        router.metric("cardea_router_active_connections{protocol=\"upgrade\"}") == Some(1.0)
    });
    for _ in 0..100 {
        client.send("ping");
        assert_eq!(client.take(4), b"ping");
    }
    client.send("\n");
    assert_eq!(client.take(1), b"\n");
    client.assert_closed();
    drop(client);
    until("counted", || {
        router.metric("cardea_router_active_connections{protocol=\"upgrade\"}") == Some(0.0)
    });
    assert_eq!(router.log(1)[0]["status"], 101);
}

#[test]
fn without_a_101_it_stays_http() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    for _ in 0..2 {
        client.send(UPGRADE);
        assert_eq!(client.response().body, b"ok");
    }
}

#[test]
fn a_half_closed_tunnel_still_answers() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let (all, end) = wire.rest();
        end.unwrap();
        wire.send(all.repeat(2));
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    client.send("abc");
    client.close_sending();
    assert_eq!(client.rest().0, b"abcabc");
}

#[test]
fn a_side_that_does_not_end_after_the_other_is_not_waited_for() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.idle_timeout = Duration::from_millis(50))
        .start();
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    client.send("\n");
    assert_eq!(client.take(6), b"hello\n");
    client.assert_closed();
    until("counted", || {
        router.metric("cardea_router_active_connections{protocol=\"upgrade\"}") == Some(0.0)
    });
}

#[test]
fn a_tunnel_has_no_idle_limit() {
    let upstream = echoing();
    let router = Setup::new(&[&upstream])
        .service("timeouts = { idle = \"50ms\", first_byte = \"1s\" }")
        .config(|c| c.limits.idle_timeout = Duration::from_millis(50))
        .start();
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    assert_eq!(client.take(5), b"hello");
    let begun = Instant::now();
    until("each of these times is over", || {
        begun.elapsed() > Duration::from_millis(1200)
    });
    client.send("still");
    assert_eq!(client.take(5), b"still");
}

/// Tunnels to two peers; gives each with the upstream that serves it.
fn tunnel_to_each(router: &Running, upstreams: [&Upstream; 2]) -> Vec<Wire> {
    let mut tunnels = Vec::new();
    for upstream in upstreams {
        until("a tunnel to each", || {
            let before = upstream.connections();
            let mut client = router.client();
            client.send(UPGRADE);
            client.head();
            assert_eq!(client.take(5), b"hello");
            let there = upstream.connections() > before;
            if there {
                tunnels.push(client);
            }
            there
        });
    }
    tunnels
}

fn assert_open(client: &mut Wire) {
    client.send("ping");
    assert_eq!(client.take(4), b"ping");
}

#[test]
fn a_tunnel_to_a_peer_that_is_gone_ends_at_the_ceiling_and_others_do_not() {
    let (a, b) = (echoing(), echoing());
    let ceiling = Duration::from_millis(1500);
    let (router, remove) = Setup::new(&[&a, &b])
        .config(|c| c.tunnel_ceiling = ceiling)
        .start_with_removal();
    let mut tunnels = tunnel_to_each(&router, [&a, &b]);
    let removed = Instant::now();
    remove(a.address);
    until("the router knows", || {
        !router.metrics().contains(&a.address.to_string())
    });
    assert_open(&mut tunnels[0]);
    tunnels[0].assert_closed();
    assert!(removed.elapsed() >= ceiling, "{:?}", removed.elapsed());
    assert_open(&mut tunnels[1]);
}

fn open(router: &Running) -> Wire {
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    assert_eq!(client.take(5), b"hello");
    client
}

#[test]
fn tunnels_to_a_cluster_that_gets_no_more_requests_move_and_others_do_not() {
    let (home, away) = (echoing(), echoing());
    let ceiling = Duration::from_secs(2);
    let router = Setup::new(&[&home])
        .labelled(&away, "cluster = \"b\"")
        .tables("# here")
        .config(|c| c.tunnel_ceiling = ceiling)
        .start();
    // As a switch does: there was no traffic object before, and there is none afterwards.
    let mut before = open(&router);
    let moved = Instant::now();
    let traffic = "[[traffic]]\ncluster = \"default\"\nweights = { default = 0, b = 100 }\n";
    router.edit(|text| text.replace("# here", &format!("# here\n{traffic}# end\n")));
    let mut after = open(&router);
    assert_eq!((home.connections(), away.connections()), (1, 1));
    assert_open(&mut before);
    before.assert_closed();
    assert!(moved.elapsed() >= ceiling / 2, "{:?}", moved.elapsed());
    // A cluster with a small share is no reason to move.
    router.edit(|text| text.replace("default = 0, b = 100", "default = 99, b = 1"));
    let begun = Instant::now();
    until("longer than the ceiling and a look", || {
        begun.elapsed() > ceiling + Duration::from_millis(1500)
    });
    assert_open(&mut after);
    router.edit(|text| {
        text.replace(traffic, "")
            .replace("default = 99, b = 1", "default = 1")
    });
    assert_open(&mut after);
    after.assert_closed();
}

#[test]
fn tunnels_stay_where_requests_fail_over_to_and_where_another_router_sent_them() {
    let (home, away) = (echoing(), echoing());
    let ceiling = Duration::from_secs(1);
    let traffic = "[[traffic]]\ncluster = \"default\"\nweights = { default = 100 }\nfailover = { order = [\"b\"] }\n";
    let gone = crate::harness::refusing();
    let router = Setup::new(&[])
        .peer(gone)
        .labelled(&away, "cluster = \"b\"")
        .tables(traffic)
        .config(|c| c.tunnel_ceiling = ceiling)
        .start();
    // More than it takes to mark the peer at home.
    let mut failed_over: Vec<Wire> = (0..6).map(|_| open(&router)).collect();
    // Another router sent it here: this one's own traffic is none of its business.
    let here = Setup::new(&[&home])
        .labelled(&away, "cluster = \"b\"")
        .tables("# here")
        .config(|c| {
            c.tunnel_ceiling = ceiling;
            c.trusted_proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
        })
        .start();
    let mut sent = here.client();
    sent.send(UPGRADE.replace(
        "Upgrade: websocket",
        "X-Cardea-Hop: b\r\nUpgrade: websocket",
    ));
    sent.head();
    assert_eq!(sent.take(5), b"hello");
    here.edit(|text| {
        text.replace(
            "# here",
            "[[traffic]]\ncluster = \"default\"\nweights = { b = 100 }\n",
        )
    });
    let begun = Instant::now();
    until("longer than the ceiling and two looks", || {
        begun.elapsed() > ceiling + Duration::from_millis(2500)
    });
    failed_over.iter_mut().for_each(assert_open);
    assert_open(&mut sent);
}

#[test]
fn a_tunnel_ends_at_its_greatest_age() {
    let upstream = echoing();
    let age = Duration::from_secs(2);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.tunnel_max_age = Some(age))
        .start();
    let begun = Instant::now();
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    assert_eq!(client.take(5), b"hello");
    assert_open(&mut client);
    client.assert_closed();
    assert!(begun.elapsed() >= age.mul_f64(0.9), "{:?}", begun.elapsed());
    until("counted", || {
        router.metric("cardea_router_active_connections{protocol=\"upgrade\"}") == Some(0.0)
    });
}

#[test]
fn a_stop_lets_tunnels_live_until_its_deadline() {
    let upstream = echoing();
    let drain = Duration::from_secs(1);
    let router = Setup::new(&[&upstream]).config(|c| c.drain = drain).start();
    let address = router.address;
    let mut client = router.client();
    client.send(UPGRADE);
    client.head();
    assert_eq!(client.take(5), b"hello");
    let stopping = router.stop();
    until("refused", || std::net::TcpStream::connect(address).is_err());
    assert_open(&mut client);
    let took = stopping.join().unwrap();
    assert!(took >= drain, "{took:?}");
    client.rest().1.unwrap();
}

/// A `101` is believed only for what was asked, and never for another version of HTTP: the requests
/// inside would pass by the routes.
#[test]
fn only_what_was_asked_for_becomes_a_tunnel() {
    for (asked, forwarded, answered, status) in [
        ("websocket", true, "websocket", 101),
        ("WebSocket", true, "websocket", 101),
        ("a, b", true, "b", 101),
        ("a, b", true, "c", 502),
        ("a, b", true, "a, b", 502),
        ("websocket", true, "a\r\nUpgrade: websocket", 502),
        ("h2c", false, "h2c", 502),
        ("H2C", false, "h2c", 502),
        ("websocket, h2c", false, "h2c", 502),
        ("h2c\r\nUpgrade: websocket", false, "h2c", 502),
        ("websocket\r\nUpgrade: a", false, "a", 502),
        ("HTTP/2.0", false, "HTTP/2.0", 502),
        ("", false, "x", 502),
    ] {
        let upstream = Upstream::answering(format!(
            "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: {answered}\r\n\r\n"
        ));
        let router = Setup::new(&[&upstream]).start();
        let answer = router.ask(format!(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: x\r\n\
             Upgrade: {asked}\r\n\r\n"
        ));
        assert_eq!(answer.status(), status, "{asked:?} {answered:?}");
        let seen = upstream.count("Upgrade: ") + upstream.count("Connection: upgrade");
        assert_eq!(seen, if forwarded { 2 } else { 0 }, "{asked:?}");
        assert_eq!(upstream.count("HTTP2-Settings"), 0);
    }
}

/// Without `Connection: upgrade`, or from HTTP/1.0, it is not asked for.
#[test]
fn half_an_upgrade_is_none() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    for request in [
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(router.ask(request).status(), 200);
    }
    assert_eq!(upstream.count("pgrade"), 0);
}

/// A service that closes in the midst of what it is sent, and has said why, is heard, as it would be
/// without a router; and so is a client.
#[test]
fn the_last_words_of_who_takes_no_more_arrive() {
    for _ in 0..10 {
        let upstream = Upstream::start(|mut wire, _| {
            wire.head();
            wire.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            wire.take(100_000);
            // More than it reads is there, or comes: the connection is reset.
            wire.send("too much");
        });
        let router = Setup::new(&[&upstream]).start();
        let mut client = router.client();
        client.send(UPGRADE);
        client.head();
        let mut sender = Wire::new(client.stream.try_clone().unwrap());
        let heard = std::thread::scope(|scope| {
            scope.spawn(move || while sender.try_send([b'x'; 10_000]).is_ok() {});
            client.rest().0
        });
        assert_eq!(heard, b"too much");
    }
}
