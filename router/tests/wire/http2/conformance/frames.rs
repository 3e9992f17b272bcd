//! Frames and header blocks: RFC 9113, 4.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let mut bad_block = block(&REQUEST);
    bad_block.extend([0x82, 0xff, 0xff]);
    let post = || headers(1, END_HEADERS, &POST);
    let open_block = || headers(1, END_STREAM, &REQUEST);
    vec![
        (
            "http2/4.1/1 an unknown type",
            vec![frame(0x16, 0, 0, [0; 8])],
            Fine,
        ),
        (
            "http2/4.1/2 unknown flags",
            vec![frame(PING, 0x16, 0, [0; 8])],
            Pong,
        ),
        (
            "http2/4.1/3 the reserved bit",
            vec![frame(PING, 0, 1 << 31, [0; 8])],
            Pong,
        ),
        (
            "http2/4.2/1 DATA as large as allowed",
            vec![post(), frame(DATA, END_STREAM, 1, vec![0; 16_384])],
            Answer(1),
        ),
        (
            "http2/4.2/2 DATA too large",
            vec![post(), frame(DATA, END_STREAM, 1, vec![0; 16_385])],
            Reset(1, &[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/4.2/3 HEADERS too large",
            vec![frame(HEADERS, BOTH, 1, vec![0; 16_385])],
            Closed(&[FRAME_SIZE_ERROR]),
        ),
        (
            "http2/4.3/1 a broken block",
            vec![frame(HEADERS, BOTH, 1, bad_block)],
            Closed(&[COMPRESSION_ERROR]),
        ),
        (
            "http2/4.3/2 PRIORITY within a block",
            vec![open_block(), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 255])],
            Closed(&[PROTOCOL_ERROR]),
        ),
        (
            "http2/4.3/3 another stream within a block",
            vec![open_block(), get(3)],
            Closed(&[PROTOCOL_ERROR]),
        ),
    ]
}

#[test]
fn frames_and_header_blocks() {
    run(cases());
}
