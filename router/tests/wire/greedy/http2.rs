//! The same over HTTP/2.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{Gate, NOW, counted, gated, made_room, open, refused, slow};
use crate::{
    harness::{GET, OK, PATIENCE, Running, Setup, Upstream, Wire, until},
    http2::{
        client::{Client, get as path, read, request, soon},
        frames::{
            DATA, END_HEADERS, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, POST, PREFACE, RST_STREAM,
            SETTINGS, WINDOW_UPDATE, frame, get, headers, setting,
        },
    },
};

const FASTEST: u64 = 1 << 20;

fn ended_for(router: &Running, reason: &str) -> u64 {
    counted(
        router,
        "http2_refused_total",
        &format!("reason=\"{reason}\""),
    )
}

#[test]
fn settings_that_never_arrive_are_not_waited_for() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.header_timeout = Duration::from_millis(300))
        .start();
    let settings = setting(3, 100);
    for (said, count) in [(&[][..], 1), (&settings[..4], 2), (&settings[..12], 3)] {
        let mut wire = Wire::connect(router.address);
        wire.send([PREFACE, said].concat());
        assert_eq!(wire.frame_of(GOAWAY).unwrap().code(), ENHANCE_YOUR_CALM);
        while wire.frame().is_some() {}
        assert_eq!(ended_for(&router, "slow_head"), count);
        assert_eq!(slow(&router, "head"), count);
    }
}

#[test]
fn idle_connections_make_room_and_are_told_how_far_they_came() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.connections = 2;
            c.limits.queue_timeout = PATIENCE;
        })
        .start();
    let mut first = Wire::http2(router.address);
    first.send(get(1));
    assert!(first.frame_of(HEADERS).is_some());
    let mut second = router.client();
    second.send(GET);
    assert_eq!(second.response().status(), 200);
    let mut third = Wire::http2(router.address);
    let goaway = first.frame_of(GOAWAY).unwrap();
    assert_eq!(goaway.payload[..8], [0, 0, 0, 1, 0, 0, 0, 0]);
    while first.frame().is_some() {}
    third.send(get(1));
    assert!(third.frame_of(HEADERS).is_some());
    assert_eq!(made_room(&router), 1);
}

#[test]
fn busy_connections_stay_and_a_newcomer_is_told_to_go() {
    let gate = Gate::default();
    let upstream = gated(&gate);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.connections = 1;
            c.limits.queue_timeout = Duration::ZERO;
        })
        .start();
    let mut busy = Wire::http2(router.address);
    busy.send(get(1));
    until("it is at the peer", || upstream.count("GET / ") == 1);
    let mut newcomer = Wire::connect(router.address);
    newcomer.send([PREFACE, &frame(SETTINGS, 0, 0, []), &get(1)].concat());
    assert_eq!(newcomer.frame().unwrap().kind, SETTINGS);
    let goaway = newcomer.frame().unwrap();
    assert_eq!(goaway.kind, GOAWAY);
    assert_eq!(goaway.payload[..4], [0; 4]);
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    assert_eq!(newcomer.frame(), None);
    assert_eq!(refused(&router, "limit"), 1);
    gate.open();
    assert!(busy.frame_of(HEADERS).is_some());
    assert_eq!(upstream.count("GET / "), 1);
}

#[test]
fn a_connection_ends_after_so_many_requests() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.requests_per_connection = Some(3))
        .start();
    let mut client = Client::connect(router.address);
    for _ in 0..3 {
        assert_eq!(client.ask(path("/"), b"").body, b"ok");
    }
    until("closed", || open(&router, "http2") == 0);
}

#[test]
fn a_body_in_sips_is_not_waited_for() {
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
    let mut wire = Wire::http2(router.address);
    wire.send(headers(1, END_HEADERS, &POST));
    until("it is given up", || {
        let _ = wire.try_send(frame(DATA, 0, 1, [b'x']));
        slow(&router, "body") > 0
    });
    assert_eq!(router.log(1)[0]["status"], 408);
    wire.assert_alive();
    assert_eq!(router.metric("cardea_router_upstream_errors_total"), None);
}

/// The peer's answer does not end, but for what is asked for at `/now`.
fn endless(let_go: &Arc<AtomicBool>) -> Upstream {
    let (let_go, piece) = (Arc::clone(let_go), vec![b'x'; 65_536]);
    Upstream::start(move |mut wire, _| {
        while wire.peek() {
            if wire.request().head.starts_with("GET /now ") {
                wire.send(OK);
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
            while wire.try_send(&piece).is_ok() {}
            let_go.store(true, Ordering::SeqCst);
            return;
        }
    })
}

fn hasty_reader(c: &mut cardea_router::Config) {
    c.limits.min_rate_out = FASTEST;
    c.limits.rate_window = Duration::from_millis(200);
}

#[test]
fn a_stream_that_is_not_read_ends_and_its_neighbours_go_on() {
    let let_go = Arc::default();
    let upstream = endless(&let_go);
    let router = Setup::new(&[&upstream]).config(hasty_reader).start();
    let mut wire = Wire::http2(router.address);
    // The connection's window is open; the stream's stays what it was at the start.
    wire.send(frame(WINDOW_UPDATE, 0, 0, (1_u32 << 30).to_be_bytes()));
    wire.send(get(1));
    assert_eq!(wire.frame_of(RST_STREAM).unwrap().stream, 1);
    until("the peer is let go", || let_go.load(Ordering::SeqCst));
    wire.assert_alive();
    wire.send(get(3));
    assert_eq!(wire.frame_of(HEADERS).unwrap().stream, 3);
    until("it is counted", || slow(&router, "answer") > 0);
    assert_eq!(router.log(1)[0]["error"], "client_slow");
    assert_eq!(router.metric("cardea_router_upstream_errors_total"), None);
}

#[test]
fn a_connection_that_is_not_read_ends() {
    let let_go = Arc::default();
    let upstream = endless(&let_go);
    let router = Setup::new(&[&upstream]).config(hasty_reader).start();
    let mut wire = Wire::connect(router.address);
    wire.send(
        [
            PREFACE,
            &setting(4, 0x7fff_ffff),
            &frame(WINDOW_UPDATE, 0, 0, (1_u32 << 30).to_be_bytes()),
            &get(1),
        ]
        .concat(),
    );
    until("it is given up", || ended_for(&router, "slow_reader") == 1);
    until("the peer is let go", || let_go.load(Ordering::SeqCst));
    until("closed", || open(&router, "http2") == 0);
    assert_eq!(router.ask(NOW).status(), 200);
    assert_eq!(router.metric("cardea_router_upstream_errors_total"), None);
}

#[test]
fn calls_of_grpc_may_pause() {
    let window = Duration::from_millis(100);
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.request();
            wire.send(OK);
        }
    });
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.limits.min_rate_in = FASTEST;
            c.limits.rate_window = window;
        })
        .start();
    let mut client = Client::connect(router.address);
    let mut call = request("POST", "/a.Service/Method");
    let grpc = http::HeaderValue::from_static("application/grpc");
    call.headers_mut().insert("content-type", grpc);
    let (answer, mut sending) = client.open(call, false);
    sending.send_data("one".into(), false).unwrap();
    let begun = Instant::now();
    until("several windows are over", || begun.elapsed() > 4 * window);
    sending.send_data("two".into(), true).unwrap();
    let answer = client.runtime.block_on(soon(read(answer))).unwrap();
    assert_eq!(answer.status(), 200);
}
