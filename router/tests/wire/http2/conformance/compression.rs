//! Header blocks that RFC 7541 does not allow, and some that it does.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let request = block(&REQUEST);
    let raw = |payload: &[u8]| vec![frame(HEADERS, BOTH, 1, payload)];
    let behind = |more: &[u8]| raw(&[&request[..], more].concat());
    let broken = |name, more: &[u8]| (name, behind(more), Closed(&[COMPRESSION_ERROR]));
    vec![
        broken("hpack/2.3.3/1 an unknown index", &[0xc6]),
        broken("hpack/2.3.3/2 an unknown name", &[0x7f, 0x20, 1, b'x']),
        broken("hpack/4.2/1 a size update at the end", &[0x20]),
        // The value is a Huffman code: with eight bits of padding, zeros for padding, EOS inside.
        broken(
            "hpack/5.2/1 Huffman padding of a byte",
            &[0x00, 1, b'x', 0x82, 0x1f, 0xff],
        ),
        broken(
            "hpack/5.2/2 Huffman padding of zeros",
            &[0x00, 1, b'x', 0x81, 0x18],
        ),
        broken(
            "hpack/5.2/3 the end of a string within",
            &[0x00, 1, b'x', 0x85, 0x1f, 0xff, 0xff, 0xff, 0xff],
        ),
        broken("hpack/6.1/1 index 0", &[0x80]),
        (
            "hpack/6.3/1 a table larger than allowed",
            raw(&[&[0x3f, 0xe2, 0x1f][..], &request].concat()),
            Closed(&[COMPRESSION_ERROR]),
        ),
        broken("+ a length beyond the block", &[0x00, 1, b'x', 0x7f]),
        broken(
            "+ a number without an end",
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
    ]
}

#[test]
fn header_compression() {
    run(cases());
}
