//! What must work: h2spec's generic cases.

use super::*;

/// `test-name: test-value` of RFC 7541's examples (C.4.3), in Huffman codes.
const NAME: &[u8] = &[0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
const VALUE: &[u8] = &[0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];
/// `no-cache` (C.4.2).
const NO_CACHE: &[u8] = &[0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];

pub(super) fn cases() -> Vec<Case> {
    let post = || headers(1, END_HEADERS, &POST);
    let priority = |stream, weight| frame(PRIORITY, 0, stream, [0, 0, 0, 0, weight]);
    let window = |stream| frame(WINDOW_UPDATE, 0, stream, [0, 0, 0, 1]);
    let piece = |flags, name| frame(CONTINUATION, flags, 1, block(&[(name, "b")]));
    let data = |flags, text: &str| frame(DATA, flags, 1, text);
    let padded = |kind, flags, content: &[u8]| {
        let payload = [&[3][..], content, &[0; 3]].concat();
        frame(kind, flags | PADDED, 1, payload)
    };
    let before = |bytes: &[u8]| [bytes, &block(&REQUEST)].concat();
    let depending = |on: &[u8]| frame(HEADERS, BOTH | WITH_PRIORITY, 1, before(on));
    // GET, http, / and the authority `h`, out of the tables.
    let packed = |more: &[u8]| {
        let block = [&[0x82, 0x86, 0x84, 0x41, 1, b'h'], more].concat();
        vec![frame(HEADERS, BOTH, 1, block)]
    };
    let works = |name, frames| (name, frames, Answer(1));
    vec![
        works(
            "generic/2/1 PRIORITY of an idle stream",
            vec![priority(1, 9), get(1)],
        ),
        works(
            "generic/2/2 half closed: WINDOW_UPDATE",
            vec![get(1), window(1)],
        ),
        works(
            "generic/2/3 half closed: PRIORITY",
            vec![get(1), priority(1, 9)],
        ),
        (
            "generic/2/4 half closed: RST_STREAM",
            vec![get(1), frame(RST_STREAM, 0, 1, [0, 0, 0, 8])],
            Fine,
        ),
        (
            "generic/2/5 closed: PRIORITY",
            vec![get(1), ENDED, priority(1, 9)],
            Fine,
        ),
        works("generic/3.1/1 DATA", vec![post(), data(END_STREAM, "test")]),
        works(
            "generic/3.1/2 several DATA",
            vec![post(), data(0, "te"), data(0, ""), data(END_STREAM, "st")],
        ),
        works(
            "generic/3.1/3 DATA with padding",
            vec![post(), padded(DATA, END_STREAM, b"test")],
        ),
        works("generic/3.2/1 HEADERS", vec![get(1)]),
        works(
            "generic/3.2/2 HEADERS with padding",
            vec![padded(HEADERS, BOTH, &block(&REQUEST))],
        ),
        works(
            "generic/3.2/3 HEADERS with a priority",
            vec![depending(&[0, 0, 0, 0, 255])],
        ),
        works("generic/3.3/1 PRIORITY 1", vec![priority(1, 0), get(1)]),
        works("generic/3.3/2 PRIORITY 256", vec![priority(1, 255), get(1)]),
        works(
            "generic/3.3/3 PRIORITY that depends on another",
            vec![frame(PRIORITY, 0, 3, [0, 0, 0, 1, 9]), get(1)],
        ),
        works(
            "generic/3.3/4 PRIORITY for it alone",
            vec![frame(PRIORITY, 0, 3, [0x80, 0, 0, 1, 9]), get(1)],
        ),
        works(
            "generic/3.3/5 PRIORITY of a later stream",
            vec![priority(5, 9), get(1)],
        ),
        (
            "generic/3.4/1 RST_STREAM",
            vec![post(), frame(RST_STREAM, 0, 1, [0, 0, 0, 8])],
            Fine,
        ),
        ("generic/3.5/1 SETTINGS", vec![setting(3, 100)], Fine),
        ("generic/3.7/1 PING", vec![frame(PING, 0, 0, [1; 8])], Pong),
        (
            "generic/3.8/1 GOAWAY",
            vec![frame(GOAWAY, 0, 0, [0; 8]), frame(PING, 0, 0, [0; 8])],
            Pong,
        ),
        works("generic/3.9/1 WINDOW_UPDATE", vec![window(0), get(1)]),
        works(
            "generic/3.9/2 WINDOW_UPDATE of a stream",
            vec![post(), window(1), data(END_STREAM, "x")],
        ),
        works(
            "generic/3.10/1 CONTINUATION",
            vec![headers(1, END_STREAM, &REQUEST), piece(END_HEADERS, "a")],
        ),
        works(
            "generic/3.10/2 several CONTINUATION",
            vec![
                headers(1, END_STREAM, &REQUEST),
                piece(0, "a"),
                piece(0, "c"),
                piece(END_HEADERS, "d"),
            ],
        ),
        works("generic/4/1 GET", vec![get(1)]),
        works(
            "generic/4/2 HEAD",
            vec![headers(
                1,
                BOTH,
                &with(&[(":method", "HEAD")], &REQUEST[1..]),
            )],
        ),
        works("generic/4/3 POST", vec![post(), data(END_STREAM, "test")]),
        works(
            "generic/4/4 POST with trailers",
            vec![
                post(),
                data(0, "test"),
                headers(1, BOTH, &[("x-test", "ok")]),
            ],
        ),
        works("generic/5/1 an indexed field", packed(&[0x90])),
        works(
            "generic/5/2 indexing, an indexed name",
            packed(b"\x7a\x04test"),
        ),
        works(
            "generic/5/3 indexing, an indexed name, Huffman",
            packed(&[&[0x58], NO_CACHE].concat()),
        ),
        works(
            "generic/5/4 indexing, a new name",
            packed(b"\x40\x06x-test\x04test"),
        ),
        works(
            "generic/5/5 indexing, a new name, Huffman",
            packed(&[&[0x40], NAME, VALUE].concat()),
        ),
        works(
            "generic/5/6 not indexed, an indexed name",
            packed(b"\x0f\x2b\x04test"),
        ),
        works(
            "generic/5/7 not indexed, an indexed name, Huffman",
            packed(&[&[0x0f, 0x09], NO_CACHE].concat()),
        ),
        works(
            "generic/5/8 not indexed, a new name",
            packed(b"\x00\x06x-test\x04test"),
        ),
        works(
            "generic/5/9 not indexed, a new name, Huffman",
            packed(&[&[0x00], NAME, VALUE].concat()),
        ),
        works(
            "generic/5/10 never indexed, an indexed name",
            packed(b"\x1f\x2b\x04test"),
        ),
        works(
            "generic/5/11 never indexed, an indexed name, Huffman",
            packed(&[&[0x1f, 0x09], NO_CACHE].concat()),
        ),
        works(
            "generic/5/12 never indexed, a new name",
            packed(b"\x10\x06x-test\x04test"),
        ),
        works(
            "generic/5/13 never indexed, a new name, Huffman",
            packed(&[&[0x10], NAME, VALUE].concat()),
        ),
        works(
            "generic/5/14 a size update",
            vec![frame(HEADERS, BOTH, 1, before(&[0x20]))],
        ),
        works(
            "generic/5/15 several size updates",
            vec![frame(HEADERS, BOTH, 1, before(&[0x20, 0x3f, 0xe1, 0x1f]))],
        ),
    ]
}

#[test]
fn what_must_work_works() {
    run(cases());
}
