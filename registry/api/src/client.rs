//! The client of the registry's API, for routers, agents and `cardea ctl`.
//!
//! It knows one or several registries, all equal, and stays with the one that last answered. A
//! registry that cannot be reached, takes too long or answers that it is unavailable (502, 503, 504)
//! is passed over for the next one, within the same call. That is safe because the calls say the same
//! when they are said twice: registering, renewing, deregistering, applying and reading all lead to
//! the state they name. The few that do not – writes that name the revision they change, and making
//! a token – move on only while nothing can have been done ([`send::Repeat`]).
//!
//! A call walks: [`objects`], [`instances`], [`figures`], [`operate`] or [`pull`] (what is asked) → [`send`] (to
//! whom, how long, how often) → [`error`] (what can come back instead of an answer).

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::{
    Certificate, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};

use crate::{Invalid, Span, invalid::Check};

mod error;
mod figures;
mod instances;
mod objects;
mod operate;
mod pull;
mod releases;
mod send;
mod switches;

pub use error::{Attempt, ClientError, Failure};
pub use figures::FiguresQuery;
pub use instances::InstanceQuery;
pub use objects::{PageQuery, Precondition};
pub use pull::{Position, Pull, Pulled};
pub use switches::SwitchAct;

/// How to reach the registries.
#[derive(Clone)]
pub struct ClientConfig {
    /// The registries: `http://host:port`, `https://host:port`, or `host:port` for `http`.
    pub addresses: Vec<String>,
    /// The bearer token; empty: none is sent.
    pub token: String,
    /// For `https`: the certificates (PEM) to trust instead of the operating system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take; default 2 s.
    pub connect_timeout: Span,
    /// How long one registry may take to answer, on top of what the call itself asks it to wait;
    /// default 5 s.
    pub request_timeout: Span,
    /// Default `cardea/VERSION`.
    pub user_agent: String,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            token: String::new(),
            ca_file: None,
            connect_timeout: Span::secs(2),
            request_timeout: Span::secs(5),
            user_agent: concat!("cardea/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("addresses", &self.addresses)
            .field("token", &if self.token.is_empty() { "" } else { "…" })
            .field("ca_file", &self.ca_file)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("user_agent", &self.user_agent)
            .finish()
    }
}

/// The client. Clones share connections and the memory of which registry answered last.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    addresses: Vec<Url>,
    request_timeout: Span,
    /// Which of `addresses` answered last.
    current: AtomicUsize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<&str> = self.inner.addresses.iter().map(Url::as_str).collect();
        f.debug_struct("Client")
            .field("addresses", &addresses)
            .field("current", &self.current_address())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Checks the configuration and reads the certificates; connects to nobody yet.
    pub fn new(config: &ClientConfig) -> Result<Self, Invalid> {
        let (addresses, headers) = checked(config)?;
        let tls = addresses.iter().any(|url| url.scheme() == "https");
        Ok(Self {
            inner: Arc::new(Inner {
                http: http_client(config, headers, tls)?,
                addresses,
                request_timeout: config.request_timeout,
                current: AtomicUsize::new(0),
            }),
        })
    }

    /// Says everything that is wrong with a configuration.
    pub fn check(config: &ClientConfig) -> Result<(), Invalid> {
        checked(config)?;
        config
            .ca_file
            .as_deref()
            .map_or(Ok(()), |path| certificates(path).map(drop))
    }

    /// The registry that is asked first: the one that answered last.
    pub fn current_address(&self) -> &str {
        let current = self.inner.current.load(Ordering::Relaxed);
        // Always in range: only indices of `addresses`, which is never empty, are stored.
        self.inner
            .addresses
            .get(current)
            .map_or("", |url| url.as_str().trim_end_matches('/'))
    }

    /// How many registries it knows.
    pub fn addresses(&self) -> usize {
        self.inner.addresses.len()
    }

    /// Asks another registry first from now on: for callers that find an answer unusable.
    pub fn move_on(&self) {
        let current = self.inner.current.load(Ordering::Relaxed);
        let next = (current + 1) % self.inner.addresses.len();
        self.inner.current.store(next, Ordering::Relaxed);
    }
}

/// The addresses and the headers of every call.
fn checked(config: &ClientConfig) -> Result<(Vec<Url>, HeaderMap), Invalid> {
    let mut check = Check::default();
    check.ensure(
        !config.addresses.is_empty(),
        "addresses",
        "give the address of at least one registry, such as http://127.0.0.1:7400",
    );
    for (field, span) in [
        ("connect_timeout", config.connect_timeout),
        ("request_timeout", config.request_timeout),
    ] {
        check.ensure(span > Span::secs(0), field, "more than 0s");
    }
    let mut addresses = Vec::new();
    for (i, text) in config.addresses.iter().enumerate() {
        addresses.extend(check.merge(&format!("addresses[{i}]"), parse_address(text)));
    }
    let headers = check.merge("token", authorization(&config.token));
    check.finish()?;
    Ok((addresses, headers.unwrap_or_default()))
}

/// Reads a registry's address: `host:port` means `http`.
fn parse_address(text: &str) -> Result<Url, Invalid> {
    let bad = |why: &str| Invalid::field("", format!("`{text}`: {why}"));
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let mut url = Url::parse(&full).map_err(|e| bad(&format!("not a URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("a registry speaks http or https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("the host is missing"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials do not belong in the address; set a token"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("an address ends before `?` and `#`"));
    }
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&base);
    Ok(url)
}

fn authorization(token: &str) -> Result<HeaderMap, Invalid> {
    let mut headers = HeaderMap::new();
    if !token.is_empty() {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Invalid::field("", "a token is one line of visible ASCII characters"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn http_client(
    config: &ClientConfig,
    headers: HeaderMap,
    tls: bool,
) -> Result<reqwest::Client, Invalid> {
    // Given explicitly, as two providers compiled in would panic at run time. Somebody else in the
    // process may have installed it before.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let builder = reqwest::Client::builder()
        .default_headers(headers)
        .user_agent(&config.user_agent)
        .connect_timeout(config.connect_timeout.duration())
        .redirect(reqwest::redirect::Policy::none())
        // A registry is never behind the proxy that the environment names for the outside world.
        .no_proxy()
        // One stalled long poll must not hold up what else travels on its connection.
        .http1_only()
        .tcp_nodelay(true);
    let builder = match &config.ca_file {
        Some(path) => builder.tls_certs_only(certificates(path)?),
        None if tls => builder,
        // Without https, the operating system's certificates would only cost memory.
        None => builder.tls_certs_only([]),
    };
    builder
        .build()
        .map_err(|e| Invalid::field("ca_file", format!("TLS: {}", error::root_cause(&e))))
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate>, Invalid> {
    let bad = |why: String| Invalid::field("ca_file", format!("{}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|e| bad(error::root_cause(&e)))?;
    if found.is_empty() {
        return Err(bad("no certificate in it; PEM is expected".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
