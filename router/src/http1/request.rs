//! Request heads: parsed in place, and refused when they could be read in two ways.

use crate::{
    http1::{
        head::{
            Connection, Field, Known, MAX_FIELDS, OWN_FIELDS, Span, parse_length, read_connection,
            tokens,
        },
        lines::{Fault, Lines, NAME, Stop, are_all},
    },
    refusal::{self, Refusal},
};

/// The methods that the router tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    /// What `name` is; names are case-sensitive.
    pub(crate) fn read(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether doing it twice is as good as once (RFC 9110, 9.2.2).
    pub(crate) fn idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch | Self::Other)
    }

    /// For labels: a closed set.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Other => "OTHER",
        }
    }
}

/// Where a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Framing {
    /// There is none.
    #[default]
    None,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// When the connection ends; responses only.
    UntilClose,
}

/// A request's head. Positions count from the beginning of the buffer's raw bytes.
#[derive(Debug, Default)]
pub(crate) struct RequestHead {
    /// Bytes of the head, empty lines before it included.
    pub(crate) len: usize,
    pub(crate) method: Method,
    pub(crate) method_name: Span,
    /// The target as written.
    pub(crate) target: Span,
    /// Path and query: the origin form of the target; empty stands for `/` (or `/` and a query).
    pub(crate) path_query: Span,
    /// The path alone.
    pub(crate) path: Span,
    /// The authority as it goes upstream.
    pub(crate) host: Span,
    /// The authority without its port.
    pub(crate) host_name: Span,
    /// HTTP/1.1 rather than HTTP/1.0.
    pub(crate) http11: bool,
    pub(crate) connection: Connection,
    pub(crate) framing: Framing,
    /// The client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// The client asks for another protocol on this connection.
    pub(crate) upgrade: bool,
    /// `TE` names `trailers`.
    pub(crate) te_trailers: bool,
    /// There is an `X-Request-Id`, and it is fit to be kept.
    pub(crate) request_id: Option<Span>,
    /// There is one `traceparent`.
    pub(crate) traceparent: Option<Span>,
    /// Every field, in order.
    pub(crate) fields: Vec<Field>,
    /// Where the fields end: the empty line.
    pub(crate) fields_end: u32,
}

const MALFORMED_TARGET: Refusal = Refusal::bad("the request target is malformed");

/// The longest request id that is kept.
const MAX_REQUEST_ID: usize = 128;

impl RequestHead {
    /// Forgets the request: nothing is known about the next one yet.
    pub(crate) fn forget(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            method: Method::Other,
            fields,
            ..Self::default()
        };
    }

    /// Forgets what names the request and its trace: a stranger said it.
    pub(crate) fn forget_ids(&mut self) {
        self.request_id = None;
        self.traceparent = None;
    }

    /// Whether the client wants to keep the connection.
    pub(crate) fn keeps_alive(&self) -> bool {
        !self.connection.close && (self.http11 || self.connection.keep_alive)
    }

    /// As [`Self::parse_telling`], to nobody.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn parse(&mut self, raw: &[u8], at: usize, end: usize) -> Result<bool, Refusal> {
        self.parse_telling(raw, at, end, |_| {})
    }

    /// Reads a head that begins at `raw[at]` and ends before `raw[end]`; `false`: it is not complete
    /// yet. The value of `Host`, empty if there is none, is told before the others are looked at.
    pub(crate) fn parse_telling(
        &mut self,
        raw: &[u8],
        at: usize,
        end: usize,
        host: impl FnOnce(&[u8]),
    ) -> Result<bool, Refusal> {
        self.parse_up_to(MAX_FIELDS, raw, at, end, host)
    }

    /// The same of a head that the router has written, at the beginning of `raw`.
    pub(crate) fn parse_own(&mut self, raw: &[u8]) -> Result<bool, Refusal> {
        self.parse_up_to(OWN_FIELDS, raw, 0, raw.len(), |_| {})
    }

    fn parse_up_to(
        &mut self,
        most: usize,
        raw: &[u8],
        at: usize,
        end: usize,
        host: impl FnOnce(&[u8]),
    ) -> Result<bool, Refusal> {
        let mut lines = Lines::new(raw, at, end);
        match self.read_lines(&mut lines, most) {
            Ok(()) => {}
            Err(Stop::Incomplete) => return Ok(false),
            Err(Stop::Fault(fault)) => {
                return Err(refuse(fault, raw.get(at..end).unwrap_or_default()));
            }
        }
        let mut fields = self.fields.iter();
        host(match fields.find(|field| field.known == Known::Host) {
            Some(field) => field.value.of(raw),
            None => b"",
        });
        self.len = lines.at() - at;
        self.fields_end = u32::try_from(lines.at() - 2).unwrap_or(0);
        let method = self.method_name.of(raw);
        self.method = Method::read(method);
        if matches!(method, b"TRACE" | b"CONNECT") {
            return Err(refusal::METHOD_NOT_SERVED);
        }
        self.connection = read_connection(raw, &mut self.fields);
        self.read_fields(raw)?;
        self.read_target(raw)?;
        Ok(true)
    }

    fn read_lines(&mut self, lines: &mut Lines<'_>, most: usize) -> Result<(), Stop> {
        let line = lines.request_line()?;
        self.method_name = line.method;
        self.target = line.target;
        self.http11 = line.http11;
        lines.fields(most, &mut self.fields)
    }

    fn read_fields(&mut self, raw: &[u8]) -> Result<(), Refusal> {
        self.framing = Framing::None;
        self.expects_continue = false;
        self.upgrade = false;
        self.te_trailers = false;
        self.request_id = None;
        self.traceparent = None;
        let (mut host, mut length, mut chunked) = (None, None, false);
        let (mut upgrade, mut upgrades) = (None, 0);
        for field in &self.fields {
            let value = field.value.of(raw);
            match field.known {
                Known::Host if host.is_some() => {
                    return Err(Refusal::bad("more than one Host"));
                }
                Known::Host => host = Some(field.value),
                Known::ContentLength => {
                    let value = parse_length(value)
                        .ok_or(Refusal::bad("Content-Length is no whole number"))?;
                    if length.replace(value).is_some() {
                        return Err(Refusal::bad("more than one Content-Length"));
                    }
                }
                Known::TransferEncoding => {
                    if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::bad("Transfer-Encoding can only be `chunked`"));
                    }
                    chunked = true;
                }
                Known::Expect => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(refusal::UNKNOWN_EXPECTATION);
                    }
                    self.expects_continue = self.http11;
                }
                Known::Upgrade => {
                    upgrades += 1;
                    upgrade = Some(value);
                }
                Known::Te => {
                    self.te_trailers |= tokens(value).any(|t| t.eq_ignore_ascii_case(b"trailers"));
                }
                Known::XRequestId => {
                    self.request_id =
                        Some(field.value).filter(|_| self.request_id.is_none() && sane_id(value));
                }
                Known::Traceparent => self.traceparent = Some(field.value),
                _ => {}
            }
        }
        self.framing = match (length, chunked) {
            (Some(_), true) => {
                return Err(Refusal::bad("both Content-Length and Transfer-Encoding"));
            }
            (None, true) if !self.http11 => {
                return Err(Refusal::bad("Transfer-Encoding needs HTTP/1.1"));
            }
            (None, true) => Framing::Chunked,
            (None | Some(0), false) => Framing::None,
            (Some(length), false) => Framing::Length(length),
        };
        // Other versions of HTTP are declined, as RFC 9110, 7.8 allows: the requests inside would
        // pass by the routes. So is what is spread over several fields.
        let wanted = upgrades == 1 && upgrade.is_some_and(|u| tokens(u).all(is_other_protocol));
        self.upgrade = wanted && self.connection.upgrade && self.http11;
        if self.upgrade && self.framing != Framing::None {
            return Err(Refusal::bad("Upgrade with a body"));
        }
        match host {
            Some(host) => self.host = host,
            None if self.http11 => return Err(Refusal::bad("no Host")),
            None => self.host = Span::default(),
        }
        let given = host.is_some();
        let name = host_name(self.host.of(raw)).filter(|name| !given || !name.is_empty());
        let name = name.ok_or(Refusal::bad("Host is malformed"))?;
        self.host_name = Span::within(raw, name);
        if !given {
            self.host_name = Span::default();
        }
        Ok(())
    }

    fn read_target(&mut self, raw: &[u8]) -> Result<(), Refusal> {
        let malformed = MALFORMED_TARGET;
        let target = self.target.of(raw);
        if target == b"*" {
            if self.method != Method::Options {
                return Err(malformed);
            }
            self.path_query = self.target;
            self.path = self.target;
            return Ok(());
        }
        let mut origin = target;
        if target.first() != Some(&b'/') {
            let scheme = [&b"http://"[..], b"https://"]
                .into_iter()
                .find(|s| target.len() > s.len() && target[..s.len()].eq_ignore_ascii_case(s))
                .ok_or(malformed)?;
            let rest = &target[scheme.len()..];
            let end = rest
                .iter()
                .position(|b| matches!(b, b'/' | b'?'))
                .unwrap_or(rest.len());
            let authority = &rest[..end];
            let name = host_name(authority)
                .filter(|n| !n.is_empty())
                .ok_or(malformed)?;
            if self.host.len == 0 {
                self.host = Span::within(raw, authority);
                self.host_name = Span::within(raw, name);
            } else if !self.host.of(raw).eq_ignore_ascii_case(authority) {
                return Err(Refusal::bad("the target and Host disagree"));
            }
            origin = &rest[end..];
        }
        let path_end = memchr::memchr(b'?', origin).unwrap_or(origin.len());
        self.path_query = Span::within(raw, origin);
        self.path = Span::within(raw, &origin[..path_end]);
        Ok(())
    }

    /// The target in origin form, to route by.
    pub(crate) fn route_target<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        let target = self.path_query.of(raw);
        // `http://host` and `http://host?query` have no path of their own.
        if matches!(target.first(), None | Some(b'?')) {
            b"/"
        } else {
            target
        }
    }

    /// The query, without its `?`.
    pub(crate) fn query<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        let after = self.path.len as usize + 1;
        self.path_query.of(raw).get(after..).unwrap_or_default()
    }

    /// Whether `Upgrade` names what a peer switches to.
    pub(crate) fn asks_for(&self, raw: &[u8], protocol: &[u8]) -> bool {
        let mut asked = self.fields.iter().filter(|f| f.known == Known::Upgrade);
        asked.any(|f| tokens(f.value.of(raw)).any(|t| t.eq_ignore_ascii_case(protocol)))
    }

    /// The values of all fields of this name.
    pub(crate) fn fields_named<'a>(
        &self,
        raw: &'a [u8],
        name: &str,
    ) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |f| f.name.of(raw).eq_ignore_ascii_case(name.as_bytes()))
            .map(|f| f.value.of(raw))
    }

    /// The value of the first field of this name, which is given in lower case.
    pub(crate) fn field<'a>(&self, raw: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.fields_named(raw, name).next()
    }
}

/// The host of `host[:port]`, if that is what it is; empty for the empty text.
pub(crate) fn host_name(authority: &[u8]) -> Option<&[u8]> {
    if authority.is_empty() {
        return Some(authority);
    }
    let end = if authority.first() == Some(&b'[') {
        let close = memchr::memchr(b']', authority)?;
        let inner = &authority[1..close];
        let address = !inner.is_empty()
            && inner
                .iter()
                .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
        address.then_some(close + 1)?
    } else {
        let colon = authority.iter().position(|b| *b == b':');
        colon.unwrap_or(authority.len())
    };
    let (name, port) = authority.split_at(end);
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let name_ok = !name.is_empty() && (name[0] == b'[' || are_all(NAME, name));
    (port_ok && name_ok).then_some(name)
}

/// Whether a protocol named in `Upgrade` is one at all, and no version of HTTP.
fn is_other_protocol(name: &[u8]) -> bool {
    let starts = |with: &[u8]| {
        name.get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    !name.is_empty() && !starts(b"h2") && !starts(b"http") && !starts(b"tls")
}

/// Whether a caller's request id is fit for headers and logs.
fn sane_id(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(b))
}

fn refuse(fault: Fault, data: &[u8]) -> Refusal {
    match fault {
        Fault::TooMany => refusal::HEAD_TOO_LARGE,
        Fault::Version if other_version(data) => refusal::VERSION_NOT_SERVED,
        Fault::Version => Refusal::bad("the HTTP version is malformed"),
        Fault::Name | Fault::Value => Refusal::bad("a header field is malformed"),
        Fault::BareLf => Refusal::bad("a line ends without a carriage return"),
        Fault::Target => MALFORMED_TARGET,
        Fault::StartLine => Refusal::bad("the request line is malformed"),
    }
}

/// Whether the request line ends in a well-formed version that is not served.
fn other_version(data: &[u8]) -> bool {
    let line = data.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|b| *b == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Why a head that never fits is too large.
pub(crate) fn too_large(data: &[u8]) -> Refusal {
    if memchr::memchr(b'\n', data).is_some() {
        refusal::HEAD_TOO_LARGE
    } else {
        refusal::TARGET_TOO_LONG
    }
}

#[cfg(test)]
mod tests;
