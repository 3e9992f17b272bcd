//! Clients that take their time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{NOW, counted, slow};
use crate::harness::{GET, OK, Running, Setup, Upstream, until};

/// The fastest pace that can be asked for: whoever waits between two bytes is slower.
const FASTEST: u64 = 1 << 20;
const ERRORS: &str = "cardea_router_upstream_errors_total{";

fn nobody_is_marked(router: &Running) {
    let metrics = router.metrics();
    assert!(!metrics.lines().any(|line| line.starts_with(ERRORS)));
    assert!(!metrics.contains("cardea_router_peer_healthy 0"));
}

/// Heads that do not end, on many connections, a byte now and then.
#[test]
fn a_thousand_slow_heads_do_not_disturb_a_client() {
    const SLOW: usize = 1000;
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.header_timeout = Duration::from_secs(1))
        .start();
    let mut client = router.client();
    client.send(GET);
    assert_eq!(client.response().status(), 200);
    let mut slow_heads: Vec<_> = (0..SLOW)
        .map(|_| {
            let mut slow = router.client();
            slow.send("GET / HTTP/1.1\r\nHost: h\r\nX: ");
            slow
        })
        .collect();
    let mut served = 1;
    until("all of them are given up", || {
        for slow in &mut slow_heads {
            let _ = slow.try_send("x");
        }
        for _ in 0..20 {
            client.send(GET);
            assert_eq!(client.response().status(), 200);
            served += 1;
        }
        slow(&router, "head") == SLOW as u64
    });
    assert!(served > 20);
    // Each was told, unless what it sent after its answer overtook that.
    let log = router.log(SLOW + served);
    let told = log.iter().filter(|line| line["status"] == 408).count();
    assert_eq!(told, SLOW);
    assert_eq!(upstream.count("X: x"), 0);
    nobody_is_marked(&router);
}

#[test]
fn a_later_head_has_no_more_time_than_the_first() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.header_timeout = Duration::from_secs(1))
        .start();
    let mut client = router.client();
    client.send(GET);
    assert_eq!(client.response().status(), 200);
    client.send("GET / HT");
    assert_eq!(client.response().status(), 408);
    client.assert_closed();
    assert_eq!(slow(&router, "head"), 1);
}

#[test]
fn a_body_taken_in_sips_is_not_waited_for() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.fill();
        }
    });
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = FASTEST;
            c.limits.rate_window = Duration::from_millis(200);
        })
        .start();
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let before = slow(&router, "body");
        let mut client = router.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
        until("it is given up", || {
            // A chunk of one byte, or five bytes of the other.
            let _ = client.try_send("1\r\nb\r\n");
            slow(&router, "body") > before
        });
        // What it has sent since may have reset the connection.
        if let Some(answer) = client.try_take(12) {
            assert_eq!(answer, b"HTTP/1.1 408");
        }
    }
    let log = router.log(2);
    assert_eq!(log[0]["status"], 408);
    assert_eq!(log[0]["error"], "body_too_slow");
    nobody_is_marked(&router);
}

/// The client sends until every buffer on the way is full, and the peer takes nothing for a while.
#[test]
fn time_that_the_peer_takes_is_not_the_clients() {
    let window = Duration::from_secs(1);
    let reads = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&reads);
    let upstream = Upstream::start(move |mut wire, _| {
        let head = wire.head();
        until("it may read", || waits.load(Ordering::SeqCst));
        wire.body(head, false);
        wire.send(OK);
    });
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = 1000;
            c.limits.rate_window = window;
        })
        .start();
    let (mut client, begins) = (router.client(), Arc::clone(&reads));
    let sending = std::thread::spawn(move || {
        let mut piece = b"10000\r\n".to_vec();
        piece.resize(piece.len() + 0x10000, b'x');
        piece.extend(b"\r\n");
        client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        while !begins.load(Ordering::SeqCst) {
            client.send(&piece);
        }
        client.send("0\r\n\r\n");
        client
    });
    let begun = Instant::now();
    until("several windows are over", || begun.elapsed() > 4 * window);
    reads.store(true, Ordering::SeqCst);
    let mut client = sending.join().unwrap();
    assert_eq!(client.response().status(), 200);
}

#[test]
fn who_was_not_told_to_send_yet_is_not_slow() {
    let window = Duration::from_secs(1);
    let upstream = Upstream::start(move |mut wire, _| {
        let head = wire.head();
        let begun = Instant::now();
        until("two windows are over", || begun.elapsed() > 2 * window);
        wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        wire.body(head, false);
        wire.send(OK);
    });
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = FASTEST;
            c.limits.rate_window = window;
        })
        .start();
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert_eq!(client.response().status(), 200);
}

/// An upstream whose answer does not end; it counts when it can write no more of it.
fn endless(ended: &Arc<AtomicUsize>) -> Upstream {
    let (ended, piece) = (Arc::clone(ended), vec![b'x'; 65_536]);
    Upstream::start(move |mut wire, _| {
        while wire.peek() {
            if wire.request().head.starts_with("GET /now ") {
                wire.send(OK);
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
            while wire.try_send(&piece).is_ok() {}
            ended.fetch_add(1, Ordering::SeqCst);
            return;
        }
    })
}

fn hasty_reader(c: &mut cardea_router::Config) {
    c.limits.min_rate_out = FASTEST;
    c.limits.rate_window = Duration::from_millis(200);
}

/// The answer is cut, its peer has its connection back, and is not marked.
fn given_up(router: &Running, ended: &AtomicUsize) {
    until("the peer is let go", || ended.load(Ordering::SeqCst) == 1);
    assert_eq!(router.ask(NOW).status(), 200);
    nobody_is_marked(router);
    let log = router.log(2);
    let line = log.iter().find(|line| line["path"] == "/").unwrap();
    assert_eq!(line["status"], 200);
    assert_eq!(line["error"], "client_slow");
}

#[test]
fn an_answer_taken_in_sips_is_cut() {
    let ended = Arc::default();
    let upstream = endless(&ended);
    let router = Setup::new(&[&upstream]).config(hasty_reader).start();
    let mut client = router.client();
    client.send(GET);
    client.head();
    until("it is given up", || {
        let _ = client.try_take(1);
        slow(&router, "answer") > 0
    });
    given_up(&router, &ended);
    let (_, end) = client.rest();
    end.unwrap_err();
}

#[test]
fn an_answer_that_nobody_takes_is_cut() {
    let ended = Arc::default();
    let upstream = endless(&ended);
    let router = Setup::new(&[&upstream]).config(hasty_reader).start();
    let mut client = router.client();
    client.send(GET);
    given_up(&router, &ended);
    assert_eq!(slow(&router, "answer"), 1);
}

#[test]
fn in_tls_too_an_answer_that_nobody_takes_is_cut() {
    let ended = Arc::default();
    let upstream = endless(&ended);
    let authority = crate::tls::authority::Authority::new("ca");
    let router = super::with_tls(Setup::new(&[&upstream]))
        .tables(&authority.sign(&["h"]).table("h", ""))
        .config(hasty_reader)
        .start();
    let client = crate::tls::authority::Client::trusting(&authority);
    let mut wire = client.try_connect(router.tls.unwrap(), "h").unwrap();
    wire.send(GET);
    wire.head();
    until("it is given up", || slow(&router, "answer") > 0);
    until("the peer is let go", || ended.load(Ordering::SeqCst) == 1);
    nobody_is_marked(&router);
    let (_, end) = wire.rest();
    end.unwrap_err();
}

/// Only the request's end is missing: the peer waits for it in vain, which is not its fault.
#[test]
fn who_stops_in_the_middle_of_both_is_given_up_and_nobody_marked() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        while wire.peek() {
            wire.fill();
        }
    });
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.idle_timeout = Duration::from_millis(200))
        .start();
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
    client.head();
    let (_, end) = client.rest();
    end.unwrap_err();
    assert_eq!(router.log(1)[0]["error"], "client_slow");
    nobody_is_marked(&router);
}

/// A peer that answers at once, and goes on when the request does.
fn in_turns() -> Upstream {
    Upstream::start(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while wire.fill() && wire.try_send("1\r\na\r\n").is_ok() {}
    })
}

const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n";

#[test]
fn a_body_in_sips_is_not_waited_for_after_the_answer_has_begun_either() {
    let upstream = in_turns();
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = FASTEST;
            c.limits.rate_window = Duration::from_millis(200);
        })
        .start();
    let mut client = router.client();
    client.send(UPLOAD);
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    until("it is given up", || {
        // Something moves both ways all the time.
        let _ = client.try_send("b");
        slow(&router, "body") == 1
    });
    // The reset may have been told to what was sent last; but there is no last chunk.
    let (rest, _) = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
    let log = router.log(1);
    assert_eq!(log[0]["status"], 200);
    assert_eq!(log[0]["error"], "client_slow");
    assert_eq!(slow(&router, "answer"), 0);
    nobody_is_marked(&router);
}

/// Who takes an answer is at it, even if the rest of the request has to wait.
#[test]
fn who_takes_the_answer_may_stop_sending_meanwhile() {
    const RATE: u64 = 1000;
    let window = Duration::from_secs(1);
    let upstream = Upstream::start(move |mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let begun = Instant::now();
        until("several windows are over", || {
            wire.send(format!("1000\r\n{}\r\n", "x".repeat(0x1000)));
            begun.elapsed() > 3 * window
        });
        wire.take(3);
        wire.send("0\r\n\r\n");
        wire.peek();
    });
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = RATE;
            c.limits.rate_window = window;
        })
        .start();
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    let head = client.head();
    client.body(head, true);
    assert_eq!(slow(&router, "body"), 0);
    nobody_is_marked(&router);
}

/// It waits to be told, and takes an answer instead.
#[test]
fn who_was_never_told_to_send_is_not_slow_while_it_is_answered() {
    let window = Duration::from_millis(100);
    let upstream = Upstream::start(move |mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let begun = Instant::now();
        until("several windows are over", || begun.elapsed() > 4 * window);
        wire.send("2\r\nok\r\n0\r\n\r\n");
        wire.peek();
    });
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = FASTEST;
            c.limits.rate_window = window;
        })
        .start();
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().body, b"ok");
    assert_eq!(slow(&router, "body"), 0);
}

#[test]
fn any_pace_will_do_where_none_is_asked_for() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = 0;
            c.limits.rate_window = Duration::from_millis(1);
        })
        .start();
    let mut client = router.client();
    let begun = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab");
    until("hundreds of windows are over", || {
        begun.elapsed() > Duration::from_millis(300)
    });
    client.send("c");
    assert_eq!(client.response().status(), 200);
    assert_eq!(counted(&router, "accept_pauses_total", ""), 0);
}
