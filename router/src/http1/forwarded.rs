//! What proxies say about the client before them, in `X-Forwarded-…` or in `Forwarded` (RFC 7239).
//! Only a trusted proxy is asked. Behind the router there is one form: `X-Forwarded-…`.

use std::net::{IpAddr, Ipv6Addr};

use cardea_registry_api::network::Networks;

use crate::{
    client::AddressText,
    http1::{
        head::{Known, Span},
        request::{RequestHead, host_name},
    },
};

/// What is believed about a request's way to the router; nothing by default.
#[derive(Debug, Default)]
pub(crate) struct Believed {
    /// Who sent it, if somebody else than the connection's other end.
    pub(crate) client: Option<Sender>,
    /// The scheme that the client used.
    pub(crate) scheme: Option<&'static str>,
    /// The authority that the client asked for.
    pub(crate) host: Option<Span>,
    /// It was said in `Forwarded` alone.
    from_forwarded: bool,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) ip: IpAddr,
    pub(crate) text: AddressText,
}

impl Believed {
    /// Reads what a trusted proxy says.
    pub(crate) fn read(head: &RequestHead, raw: &[u8], trusted: &Networks) -> Self {
        let has = |known| head.fields.iter().any(|f| f.known == known);
        if !has(Known::XForwardedFor) && has(Known::Forwarded) {
            return Self::of_forwarded(head, raw, trusted);
        }
        let mut chain = Chain::new(trusted);
        let mut scheme = None;
        let mut host = None;
        let mut hosts = 0;
        for field in &head.fields {
            let value = field.value.of(raw);
            match field.known {
                Known::XForwardedFor => {
                    let hops = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                    for hop in hops.filter(|hop| !hop.is_empty()) {
                        chain.add(node(hop));
                    }
                }
                Known::XForwardedProto => {
                    scheme = value.rsplit(|b| *b == b',').next().and_then(read_scheme);
                }
                Known::XForwardedHost => {
                    hosts += 1;
                    host = Some(field.value).filter(|_| sane_host(value));
                }
                _ => {}
            }
        }
        Self {
            client: chain.client.map(Sender::of),
            scheme,
            host: host.filter(|_| hosts == 1),
            from_forwarded: false,
        }
    }

    /// What only `Forwarded` says: the scheme and host are those that the proxy next to the client
    /// has seen. A malformed field says nothing.
    fn of_forwarded(head: &RequestHead, raw: &[u8], trusted: &Networks) -> Self {
        let mut chain = Chain::new(trusted);
        let (mut scheme, mut host) = (None, None);
        let well_formed = each_element(head, raw, |element| {
            if chain.add(element.node.and_then(node)) {
                scheme = element.proto.and_then(read_scheme);
                let given = element.host.filter(|host| sane_host(host));
                host = given.map(|host| Span::within(raw, host));
            }
        });
        if well_formed.is_none() {
            return Self::default();
        }
        Self {
            client: chain.client.map(Sender::of),
            scheme,
            host,
            from_forwarded: true,
        }
    }

    /// Appends the chain of clients and proxies so far, with `, ` behind each.
    pub(crate) fn append_chain(&self, out: &mut Vec<u8>, head: &RequestHead, raw: &[u8]) {
        if self.from_forwarded {
            let written = each_element(head, raw, |element| {
                match element.node.and_then(node) {
                    Some(ip) => out.extend_from_slice(AddressText::of(ip).as_bytes()),
                    None => out.extend_from_slice(b"unknown"),
                }
                out.extend_from_slice(b", ");
            });
            debug_assert!(written.is_some(), "it has been read before");
            return;
        }
        for field in &head.fields {
            if field.known == Known::XForwardedFor && field.value.len > 0 {
                out.extend_from_slice(field.value.of(raw));
                out.extend_from_slice(b", ");
            }
        }
    }
}

impl Sender {
    fn of(ip: IpAddr) -> Self {
        Self {
            ip,
            text: AddressText::of(ip),
        }
    }
}

/// The hops so far, from the far end to the near one. The client is the last that is no proxy of
/// ours; when all are, the first; nothing before a hop that cannot be read counts.
struct Chain<'t> {
    trusted: &'t Networks,
    client: Option<IpAddr>,
}

impl<'t> Chain<'t> {
    fn new(trusted: &'t Networks) -> Self {
        Self {
            trusted,
            client: None,
        }
    }

    /// Adds a hop; whether what it brings along is about the client, as far as is known.
    fn add(&mut self, hop: Option<IpAddr>) -> bool {
        match hop {
            Some(ip) if self.client.is_some() && self.trusted.contains(ip) => false,
            hop => {
                self.client = hop;
                true
            }
        }
    }
}

/// One proxy's words.
#[derive(Default)]
struct Element<'a> {
    node: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
}

/// Hands out the elements of every `Forwarded` field; none: they are malformed.
fn each_element<'a>(
    head: &RequestHead,
    raw: &'a [u8],
    mut each: impl FnMut(Element<'a>),
) -> Option<()> {
    for field in head.fields.iter().filter(|f| f.known == Known::Forwarded) {
        let mut rest = field.value.of(raw);
        loop {
            let mut element = Element::default();
            let mut some = false;
            // An element ends at a comma; a quoted one is no end.
            loop {
                rest = rest.trim_ascii_start();
                if !matches!(rest.first(), None | Some(b',' | b';')) {
                    rest = read_pair(rest, &mut element)?.trim_ascii_start();
                    some = true;
                }
                match rest.split_first() {
                    Some((b';', after)) => rest = after,
                    Some((b',', _)) | None => break,
                    Some(_) => return None,
                }
            }
            if some {
                each(element);
            }
            match rest.split_first() {
                Some((_, after)) => rest = after,
                None => break,
            }
        }
    }
    Some(())
}

/// Reads `name=value` and gives what follows it. Escapes in quotes mean nothing in an address, so
/// whatever has them is malformed.
fn read_pair<'a>(text: &'a [u8], element: &mut Element<'a>) -> Option<&'a [u8]> {
    let equals = memchr::memchr(b'=', text)?;
    let (name, value) = (&text[..equals], &text[equals + 1..]);
    let (value, rest) = if let Some((b'"', quoted)) = value.split_first() {
        let end = memchr::memchr2(b'"', b'\\', quoted).filter(|at| quoted[*at] == b'"')?;
        (&quoted[..end], &quoted[end + 1..])
    } else {
        let end = value.iter().position(|b| !is_token(*b));
        value.split_at(end.unwrap_or(value.len()))
    };
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) || value.is_empty() {
        return None;
    }
    let place = if name.eq_ignore_ascii_case(b"for") {
        &mut element.node
    } else if name.eq_ignore_ascii_case(b"proto") {
        &mut element.proto
    } else if name.eq_ignore_ascii_case(b"host") {
        &mut element.host
    } else {
        return Some(rest);
    };
    place.replace(value).is_none().then_some(rest)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The address of a hop, with or without a port; none: it is hidden, or no address.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        IpAddr::V6(address.parse::<Ipv6Addr>().ok().filter(|_| port_fits)?)
    } else {
        match text.split_once(':') {
            Some((v4, port)) if is_port(port) && !port.contains(':') => {
                IpAddr::V4(v4.parse().ok()?)
            }
            _ => text.parse().ok()?,
        }
    };
    Some(address.to_canonical())
}

/// RFC 7239 lets ports be hidden too: `_` and a name.
fn is_port(text: &str) -> bool {
    let hidden = text.strip_prefix('_').is_some_and(|name| !name.is_empty());
    hidden || ((1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()))
}

fn read_scheme(text: &[u8]) -> Option<&'static str> {
    ["https", "http", "wss", "ws"]
        .into_iter()
        .find(|scheme| text.trim_ascii().eq_ignore_ascii_case(scheme.as_bytes()))
}

fn sane_host(text: &[u8]) -> bool {
    host_name(text).is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
