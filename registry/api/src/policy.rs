//! How a service's traffic is balanced, timed, retried and judged. Every field has a default, so an
//! empty table is a complete policy.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    Invalid, Span,
    certificate::{Pem, authorities},
    invalid::Check,
    name::parse_from_str,
};

/// How a peer is picked. Written `"round-robin"`, `"least-loaded"` or `{ hash = "header:x-user" }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// Smooth weighted round robin (nginx's, by deadlines).
    #[default]
    RoundRobin,
    /// The better of two random peers by latency × load (peak EWMA, as Finagle and linkerd do).
    LeastLoaded,
    /// The same key goes to the same peer while it lives.
    Hash(HashKey),
}

/// What a consistent hash is taken of; a request without it is balanced round robin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A request header, lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// The client's address.
    Client,
    /// The path without the query.
    Path,
    /// A claim of the bearer token (a JSON Web Token), as it stands there: nobody has verified it.
    Jwt(String),
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Client => f.write_str("client"),
            Self::Path => f.write_str("path"),
            Self::Jwt(claim) => write!(f, "jwt:{claim}"),
        }
    }
}

impl FromStr for HashKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let token = |name: &str| {
            !name.is_empty()
                && name.len() <= 128
                && name
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
        };
        match text.split_once(':') {
            None if text == "client" => Ok(Self::Client),
            None if text == "path" => Ok(Self::Path),
            Some(("header", name)) if token(name) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("cookie", name)) if token(name) => Ok(Self::Cookie(name.to_owned())),
            Some(("query", name)) if token(name) => Ok(Self::Query(name.to_owned())),
            Some(("jwt", claim)) if token(claim) => Ok(Self::Jwt(claim.to_owned())),
            _ => Err(format!(
                "`{text}` is no hash key: write header:NAME, cookie:NAME, query:NAME, jwt:CLAIM, \
                 client or path"
            )),
        }
    }
}

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match self {
            Self::RoundRobin => serializer.serialize_str("round-robin"),
            Self::LeastLoaded => serializer.serialize_str("least-loaded"),
            Self::Hash(key) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("hash", &key.to_string())?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Balance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Balance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""round-robin", "least-loaded" or { hash = "header:x-user" }"#)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Balance, E> {
                match text {
                    "round-robin" => Ok(Balance::RoundRobin),
                    "least-loaded" => Ok(Balance::LeastLoaded),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Balance, A::Error> {
                let entry: Option<(String, String)> = map.next_entry()?;
                match entry {
                    Some((name, key)) if name == "hash" => {
                        if map.next_key::<String>()?.is_some() {
                            return Err(de::Error::custom("only `hash` belongs here"));
                        }
                        key.parse().map(Balance::Hash).map_err(de::Error::custom)
                    }
                    _ => Err(de::Error::custom(r#"write { hash = "header:x-user" }"#)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How long a router waits for a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Timeouts {
    /// For a connection. Default 1 s.
    pub connect: Span,
    /// From the request's last byte to the response's first. Default 60 s.
    pub first_byte: Span,
    /// Between two reads or writes of a body. Default 60 s. Tunnels (WebSocket) have no idle limit.
    pub idle: Span,
    /// How long an unused pooled connection is kept. Default 4 s: below the 5 s of Node's servers.
    pub keepalive: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Span::secs(1),
            first_byte: Span::secs(60),
            idle: Span::secs(60),
            keepalive: Span::secs(4),
        }
    }
}

/// That peers are asked through TLS, and how they are known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct UpstreamTls {
    /// Whose signatures count: certificates (PEM); none: those that the router's system trusts.
    pub ca: Option<Pem>,
    /// The name that peers are asked for and must have in their certificate; none: the host of
    /// their address.
    pub name: Option<String>,
    /// What is checked. Default `full`.
    pub verify: Verify,
}

/// What is checked of a peer's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Who signed it, its name and its time.
    #[default]
    Full,
    /// **Nothing**: whoever answers at the address can read and change all that is said.
    None,
}

impl UpstreamTls {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        if let Some(ca) = &self.ca {
            check.merge("ca", authorities(ca).map(drop));
            check.ensure(
                self.verify == Verify::Full,
                "verify",
                "with `verify = \"none\"` nobody asks `ca`: leave one of them out",
            );
        }
        if let Some(name) = &self.name {
            check.ensure(
                rustls::pki_types::ServerName::try_from(name.as_str()).is_ok(),
                "name",
                "a host name or an IP address, without a port",
            );
        }
        check.finish()
    }
}

/// When another peer is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Retries {
    /// Further tries after the first, each on another peer. Default 2; 0 switches retries off.
    pub attempts: u8,
    /// Retries may add this much to the requests of the last 10 s, in percent (a few are always
    /// allowed). Default 20. Tries for which nothing was sent are not counted.
    pub budget_percent: u8,
    /// Statuses of an idempotent request that are tried again elsewhere. Default 502, 503, 504.
    pub statuses: Vec<u16>,
    /// The largest request body that is kept to be sent again, in bytes. Default 65,536.
    pub body_limit: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 2,
            budget_percent: 20,
            statuses: vec![502, 503, 504],
            body_limit: 65_536,
        }
    }
}

/// When a peer counts as down, and how it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Health {
    /// Failures within `fail_timeout` that mark a peer down. Default 3; 0 switches marking off.
    pub max_fails: u32,
    /// The window for counting, and how long a marked peer stays down before one probe request
    /// decides; doubled for each failed probe up to eight times. Default 10 s.
    pub fail_timeout: Span,
    /// Response statuses that count as failures. Default 502, 503, 504.
    pub statuses: Vec<u16>,
    /// gRPC statuses that count as failures, such as 14 (UNAVAILABLE). Default: none: they come from
    /// the application, which may say so about what is behind it.
    pub grpc_statuses: Vec<u8>,
    /// At most this share of an upstream's peers may be marked down at a time, in percent; the last
    /// usable peer never is. Default 50.
    pub max_ejected_percent: u8,
    /// A new peer's weight grows from a tenth to the whole over this time. Default 0 s: at once.
    pub slow_start: Span,
    /// Checks that the router sends by itself. Default: none.
    pub active: Option<ActiveCheck>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            max_fails: 3,
            fail_timeout: Span::secs(10),
            statuses: vec![502, 503, 504],
            grpc_statuses: Vec::new(),
            max_ejected_percent: 50,
            slow_start: Span::secs(0),
            active: None,
        }
    }
}

/// What a service's instances are asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2 without TLS, known beforehand: what gRPC servers speak inside a cluster.
    #[serde(rename = "h2c")]
    H2c,
    /// HTTP/2 within TLS: an instance that does not agree on it (ALPN `h2`) is not asked.
    #[serde(rename = "h2")]
    H2,
}

impl Protocol {
    /// Whether it is HTTP/2, with or without TLS.
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }
}

/// A check that the router sends to each peer on a timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ActiveCheck {
    /// The path of an HTTP check; none: a TCP connect is enough.
    pub path: Option<String>,
    /// The Host header of an HTTP check; none: the peer's address.
    pub host: Option<String>,
    /// Statuses that pass. Default 200–399, when empty.
    pub statuses: Vec<u16>,
    /// Between two checks of a peer. Default 5 s.
    pub interval: Span,
    /// For the whole check. Default 1 s.
    pub timeout: Span,
    /// Failures in a row that take a peer out. Default 2.
    pub fails: u32,
    /// Passes in a row that bring it back. Default 1.
    pub passes: u32,
}

impl Default for ActiveCheck {
    fn default() -> Self {
        Self {
            path: None,
            host: None,
            statuses: Vec::new(),
            interval: Span::secs(5),
            timeout: Span::secs(1),
            fails: 2,
            passes: 1,
        }
    }
}

impl Timeouts {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for (field, span) in [
            ("connect", self.connect),
            ("first_byte", self.first_byte),
            ("idle", self.idle),
        ] {
            within(&mut check, field, span, Span::millis(1), Span::secs(86_400));
        }
        within(
            &mut check,
            "keepalive",
            self.keepalive,
            Span::secs(0),
            Span::secs(3600),
        );
        check.finish()
    }
}

impl Retries {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(self.attempts <= 10, "attempts", "at most 10");
        check.ensure(
            self.budget_percent <= 100,
            "budget_percent",
            "a percentage, 0 to 100",
        );
        check.ensure(
            self.body_limit <= 16 << 20,
            "body_limit",
            "at most 16777216 bytes (16 MiB)",
        );
        statuses(&mut check, &self.statuses);
        check.finish()
    }
}

impl Health {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(self.max_fails <= 1000, "max_fails", "at most 1000");
        within(
            &mut check,
            "fail_timeout",
            self.fail_timeout,
            Span::millis(100),
            Span::secs(3600),
        );
        within(
            &mut check,
            "slow_start",
            self.slow_start,
            Span::secs(0),
            Span::secs(3600),
        );
        check.ensure(
            self.max_ejected_percent <= 100,
            "max_ejected_percent",
            "a percentage, 0 to 100",
        );
        statuses(&mut check, &self.statuses);
        check.ensure(
            self.grpc_statuses.len() <= 16
                && self.grpc_statuses.iter().all(|s| (1..=16).contains(s)),
            "grpc_statuses",
            "gRPC statuses, 1 to 16",
        );
        if let Some(active) = &self.active {
            check.merge("active", active.check());
        }
        check.finish()
    }
}

impl ActiveCheck {
    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if let Some(path) = &self.path {
            check.ensure(
                path.starts_with('/') && path.len() <= 1024 && visible(path),
                "path",
                "a path that begins with `/`, without spaces, at most 1024 bytes",
            );
        }
        if let Some(host) = &self.host {
            check.ensure(
                !host.is_empty() && host.len() <= 253 && visible(host),
                "host",
                "a host name",
            );
        }
        statuses(&mut check, &self.statuses);
        within(
            &mut check,
            "interval",
            self.interval,
            Span::millis(100),
            Span::secs(3600),
        );
        within(
            &mut check,
            "timeout",
            self.timeout,
            Span::millis(10),
            Span::secs(60),
        );
        check.ensure((1..=100).contains(&self.fails), "fails", "1 to 100");
        check.ensure((1..=100).contains(&self.passes), "passes", "1 to 100");
        check.finish()
    }
}

fn within(check: &mut Check, field: &str, span: Span, least: Span, most: Span) {
    check.ensure(
        (least..=most).contains(&span),
        field,
        format!("between {least} and {most}"),
    );
}

fn statuses(check: &mut Check, statuses: &[u16]) {
    let ok = statuses.len() <= 64 && statuses.iter().all(|s| (200..=599).contains(s));
    check.ensure(ok, "statuses", "at most 64 HTTP statuses, 200 to 599");
}
