//! Clients that mean harm.

#![allow(
    clippy::wildcard_imports,
    reason = "the vocabulary of frames, which a test reads like one"
)]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

use std::{
    io::Write,
    time::{Duration, Instant},
};

use super::frames::*;
use crate::harness::{OK, PATIENCE, Running, Setup, Upstream, Wire, until};

/// Sends the same bytes until the router closes the connection; gives what it said last, and how
/// many times they were sent.
fn flood(wire: &mut Wire, mut bytes: impl FnMut(u32) -> Vec<u8>) -> (Option<Frame>, u32) {
    let deadline = Instant::now() + PATIENCE;
    let mut reader = Wire::new(wire.stream.try_clone().unwrap());
    let reading = std::thread::spawn(move || reader.frame_of(GOAWAY));
    let mut sent = 0;
    while Instant::now() < deadline && !reading.is_finished() {
        if wire.stream.write_all(&bytes(sent)).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(Instant::now() < deadline, "never closed");
    (reading.join().unwrap(), sent)
}

fn assert_calmed(router: &Running, ended: Option<Frame>) {
    // The reset of a connection that is still sent to may overtake the GOAWAY.
    if let Some(frame) = ended {
        assert_eq!(frame.code(), ENHANCE_YOUR_CALM, "{frame:?}");
    }
    until("counted", || {
        router.metric("cardea_router_http2_refused_total{reason=\"flood\"}") == Some(1.0)
    });
    let mut wire = Wire::http2(router.address);
    wire.send(get(1));
    assert!(wire.frame_of(HEADERS).is_some(), "others are served");
    until("closed", || {
        router.metric("cardea_router_active_connections{protocol=\"http2\"}") == Some(1.0)
    });
}

#[test]
fn rapid_reset_is_ended() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut wire = Wire::http2(router.address);
    let (ended, sent) = flood(&mut wire, |i| {
        let stream = i * 2 + 1;
        [get(stream), frame(RST_STREAM, 0, stream, [0, 0, 0, 8])].concat()
    });
    assert!(sent < 100_000, "{sent}");
    assert_calmed(&router, ended);
    // Requests given up at once hardly reach the service.
    assert!(upstream.count("GET") < 2000);
}

#[test]
fn how_many_requests_may_be_given_up_is_the_operator_s_to_say() {
    // The upstream answers nothing that would earn credit; the library itself minds 65 at a time.
    for (credit, ends) in [(4000, false), (200, true)] {
        let upstream = Upstream::start(|mut wire, _| while wire.fill() {});
        let router = Setup::new(&[&upstream])
            .config(|config| config.http2.credit = credit)
            .start();
        let mut wire = Wire::http2(router.address);
        let given_up = |i: u32| {
            [
                get(i * 2 + 1),
                frame(RST_STREAM, 0, i * 2 + 1, [0, 0, 0, 8]),
            ]
        };
        let burst: Vec<u8> = (0..40).flat_map(given_up).flatten().collect();
        wire.send([burst, frame(PING, 0, 0, [7; 8])].concat());
        if ends {
            let ended = wire.frame_of(GOAWAY).unwrap();
            assert_eq!(ended.code(), ENHANCE_YOUR_CALM);
        } else {
            assert!(wire.frame_of(PING).is_some());
        }
        let flood = "cardea_router_http2_refused_total{reason=\"flood\"}";
        router.comes_to(flood, f64::from(u8::from(ends)));
    }
}

#[test]
fn resets_of_requests_that_were_begun_are_ended_too() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.request();
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut wire = Wire::http2(router.address);
    let mut asked = 0;
    let (ended, _) = flood(&mut wire, |i| {
        // Each is given time to be accepted: the reset comes with the next request.
        asked = i;
        let stream = i * 2 + 1;
        let before = if i == 0 {
            Vec::new()
        } else {
            frame(RST_STREAM, 0, stream - 2, [0, 0, 0, 8])
        };
        std::thread::sleep(Duration::from_micros(300));
        [before, get(stream)].concat()
    });
    assert!(asked < 5000, "{asked}");
    // The upstream of this test never answers.
    if let Some(frame) = ended {
        assert_eq!(frame.code(), ENHANCE_YOUR_CALM, "{frame:?}");
    }
}

#[test]
fn floods_of_empty_frames_are_ended() {
    for (name, bytes) in [
        ("ping", frame(PING, 0, 0, [0; 8])),
        ("settings", setting(3, 100)),
        ("priority", frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])),
        ("unknown", frame(0xee, 0, 0, [0; 8])),
        ("window update", frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1])),
        ("empty DATA", frame(DATA, 0, 1, [])),
    ] {
        let upstream = Upstream::answering(OK);
        let router = Setup::new(&[&upstream]).start();
        let mut wire = Wire::http2(router.address);
        wire.send(headers(1, END_HEADERS, &POST));
        let (ended, sent) = flood(&mut wire, |_| bytes.clone());
        assert!(sent < 200_000, "{name}: {sent}");
        assert_calmed(&router, ended);
    }
}

#[test]
fn a_header_block_without_an_end_is_ended() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut wire = Wire::http2(router.address);
    wire.send(headers(1, END_STREAM, &REQUEST));
    let piece = block(&[("x-a", &"b".repeat(100))]);
    let (ended, sent) = flood(&mut wire, |_| frame(CONTINUATION, 0, 1, &piece));
    assert!(sent < 100_000, "{sent}");
    assert_calmed(&router, ended);
    assert_eq!(upstream.count("b".repeat(100).as_str()), 0);
}

#[test]
fn a_header_block_that_never_arrives_is_not_waited_for() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.header_timeout = Duration::from_millis(300))
        .start();
    let mut wire = Wire::http2(router.address);
    wire.send(headers(1, END_STREAM, &REQUEST));
    let ended = wire.frame_of(GOAWAY).unwrap();
    assert_eq!(ended.code(), ENHANCE_YOUR_CALM);
    let slow = "cardea_router_http2_refused_total{reason=\"slow_head\"}";
    router.comes_to(slow, 1.0);
    // Nor is a preface.
    let mut wire = Wire::connect(router.address);
    wire.send(&PREFACE[..20]);
    while wire.frame().is_some() {}
}

#[test]
fn header_bombs_are_refused() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    // One field in the table, named again and again: a few bytes that unpack to megabytes.
    let mut bomb = block(&REQUEST);
    bomb.extend([0x40, 1, b'x', 0x7f]);
    let value = "v".repeat(3900);
    let mut rest = value.len() - 127;
    while rest >= 128 {
        bomb.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bomb.push(u8::try_from(rest).unwrap());
    bomb.extend(value.as_bytes());
    let times = 10_000;
    bomb.extend(std::iter::repeat_n(0xbe, times));
    let mut wire = Wire::http2(router.address);
    let _ = wire
        .stream
        .write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, bomb));
    loop {
        match wire.frame() {
            None => break,
            Some(f) if f.kind == GOAWAY || f.kind == RST_STREAM => break,
            // 431 is not in the static table.
            Some(f) if f.kind == HEADERS => {
                assert_ne!(f.payload[0], 0x88, "it was served");
                break;
            }
            Some(_) => {}
        }
    }
    assert_eq!(upstream.connections(), 0);
    // Many small fields, within the size: over the number that HTTP/1 may have.
    let mut wire = Wire::http2(router.address);
    let fields: Vec<_> = (0..150).map(|i| (format!("x-{i}"), "v")).collect();
    let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    wire.send(headers(
        1,
        END_STREAM | END_HEADERS,
        &with(&REQUEST, &fields),
    ));
    let answer = wire.frame_of(HEADERS).unwrap();
    assert_ne!(answer.payload[0], 0x88, "it was served");
    assert_eq!(router.log(1)[0]["status"], 431);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_silent_client_is_asked_and_then_left() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|c| {
            c.http2.ping_interval = Duration::from_millis(100);
            c.http2.ping_timeout = Duration::from_secs(2);
        })
        .start();
    let mut wire = Wire::http2(router.address);
    let ping = wire.frame_of(PING).unwrap();
    wire.send(frame(PING, ACK, 0, ping.payload));
    // It answered once; now it does not.
    assert!(wire.frame_of(PING).is_some());
    while wire.frame().is_some() {}
    let silent = "cardea_router_http2_refused_total{reason=\"silent\"}";
    router.comes_to(silent, 1.0);
}

/// Whatever is tried, the upstream sees the requests that were meant, or nothing.
#[test]
fn nothing_is_smuggled_into_http1() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let both = END_STREAM | END_HEADERS;
    let base = |method: &'static str, path: &'static str, host: &'static str| {
        vec![
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", host),
        ]
    };
    let evil = "x\r\n\r\nGET /evil HTTP/1.1\r\nhost: h\r\n\r\n";
    let cases: Vec<Vec<(&str, &str)>> = vec![
        base("GET", "/ HTTP/1.1\r\nevil: 1\r\n\r\nGET /evil", "h"),
        base("GET / HTTP/1.1\r\nevil: 1\r\nx: ", "/", "h"),
        base("GET", "/", "h\r\nevil: 1"),
        base("GET", "/", "h evil"),
        base("GET", "/ evil", "h"),
        base("GET", "/\tevil", "h"),
        base("GET", "/\0evil", "h"),
        base("GET evil", "/", "h"),
        base("GET", "http://evil/", "h"),
        base("GET", "evil", "h"),
        base("GET", "*", "h"),
        base("GET", "/", "user@evil"),
        base("GET", "/", "evil/x"),
        base("GET", "/", "evil:1:2"),
        base("CONNECT", "/", "evil:80"),
        with(&base("GET", "/", "h"), &[("x", evil)]),
        with(&base("GET", "/", "h"), &[("x", "a\nevil: 1")]),
        with(&base("GET", "/", "h"), &[("x", "a\revil: 1")]),
        with(&base("GET", "/", "h"), &[("x", "a\0evil")]),
        with(&base("GET", "/", "h"), &[("x\r\nevil: 1\r\ny", "a")]),
        with(&base("GET", "/", "h"), &[("evil: 1\r\nx", "a")]),
        with(&base("GET", "/", "h"), &[("x evil", "a")]),
        with(&base("GET", "/", "h"), &[("evil:", "a")]),
        with(&base("GET", "/", "h"), &[("", "evil")]),
        with(&base("GET", "/", "h"), &[("host", "evil")]),
        with(
            &base("GET", "/", "h"),
            &[("transfer-encoding", "chunked"), ("evil", "1")],
        ),
        with(
            &base("GET", "/", "h"),
            &[("transfer-encoding", "x, chunked"), ("evil", "1")],
        ),
        with(
            &base("GET", "/", "h"),
            &[("connection", "evil"), ("evil", "1")],
        ),
        with(&base("GET", "/", "h"), &[("upgrade", "h2c"), ("evil", "1")]),
        with(&base("POST", "/evil", "h"), &[("content-length", "5")]),
        with(
            &base("POST", "/evil", "h"),
            &[("content-length", "0"), ("content-length", "5")],
        ),
        with(&base("POST", "/evil", "h"), &[("content-length", "-1")]),
        with(&base("POST", "/evil", "h"), &[("content-length", "0x5")]),
        with(&base("GET", "/", "h"), &[("expect", "evil")]),
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/evil")],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/evil"),
            ("host", "a"),
            ("host", "b"),
        ],
    ];
    for case in cases {
        let mut wire = Wire::http2(router.address);
        wire.send(headers(1, both, &case));
        loop {
            match wire.frame() {
                None => break,
                Some(f) if f.kind == GOAWAY || f.kind == RST_STREAM => break,
                Some(f) if f.kind == HEADERS => {
                    assert_ne!(f.payload[0], 0x88, "{case:?} was served");
                    break;
                }
                Some(_) => {}
            }
        }
    }
    // Trailers neither.
    for (name, value) in [
        ("x", evil),
        ("transfer-encoding", "evil"),
        ("content-length", "666"),
        ("host", "evil"),
        ("x\r\nevil", "1"),
    ] {
        let mut wire = Wire::http2(router.address);
        wire.send(headers(1, END_HEADERS, &POST));
        wire.send(frame(DATA, 0, 1, b"x"));
        wire.send(headers(1, both, &[(name, value)]));
        while let Some(f) = wire.frame() {
            if f.kind == GOAWAY || f.kind == RST_STREAM || f.kind == HEADERS {
                break;
            }
        }
    }
    let mut wire = Wire::http2(router.address);
    wire.send(headers(1, both, &base("GET", "/last", "h")));
    assert_eq!(wire.frame_of(HEADERS).unwrap().payload[0], 0x88);
    for seen in upstream.seen() {
        let bad = seen.contains("evil") || seen.contains("length: 666");
        assert!(!bad, "{seen}");
    }
}
