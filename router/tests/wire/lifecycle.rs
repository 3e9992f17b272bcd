//! Starting, stopping, and many clients at once.

use std::{sync::mpsc, time::Duration};

use crate::harness::{GET, OK, PATIENCE, Setup, Upstream, Wire, until};

#[test]
fn a_graceful_stop_finishes_what_is_in_flight() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            if request.head.starts_with("GET /slow") {
                wait.lock().unwrap().recv().unwrap();
            }
            wire.send(OK);
        }
    });
    let router = Setup::new(&[&upstream])
        .config(|c| c.drain = 10 * PATIENCE)
        .start();
    let (address, admin) = (router.address, router.admin);
    let mut idle = router.client();
    idle.send(GET);
    assert_eq!(idle.response().status(), 200);
    let mut slow = router.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    until("in flight", || upstream.count("GET /slow") == 1);
    let stopping = router.stop();
    // Idle connections are closed; nothing new is accepted; the admin port says it is not ready.
    idle.assert_closed();
    until("refused", || std::net::TcpStream::connect(address).is_err());
    let mut ready = Wire::connect(admin);
    ready.send("GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(ready.response().status(), 503);
    go.send(()).unwrap();
    let answer = slow.response();
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (200, Some("close"))
    );
    slow.assert_closed();
    let took = stopping.join().unwrap();
    assert!(took < PATIENCE, "{took:?}");
}

/// Where there is no room, some newcomers wait for a place and all the others where the kernel has put
/// them: in the accept queue, for sure when the stop comes.
#[test]
fn connections_in_the_accept_queue_are_answered_at_a_stop() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.connections = 1;
            c.limits.queue_timeout = PATIENCE;
        })
        .start();
    // It is busy: its request has no end yet.
    let mut first = router.client();
    first.send("GET / HTTP/1.1\r\nHost: h\r\n");
    let open = "cardea_router_active_connections{protocol=\"http1\"}";
    until("it is accepted", || router.metric(open) == Some(1.0));
    let mut queued: Vec<_> = (0..200).map(|_| router.client()).collect();
    for client in &mut queued {
        client.send(GET);
    }
    until("some wait", || router.metric(open) == Some(65.0));
    assert_eq!(upstream.connections(), 0);
    let stopping = router.stop();
    for mut client in queued {
        assert_eq!(client.response().status(), 200);
    }
    first.send("\r\n");
    assert_eq!(first.response().status(), 200);
    stopping.join().unwrap();
}

#[test]
fn a_log_that_was_moved_away_is_opened_again() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    router.ask("GET /before HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(router.log(1)[0]["path"], "/before");
    let moved = router.rotate_log();
    until("a new file", || router.log_exists());
    router.ask("GET /after HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(router.log(1)[0]["path"], "/after");
    let old = std::fs::read_to_string(moved).unwrap();
    assert!(old.contains("/before") && !old.contains("/after"), "{old}");
}

#[test]
fn a_stop_is_bounded() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.request();
        }
    });
    let router = Setup::new(&[&upstream])
        .config(|c| c.drain = Duration::from_millis(200))
        .start();
    let mut client = router.client();
    client.send(GET);
    until("in flight", || upstream.count("GET") == 1);
    assert!(router.stop().join().unwrap() < PATIENCE);
    client.rest().1.unwrap();
}

#[test]
fn a_dropped_router_leaves_nothing_running() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.request();
        }
    });
    let mut router = Setup::new(&[&upstream]).start();
    let (address, admin) = (router.address, router.admin);
    let log = router.dir.path().join("access.log");
    let open_files = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let paths = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        paths.collect::<Vec<_>>()
    };
    let mut client = router.client();
    client.send(GET);
    until("in flight", || upstream.count("GET") == 1);
    assert!(open_files().contains(&log));
    drop(router.router.take());
    let refused = |at| move || std::net::TcpStream::connect::<std::net::SocketAddr>(at).is_err();
    until("nobody accepts", refused(address));
    until("no admin port", refused(admin));
    until("the access log is closed", || !open_files().contains(&log));
    client.rest().1.unwrap();
}

#[test]
fn many_clients_share_few_connections() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).config(|c| c.threads = 2).start();
    let address = router.address;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Wire::connect(address);
                for _ in 0..200 {
                    client.send(GET);
                    assert_eq!(client.response().body, b"ok");
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().unwrap());
    assert_eq!(upstream.count("GET"), 3200);
    assert!(upstream.connections() <= 16, "{}", upstream.connections());
    let counted =
        r#"cardea_router_requests_total{cluster="default",route="r",service="s",code="200""#;
    router.comes_to(counted, 3200.0);
    until("closed", || {
        router.metric("cardea_router_active_connections{protocol=\"http1\"}") == Some(0.0)
    });
}

#[test]
fn more_connections_than_allowed_wait_their_turn() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.connections = 2)
        .start();
    let mut first: Vec<_> = (0..2).map(|_| router.client()).collect();
    for client in &mut first {
        client.send(GET);
        assert_eq!(client.response().status(), 200);
    }
    let mut third = router.client();
    third.send(GET);
    drop(first);
    assert_eq!(third.response().status(), 200);
}
