//! Streams, their states, and errors: RFC 9113, 5 and 7.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let open = |then: Vec<u8>| vec![headers(1, END_HEADERS, &POST), then];
    let half = |then: Vec<u8>| vec![get(1), then];
    let reset = || frame(RST_STREAM, 0, 1, [0, 0, 0, 8]);
    let given_up = |then: Vec<u8>| vec![headers(1, END_HEADERS, &POST), reset(), then];
    let closed = |then: Vec<u8>| vec![get(1), ENDED, then];
    let data = || frame(DATA, END_STREAM, 1, b"x");
    let continued = || frame(CONTINUATION, END_HEADERS, 1, block(&[("a", "b")]));
    vec![
        (
            "http2/5.1/1 idle: DATA",
            vec![data()],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.1/2 idle: RST_STREAM",
            vec![reset()],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.1/3 idle: WINDOW_UPDATE",
            vec![frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.1/4 idle: CONTINUATION",
            vec![frame(CONTINUATION, BOTH, 1, block(&REQUEST))],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.1/5 half closed: DATA",
            half(data()),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "http2/5.1/6 half closed: HEADERS",
            half(get(1)),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "http2/5.1/7 half closed: CONTINUATION",
            half(continued()),
            Closed(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        (
            "http2/5.1/8 given up: DATA",
            given_up(data()),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "http2/5.1/9 given up: HEADERS",
            given_up(headers(1, BOTH, &POST)),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "http2/5.1/10 given up: CONTINUATION",
            given_up(continued()),
            Closed(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        (
            "+ given up: PRIORITY",
            given_up(frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])),
            Fine,
        ),
        (
            "+ given up: WINDOW_UPDATE",
            given_up(frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 9])),
            Fine,
        ),
        (
            "http2/5.1/11 closed: DATA",
            closed(data()),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "http2/5.1/12 closed: HEADERS",
            closed(headers(1, BOTH, &POST)),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "http2/5.1/13 closed: CONTINUATION",
            closed(continued()),
            Closed(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        (
            "http2/5.1.1/1 an even stream",
            vec![get(2)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.1.1/2 a smaller stream",
            vec![headers(5, END_HEADERS, &POST), get(3)],
            Closed(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "http2/5.3.1/1 HEADERS that depend on themselves",
            vec![frame(
                HEADERS,
                BOTH | WITH_PRIORITY,
                1,
                [&[0, 0, 0, 1, 9][..], &block(&REQUEST)].concat(),
            )],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.3.1/2 PRIORITY that depends on itself",
            open(frame(PRIORITY, 0, 1, [0, 0, 0, 1, 9])),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.4.1/1 a connection's error ends it",
            vec![frame(PING, 0, 3, [0; 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/5.5/1 an unknown frame",
            vec![frame(0xff, 0, 0, [0; 8])],
            Fine,
        ),
        (
            "http2/5.5/2 an unknown frame within a block",
            vec![headers(1, END_STREAM, &REQUEST), frame(0xff, 0, 0, [0; 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/7/1 GOAWAY with an unknown code",
            vec![
                frame(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0xff]),
                frame(PING, 0, 0, [0; 8]),
            ],
            Pong,
        ),
        (
            "http2/7/2 RST_STREAM with an unknown code",
            open(frame(RST_STREAM, 0, 1, [0, 0, 0, 0xff])),
            Fine,
        ),
    ]
}

#[test]
fn streams_and_their_states() {
    run(cases());
}

/// http2/5.4.1/2: with a GOAWAY that names the last stream.
#[test]
fn a_connections_error_is_said_before_its_end() {
    let upstream = Upstream::answering(crate::harness::OK);
    let router = Setup::new(&[&upstream]).start();
    let mut wire = Wire::http2(router.address);
    wire.send(get(5));
    assert_eq!(wire.frame_of(HEADERS).unwrap().stream, 5);
    wire.send(frame(PING, 0, 3, [0; 8]));
    let goodbye = wire.frame_of(GOAWAY).unwrap();
    assert_eq!(goodbye.code(), PROTOCOL_ERROR);
    assert_eq!(goodbye.payload[..4], [0, 0, 0, 5]);
    while wire.frame().is_some() {}
}
