//! RFC 9113 and RFC 7541 by raw frames, case by case as h2spec 2.6 counts them (`http2/5.1/3` is the
//! third of its cases for section 5.1 of RFC 7540): each ends in the connection's or the stream's
//! error, or in nothing worth mentioning. Names that begin with `+` are cases of our own.
//! [`every_case_of_h2spec_is_here`] holds the list against what is tested.

#![allow(
    clippy::wildcard_imports,
    reason = "the vocabulary of frames, which a test reads like one"
)]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

use super::frames::*;
use crate::harness::{Running, Setup, Upstream, Wire};

#[path = "conformance/compression.rs"]
mod compression;
#[path = "conformance/definitions.rs"]
mod definitions;
#[path = "conformance/frames.rs"]
mod frames;
#[path = "conformance/generic.rs"]
mod generic;
#[path = "conformance/messages.rs"]
mod messages;
#[path = "conformance/settings.rs"]
mod settings;
#[path = "conformance/starting.rs"]
mod starting;
#[path = "conformance/streams.rs"]
mod streams;

/// What a case must end in.
enum Want {
    /// GOAWAY with one of these codes, or a closed connection.
    Closed(&'static [u32]),
    /// The stream's reset with one of these codes; or the whole connection's end.
    Reset(u32, &'static [u32]),
    /// An answer on this stream.
    Answer(u32),
    /// A ping's answer.
    Pong,
    /// Nothing: the connection goes on.
    Fine,
}
use Want::{Answer, Closed, Fine, Pong, Reset};

type Case = (&'static str, Vec<Vec<u8>>, Want);

/// In place of a frame: first the router ends the stream.
const ENDED: Vec<u8> = Vec::new();

const BOTH: u8 = END_STREAM | END_HEADERS;

fn check(router: &Running, (name, frames, want): Case) {
    let mut wire = Wire::http2(router.address);
    for frame in frames {
        if frame == ENDED {
            while wire.frame().expect(name).flags & END_STREAM == 0 {}
        }
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
        Pong => assert_eq!(wire.frame_of(PING).expect(name).flags, ACK, "{name}"),
        Fine => wire.assert_alive(),
    }
}

fn run(cases: Vec<Case>) {
    // `ok` to whatever is asked, HEAD and chunks too.
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let head = wire.request().head;
            let body = if head.starts_with("HEAD") { "" } else { "ok" };
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}"
            ));
        }
    });
    let router = Setup::new(&[&upstream]).start();
    for case in cases {
        check(&router, case);
    }
    let mut wire = Wire::http2(router.address);
    wire.send(get(1));
    assert!(wire.frame_of(HEADERS).is_some(), "the router still serves");
}

/// h2spec's sections, with the number of its cases in each.
const H2SPEC: &[(&str, usize)] = &[
    ("generic/1", 1),
    ("generic/2", 5),
    ("generic/3.1", 3),
    ("generic/3.2", 3),
    ("generic/3.3", 5),
    ("generic/3.4", 1),
    ("generic/3.5", 1),
    ("generic/3.7", 1),
    ("generic/3.8", 1),
    ("generic/3.9", 2),
    ("generic/3.10", 2),
    ("generic/4", 4),
    ("generic/5", 15),
    ("http2/3.5", 2),
    ("http2/4.1", 3),
    ("http2/4.2", 3),
    ("http2/4.3", 3),
    ("http2/5.1", 13),
    ("http2/5.1.1", 2),
    ("http2/5.1.2", 1),
    ("http2/5.3.1", 2),
    ("http2/5.4.1", 2),
    ("http2/5.5", 2),
    ("http2/6.1", 3),
    ("http2/6.2", 4),
    ("http2/6.3", 2),
    ("http2/6.4", 3),
    ("http2/6.5", 3),
    ("http2/6.5.2", 5),
    ("http2/6.5.3", 2),
    ("http2/6.7", 4),
    ("http2/6.8", 1),
    ("http2/6.9", 3),
    ("http2/6.9.1", 3),
    ("http2/6.9.2", 3),
    ("http2/6.10", 6),
    ("http2/7", 2),
    ("http2/8.1", 1),
    ("http2/8.1.2", 1),
    ("http2/8.1.2.1", 4),
    ("http2/8.1.2.2", 2),
    ("http2/8.1.2.3", 7),
    ("http2/8.1.2.6", 2),
    ("http2/8.2", 1),
    ("hpack/2.3.3", 2),
    ("hpack/4.2", 1),
    ("hpack/5.2", 3),
    ("hpack/6.1", 1),
    ("hpack/6.3", 1),
];

/// Cases that are tests of their own.
const ALONE: &[&str] = &[
    // starting.rs, and every other test.
    "generic/1/1",
    "http2/3.5/1",
    "http2/3.5/2",
    // streams.rs
    "http2/5.4.1/2",
    // settings.rs
    "http2/5.1.2/1",
    "http2/6.5.3/1",
    "http2/6.5.3/2",
    "http2/6.9.1/1",
    "http2/6.9.2/1",
    "http2/6.9.2/2",
];

#[test]
fn every_case_of_h2spec_is_here() {
    let tables = [
        generic::cases(),
        frames::cases(),
        streams::cases(),
        definitions::cases(),
        messages::cases(),
        compression::cases(),
    ];
    let names = tables.iter().flatten().map(|case| case.0);
    let numbers = names.filter_map(|name| name.split(' ').find(|n| n.contains('/')));
    let mut here: Vec<_> = numbers.chain(ALONE.iter().copied()).collect();
    here.sort_unstable();
    let mut wanted: Vec<_> = H2SPEC
        .iter()
        .flat_map(|(section, cases)| (1..=*cases).map(move |n| format!("{section}/{n}")))
        .collect();
    wanted.sort_unstable();
    assert_eq!(here, wanted);
}
