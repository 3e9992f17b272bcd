//! RFC 9113 and RFC 7541 by raw frames, section by section, as h2spec does it: each case ends in the
//! connection's or the stream's error, or in nothing worth mentioning.

#![allow(
    clippy::wildcard_imports,
    reason = "the vocabulary of frames, which a test reads like one"
)]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

use super::frames::*;
use crate::harness::{OK, Running, Setup, Upstream, Wire};

/// What a case must end in.
enum Want {
    /// GOAWAY with one of these codes, or a closed connection.
    Closed(&'static [u32]),
    /// The stream's reset with one of these codes; or the whole connection's end.
    Reset(u32, &'static [u32]),
    /// An answer on this stream.
    Answer(u32),
    /// Nothing: the connection goes on.
    Fine,
}
use Want::{Answer, Closed, Fine, Reset};

type Case = (&'static str, Vec<Vec<u8>>, Want);

fn check(router: &Running, (name, frames, want): Case) {
    let mut wire = Wire::http2(router.address);
    for frame in frames {
        // The router may have hung up already.
        let _ = std::io::Write::write_all(&mut wire.stream, &frame);
    }
    eprintln!("{name}");
    // The library says PROTOCOL_ERROR for more than it must; what counts is that it ends.
    let right = |code: u32, codes: &[u32]| codes.contains(&code) || code == PROTOCOL_ERROR;
    let ended = |wire: &mut Wire, stream: Option<u32>, codes: &[u32]| loop {
        match wire.frame() {
            None => return,
            Some(frame) if frame.kind == GOAWAY && frame.code() != 0 => {
                assert!(right(frame.code(), codes), "{name}: {frame:?}");
                return;
            }
            Some(frame) if frame.kind == RST_STREAM && Some(frame.stream) == stream => {
                assert!(right(frame.code(), codes), "{name}: {frame:?}");
                return;
            }
            Some(_) => {}
        }
    };
    match want {
        Closed(codes) => ended(&mut wire, None, codes),
        Reset(stream, codes) => ended(&mut wire, Some(stream), codes),
        Answer(stream) => {
            let answer = wire.frame_of(HEADERS).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(answer.stream, stream, "{name}");
            // 200 is in the static table.
            assert_eq!(answer.payload[0], 0x88, "{name}: {answer:?}");
        }
        Fine => wire.assert_alive(),
    }
}

fn run(cases: Vec<Case>) {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    for case in cases {
        check(&router, case);
    }
    let mut wire = Wire::http2(router.address);
    wire.send(get(1));
    assert!(wire.frame_of(HEADERS).is_some(), "the router still serves");
}

const BOTH: u8 = END_STREAM | END_HEADERS;

#[test]
fn a_wrong_preface_is_no_connection() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    for wrong in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\nHost: h\r\n\r\n",
    ] {
        let mut wire = Wire::connect(router.address);
        wire.send(wrong);
        while wire.frame().is_some() {}
    }
    // The preface may come in pieces; and HTTP/1 is not taken for it.
    let mut wire = Wire::connect(router.address);
    wire.send_slowly(PREFACE);
    wire.send_slowly(frame(SETTINGS, 0, 0, []));
    wire.assert_alive();
    assert_eq!(
        router.ask("PRI / HTTP/1.1\r\nHost: h\r\n\r\n").status(),
        200
    );
    assert_eq!(router.ask("PRI * HTTP/3.0\r\n\r\n").status(), 505);
    // Only a new connection can begin so.
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.response();
    client.send(PREFACE);
    assert_eq!(client.response().status(), 505);
    // Asking for an upgrade is not answered with one.
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    assert_eq!(router.ask(upgrade).status(), 200);
    assert_eq!(upstream.count("h2c"), 0);
    assert_eq!(upstream.count("HTTP2-Settings"), 0);
}

#[test]
fn frames_and_header_blocks_section_4() {
    let mut bad_block = block(&REQUEST);
    bad_block.extend([0x82, 0xff, 0xff]);
    run(vec![
        ("unknown type", vec![frame(0x16, 0, 0, [0; 8])], Fine),
        ("unknown flags", vec![frame(PING, 0x16, 0, [0; 8])], Fine),
        ("reserved bit", vec![frame(PING, 0, 1 << 31, [0; 8])], Fine),
        (
            "DATA as large as allowed",
            vec![
                headers(1, END_HEADERS, &POST),
                frame(DATA, END_STREAM, 1, vec![0; 16_384]),
            ],
            Answer(1),
        ),
        (
            "DATA too large",
            vec![
                headers(1, END_HEADERS, &POST),
                frame(DATA, END_STREAM, 1, vec![0; 16_385]),
            ],
            Reset(1, &[FRAME_SIZE_ERROR]),
        ),
        (
            "HEADERS too large",
            vec![frame(HEADERS, BOTH, 1, vec![0; 16_385])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "a broken block",
            vec![frame(HEADERS, BOTH, 1, bad_block)],
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "PRIORITY within a block",
            vec![
                headers(1, END_STREAM, &REQUEST),
                frame(PRIORITY, 0, 1, [0, 0, 0, 0, 255]),
            ],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "another stream within a block",
            vec![headers(1, END_STREAM, &REQUEST), get(3)],
            Closed(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn stream_states_section_5() {
    let open = |then: Vec<u8>| vec![headers(1, END_HEADERS, &POST), then];
    let half = |then: Vec<u8>| vec![get(1), then];
    let reset = frame(RST_STREAM, 0, 1, [0, 0, 0, 8]);
    let closed = |then: Vec<u8>| vec![headers(1, END_HEADERS, &POST), reset.clone(), then];
    run(vec![
        (
            "idle: DATA",
            vec![frame(DATA, 1, 1, b"x")],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "idle: RST_STREAM",
            vec![frame(RST_STREAM, 0, 1, [0; 4])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "idle: WINDOW_UPDATE",
            vec![frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "idle: CONTINUATION",
            vec![frame(CONTINUATION, BOTH, 1, block(&REQUEST))],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "half closed: DATA",
            half(frame(DATA, 1, 1, b"x")),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "half closed: HEADERS",
            half(get(1)),
            Reset(1, &[STREAM_CLOSED]),
        ),
        (
            "half closed: CONTINUATION",
            half(frame(CONTINUATION, END_HEADERS, 1, block(&[("a", "b")]))),
            Closed(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        (
            "half closed: PRIORITY",
            half(frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])),
            Answer(1),
        ),
        ("closed: DATA", closed(frame(DATA, 1, 1, b"x")), Fine),
        (
            "closed: PRIORITY",
            closed(frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])),
            Fine,
        ),
        (
            "closed: WINDOW_UPDATE",
            closed(frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 9])),
            Fine,
        ),
        (
            "closed: CONTINUATION",
            closed(frame(CONTINUATION, END_HEADERS, 1, block(&[("a", "b")]))),
            Closed(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        ("an even stream", vec![get(2)], Closed(&[PROTOCOL_ERROR])),
        (
            "a smaller stream",
            vec![headers(5, END_HEADERS, &POST), get(3)],
            Closed(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "HEADERS that depend on themselves",
            vec![frame(
                HEADERS,
                BOTH | WITH_PRIORITY,
                1,
                [&[0, 0, 0, 1, 9][..], &block(&REQUEST)].concat(),
            )],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "PRIORITY that depends on itself",
            open(frame(PRIORITY, 0, 1, [0, 0, 0, 1, 9])),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        ("an unknown frame", vec![frame(0xff, 0, 0, [0; 8])], Fine),
        (
            "an unknown frame within a block",
            vec![headers(1, END_STREAM, &REQUEST), frame(0xff, 0, 0, [0; 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
    ]);
}

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

#[test]
fn frame_definitions_section_6() {
    let post = || headers(1, END_HEADERS, &POST);
    let padded = |kind, flags| frame(kind, flags | PADDED, 1, [6, b't', b'e', b's', b't']);
    run(vec![
        (
            "DATA on 0",
            vec![frame(DATA, 1, 0, b"x")],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "DATA with too much padding",
            vec![post(), padded(DATA, END_STREAM)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "HEADERS on 0",
            vec![headers(0, BOTH, &REQUEST)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "HEADERS with too much padding",
            vec![padded(HEADERS, BOTH)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "PRIORITY on 0",
            vec![frame(PRIORITY, 0, 0, [0; 5])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "PRIORITY of a wrong size",
            vec![post(), frame(PRIORITY, 0, 1, [0; 4])],
            Reset(1, &[FRAME_SIZE_ERROR]),
        ),
        (
            "RST_STREAM on 0",
            vec![frame(RST_STREAM, 0, 0, [0; 4])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "RST_STREAM of a wrong size",
            vec![post(), frame(RST_STREAM, 0, 1, [0; 3])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "SETTINGS with ACK and more",
            vec![frame(SETTINGS, ACK, 0, [0])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "SETTINGS on a stream",
            vec![frame(SETTINGS, 0, 1, [0, 3, 0, 0, 0, 9])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "SETTINGS of a wrong size",
            vec![frame(SETTINGS, 0, 0, [0, 3, 0])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "ENABLE_PUSH 2",
            vec![setting(2, 2)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "INITIAL_WINDOW_SIZE",
            vec![setting(4, 1 << 31)],
            Closed(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "MAX_FRAME_SIZE too small",
            vec![setting(5, 16_383)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "MAX_FRAME_SIZE too large",
            vec![setting(5, 1 << 24)],
            Closed(&[PROTOCOL_ERROR]),
        ),
        ("an unknown setting", vec![setting(0xff, 1)], Fine),
        (
            "PUSH_PROMISE",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        ("PING with ACK", vec![frame(PING, ACK, 0, [0; 8])], Fine),
        (
            "PING on a stream",
            vec![frame(PING, 0, 1, [0; 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "PING of a wrong size",
            vec![frame(PING, 0, 0, [0; 6])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "GOAWAY on a stream",
            vec![frame(GOAWAY, 0, 1, [0; 8])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "WINDOW_UPDATE by 0",
            vec![frame(WINDOW_UPDATE, 0, 0, [0; 4])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "WINDOW_UPDATE of a stream by 0",
            vec![post(), frame(WINDOW_UPDATE, 0, 1, [0; 4])],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "WINDOW_UPDATE of a wrong size",
            vec![frame(WINDOW_UPDATE, 0, 0, [0; 3])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "a window beyond all",
            vec![frame(WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff])],
            Closed(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "a stream's window beyond all",
            vec![post(), frame(WINDOW_UPDATE, 0, 1, [0x7f, 0xff, 0xff, 0xff])],
            Reset(1, &[FLOW_CONTROL_ERROR]),
        ),
        (
            "a block in pieces",
            vec![
                headers(1, END_STREAM, &REQUEST),
                frame(CONTINUATION, 0, 1, block(&[("a", "b")])),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("c", "d")])),
            ],
            Answer(1),
        ),
        (
            "CONTINUATION on 0",
            vec![
                headers(1, END_STREAM, &REQUEST),
                frame(CONTINUATION, END_HEADERS, 0, block(&[("a", "b")])),
            ],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "CONTINUATION of what has ended",
            vec![
                headers(1, END_HEADERS, &POST),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("a", "b")])),
            ],
            Closed(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn messages_section_8() {
    let refused = |name, fields: Vec<(&'static str, &'static str)>| {
        (
            name,
            vec![headers(1, BOTH, &fields)],
            Reset(1, &[PROTOCOL_ERROR]),
        )
    };
    let plus = |more: &[(&'static str, &'static str)]| with(&REQUEST, more);
    let without = |name: &str| {
        let rest = REQUEST.iter().filter(|(n, _)| *n != name);
        rest.copied().collect::<Vec<_>>()
    };
    let body = |length: &'static str, pieces: &[&str]| {
        let mut frames = vec![headers(
            1,
            END_HEADERS,
            &with(&POST, &[("content-length", length)]),
        )];
        for (i, piece) in pieces.iter().enumerate() {
            let last = u8::from(i + 1 == pieces.len());
            frames.push(frame(DATA, last, 1, piece));
        }
        frames
    };
    run(vec![
        refused("upper case", plus(&[("X-TEST", "ok")])),
        refused("unknown pseudo-header", plus(&[(":test", "ok")])),
        refused("response pseudo-header", plus(&[(":status", "200")])),
        refused(
            "a pseudo-header behind others",
            with(&[("x", "y")], &REQUEST),
        ),
        refused("Connection", plus(&[("connection", "keep-alive")])),
        refused("Keep-Alive", plus(&[("keep-alive", "timeout=5")])),
        refused("Proxy-Connection", plus(&[("proxy-connection", "close")])),
        refused(
            "Transfer-Encoding",
            plus(&[("transfer-encoding", "chunked")]),
        ),
        refused("Upgrade", plus(&[("upgrade", "websocket")])),
        refused("TE", plus(&[("te", "trailers, deflate")])),
        refused("no :method", without(":method")),
        refused("no :scheme", without(":scheme")),
        refused("no :path", without(":path")),
        refused("two :method", plus(&[(":method", "GET")])),
        refused("two :scheme", plus(&[(":scheme", "http")])),
        refused("two :path", plus(&[(":path", "/")])),
        refused("two :authority", plus(&[(":authority", "h.example")])),
        refused(
            "an empty :path",
            with(
                &without(":path")[..2],
                &[(":path", ""), (":authority", "h")],
            ),
        ),
        (
            "TE: trailers",
            vec![headers(1, BOTH, &plus(&[("te", "trailers")]))],
            Answer(1),
        ),
        (
            "HEADERS behind the body that do not end it",
            vec![
                headers(1, END_HEADERS, &POST),
                frame(DATA, 0, 1, b"x"),
                headers(1, END_HEADERS, &[("x", "y")]),
            ],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            // The library drops them; they never get further.
            "a pseudo-header in a trailer",
            vec![
                headers(1, END_HEADERS, &POST),
                headers(1, BOTH, &[(":method", "GET")]),
            ],
            Answer(1),
        ),
        (
            "a length that is right",
            body("4", &["te", "st"]),
            Answer(1),
        ),
        (
            "a length that is too small",
            body("3", &["test"]),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "a length that is too large",
            body("5", &["test"]),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "a length that two frames exceed",
            body("3", &["te", "st"]),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "a length without a body",
            vec![headers(1, BOTH, &with(&POST, &[("content-length", "3")]))],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn header_compression() {
    let raw = |payload: &[u8]| vec![frame(HEADERS, BOTH, 1, payload)];
    let request = block(&REQUEST);
    let behind = |more: &[u8]| [&request[..], more].concat();
    run(vec![
        (
            "index 0",
            raw(&behind(&[0x80])),
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "an unknown index",
            raw(&behind(&[0xc6])),
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "an unknown name",
            raw(&behind(&[0x7f, 0x20, 1, b'x'])),
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "a size update at the end",
            raw(&behind(&[0x20])),
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "a table larger than allowed",
            raw(&[&[0x3f, 0xe2, 0x1f][..], &request].concat()),
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "Huffman padding of a byte",
            raw(&behind(&[0x00, 0x81, 0xff, 0x01, b'x'])),
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "a table of size 0",
            raw(&[&[0x20][..], &request].concat()),
            Answer(1),
        ),
        (
            "indexed fields",
            raw(&[0x82, 0x86, 0x84, 0x41, 0x01, b'h']),
            Answer(1),
        ),
    ]);
}

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
