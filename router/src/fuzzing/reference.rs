//! The same messages, read slowly: by splitting text, one rule after another, as RFC 9110, 9112 and
//! `docs/PROTOCOLS.md` put them. It shares no code with what it is compared to.

use super::Decoded;
use crate::http1::{render::Additions, request::Framing};

/// A name with its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// A request's head, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) len: usize,
    pub(crate) method: Vec<u8>,
    pub(crate) host: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) http11: bool,
    pub(crate) framing: Framing,
    pub(crate) upgrade: bool,
    pub(crate) keeps_alive: bool,
    pub(crate) fields: Vec<Pair>,
}

/// A response's head, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) len: usize,
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) fields: Vec<Pair>,
}

/// What the tests' router adds.
pub(crate) fn additions() -> Additions<'static> {
    Additions {
        client: b"10.0.0.9",
        believed: None,
        scheme: "http",
        request_id: b"id1",
        client_cert: None,
        drop_underscores: false,
        path: b"",
        host: b"",
        gone: [&[]; 2],
        lines: b"",
        at_once: false,
    }
}

fn token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn is(text: &[u8], other: &str) -> bool {
    text.to_ascii_lowercase() == other.as_bytes()
}

/// The lines up to the empty one, and the length with it; each ends in CR LF, and neither is
/// anywhere else.
fn lines(data: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let end = data.windows(4).position(|w| w == b"\r\n\r\n")?;
    let mut lines = Vec::new();
    let mut rest = &data[..end + 2];
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    let clean = |line: &&[u8]| !line.iter().any(|b| matches!(b, b'\r' | b'\n'));
    lines.iter().all(clean).then_some((lines, end + 4))
}

fn fields(lines: &[&[u8]]) -> Option<Vec<Pair>> {
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let visible = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
        if !token(name) || !value.iter().all(visible) {
            return None;
        }
        let start = value.iter().position(|b| !b" \t".contains(b));
        let start = start.unwrap_or(value.len());
        let end = value.iter().rposition(|b| !b" \t".contains(b));
        let end = end.map_or(start, |end| end + 1);
        fields.push((name.to_vec(), value[start..end].to_vec()));
    }
    (fields.len() <= 100).then_some(fields)
}

fn values<'f>(fields: &'f [Pair], name: &str) -> Vec<&'f [u8]> {
    let named = fields.iter().filter(|(n, _)| is(n, name));
    named.map(|(_, value)| &value[..]).collect()
}

fn listed(fields: &[Pair], name: &str, wanted: &str) -> bool {
    values(fields, name)
        .iter()
        .flat_map(|value| value.split(|b| *b == b','))
        .any(|element| is(element.trim_ascii(), wanted))
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?;
    let plain = !digits.is_empty() && digits.len() <= 19 && !digits.starts_with('+');
    plain.then(|| digits.parse().ok())?
}

/// An authority without a user; gives whether it is one.
fn authority(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, Some(&port[1..])),
            _ => return false,
        },
        None => text
            .split_once(':')
            .map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let letters: fn(char) -> bool = if text.starts_with('[') {
        |c| c.is_ascii_hexdigit() || ":.".contains(c)
    } else {
        |c| c.is_ascii_alphanumeric() || ".-_~".contains(c)
    };
    let port = port.unwrap_or_default();
    !name.is_empty()
        && name.chars().all(letters)
        && port.len() <= 5
        && port.chars().all(|c| c.is_ascii_digit())
}

/// A request's head, if it is complete and good.
pub(crate) fn request(data: &[u8]) -> Option<Request> {
    let mut skipped = 0;
    while data[skipped..].starts_with(b"\r\n") {
        skipped += 2;
    }
    let (lines, len) = lines(&data[skipped..])?;
    let parts: Vec<_> = lines[0].split(|b| *b == b' ').collect();
    let [method, target, version] = parts[..] else {
        return None;
    };
    let http11 = version == b"HTTP/1.1";
    let visible = |b: &u8| b.is_ascii_graphic() && *b != b'#';
    if !token(method)
        || target.is_empty()
        || !target.iter().all(visible)
        || !(http11 || version == b"HTTP/1.0")
        || [&b"TRACE"[..], b"CONNECT"].contains(&method)
    {
        return None;
    }
    let fields = fields(&lines[1..])?;
    let host = match values(&fields, "host")[..] {
        [] if http11 => return None,
        [] => None,
        [host] => Some(host),
        _ => return None,
    };
    if host.is_some_and(|host| !authority(host)) {
        return None;
    }
    let framing = match (
        &values(&fields, "content-length")[..],
        &values(&fields, "transfer-encoding")[..],
    ) {
        ([], []) => Framing::None,
        ([one], []) => match length(one)? {
            0 => Framing::None,
            length => Framing::Length(length),
        },
        ([], [one]) if is(one, "chunked") && http11 => Framing::Chunked,
        _ => return None,
    };
    if !values(&fields, "expect")
        .iter()
        .all(|v| is(v, "100-continue"))
    {
        return None;
    }
    let protocols = values(&fields, "upgrade");
    let other = |name: &[u8]| {
        let name = name.trim_ascii().to_ascii_lowercase();
        let inside = [&b"h2"[..], b"http", b"tls"];
        !name.is_empty() && !inside.iter().any(|start| name.starts_with(start))
    };
    let upgrade = http11
        && listed(&fields, "connection", "upgrade")
        && protocols.len() == 1
        && protocols[0].split(|b| *b == b',').all(other);
    if upgrade && framing != Framing::None {
        return None;
    }
    let (host, target) = read_target(method, target, host)?;
    Some(Request {
        len: skipped + len,
        method: method.to_vec(),
        host,
        target,
        http11,
        framing,
        upgrade,
        keeps_alive: !listed(&fields, "connection", "close")
            && (http11 || listed(&fields, "connection", "keep-alive")),
        fields,
    })
}

/// The host that counts, and the path with its query.
fn read_target(method: &[u8], target: &[u8], host: Option<&[u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
    let given = host.unwrap_or_default().to_vec();
    if target == b"*" {
        return (method == b"OPTIONS").then_some((given, b"*".to_vec()));
    }
    if target[0] == b'/' {
        return Some((given, target.to_vec()));
    }
    let text = String::from_utf8(target.to_vec()).ok()?;
    let (scheme, rest) = text.split_once("://")?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (named, path) = rest.split_at(end);
    let agrees = host.is_none_or(|host| host.eq_ignore_ascii_case(named.as_bytes()));
    if !authority(named.as_bytes()) || !agrees {
        return None;
    }
    let path = if path.starts_with('/') { path } else { "/" };
    let host = if host.is_some() { given } else { named.into() };
    Some((host, path.as_bytes().to_vec()))
}

/// A response's head, if it is complete and good.
pub(crate) fn response(data: &[u8], to_head: bool) -> Option<Response> {
    let (lines, len) = lines(data)?;
    let line = lines[0];
    let http11 = line.starts_with(b"HTTP/1.1 ");
    if !http11 && !line.starts_with(b"HTTP/1.0 ") {
        return None;
    }
    let code = line.get(9..12)?;
    let after = &line[12..];
    let visible = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    if !code.iter().all(u8::is_ascii_digit)
        || !(after.is_empty() || after[0] == b' ')
        || !after.iter().all(visible)
    {
        return None;
    }
    let status: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
    if !(100..600).contains(&status) {
        return None;
    }
    let fields = fields(&lines[1..])?;
    let mut lengths = Vec::new();
    for value in values(&fields, "content-length") {
        lengths.push(length(value)?);
    }
    lengths.dedup();
    let chunked = match values(&fields, "transfer-encoding")[..] {
        [] => false,
        [one] if is(one, "chunked") && http11 => true,
        _ => return None,
    };
    if lengths.len() > 1 || (chunked && !lengths.is_empty()) {
        return None;
    }
    let body = match lengths.first() {
        _ if chunked => Framing::Chunked,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(*length),
        None => Framing::UntilClose,
    };
    if status < 200 && !matches!(body, Framing::None | Framing::UntilClose) {
        return None;
    }
    if status == 101 && values(&fields, "upgrade").len() > 1 {
        return None;
    }
    let without = to_head || status < 200 || status == 204 || status == 304;
    Some(Response {
        len,
        status,
        framing: if without { Framing::None } else { body },
        fields,
    })
}

/// Names that do not go on in a trailer: they frame, route, say who asks or what the content is, or
/// speak of one connection.
const NOT_IN_TRAILERS: [&str; 36] = [
    "range",
    "cookie",
    "pragma",
    "trailer",
    "if-match",
    "if-range",
    "set-cookie",
    "content-type",
    "max-forwards",
    "authorization",
    "cache-control",
    "content-range",
    "if-none-match",
    "content-encoding",
    "www-authenticate",
    "if-modified-since",
    "proxy-authenticate",
    "if-unmodified-since",
    "proxy-authorization",
    "te",
    "host",
    "date",
    "expect",
    "upgrade",
    "connection",
    "keep-alive",
    "traceparent",
    "tracestate",
    "x-request-id",
    "content-length",
    "http2-settings",
    "proxy-connection",
    "transfer-encoding",
    "forwarded",
    "x-real-ip",
    "x-forwarded-",
];

/// A chunked body, as far as it goes.
pub(crate) fn chunked(mut body: &[u8]) -> Result<Decoded, ()> {
    let all = body.len();
    let mut decoded = Decoded {
        data: Vec::new(),
        tail: Vec::new(),
        used: all,
        done: false,
    };
    loop {
        let Some(line) = take_line(&mut body, chunk_line)? else {
            return Ok(decoded);
        };
        let size = line.split(|b| *b == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size).map_err(drop)?;
        let size = usize::from_str_radix(size, 16).map_err(drop)?;
        if size == 0 {
            break;
        }
        let there = size.min(body.len());
        decoded.data.extend_from_slice(&body[..there]);
        body = &body[there..];
        match (there == size, body) {
            (false, _) | (true, [] | [b'\r']) => return Ok(decoded),
            (true, [b'\r', b'\n', rest @ ..]) => body = rest,
            _ => return Err(()),
        }
    }
    let mut seen = 0;
    decoded.tail = b"0\r\n".to_vec();
    loop {
        let limit = |line: &[u8], ended: bool| {
            let visible = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
            line.iter().all(visible)
                && seen + line.len() <= 8192
                && (!ended || line.is_empty() || trailer_name(line).is_some())
        };
        let Some(line) = take_line(&mut body, limit)? else {
            decoded.tail.clear();
            return Ok(decoded);
        };
        seen += line.len();
        if line.is_empty() {
            decoded.tail.extend_from_slice(b"\r\n");
            decoded.used = all - body.len();
            decoded.done = true;
            return Ok(decoded);
        }
        let name = trailer_name(line).unwrap_or_default().replace('_', "-");
        let known = NOT_IN_TRAILERS.iter().any(|known| {
            if known.ends_with('-') {
                name.len() > known.len() && name.starts_with(known)
            } else {
                name == *known
            }
        });
        if !known {
            decoded.tail.extend_from_slice(line);
            decoded.tail.extend_from_slice(b"\r\n");
        }
    }
}

fn trailer_name(line: &[u8]) -> Option<String> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = token(&line[..colon]).then(|| line[..colon].to_ascii_lowercase())?;
    String::from_utf8(name).ok()
}

/// Whether a chunk's first line, or its beginning, is fine.
fn chunk_line(line: &[u8], ended: bool) -> bool {
    let at = line.iter().position(|b| *b == b';').unwrap_or(line.len());
    let (size, extension) = line.split_at(at);
    let extension = extension.get(1..).unwrap_or_default();
    let visible = |b: &u8| *b == b'\t' || !b.is_ascii_control();
    size.len() <= 15
        && size.iter().all(u8::is_ascii_hexdigit)
        && (!size.is_empty() || (!ended && line.is_empty()))
        && extension.len() <= 256
        && extension.iter().all(visible)
}

/// Takes a line that ends in CR LF; none: it is not complete, but fine so far.
fn take_line<'b>(
    body: &mut &'b [u8],
    fine: impl Fn(&[u8], bool) -> bool,
) -> Result<Option<&'b [u8]>, ()> {
    let Some(at) = body.iter().position(|b| *b == b'\r') else {
        return if fine(body, false) { Ok(None) } else { Err(()) };
    };
    let (line, rest) = body.split_at(at);
    match rest {
        // Where its CR is the last that has come, what it ends is looked at with the LF.
        [_] => (fine(line, false) && !bare_end(line, &fine))
            .then_some(None)
            .ok_or(()),
        [_, b'\n', rest @ ..] if fine(line, true) => {
            *body = rest;
            Ok(Some(line))
        }
        _ => Err(()),
    }
}

/// A chunk without a size is seen at its CR.
fn bare_end(line: &[u8], fine: &impl Fn(&[u8], bool) -> bool) -> bool {
    line.is_empty() && !fine(line, true)
}
