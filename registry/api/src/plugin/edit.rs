//! What is changed about requests and answers, and about how they are forwarded.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::when;
use crate::{Invalid, Span, invalid::Check, name::parse_from_str, route::PathPrefix};

/// Changes URI, host and headers on their way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Rewrite {
    /// Stands in for the route's prefix; `/` takes it away.
    pub prefix: Option<PathPrefix>,
    /// The path, by regular expression; what it does not match stays.
    pub path: Option<PathRewrite>,
    /// The `Host` that the service sees.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub host: Option<Template>,
    /// Headers of the request.
    pub request: HeaderEdits,
    /// Headers of the answer.
    pub response: HeaderEdits,
}

/// A path's new form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathRewrite {
    /// A regular expression over the whole path.
    pub matches: String,
    /// The new path; `${1}` is the first group of `matches`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub to: Template,
}

/// Headers that are put in, added or taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct HeaderEdits {
    /// Stand in for every header of their name.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub set: BTreeMap<String, Template>,
    /// Join those of their name.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub add: BTreeMap<String, Template>,
    /// Are taken out.
    pub remove: Vec<String>,
}

/// Other time-outs and retries than the service's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Override {
    /// For a connection.
    pub connect: Option<Span>,
    /// From the request's last byte to the answer's first.
    pub first_byte: Option<Span>,
    /// Between two reads or writes of a body.
    pub idle: Option<Span>,
    /// Further tries after the first.
    pub attempts: Option<u8>,
    /// Statuses of an idempotent request that are tried again elsewhere.
    pub retry_statuses: Option<Vec<u16>>,
}

/// A text with variables: `${host}`, `${path}`, `${query}` (with its `?`), `${rest}` (the path behind
/// the route's prefix), `${client}`, `${scheme}`, `${request_id}`, `${route}`, `${service}`,
/// `${header:NAME}`, and `${1}` to `${9}` where a regular expression stands beside it. `$$` is a `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// What the request says.
    Variable(Variable),
}

/// A variable of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The authority as the caller wrote it.
    Host,
    /// The path.
    Path,
    /// The query with its `?`; empty without one.
    Query,
    /// The path behind the route's prefix.
    Rest,
    /// The client's address.
    Client,
    /// `http` or `https`.
    Scheme,
    /// The request's id.
    RequestId,
    /// The route's id.
    Route,
    /// The service's name.
    Service,
    /// The first header of this name, lower case.
    Header(String),
    /// A group of the regular expression.
    Group(u8),
}

impl Template {
    /// Its parts in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The highest group that it uses; 0: none.
    pub fn groups(&self) -> u8 {
        let group = |part: &Part| match part {
            Part::Variable(Variable::Group(n)) => *n,
            _ => 0,
        };
        self.parts.iter().map(group).max().unwrap_or(0)
    }
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "host" => Self::Host,
            "path" => Self::Path,
            "query" => Self::Query,
            "rest" => Self::Rest,
            "client" => Self::Client,
            "scheme" => Self::Scheme,
            "request_id" => Self::RequestId,
            "route" => Self::Route,
            "service" => Self::Service,
            _ => match (name.strip_prefix("header:"), name.as_bytes()) {
                (Some(header), _) if is_token(header) => Self::Header(header.to_ascii_lowercase()),
                (None, [digit @ b'1'..=b'9']) => Self::Group(digit - b'0'),
                _ => {
                    return Err(format!(
                        "`${{{name}}}` is no variable: write host, path, query, rest, client, \
                         scheme, request_id, route, service, header:NAME or 1 to 9"
                    ));
                }
            },
        })
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Path => "path",
            Self::Query => "query",
            Self::Rest => "rest",
            Self::Client => "client",
            Self::Scheme => "scheme",
            Self::RequestId => "request_id",
            Self::Route => "route",
            Self::Service => "service",
            Self::Header(name) => return write!(f, "header:{name}"),
            Self::Group(n) => return write!(f, "{n}"),
        })
    }
}

/// The longest template, in bytes.
const MAX_TEMPLATE: usize = 2048;

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEMPLATE {
            return Err(format!("at most {MAX_TEMPLATE} bytes"));
        }
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err("no control characters, line ends neither".to_owned());
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                literal.push('$');
                rest = behind;
                continue;
            }
            let inner = rest.strip_prefix('{').and_then(|r| r.split_once('}'));
            let Some((name, behind)) = inner else {
                return Err("a `$` begins a variable, ${host} for one; `$$` is a `$`".to_owned());
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Variable(name.parse()?));
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('$', "$$"))?,
                Part::Variable(variable) => write!(f, "${{{variable}}}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

impl Rewrite {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            *self != Self::default(),
            "",
            "changes nothing: say what it should",
        );
        check.ensure(
            self.prefix.is_none() || self.path.is_none(),
            "path",
            "`prefix` or `path`, not both",
        );
        if let Some(path) = &self.path {
            check.merge("path", path.check());
        }
        if let Some(host) = &self.host {
            check.ensure(host.groups() == 0, "host", NO_GROUPS);
        }
        check.merge("request", self.request.check());
        check.merge("response", self.response.check());
        check.finish()
    }
}

const NO_GROUPS: &str = "there is no regular expression here that ${1} could be a group of";

impl PathRewrite {
    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let regex = check.merge("matches", when::regex(&self.matches));
        let groups = regex.map_or(9, |regex| regex.captures_len() - 1);
        check.ensure(
            usize::from(self.to.groups()) <= groups,
            "to",
            format!("the regular expression has only {groups} groups"),
        );
        let begins = match self.to.parts().first() {
            Some(Part::Text(text)) => text.starts_with('/'),
            Some(Part::Variable(v)) => matches!(v, Variable::Path | Variable::Group(_)),
            None => false,
        };
        check.ensure(begins, "to", "begin with `/`, ${path} or a group");
        check.finish()
    }
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for (field, map) in [("set", &self.set), ("add", &self.add)] {
            check.ensure(map.len() <= 64, field, "at most 64 headers");
            for (name, value) in map {
                let at = format!("{field}.{name}");
                check.merge(&at, editable(name));
                check.ensure(value.groups() == 0, &at, NO_GROUPS);
            }
        }
        check.ensure(self.remove.len() <= 64, "remove", "at most 64 headers");
        for (i, name) in self.remove.iter().enumerate() {
            check.merge(&format!("remove[{i}]"), editable(name));
        }
        check.finish()
    }
}

impl Override {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            *self != Self::default(),
            "",
            "changes nothing: say what it should",
        );
        for (field, span) in [
            ("connect", self.connect),
            ("first_byte", self.first_byte),
            ("idle", self.idle),
        ] {
            let fits = |span: Span| (Span::millis(1)..=Span::secs(86_400)).contains(&span);
            check.ensure(span.is_none_or(fits), field, "between 1ms and 24h");
        }
        check.ensure(
            self.attempts.is_none_or(|attempts| attempts <= 10),
            "attempts",
            "at most 10",
        );
        let statuses = self.retry_statuses.iter().flatten();
        check.ensure(
            statuses.clone().count() <= 64 && { statuses }.all(|s| (200..=599).contains(s)),
            "retry_statuses",
            "at most 64 HTTP statuses, 200 to 599",
        );
        check.finish()
    }
}

/// Whether a text is a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether a header of this name may be edited: those that frame a message or say where it goes are
/// the router's own.
pub(crate) fn editable(name: &str) -> Result<(), Invalid> {
    const OWN: [&str; 13] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-request-id",
    ];
    if !is_token(name) {
        return Err(Invalid::field("", "a header's name"));
    }
    if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        let name = name.to_ascii_lowercase();
        return Err(Invalid::field(
            "",
            format!("`{name}` is the router's own: it cannot be edited"),
        ));
    }
    Ok(())
}
