//! What must hold for any bytes that arrive, as functions of those bytes: `cargo fuzz` (in `fuzz/`)
//! looks for bytes for which it does not, and the tests here try a seeded corpus and many more on
//! every run. Each function panics when something does not hold; nothing of the product uses them.

use crate::{
    http1::{
        chunked::{self, BadChunk, Decoder},
        head::{Field, Span},
        render::{self, Delivery, ReplyEdits},
        request::{Framing, Method, RequestHead},
        response::ResponseHead,
    },
    proxy_protocol::{self, BadHeader, Header},
};

mod reference;

/// Where heads begin within what the parsers are given: positions must not depend on it.
const OFFSETS: [usize; 2] = [0, 7];

/// A request's head: accepted exactly when the strict reference accepts it, with the same reading;
/// decided by its own bytes alone; and once it went through the router, read as the same again.
pub fn request_head(data: &[u8]) {
    let head = parse_request(data);
    assert_eq!(
        head.as_ref().map(|head| reading(data, head)),
        reference::request(data),
        "{}",
        data.escape_ascii()
    );
    let Some(head) = head else { return };
    for end in 0..head.len {
        let mut part = RequestHead::default();
        let parsed = part.parse(&data[..end], 0, end);
        assert_eq!(parsed, Ok(false), "a beginning was taken for the whole");
    }
    let alone = parse_request(&data[..head.len]).map(|head| reading(data, &head));
    assert_eq!(alone, Some(reading(data, &head)), "what follows matters");
    if head.fields.len() > 80 || head.host.len == 0 {
        // What is added makes it too long for this end, or HTTP/1.0 left its host open.
        return;
    }
    // Render, read, render: the same text, apart from what is added each time.
    let once = forwarded(data, &head);
    let again = parse_request(&once).unwrap_or_else(|| panic!("{}", once.escape_ascii()));
    assert_eq!((again.len, again.framing), (once.len(), head.framing));
    assert_eq!(again.method, head.method);
    assert!(again.http11 && !again.connection.close);
    let path = |target: &[u8]| target.split(|b| *b == b'?').next().map(<[u8]>::to_vec);
    assert_eq!(
        path(again.route_target(&once)),
        path(head.route_target(data)),
        "it is routed by another path than it is sent to"
    );
    assert_eq!(again.host.of(&once), head.host.of(data));
    let twice = forwarded(&once, &again);
    assert_eq!(
        own_lines(&once),
        own_lines(&twice),
        "not a fixed point: {}",
        data.escape_ascii()
    );
}

/// A response's head, likewise.
pub fn response_head(data: &[u8]) {
    for method in [Method::Get, Method::Head] {
        let mut head = ResponseHead::default();
        let complete = matches!(head.parse(data, 0, data.len(), method), Ok(true));
        let want = reference::response(data, method == Method::Head);
        let got = complete.then(|| reference::Response {
            len: head.len,
            status: head.status,
            framing: head.framing,
            fields: pairs(data, &head.fields),
        });
        assert_eq!(got, want, "{}", data.escape_ascii());
        if !complete {
            continue;
        }
        for end in 0..head.len {
            let parsed = ResponseHead::default().parse(&data[..end], 0, end, method);
            assert_eq!(parsed, Ok(false), "a beginning was taken for the whole");
        }
        if head.status < 200 || head.fields.len() > 90 {
            continue;
        }
        let mut once = Vec::new();
        let chunks = head.framing == Framing::Chunked;
        let delivery = Delivery {
            chunks,
            close: false,
            say_keep_alive: false,
        };
        render::response(
            &mut once,
            data,
            &head,
            delivery,
            b"id",
            ReplyEdits::default(),
        );
        let mut again = ResponseHead::default();
        assert_eq!(again.parse(&once, 0, once.len(), method), Ok(true));
        assert_eq!((again.len, again.status), (once.len(), head.status));
        assert_eq!(again.framing, head.framing, "{}", once.escape_ascii());
        let mut twice = Vec::new();
        render::response(
            &mut twice,
            &once,
            &again,
            delivery,
            b"id",
            ReplyEdits::default(),
        );
        assert_eq!(own_lines(&twice), own_lines(&once));
    }
}

/// A chunked body: in whatever pieces it comes, the same data, the same end, the same trailers; the
/// same as the reference reads; and what goes out is read as the same again.
pub fn chunked_body(data: &[u8]) {
    // The first byte says where the cuts are.
    let (seed, body) = data.split_first().map_or((1, data), |(s, b)| (*s, b));
    let whole = decode(body, usize::MAX);
    for step in [1, 2, 3, 1 + usize::from(seed)] {
        assert_eq!(decode(body, step), whole, "in pieces of {step}");
    }
    let want = reference::chunked(body);
    match (&whole, want) {
        (Ok(decoded), Ok(want)) => assert_eq!(*decoded, want, "{}", body.escape_ascii()),
        (Err(_), Err(())) => {}
        (got, want) => panic!("{}: {got:?}, not {want:?}", body.escape_ascii()),
    }
    let Ok(decoded) = whole else { return };
    if !decoded.done {
        return;
    }
    let mut out = Vec::new();
    for piece in decoded.data.chunks(1 + usize::from(seed)) {
        chunked::append(&mut out, piece);
    }
    out.extend_from_slice(&decoded.tail);
    let length = out.len();
    out.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let again = decode(&out, usize::MAX);
    assert_eq!(
        again,
        Ok(Decoded {
            used: length,
            ..decoded
        })
    );
}

/// A PROXY protocol header: never read beyond, and decided by its own bytes alone.
pub fn proxy_header(data: &[u8]) {
    let mut decided = None;
    for end in 0..=data.len() {
        let read = format!("{:?}", proxy_protocol::read(&data[..end]));
        let partial = read == format!("{:?}", Ok::<_, BadHeader>(Header::Partial));
        match &decided {
            None if partial => {}
            None => decided = Some(read),
            Some(before) => assert_eq!(*before, read, "at {end}"),
        }
    }
}

/// What a decoder made of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    data: Vec<u8>,
    /// The last chunk and the trailer as they go on, once they are complete.
    tail: Vec<u8>,
    used: usize,
    done: bool,
}

fn decode(body: &[u8], step: usize) -> Result<Decoded, BadChunk> {
    let mut decoder = Decoder::default();
    let mut tail = Vec::new();
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in body.chunks(step.clamp(1, body.len().max(1))) {
        let mut piece = piece.to_vec();
        let taken = decoder.decode(&mut piece, &mut tail)?;
        data.extend_from_slice(&piece[taken.data]);
        used += taken.used;
        if decoder.done() {
            break;
        }
        assert_eq!(taken.used, piece.len(), "it stops before its end");
    }
    let done = decoder.done();
    Ok(Decoded {
        data,
        tail: if done { tail } else { Vec::new() },
        used,
        done,
    })
}

fn parse_request(data: &[u8]) -> Option<RequestHead> {
    let mut heads = OFFSETS.map(|at| {
        let raw = [&vec![b'#'; at], data].concat();
        let mut head = RequestHead::default();
        let complete = matches!(head.parse(&raw, at, raw.len()), Ok(true));
        complete.then_some((head, raw, at))
    });
    let moved = heads[1].take();
    let (head, raw, _) = heads[0].take().or_else(|| {
        assert!(moved.is_none(), "it depends on its place");
        None
    })?;
    let (moved, moved_raw, _) = moved?;
    assert_eq!(pairs(&raw, &head.fields), pairs(&moved_raw, &moved.fields));
    assert_eq!(head.path.of(&raw), moved.path.of(&moved_raw));
    Some(head)
}

fn reading(data: &[u8], head: &RequestHead) -> reference::Request {
    let text = |span: Span| span.of(data).to_vec();
    reference::Request {
        len: head.len,
        method: text(head.method_name),
        host: text(head.host),
        target: head.route_target(data).to_vec(),
        http11: head.http11,
        framing: head.framing,
        upgrade: head.upgrade,
        keeps_alive: head.keeps_alive(),
        fields: pairs(data, &head.fields),
    }
}

fn pairs(raw: &[u8], fields: &[Field]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = |span: Span| span.of(raw).to_vec();
    fields
        .iter()
        .map(|f| (text(f.name), text(f.value)))
        .collect()
}

fn forwarded(data: &[u8], head: &RequestHead) -> Vec<u8> {
    let mut out = Vec::new();
    render::request(&mut out, data, head, reference::additions());
    out
}

/// The lines of a head without those that the router adds, sorted: an addition moves to the end.
fn own_lines(head: &[u8]) -> Vec<String> {
    let text = head.escape_ascii().to_string();
    let mut lines: Vec<_> = text
        .split("\\r\\n")
        .filter(|line| !line.starts_with("X-Forwarded-"))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests;
