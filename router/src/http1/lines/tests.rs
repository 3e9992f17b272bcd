use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const MOST: usize = 8;

/// What is in a head: start line's parts, then names and values.
type Parts = (Vec<Vec<u8>>, Vec<(Vec<u8>, Vec<u8>)>);

/// What a reading comes to.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Complete(usize, Parts),
    Incomplete,
    Refused,
}

fn parts(raw: &[u8], line: Vec<Vec<u8>>, fields: &[Field]) -> Parts {
    let pair = |f: &Field| (f.name.of(raw).to_vec(), f.value.of(raw).to_vec());
    (line, fields.iter().map(pair).collect())
}

fn ours(data: &[u8], request: bool) -> Read {
    // Positions must not depend on what lies before.
    let raw = [b"before", data].concat();
    let mut lines = Lines::new(&raw, 6, raw.len());
    let mut fields = Vec::new();
    let version = |http11| if http11 { b"1".to_vec() } else { b"0".to_vec() };
    let line = if request {
        lines.request_line().map(|line| {
            let (method, target) = (line.method.of(&raw), line.target.of(&raw));
            vec![method.to_vec(), target.to_vec(), version(line.http11)]
        })
    } else {
        lines.status_line().map(|line| {
            let status = line.status.to_string().into_bytes();
            vec![version(line.http11), status, line.reason.of(&raw).to_vec()]
        })
    };
    match line.and_then(|line| lines.fields(MOST, &mut fields).map(|()| line)) {
        Ok(line) => Read::Complete(lines.at() - 6, parts(&raw, line, &fields)),
        Err(Stop::Incomplete) => Read::Incomplete,
        Err(Stop::Fault(_)) => Read::Refused,
    }
}

/// The same by `httparse`, without what this parser refuses beyond it.
fn theirs(data: &[u8], request: bool) -> Read {
    let mut room = [httparse::EMPTY_HEADER; MOST];
    let text = |n: Option<u8>| n.unwrap_or_default().to_string().into_bytes();
    let (result, line, fields) = if request {
        let mut head = httparse::Request::new(&mut room);
        let result = head.parse(data);
        let method = head.method.unwrap_or_default().as_bytes().to_vec();
        let target = head.path.unwrap_or_default().as_bytes().to_vec();
        let graphic = target.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
        let result = if graphic {
            result
        } else {
            Err(httparse::Error::Token)
        };
        (
            result,
            vec![method, target, text(head.version)],
            head.headers,
        )
    } else {
        if data.first().is_some_and(|first| *first != b'H') {
            return Read::Refused;
        }
        let mut head = httparse::Response::new(&mut room);
        let result = head.parse(data);
        let status = head.code.unwrap_or_default().to_string().into_bytes();
        let reason = head.reason.unwrap_or_default().as_bytes().to_vec();
        (
            result,
            vec![text(head.version), status, reason],
            head.headers,
        )
    };
    match result {
        Ok(httparse::Status::Complete(len)) => {
            let bare = data[..len]
                .iter()
                .enumerate()
                .any(|(at, b)| *b == b'\n' && (at == 0 || data[at - 1] != b'\r'));
            if bare {
                return Read::Refused;
            }
            let pair = |f: &httparse::Header<'_>| (f.name.as_bytes().to_vec(), f.value.to_vec());
            Read::Complete(len, (line, fields.iter().map(pair).collect()))
        }
        Ok(httparse::Status::Partial) => Read::Incomplete,
        Err(_) => Read::Refused,
    }
}

/// Pieces of heads, right and wrong ones.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let usual = prop::sample::select(vec![
        "GET ",
        "P~T ",
        "/a?b=%20 ",
        "/ ",
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 404",
        "\r\n",
        "\r\n\r\n",
        "Host: h",
        "X-A:  padded \t ",
        "Empty:",
        "Tab: a\tb",
        "Content-Length: 0",
        "\n",
        "\r",
        " ",
        ":",
        "HTTP/2.0",
        "Bad name: x",
        " folded",
    ]);
    prop_oneof![
        20 => usual.prop_map(|text| text.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

/// A sound head, with a byte or two of it changed.
fn nearly_sound() -> impl Strategy<Value = Vec<u8>> {
    let field = ("[A-Za-z0-9_-]{1,12}", "[ -~\u{80}-\u{ff}\t]{0,40}");
    let fields = prop::collection::vec(field, 0..10);
    let start = prop::sample::select(vec![
        "GET /api/v1/items?page=3 HTTP/1.1",
        "\r\nPOST http://h.example/x HTTP/1.0",
        "HTTP/1.1 200 OK",
        "HTTP/1.0 301 Moved Permanently",
        "HTTP/1.1 204 ",
        "HTTP/1.1 500 \u{e9}",
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (start, fields, changes).prop_map(|(start, fields, changes)| {
        let mut text = format!("{start}\r\n");
        for (name, value) in fields {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\nbody");
        let mut bytes = text.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// The same reading of the same bytes; what is wrong may be seen sooner, with less of it.
fn agree(data: &[u8], request: bool) -> Result<(), TestCaseError> {
    let (ours, theirs) = (ours(data, request), theirs(data, request));
    if (&ours, &theirs) == (&Read::Refused, &Read::Incomplete) {
        // Only a bare LF, or a target's byte, is seen sooner.
        let bare = data
            .iter()
            .enumerate()
            .any(|(at, b)| *b == b'\n' && (at == 0 || data[at - 1] != b'\r'));
        let odd = request && data.iter().any(|b| *b == b'#' || !b.is_ascii());
        prop_assert!(bare || odd, "{}", data.escape_ascii());
        return Ok(());
    }
    prop_assert_eq!(ours, theirs, "{}", data.escape_ascii());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_comes_is_read_as_by_another_parser(pieces in prop::collection::vec(piece(), 0..16)) {
        let data = pieces.concat();
        for request in [true, false] {
            agree(&data, request)?;
        }
    }

    #[test]
    fn sound_heads_and_nearly_sound_ones_are_read_as_by_another_parser(data in nearly_sound()) {
        for request in [true, false] {
            agree(&data, request)?;
        }
    }
}

#[test]
fn every_control_character_is_found_wherever_it_stands() {
    for len in 0..20 {
        for at in 0..len {
            for byte in 0..=255u8 {
                for filler in [b' ', b'~', 0x80, 0xff, 0x7e] {
                    let mut data = vec![filler; len];
                    data[at] = byte;
                    let found = if byte.is_ascii_control() { at } else { len };
                    assert_eq!(control(&data, 0), found, "{data:?}");
                    // One behind it changes nothing.
                    if at + 1 < len {
                        data[at + 1] = b'\r';
                        let found = if byte.is_ascii_control() { at } else { at + 1 };
                        assert_eq!(control(&data, 0), found, "{data:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn kinds_of_bytes() {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    for byte in 0..=255u8 {
        let places = PLACES[usize::from(byte)];
        assert_eq!(places & TOKEN != 0, token(byte), "{byte}");
        let target = byte.is_ascii_graphic() && byte != b'#';
        assert_eq!(places & TARGET != 0, target, "{byte}");
        let name = byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
        assert_eq!(places & NAME != 0, name, "{byte}");
    }
}
