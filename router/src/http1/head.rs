//! What request heads and response heads have in common: positions of fields within the buffer, and the
//! names that mean something to a router.

/// The most header fields in a message.
pub(crate) const MAX_FIELDS: usize = 100;
/// The most in one that the router has written itself: with what it and its plugins add.
pub(crate) const OWN_FIELDS: usize = 256;

/// A part of the head, by its place in the buffer's raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// The first byte.
    pub(crate) at: u32,
    /// How many.
    pub(crate) len: u32,
}

impl Span {
    /// The bytes themselves; empty when the span does not lie within `raw`.
    pub(crate) fn of(self, raw: &[u8]) -> &[u8] {
        raw.get(self.at as usize..(self.at + self.len) as usize)
            .unwrap_or_default()
    }

    /// The span of `part` within `raw`, of which it must be a slice.
    pub(crate) fn within(raw: &[u8], part: &[u8]) -> Self {
        let at = (part.as_ptr() as usize).wrapping_sub(raw.as_ptr() as usize);
        Self {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            len: u32::try_from(part.len()).unwrap_or(0),
        }
    }
}

/// A header field in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// Its name, as written.
    pub(crate) name: Span,
    /// Its value, without the spaces around it.
    pub(crate) value: Span,
    /// What it means.
    pub(crate) known: Known,
}

/// Field names that mean something to a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it is copied.
    Other,
    /// Listed in `Connection`: it is dropped.
    Listed,
    /// Would be taken for one of the others by a service that reads `_` as `-`: it is dropped.
    Shadow,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    /// A router's word that a request has left its cluster.
    Hop,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Te,
    Traceparent,
    Tracestate,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    /// Another one whose name begins so.
    XForwardedOther,
    XForwardedProto,
    XRealIp,
    XRequestId,
}

/// What names begin with in which proxies tell about clients.
const X_FORWARDED: &[u8] = b"x-forwarded-";

/// What `name`, a token, means. Length and first letter leave one candidate at most.
pub(crate) fn classify(name: &[u8]) -> Known {
    let Some(first) = name.first() else {
        return Known::Other;
    };
    let (wanted, known) = match (name.len(), first.to_ascii_lowercase()) {
        (2, b't') => ("te", Known::Te),
        (4, b'h') => ("host", Known::Host),
        (4, b'd') => ("date", Known::Date),
        (6, b'e') => ("expect", Known::Expect),
        (7, b'u') => ("upgrade", Known::Upgrade),
        (9, b'f') => ("forwarded", Known::Forwarded),
        (9, b'x') => ("x-real-ip", Known::XRealIp),
        (10, b'c') => ("connection", Known::Connection),
        (10, b'k') => ("keep-alive", Known::KeepAlive),
        (10, b't') => ("tracestate", Known::Tracestate),
        (11, b't') => ("traceparent", Known::Traceparent),
        (12, b'x') if name[2].eq_ignore_ascii_case(&b'c') => ("x-cardea-hop", Known::Hop),
        (12, b'x') => ("x-request-id", Known::XRequestId),
        (14, b'c') => ("content-length", Known::ContentLength),
        (14, b'h') => ("http2-settings", Known::Http2Settings),
        (15, b'x') => ("x-forwarded-for", Known::XForwardedFor),
        (16, b'x') => ("x-forwarded-host", Known::XForwardedHost),
        (16, b'p') => ("proxy-connection", Known::ProxyConnection),
        (17, b't') => ("transfer-encoding", Known::TransferEncoding),
        (17, b'x') => ("x-forwarded-proto", Known::XForwardedProto),
        (_, b'x') => ("", Known::Other),
        _ => return Known::Other,
    };
    if is(name, wanted.as_bytes()) {
        return known;
    }
    let forwarded =
        name.len() > X_FORWARDED.len() && alike(&name[..X_FORWARDED.len()], X_FORWARDED);
    if !forwarded && (wanted.is_empty() || !alike(name, wanted.as_bytes())) {
        Known::Other
    } else if name.contains(&b'_') {
        Known::Shadow
    } else {
        Known::XForwardedOther
    }
}

/// Whether a name is `wanted`, which is of lower-case letters, digits and `-`: no character that may
/// stand in a name becomes one of these by the bit that makes letters small, but a letter.
fn is(name: &[u8], wanted: &[u8]) -> bool {
    let pairs = name.iter().zip(wanted);
    name.len() == wanted.len() && pairs.fold(0, |other, (a, b)| other | ((a | 0x20) ^ b)) == 0
}

/// Whether a name is `wanted` to those who read `_` as `-`.
pub(crate) fn alike(name: &[u8], wanted: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-');
    name.iter().zip(wanted).all(same)
}

/// What `Connection` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Connection {
    /// `close`.
    pub(crate) close: bool,
    /// `keep-alive`.
    pub(crate) keep_alive: bool,
    /// `upgrade`.
    pub(crate) upgrade: bool,
}

/// Reads every `Connection` field, and marks the fields that they list.
pub(crate) fn read_connection(raw: &[u8], fields: &mut [Field]) -> Connection {
    let mut connection = Connection::default();
    for at in 0..fields.len() {
        if fields[at].known != Known::Connection {
            continue;
        }
        let value = fields[at].value;
        for token in tokens(value.of(raw)) {
            if token.eq_ignore_ascii_case(b"keep-alive") {
                connection.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"close") {
                connection.close = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                connection.upgrade = true;
            } else if !token.is_empty() {
                // Names with a meaning of their own cannot be listed away.
                fields
                    .iter_mut()
                    .filter(|f| f.known == Known::Other)
                    .filter(|f| f.name.of(raw).eq_ignore_ascii_case(token))
                    .for_each(|f| f.known = Known::Listed);
            }
        }
    }
    connection
}

/// The elements of a list.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// A `Content-Length`: digits, and nothing but digits.
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |n: u64, digit| n * 10 + u64::from(digit - b'0')),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, known) in [
            ("HOST", Known::Host),
            ("transfer-Encoding", Known::TransferEncoding),
            ("Content-Length", Known::ContentLength),
            ("HTTP2-Settings", Known::Http2Settings),
            ("X-Forwarded-Proto", Known::XForwardedProto),
            ("x-forwarded-host", Known::XForwardedHost),
            ("Proxy-Connection", Known::ProxyConnection),
            ("Forwarded", Known::Forwarded),
            ("X-Real-IP", Known::XRealIp),
            ("x-forwarded-Port", Known::XForwardedOther),
            ("X_Forwarded_For", Known::Shadow),
            ("x-forwarded_for", Known::Shadow),
            ("X_Forwarded_Anything", Known::Shadow),
            ("X_REAL_IP", Known::Shadow),
            ("x_request-id", Known::Shadow),
            ("Content_Length", Known::Shadow),
            ("Transfer_Encoding", Known::Shadow),
            ("X-Forwarded-", Known::Other),
            ("x_other", Known::Other),
            ("X-Other", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(classify(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn only_letters_are_alike_in_both_cases() {
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        for other in (0..=255).filter(token) {
            for wanted in
                (0..=255u8).filter(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            {
                let same = other.eq_ignore_ascii_case(&wanted);
                assert_eq!(is(&[other], &[wanted]), same, "{other} {wanted}");
            }
        }
        assert!(!is(b"te", b"t"));
    }

    #[test]
    fn lengths() {
        assert_eq!(parse_length(b"0"), Some(0));
        assert_eq!(
            parse_length(b"9999999999999999999"),
            Some(9_999_999_999_999_999_999)
        );
        for bad in ["", "+1", "-1", "1 ", "0x1", "1,1", "10000000000000000000"] {
            assert_eq!(parse_length(bad.as_bytes()), None, "{bad}");
        }
    }
}
