//! More connections than there may be.

use std::time::Duration;

use super::{Gate, NOW, gated, made_room, open, refused, until_open, with_tls};
use crate::{
    harness::{GET, OK, PATIENCE, Running, Setup, Upstream, Wire, until},
    proxies::networks,
    tls::authority::{Authority, Client},
};

/// So many connections in all; newcomers wait for a place for as long as it takes.
fn room_for(connections: usize, upstream: &Upstream) -> Setup {
    Setup::new(&[upstream]).config(|c| {
        c.limits.connections = connections;
        c.limits.queue_timeout = PATIENCE;
    })
}

/// The same, but they do not wait.
fn no_queue(setup: Setup) -> Setup {
    setup.config(|c| c.limits.queue_timeout = Duration::ZERO)
}

fn ask(client: &mut Wire) {
    client.send(NOW);
    assert_eq!(client.response().status(), 200);
}

/// Connections that have each been served, one after the other.
fn idle<const N: usize>(router: &Running) -> [Wire; N] {
    std::array::from_fn(|_| {
        let mut client = router.client();
        ask(&mut client);
        client
    })
}

#[test]
fn idle_connections_make_room_and_the_oldest_goes_first() {
    let upstream = Upstream::answering(OK);
    let router = room_for(3, &upstream).start();
    let [mut a, mut b, mut c] = idle(&router);
    let [mut d] = idle(&router);
    a.assert_closed();
    ask(&mut b);
    // From the longest idle on, it is now c, d, b.
    let [_e] = idle(&router);
    c.assert_closed();
    ask(&mut b);
    ask(&mut d);
    assert_eq!(made_room(&router), 2);
    assert_eq!(refused(&router, "limit"), 0);
}

#[test]
fn who_says_nothing_makes_room() {
    let upstream = Upstream::answering(OK);
    let router = room_for(2, &upstream).start();
    let mut silent: Vec<_> = (0..2).map(|_| router.client()).collect();
    until_open(&router, 2);
    let _served: [_; 2] = idle(&router);
    for silent in &mut silent {
        silent.assert_closed();
    }
}

#[test]
fn busy_connections_stay_and_the_newcomer_is_told() {
    let gate = Gate::default();
    let upstream = gated(&gate);
    let router = no_queue(room_for(2, &upstream)).start();
    let mut busy: Vec<_> = (0..2).map(|_| router.client()).collect();
    for client in &mut busy {
        client.send(GET);
    }
    until("both are at the peer", || upstream.count("GET / ") == 2);
    for _ in 0..20 {
        let mut newcomer = router.client();
        newcomer.send("GET /a/path HTTP/1.1\r\nHost: h\r\n\r\n");
        let answer = newcomer.response();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(answer.field("retry-after"), Some("1"));
        newcomer.assert_closed();
    }
    // In bytes that come one by one, too.
    let mut newcomer = router.client();
    newcomer.try_send_slowly(GET);
    assert_eq!(newcomer.response().status(), 503);
    assert_eq!(refused(&router, "limit"), 21);
    assert_eq!(upstream.connections(), 2);
    let log = router.log(21);
    assert_eq!(log[0]["status"], 503);
    assert_eq!(log[0]["path"], "/a/path");
    assert_eq!(log[0]["error"], "too_many_connections");
    gate.open();
    for client in &mut busy {
        assert_eq!(client.response().status(), 200);
    }
    // They are idle now.
    let _served: [_; 2] = idle(&router);
}

#[test]
fn a_newcomer_waits_a_while_for_a_place() {
    let gate = Gate::default();
    let upstream = gated(&gate);
    let router = room_for(1, &upstream).start();
    let mut busy = router.client();
    busy.send(GET);
    until("it is at the peer", || upstream.count("GET / ") == 1);
    let mut newcomer = router.client();
    newcomer.send(NOW);
    until_open(&router, 2);
    assert_eq!(upstream.count("/now"), 0);
    gate.open();
    assert_eq!(newcomer.response().status(), 200);
    assert_eq!(busy.response().status(), 200);
    assert_eq!(refused(&router, "limit"), 0);
}

/// The kernel gives a connection to whichever worker it likes: the idle ones may all be at another.
#[test]
fn idle_connections_of_other_workers_make_room() {
    let upstream = Upstream::answering(OK);
    let router = room_for(2, &upstream).config(|c| c.threads = 4).start();
    let clients: [_; 60] = idle(&router);
    assert!(made_room(&router) >= 58);
    until_open(&router, 2);
    drop(clients);
    assert_eq!(refused(&router, "limit"), 0);
}

#[test]
fn one_client_has_no_more_connections_than_it_may() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.threads = 2;
            c.limits.connections_per_client = Some(3);
        })
        .start();
    let served: [_; 3] = idle(&router);
    for _ in 0..20 {
        let (said, _) = router.client().rest();
        assert!(said.is_empty(), "{}", said.escape_ascii());
    }
    assert_eq!(refused(&router, "client_limit"), 20);
    drop(served);
    until_open(&router, 0);
    let _served: [_; 3] = idle(&router);
}

#[test]
fn behind_a_proxy_each_of_its_clients_is_counted() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.proxy_protocol = networks(&["127.0.0.0/8"]);
            c.limits.connections_per_client = Some(2);
        })
        .start();
    let from = |client: &str| {
        let mut wire = router.client();
        wire.send(format!("PROXY {client} 443\r\n{NOW}"));
        wire
    };
    let (a, b) = (
        "TCP4 203.0.113.9 192.0.2.1 56324",
        "TCP6 2001:db8:1:2::1 2001:db8::1 1",
    );
    let same_network = "TCP6 2001:db8:1:2:ffff::9 2001:db8::1 1";
    let mut open = Vec::new();
    for client in [a, a, b, same_network] {
        let mut wire = from(client);
        assert_eq!(wire.response().status(), 200, "{client}");
        open.push(wire);
    }
    for client in [a, b] {
        let (said, _) = from(client).rest();
        assert!(said.is_empty(), "{client}: {}", said.escape_ascii());
    }
    assert_eq!(refused(&router, "client_limit"), 2);
    // What the proxy asks for itself is nobody's.
    for _ in 0..5 {
        let mut wire = router.client();
        wire.send(format!("PROXY UNKNOWN\r\n{NOW}"));
        assert_eq!(wire.response().status(), 200);
        open.push(wire);
    }
}

#[test]
fn trusted_proxies_have_any_number_of_connections() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.trusted_proxies = networks(&["127.0.0.0/8"]);
            c.limits.connections_per_client = Some(2);
        })
        .start();
    let _served: [_; 10] = idle(&router);
}

#[test]
fn a_connection_ends_after_so_many_requests() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.requests_per_connection = Some(3))
        .start();
    let mut client = router.client();
    // The fourth, sent with the others, is not looked at.
    client.send(GET.repeat(4));
    for close in [None, None, Some("close")] {
        assert_eq!(client.response().field("connection"), close);
    }
    client.assert_closed();
    assert_eq!(upstream.count("GET / "), 3);
}

#[test]
fn in_tls_too_idle_connections_make_room_and_busy_ones_stay() {
    let gate = Gate::default();
    let upstream = gated(&gate);
    let authority = Authority::new("ca");
    let router = with_tls(no_queue(room_for(1, &upstream)))
        .tables(&authority.sign(&["h"]).table("h", ""))
        .start();
    let to = router.tls.unwrap();
    let client = Client::trusting(&authority);
    let mut first = client.try_connect(to, "h").unwrap();
    ask(&mut first);
    let mut second = client.try_connect(to, "h").unwrap();
    // It ends with TLS' farewell.
    first.assert_closed();
    second.send(GET);
    until("it is at the peer", || upstream.count("GET / ") == 1);
    assert!(client.try_connect(to, "h").is_err());
    assert_eq!(refused(&router, "limit"), 1);
    gate.open();
    assert_eq!(second.response().status(), 200);
}

#[test]
fn what_has_been_refused_leaves_nothing_behind() {
    let gate = Gate::default();
    let upstream = gated(&gate);
    let router = no_queue(room_for(1, &upstream)).start();
    let mut busy = router.client();
    busy.send(GET);
    until("it is at the peer", || upstream.count("GET / ") == 1);
    // Far more than are told at a time; most say nothing.
    let mut crowd: Vec<_> = (0..300).map(|_| router.client()).collect();
    for newcomer in &mut crowd {
        newcomer.rest().0.clear();
    }
    assert_eq!(refused(&router, "limit"), 300);
    until_open(&router, 1);
    gate.open();
    assert_eq!(busy.response().status(), 200);
    assert_eq!(open(&router, "http1"), 1);
}
