//! Settings, which count from when they are told: RFC 9113, 5.1.2, 6.5.3, 6.9.1 and 6.9.2.

use super::*;
use crate::harness::OK;

/// http2/5.1.2/1.
#[test]
fn more_streams_than_allowed_are_refused() {
    let upstream = Upstream::start(|mut wire, _| {
        wire.request();
        std::thread::park();
    });
    let router = Setup::new(&[&upstream])
        .config(|c| c.http2.streams = 3)
        .start();
    let mut wire = Wire::http2(router.address);
    for stream in [1, 3, 5, 7] {
        wire.send(get(stream));
    }
    let refused = wire.frame_of(RST_STREAM).unwrap();
    assert_eq!((refused.stream, refused.code()), (7, REFUSED_STREAM));
    wire.assert_alive();
}

/// http2/6.5.3/2: each SETTINGS is acknowledged.
#[test]
fn settings_are_acknowledged() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut wire = Wire::http2(router.address);
    for _ in 0..3 {
        wire.send(setting(3, 100));
        let ack = wire.frame_of(SETTINGS).unwrap();
        assert_eq!((ack.flags, ack.payload.len()), (ACK, 0));
    }
}

/// http2/6.5.3/1: of one setting said twice, the last counts.
#[test]
fn the_last_of_equal_settings_counts() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let mut wire = Wire::http2(router.address);
    let twice = [0, 4, 0, 0, 0, 100, 0, 4, 0, 0, 0, 1];
    wire.send(frame(SETTINGS, 0, 0, twice));
    wire.send(get(1));
    assert_eq!(wire.frame_of(DATA).unwrap().payload, b"o");
}

/// http2/6.9.1/1 and 6.9.2/1, 2.
#[test]
fn settings_take_effect_on_windows_already_given() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let router = Setup::new(&[&upstream]).start();
    let mut wire = Wire::http2(router.address);
    // No window at all; then one that grows byte by byte, and shrinks below zero in between.
    wire.send(setting(4, 0));
    wire.send(get(1));
    assert_eq!(wire.frame_of(HEADERS).unwrap().stream, 1);
    wire.assert_alive();
    wire.send(setting(4, 1));
    assert_eq!(wire.frame_of(DATA).unwrap().payload, b"h");
    wire.send(setting(4, 3));
    assert_eq!(wire.frame_of(DATA).unwrap().payload, b"el");
    wire.send(setting(4, 2));
    wire.send(frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 2]));
    assert_eq!(wire.frame_of(DATA).unwrap().payload, b"l");
    wire.send(frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 9]));
    let last = wire.frame_of(DATA).unwrap();
    assert_eq!((&*last.payload, last.flags), (&b"o"[..], END_STREAM));
}
