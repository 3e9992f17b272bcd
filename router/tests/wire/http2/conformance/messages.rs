//! Requests: RFC 9113, 8 (RFC 7540, 8.1 and 8.2).

use super::*;

pub(super) fn cases() -> Vec<Case> {
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
    vec![
        refused("http2/8.1.2/1 upper case", plus(&[("X-TEST", "ok")])),
        refused(
            "http2/8.1.2.1/1 unknown pseudo-header",
            plus(&[(":test", "ok")]),
        ),
        refused(
            "http2/8.1.2.1/2 response pseudo-header",
            plus(&[(":status", "200")]),
        ),
        refused(
            "http2/8.1.2.1/4 a pseudo-header behind others",
            with(&[("x", "y")], &REQUEST),
        ),
        refused(
            "http2/8.1.2.2/1 Connection",
            plus(&[("connection", "keep-alive")]),
        ),
        refused("+ Keep-Alive", plus(&[("keep-alive", "timeout=5")])),
        refused("+ Proxy-Connection", plus(&[("proxy-connection", "close")])),
        refused(
            "+ Transfer-Encoding",
            plus(&[("transfer-encoding", "chunked")]),
        ),
        refused("+ Upgrade", plus(&[("upgrade", "websocket")])),
        refused("http2/8.1.2.2/2 TE", plus(&[("te", "trailers, deflate")])),
        refused("http2/8.1.2.3/2 no :method", without(":method")),
        refused("http2/8.1.2.3/3 no :scheme", without(":scheme")),
        refused("http2/8.1.2.3/4 no :path", without(":path")),
        refused("http2/8.1.2.3/5 two :method", plus(&[(":method", "GET")])),
        refused("http2/8.1.2.3/6 two :scheme", plus(&[(":scheme", "http")])),
        refused("http2/8.1.2.3/7 two :path", plus(&[(":path", "/")])),
        refused("+ two :authority", plus(&[(":authority", "h.example")])),
        refused(
            "http2/8.1.2.3/1 an empty :path",
            with(
                &without(":path")[..2],
                &[(":path", ""), (":authority", "h")],
            ),
        ),
        (
            "+ TE: trailers",
            vec![headers(1, BOTH, &plus(&[("te", "trailers")]))],
            Answer(1),
        ),
        (
            "http2/8.1/1 HEADERS behind the body that do not end it",
            vec![
                headers(1, END_HEADERS, &POST),
                frame(DATA, 0, 1, b"x"),
                headers(1, END_HEADERS, &[("x", "y")]),
            ],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            // The library drops them; they never get further.
            "http2/8.1.2.1/3 a pseudo-header in a trailer",
            vec![
                headers(1, END_HEADERS, &POST),
                headers(1, BOTH, &[(":method", "GET")]),
            ],
            Answer(1),
        ),
        (
            "+ a length that is right",
            body("4", &["te", "st"]),
            Answer(1),
        ),
        (
            "http2/8.1.2.6/1 a length that is too small",
            body("3", &["test"]),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "+ a length that is too large",
            body("5", &["test"]),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "http2/8.1.2.6/2 a length that two frames exceed",
            body("3", &["te", "st"]),
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "+ a length without a body",
            vec![headers(1, BOTH, &with(&POST, &[("content-length", "3")]))],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "http2/8.2/1 PUSH_PROMISE",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])],
            Closed(&[PROTOCOL_ERROR]),
        ),
    ]
}

#[test]
fn messages() {
    run(cases());
}
