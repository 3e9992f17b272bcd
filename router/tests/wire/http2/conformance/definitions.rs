//! Each kind of frame: RFC 9113, 6.

use super::*;

/// The largest window.
const MOST: u32 = 0x7fff_ffff;

pub(super) fn cases() -> Vec<Case> {
    let post = || headers(1, END_HEADERS, &POST);
    let open_block = || headers(1, END_STREAM, &REQUEST);
    let padded = |kind, flags| frame(kind, flags | PADDED, 1, [6, b't', b'e', b's', b't']);
    let piece = |flags, name| frame(CONTINUATION, flags, 1, block(&[(name, "b")]));
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    vec![
        (
            "http2/6.1/1 DATA on 0",
            vec![frame(DATA, 1, 0, b"x")],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.1/2 DATA behind the end",
            vec![get(1), frame(DATA, 1, 1, b"x")],
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "http2/6.1/3 DATA with too much padding",
            vec![post(), padded(DATA, END_STREAM)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.2/1 PRIORITY behind HEADERS without END_HEADERS",
            vec![open_block(), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.2/2 HEADERS of another stream behind them",
            vec![open_block(), get(3)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.2/3 HEADERS on 0",
            vec![headers(0, BOTH, &REQUEST)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.2/4 HEADERS with too much padding",
            vec![padded(HEADERS, BOTH)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.3/1 PRIORITY on 0",
            vec![frame(PRIORITY, 0, 0, [0; 5])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.3/2 PRIORITY of a wrong size",
            vec![post(), frame(PRIORITY, 0, 1, [0; 4])],
            Reset(1, &[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/6.4/1 RST_STREAM on 0",
            vec![frame(RST_STREAM, 0, 0, [0; 4])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.4/2 RST_STREAM of what never was",
            vec![frame(RST_STREAM, 0, 1, [0, 0, 0, 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.4/3 RST_STREAM of a wrong size",
            vec![post(), frame(RST_STREAM, 0, 1, [0; 3])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/6.5/1 SETTINGS with ACK and more",
            vec![frame(SETTINGS, ACK, 0, [0])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/6.5/2 SETTINGS on a stream",
            vec![frame(SETTINGS, 0, 1, [0, 3, 0, 0, 0, 9])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.5/3 SETTINGS of a wrong size",
            vec![frame(SETTINGS, 0, 0, [0, 3, 0])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/6.5.2/1 ENABLE_PUSH 2",
            vec![setting(2, 2)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.5.2/2 INITIAL_WINDOW_SIZE too large",
            vec![setting(4, 1 << 31)],
            Closed(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "http2/6.5.2/3 MAX_FRAME_SIZE too small",
            vec![setting(5, 16_383)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.5.2/4 MAX_FRAME_SIZE too large",
            vec![setting(5, 1 << 24)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.5.2/5 an unknown setting",
            vec![setting(0xff, 1)],
            Fine,
        ),
        ("http2/6.7/1 PING", vec![frame(PING, 0, 0, [7; 8])], Pong),
        (
            "http2/6.7/2 PING with ACK",
            vec![frame(PING, ACK, 0, [0; 8])],
            Fine,
        ),
        (
            "http2/6.7/3 PING on a stream",
            vec![frame(PING, 0, 1, [0; 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.7/4 PING of a wrong size",
            vec![frame(PING, 0, 0, [0; 6])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/6.8/1 GOAWAY on a stream",
            vec![frame(GOAWAY, 0, 1, [0; 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.9/1 WINDOW_UPDATE by 0",
            vec![window(0, 0)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.9/2 WINDOW_UPDATE of a stream by 0",
            vec![post(), window(1, 0)],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.9/3 WINDOW_UPDATE of a wrong size",
            vec![frame(WINDOW_UPDATE, 0, 0, [0; 3])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/6.9.1/2 a window beyond all",
            vec![window(0, MOST), window(0, MOST)],
            Closed(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "http2/6.9.1/3 a stream's window beyond all",
            vec![post(), window(1, MOST), window(1, MOST)],
            Reset(1, &[FLOW_CONTROL_ERROR]),
        ),
        (
            "http2/6.9.2/3 windows beyond all by a setting",
            vec![setting(4, MOST + 1)],
            Closed(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "http2/6.10/1 a block in pieces",
            vec![open_block(), piece(0, "a"), piece(END_HEADERS, "c")],
            Answer(1),
        ),
        (
            "http2/6.10/2 another frame behind CONTINUATION",
            vec![
                open_block(),
                piece(0, "a"),
                frame(DATA, END_STREAM, 1, b"x"),
            ],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.10/3 CONTINUATION on 0",
            vec![
                open_block(),
                frame(CONTINUATION, END_HEADERS, 0, block(&[("a", "b")])),
            ],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.10/4 CONTINUATION behind what has ended",
            vec![post(), piece(END_HEADERS, "a")],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.10/5 CONTINUATION behind CONTINUATION that has ended",
            vec![
                headers(1, 0, &POST),
                piece(END_HEADERS, "a"),
                piece(END_HEADERS, "c"),
            ],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/6.10/6 CONTINUATION behind DATA",
            vec![post(), frame(DATA, 0, 1, b"x"), piece(END_HEADERS, "a")],
            Closed(&[PROTOCOL_ERROR]),
        ),
    ]
}

#[test]
fn definitions_of_frames() {
    run(cases());
}
