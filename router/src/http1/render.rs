//! Heads as they go out: whole lines copied in runs from the buffer they were read to, without what
//! concerns only one connection, with what the router adds.

use std::{cell::RefCell, fmt::Write as _, time::SystemTime};

use crate::{
    http1::{
        forwarded::Believed,
        head::{Field, Known, Span, parse_length},
        request::{Framing, RequestHead},
        response::ResponseHead,
    },
    switches::{Feature, on},
};

/// What a router adds to a request, and what it lets through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Additions<'a> {
    /// The address of the connection's other end as text.
    pub(crate) client: &'a [u8],
    /// That end is a trusted proxy, and this is believed of what it says.
    pub(crate) believed: Option<&'a Believed>,
    /// What the connection speaks: `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The request's id.
    pub(crate) request_id: &'a [u8],
    /// Clients of the connection are asked for certificates: what is known of this one's; empty: it
    /// has shown none. None: they are not asked.
    pub(crate) client_cert: Option<&'a str>,
    /// Names with `_` stay behind.
    pub(crate) drop_underscores: bool,
    /// The path in place of the request's; empty: the request's own.
    pub(crate) path: &'a [u8],
    /// The authority in place of the request's; empty: the request's own.
    pub(crate) host: &'a [u8],
    /// Names of fields that stay behind.
    pub(crate) gone: [&'a [Box<[u8]>]; 2],
    /// Lines that join the others.
    pub(crate) lines: &'a [u8],
    /// Nobody waits for leave to send the body.
    pub(crate) at_once: bool,
}

/// What tells a service about its client's certificate, in the form that Envoy made common.
const CLIENT_CERT: &[u8] = b"X-Forwarded-Client-Cert";

/// Appends the request's head as it goes upstream.
pub(crate) fn request(out: &mut Vec<u8>, raw: &[u8], head: &RequestHead, add: Additions<'_>) {
    out.extend_from_slice(head.method_name.of(raw));
    out.push(b' ');
    append_target(out, raw, head, add.path);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !add.host.is_empty() {
        line(out, b"Host", add.host);
    } else if !head.fields.iter().any(|f| f.known == Known::Host) {
        line(out, b"Host", head.host.of(raw));
    }
    let mut anew = Anew::default();
    copy_fields(
        out,
        raw,
        &head.fields,
        head.fields_end,
        |field| match field.known {
            Known::Other => {
                let name = field.name.of(raw);
                (!add.drop_underscores || !name.contains(&b'_'))
                    && !add.gone.iter().any(|gone| is_gone(name, gone))
            }
            Known::Host => add.host.is_empty() && anew.keeps(raw, field),
            Known::ContentLength => anew.keeps(raw, field),
            Known::Date => true,
            Known::Traceparent | Known::Tracestate => head.traceparent.is_some(),
            Known::XForwardedOther => {
                let own = add.client_cert.is_some()
                    && field.name.of(raw).eq_ignore_ascii_case(CLIENT_CERT);
                add.believed.is_some() && !own
            }
            // HTTP/1.0 knows nothing of it (RFC 9110, 10.1.1).
            Known::Expect => head.http11 && !add.at_once,
            // Its body, if any, is framed as it was.
            Known::TransferEncoding => head.framing == Framing::Chunked && anew.keeps(raw, field),
            _ => false,
        },
    );
    anew.append(out, raw);
    if head.te_trailers {
        out.extend_from_slice(b"TE: trailers\r\nConnection: te\r\n");
    }
    if head.upgrade {
        let protocol = head.fields.iter().find(|f| f.known == Known::Upgrade);
        out.extend_from_slice(b"Connection: upgrade\r\n");
        line(
            out,
            b"Upgrade",
            protocol.map(|f| f.value.of(raw)).unwrap_or_default(),
        );
    }
    if on(Feature::Forwarded) {
        forwarded(out, raw, head, add);
    }
    if on(Feature::RequestId) {
        line(out, b"X-Request-Id", add.request_id);
    }
    out.extend_from_slice(add.lines);
    out.extend_from_slice(b"\r\n");
}

/// Appends the target: the request's own, or with another path.
fn append_target(out: &mut Vec<u8>, raw: &[u8], head: &RequestHead, path: &[u8]) {
    if !path.is_empty() {
        out.extend_from_slice(path);
        let query = head.query(raw);
        if !query.is_empty() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        return;
    }
    let target = head.path_query.of(raw);
    if target
        .first()
        .is_none_or(|first| !matches!(first, b'/' | b'*'))
    {
        out.push(b'/');
    }
    out.extend_from_slice(target);
}

fn is_gone(name: &[u8], gone: &[Box<[u8]>]) -> bool {
    gone.iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// Appends who the client is and what it asked for: as it is seen here, or as a trusted proxy says.
fn forwarded(out: &mut Vec<u8>, raw: &[u8], head: &RequestHead, add: Additions<'_>) {
    let said = add.believed;
    out.extend_from_slice(b"X-Forwarded-For: ");
    if let Some(said) = said {
        said.append_chain(out, head, raw);
    }
    out.extend_from_slice(add.client);
    let client = said.and_then(|said| said.client.as_ref());
    out.extend_from_slice(b"\r\nX-Real-IP: ");
    out.extend_from_slice(client.map_or(add.client, |client| client.text.as_bytes()));
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    let scheme = said.and_then(|said| said.scheme).unwrap_or(add.scheme);
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"\r\n");
    let host = said.and_then(|said| said.host).unwrap_or(head.host);
    if host.len > 0 {
        line(out, b"X-Forwarded-Host", host.of(raw));
    }
    if let Some(cert) = add.client_cert.filter(|cert| !cert.is_empty()) {
        line(out, CLIENT_CERT, cert.as_bytes());
    }
}

/// How a response goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// In chunks, whatever the peer did.
    pub(crate) chunks: bool,
    /// The connection is closed behind it.
    pub(crate) close: bool,
    /// The client must be told that the connection is kept (HTTP/1.0).
    pub(crate) say_keep_alive: bool,
}

/// What plugins change about an answer's head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplyEdits<'a> {
    /// Names of fields that stay behind.
    pub(crate) gone: &'a [Box<[u8]>],
    /// Lines that join the others.
    pub(crate) lines: &'a [u8],
}

/// Appends a response's head as it goes to the client.
pub(crate) fn response(
    out: &mut Vec<u8>,
    raw: &[u8],
    head: &ResponseHead,
    delivery: Delivery,
    request_id: &[u8],
    edits: ReplyEdits<'_>,
) {
    status_line(out, raw, head);
    // A 204 has no length, by definition (RFC 9110, 8.6).
    let lengths = head.status != 204;
    let mut length_seen = false;
    let mut anew = Anew::default();
    copy_fields(
        out,
        raw,
        &head.fields,
        head.fields_end,
        |field| match field.known {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Upgrade
            | Known::Listed
            | Known::TransferEncoding
            | Known::XRequestId => false,
            Known::ContentLength => {
                lengths && !std::mem::replace(&mut length_seen, true) && anew.keeps(raw, field)
            }
            _ => edits.gone.is_empty() || !is_gone(field.name.of(raw), edits.gone),
        },
    );
    anew.append(out, raw);
    if delivery.chunks {
        out.extend_from_slice(CHUNKED);
    }
    if !head.has_date {
        // RFC 9110, 6.6.1.
        date(out);
    }
    connection(out, delivery);
    if on(Feature::RequestId) {
        line(out, b"X-Request-Id", request_id);
    }
    out.extend_from_slice(edits.lines);
    out.extend_from_slice(b"\r\n");
}

/// Appends the fields of a response that are kept for later, without those that frame it, those named
/// in `gone` and its age.
pub(crate) fn kept(out: &mut Vec<u8>, raw: &[u8], head: &ResponseHead, gone: &[Box<[u8]>]) {
    copy_fields(
        out,
        raw,
        &head.fields,
        head.fields_end,
        |field| match field.known {
            Known::Date => true,
            Known::Other => {
                let name = field.name.of(raw);
                !name.eq_ignore_ascii_case(b"age")
                    && !name.eq_ignore_ascii_case(b"trailer")
                    && !is_gone(name, gone)
            }
            _ => false,
        },
    );
    if !head.has_date {
        date(out);
    }
}

/// Appends a `1xx` response's head. A `101` keeps what names its protocol.
pub(crate) fn interim(out: &mut Vec<u8>, raw: &[u8], head: &ResponseHead, request_id: &[u8]) {
    status_line(out, raw, head);
    copy_fields(out, raw, &head.fields, head.fields_end, |field| {
        matches!(field.known, Known::Other | Known::Date)
    });
    if head.status == 101 {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        line(out, b"Upgrade", head.upgrade.unwrap_or_default().of(raw));
        line(out, b"X-Request-Id", request_id);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the `Connection` field, if one is needed.
pub(crate) fn connection(out: &mut Vec<u8>, delivery: Delivery) {
    if delivery.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if delivery.say_keep_alive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

/// Appends the `Date` field; its text changes once a second.
pub(crate) fn date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second || text.is_empty() {
            *last = second;
            text.clear();
            // Writing to a text cannot fail.
            let _ = write!(text, "{}", httpdate::HttpDate::from(now));
        }
        line(out, b"Date", text.as_bytes());
    });
}

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

/// The fields by which a message is framed and routed go out as everybody reads them. `Host:\th`,
/// `Content-Length: 010` and `Transfer-Encoding: Chunked` are right, and still there are services
/// that make something else of them; so they are written anew.
#[derive(Debug, Default)]
struct Anew {
    host: Option<Span>,
    length: Option<Span>,
    chunked: bool,
}

impl Anew {
    /// Whether the field may be copied; it is noted if not.
    fn keeps(&mut self, raw: &[u8], field: &Field) -> bool {
        let value = field.value.of(raw);
        let usual = match field.known {
            Known::ContentLength => value == b"0" || value.first() != Some(&b'0'),
            Known::TransferEncoding => value == b"chunked",
            _ => true,
        };
        let (name_end, value_end) = (end(field.name), end(field.value));
        let tight = raw.get(name_end..field.value.at as usize) == Some(b": ")
            && raw
                .get(value_end..)
                .is_some_and(|rest| rest.starts_with(b"\r\n"));
        if usual && tight {
            return true;
        }
        match field.known {
            Known::Host => self.host = Some(field.value),
            Known::ContentLength => self.length = Some(field.value),
            _ => self.chunked = true,
        }
        false
    }

    fn append(&self, out: &mut Vec<u8>, raw: &[u8]) {
        if let Some(host) = self.host {
            line(out, b"Host", host.of(raw));
        }
        if let Some(length) = self.length {
            let length = parse_length(length.of(raw)).unwrap_or_default();
            let mut digits = itoa::Buffer::new();
            line(out, b"Content-Length", digits.format(length).as_bytes());
        }
        if self.chunked {
            out.extend_from_slice(CHUNKED);
        }
    }
}

fn end(span: Span) -> usize {
    (span.at + span.len) as usize
}

/// Appends one field.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, raw: &[u8], head: &ResponseHead) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.of(raw));
    out.extend_from_slice(b"\r\n");
}

/// Copies the lines that `keep` wants; neighbours go together.
fn copy_fields(
    out: &mut Vec<u8>,
    raw: &[u8],
    fields: &[Field],
    end: u32,
    mut keep: impl FnMut(&Field) -> bool,
) {
    let mut run: Option<u32> = None;
    for field in fields {
        if keep(field) {
            run.get_or_insert(field.name.at);
        } else if let Some(at) = run.take() {
            let run = Span {
                at,
                len: field.name.at - at,
            };
            out.extend_from_slice(run.of(raw));
        }
    }
    if let Some(at) = run {
        let run = Span {
            at,
            len: end.saturating_sub(at),
        };
        out.extend_from_slice(run.of(raw));
    }
}

#[cfg(test)]
mod tests;
