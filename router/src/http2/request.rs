//! A request's head, from a stream's fields to HTTP/1.1 bytes. The library has checked what HTTP/2
//! asks for (RFC 9113, 8); what would read differently as HTTP/1.1 is checked here, and the
//! pipeline's own parser reads the result as strictly as any client's bytes.

use h2::ext::Protocol;
use http::{
    Method, header,
    request::Parts,
    uri::{Authority, PathAndQuery},
};

use crate::{
    http1::{
        head::{Known, classify, parse_length},
        request::Framing,
    },
    http2::handshake::WEBSOCKET,
};

const WEBSOCKET_KEY: &str = "sec-websocket-key";

/// A request as HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) head: Vec<u8>,
    pub(crate) framing: Framing,
    /// It asks for a tunnel (RFC 8441): an upgrade in HTTP/1.1.
    pub(crate) tunnel: bool,
}

/// A request that HTTP/1.1 cannot say, or that says two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed request: {0}")]
pub(crate) struct Unfit(&'static str);

/// Renders a request's head; `ended`: there is no body.
pub(crate) fn render(parts: &Parts, ended: bool) -> Result<Rendered, Unfit> {
    let mut head = Vec::with_capacity(512);
    let authority = parts.uri.authority();
    let tunnel = parts
        .extensions
        .get::<Protocol>()
        .is_some_and(|protocol| protocol.as_str() == WEBSOCKET);
    let connect = parts.method == Method::CONNECT && !tunnel;
    let method = if tunnel {
        Method::GET.as_str()
    } else {
        parts.method.as_str()
    };
    head.extend_from_slice(method.as_bytes());
    head.push(b' ');
    match (connect, authority, parts.uri.path_and_query()) {
        (true, Some(authority), _) => head.extend_from_slice(authority.as_str().as_bytes()),
        (false, _, Some(path)) if !parts.uri.path().is_empty() => push_target(&mut head, path)?,
        _ => return Err(Unfit("a pseudo-header is missing")),
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        push(&mut head, b"host", authority.as_str().as_bytes())?;
    }
    let framing = push_fields(&mut head, parts, authority, ended || tunnel)?;
    if tunnel {
        push(&mut head, b"upgrade", WEBSOCKET.as_bytes())?;
        push(&mut head, WEBSOCKET_KEY.as_bytes(), new_key().as_bytes())?;
        head.extend_from_slice(b"connection: upgrade\r\n\r\n");
        return Ok(Rendered {
            head,
            framing: Framing::None,
            tunnel,
        });
    }
    match framing {
        Framing::Chunked => push(&mut head, b"transfer-encoding", b"chunked")?,
        Framing::Length(length) => {
            let mut digits = itoa::Buffer::new();
            push(
                &mut head,
                b"content-length",
                digits.format(length).as_bytes(),
            )?;
        }
        Framing::None | Framing::UntilClose => {}
    }
    // One stream, one request.
    head.extend_from_slice(b"connection: close\r\n\r\n");
    Ok(Rendered {
        head,
        framing,
        tunnel,
    })
}

/// What proves to an HTTP/1.1 service that a WebSocket was asked for: any 16 bytes, in base64. Its
/// answer is not checked: it is this router's connection, which nobody could have tricked.
fn new_key() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let random = rand::random::<u128>();
    let digit = |at: u32| DIGITS[(random >> (6 * at)) as usize & 63];
    // 21 whole digits, one of which only two bits count, and the padding.
    let mut key: Vec<u8> = (0..21).map(digit).collect();
    key.push(DIGITS[(random >> 126) as usize & 0b11_0000]);
    key.extend_from_slice(b"==");
    String::from_utf8(key).unwrap_or_default()
}

/// Origin form, or `*`; nothing that could be a second word or another host.
fn push_target(head: &mut Vec<u8>, target: &PathAndQuery) -> Result<(), Unfit> {
    let target = target.as_str().as_bytes();
    let form = target.first() == Some(&b'/') || target == b"*";
    if !form || !target.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        return Err(Unfit(":path"));
    }
    head.extend_from_slice(target);
    Ok(())
}

/// The fields, but for those that frame the message, and how it is framed.
fn push_fields(
    head: &mut Vec<u8>,
    parts: &Parts,
    authority: Option<&Authority>,
    ended: bool,
) -> Result<Framing, Unfit> {
    let mut length = None;
    for (name, value) in &parts.headers {
        let value = value.as_bytes();
        match classify(name.as_str().as_bytes()) {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => return Err(Unfit("a field of the connection")),
            Known::Http2Settings => {}
            Known::ContentLength => {
                let value = parse_length(value).ok_or(Unfit("content-length"))?;
                if length.replace(value).is_some_and(|other| other != value) {
                    return Err(Unfit("conflicting content-length"));
                }
            }
            // If they differ both go on, and are refused for it.
            Known::Host
                if authority.is_some_and(|authority| {
                    authority.as_str().as_bytes().eq_ignore_ascii_case(value)
                }) => {}
            _ if *name == header::COOKIE || name.as_str() == WEBSOCKET_KEY => {}
            _ => push(head, name.as_str().as_bytes(), value)?,
        }
    }
    push_cookies(head, parts)?;
    match length {
        Some(length) if ended && length > 0 => Err(Unfit("content-length without content")),
        // Asked for by some services when there is no content.
        Some(0) => push(head, b"content-length", b"0").map(|()| Framing::None),
        Some(length) => Ok(Framing::Length(length)),
        None if ended => Ok(Framing::None),
        None => Ok(Framing::Chunked),
    }
}

/// HTTP/2 lets a cookie field be sent in crumbs; elsewhere they are one (RFC 9113, 8.2.3).
fn push_cookies(head: &mut Vec<u8>, parts: &Parts) -> Result<(), Unfit> {
    let mut crumbs = parts.headers.get_all(header::COOKIE).iter();
    let Some(first) = crumbs.next() else {
        return Ok(());
    };
    let mut cookie = first.as_bytes().to_vec();
    for crumb in crumbs {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(crumb.as_bytes());
    }
    push(head, b"cookie", &cookie)
}

/// Appends a field's line. What the library takes for a name or a value holds no line ends; that it
/// does not is what everything rests on, so it is looked at again.
fn push(head: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Unfit> {
    if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(Unfit("a line end in a value"));
    }
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests;
