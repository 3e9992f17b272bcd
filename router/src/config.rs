//! What a router is told at start: plain values, checked before any port is bound.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cardea_registry_api::{Address, FieldError, Invalid, Name, network::Networks};

mod limits;

pub use limits::Limits;

/// Everything a router needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster whose routes and instances it serves.
    pub cluster: Name,
    /// Where it stands: instances there come first where traffic says so.
    pub zone: Option<Name>,
    /// Its own name among the routers of the cluster; 1–128 visible characters.
    pub id: String,
    /// Where callers connect. Port 0 lets the system choose. None: nowhere but with TLS.
    pub listen: Option<SocketAddr>,
    /// Where callers connect that speak TLS; none: nowhere.
    pub listen_tls: Option<SocketAddr>,
    /// The lowest version of TLS that is spoken with them.
    pub tls_min_version: TlsVersion,
    /// Where operators ask: health, metrics, peers, explain. Never the traffic address.
    pub admin: SocketAddr,
    /// Worker threads; 0: one for each core.
    pub threads: usize,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// Where routes and instances come from.
    pub source: Source,
    /// Proxies before the router whose connections begin with a header of the PROXY protocol. It is
    /// required of them, and never read from anybody else.
    pub proxy_protocol: Networks,
    /// Proxies before the router whose word on their clients is believed: `X-Forwarded-…` and
    /// `Forwarded`. Everybody else's is replaced.
    pub trusted_proxies: Networks,
    /// Whose request ids and traces go on.
    pub believe_ids: BelieveIds,
    /// Drops every header whose name has a `_`, rather than only those that are read as one of the
    /// router's own by services that take `_` for `-`.
    pub drop_underscores: bool,
    /// What a client may send, and how slowly.
    pub limits: Limits,
    /// How HTTP/2 is spoken with clients.
    pub http2: Http2,
    /// What is set aside for copies of requests, and where they may go.
    pub mirror: Mirror,
    /// How long a graceful stop may take.
    pub drain: Duration,
    /// How long a tunnel (WebSocket) outlives the removal or draining of its instance.
    pub tunnel_ceiling: Duration,
    /// The commit that the program was built from, for metrics; empty: unknown.
    pub commit: String,
    /// How another process takes over from this one.
    pub upgrade: Upgrade,
}

pub use crate::tls::Version as TlsVersion;

/// Whose `X-Request-Id` and `traceparent` go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BelieveIds {
    /// Anybody's: callers are services, whose traces go through the router.
    Anyone,
    /// The trusted proxies'; everybody else's requests begin anew.
    Trusted,
}

/// How one process takes over from another.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// The Unix socket where the running router is asked; none: nobody can take over.
    pub socket: Option<PathBuf>,
    /// How long a process that takes over may wait for a table before it gives up.
    pub patience: Duration,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self {
            socket: None,
            patience: Duration::from_secs(30),
        }
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To a file, appended.
    File(PathBuf),
}

/// Where routes and instances come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A manifest on disk, reloaded when it changes; no registry.
    Static {
        /// The manifest.
        file: PathBuf,
    },
    /// A registry's feed.
    Registry {
        /// Base URLs of the registry's replicas, such as `http://127.0.0.1:7400`.
        addresses: Vec<String>,
        /// A token of role `router`.
        token: String,
        /// Certificates (PEM) to trust for `https` besides the system's.
        ca: Option<PathBuf>,
        /// Where the last table is kept for a start without a registry; none: nowhere.
        state_dir: Option<PathBuf>,
    },
}

/// How HTTP/2 is spoken with clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Requests that one connection may have open at a time.
    pub streams: u32,
    /// How many bytes of one request's body a client may send ahead of the service, in bytes. A
    /// connection may send as much for each of its streams.
    pub window: u32,
    /// The most bytes of one answer that wait for the client's connection to take them.
    pub send_buffer: usize,
    /// After how long a silent client is asked whether it is still there.
    pub ping_interval: Duration,
    /// How long it has to answer.
    pub ping_timeout: Duration,
    /// What a client may ask for in one go that leads to nothing: 10 for a request that is given up
    /// within a second, 5 for a PING or SETTINGS, 1 for any other frame that carries nothing.
    pub credit: u32,
}

/// What a worker sets aside for copies of requests (plugins of kind `mirror`), and where they may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Addresses that are no instance's and may be sent copies: `host:port`, or `host:*`.
    pub allow: Vec<String>,
    /// Copies that are on their way at a time; each has a connection.
    pub at_once: usize,
    /// Copies that may wait.
    pub queue: usize,
    /// What copies may hold, in bytes.
    pub memory: usize,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            at_once: 64,
            queue: 1024,
            memory: 16 << 20,
        }
    }
}

impl Mirror {
    /// Whether copies may go to an address.
    pub fn allows(&self, address: &Address) -> bool {
        self.allow.iter().any(|allowed| {
            let Some((host, port)) = allowed.rsplit_once(':') else {
                return false;
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.eq_ignore_ascii_case(address.host())
                && (port == "*" || port.parse() == Ok(address.port()))
        })
    }
}

impl Mirror {
    /// What is wrong.
    fn errors(&self) -> Vec<FieldError> {
        let allow = self.allow.iter().all(|allowed| is_allowable(allowed));
        let checks = [
            (
                allow,
                "mirror.allow",
                "addresses such as 10.0.0.1:8080, or test.svc.local:* for every port",
            ),
            (
                (1..=4096).contains(&self.at_once),
                "mirror.at_once",
                "between 1 and 4096",
            ),
            (self.queue <= 1 << 20, "mirror.queue", "at most 1048576"),
        ];
        let wrong = checks.into_iter().filter(|(fine, _, _)| !fine);
        let error = |(_, field, message): (bool, &str, &str)| FieldError {
            field: field.to_owned(),
            message: message.to_owned(),
        };
        wrong.map(error).collect()
    }
}

/// Whether an address that copies may go to is one.
fn is_allowable(allowed: &str) -> bool {
    let any = allowed.strip_suffix(":*").map(|host| format!("{host}:1"));
    any.as_deref().unwrap_or(allowed).parse::<Address>().is_ok()
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams: 128,
            window: 256 << 10,
            send_buffer: 64 << 10,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            credit: 4000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: default_cluster(),
            zone: None,
            id: default_id(),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
            listen_tls: None,
            tls_min_version: TlsVersion::V12,
            admin: SocketAddr::from(([127, 0, 0, 1], 8081)),
            threads: 0,
            access_log: AccessLog::Stdout,
            source: Source::Registry {
                addresses: vec!["http://127.0.0.1:7400".to_owned()],
                token: String::new(),
                ca: None,
                state_dir: None,
            },
            proxy_protocol: Networks::default(),
            trusted_proxies: Networks::default(),
            believe_ids: BelieveIds::Anyone,
            drop_underscores: false,
            limits: Limits::default(),
            http2: Http2::default(),
            mirror: Mirror::default(),
            drain: Duration::from_secs(30),
            tunnel_ceiling: Duration::from_mins(10),
            commit: String::new(),
            upgrade: Upgrade::default(),
        }
    }
}

fn default_cluster() -> Name {
    "default"
        .parse()
        .unwrap_or_else(|_| unreachable!("`default` is a name"))
}

fn default_id() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "router".to_owned())
}

/// The most worker threads.
const MAX_THREADS: usize = 1024;

impl Config {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut errors = self.mirror.errors();
        let mut ensure = |ok: bool, field: &str, message: &str| {
            if !ok {
                errors.push(FieldError {
                    field: field.to_owned(),
                    message: message.to_owned(),
                });
            }
        };
        ensure(
            (1..=128).contains(&self.id.len()) && self.id.bytes().all(|b| b.is_ascii_graphic()),
            "id",
            "1 to 128 visible ASCII characters",
        );
        ensure(
            self.threads <= MAX_THREADS,
            "threads",
            "at most 1024; 0 means one for each core",
        );
        ensure(
            self.listen
                .is_none_or(|listen| listen != self.admin || listen.port() == 0),
            "admin",
            "must differ from the traffic address `listen`",
        );
        ensure(
            self.listen.or(self.listen_tls).is_some(),
            "listen",
            "an address, unless there is one for TLS (`listen_tls`)",
        );
        let others = [
            self.listen.map(|listen| listen.port()),
            Some(self.admin.port()),
        ];
        ensure(
            self.listen_tls
                .is_none_or(|tls| tls.port() == 0 || !others.contains(&Some(tls.port()))),
            "listen_tls",
            "on a port of its own, other than those of `listen` and `admin`",
        );
        self.limits.check(&mut ensure);
        ensure(
            (1..=10_000).contains(&self.http2.streams),
            "http2.streams",
            "between 1 and 10000",
        );
        ensure(
            (65_535..=16 << 20).contains(&self.http2.window),
            "http2.window",
            "between 65535 bytes, HTTP/2's own start, and 16 MiB",
        );
        ensure(
            (16 << 10..=16 << 20).contains(&self.http2.send_buffer),
            "http2.send_buffer",
            "between 16 KiB and 16 MiB",
        );
        ensure(
            (100..=10_000_000).contains(&self.http2.credit),
            "http2.credit",
            "between 100, ten requests that are given up, and 10000000",
        );
        for (field, time) in [
            ("http2.ping_interval", self.http2.ping_interval),
            ("http2.ping_timeout", self.http2.ping_timeout),
        ] {
            ensure(!time.is_zero(), field, "longer than nothing");
        }
        if let Source::Registry { addresses, .. } = &self.source {
            ensure(
                !addresses.is_empty(),
                "source.addresses",
                "at least one registry address, such as http://127.0.0.1:7400",
            );
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Invalid { errors })
        }
    }

    /// How many workers will run.
    pub fn worker_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass() {
        Config::default().check().unwrap();
    }

    #[test]
    fn a_router_listens_somewhere() {
        let mut config = Config {
            listen: None,
            listen_tls: Some(SocketAddr::from(([127, 0, 0, 1], 8443))),
            ..Config::default()
        };
        config.check().unwrap();
        config.listen_tls = None;
        let errors = config.check().unwrap_err().errors;
        assert_eq!((errors.len(), &*errors[0].field), (1, "listen"));
    }

    #[test]
    fn copies_go_only_where_they_may() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let mirror = Mirror {
            allow: ["10.0.0.1:80", "Test.local:*", "[::1]:9"]
                .map(str::to_owned)
                .to_vec(),
            ..Mirror::default()
        };
        for (to, may) in [
            ("10.0.0.1:80", true),
            ("10.0.0.1:81", false),
            ("10.0.0.11:80", false),
            ("test.local:1", true),
            ("a.test.local:1", false),
            ("[::1]:9", true),
            ("[::1]:8", false),
        ] {
            assert_eq!(mirror.allows(&address(to)), may, "{to}");
        }
        assert!(!Mirror::default().allows(&address("10.0.0.1:80")));
        for (text, fine) in [
            ("h:1", true),
            ("h:*", true),
            ("h", false),
            (":*", false),
            ("*:80", false),
        ] {
            assert_eq!(is_allowable(text), fine, "{text}");
        }
    }

    #[test]
    fn wrong_fields_are_named() {
        let mut config = Config::default();
        config.admin = config.listen.unwrap();
        config.id = "a b".to_owned();
        config.limits.head = 1;
        config.limits.keepalive = Duration::ZERO;
        config.limits.connections_per_client = Some(0);
        config.limits.min_rate_out = u64::MAX;
        config.limits.queue_timeout = Duration::from_hours(1);
        config.limits.tunnel_max_age = Some(Duration::ZERO);
        config.source = Source::Registry {
            addresses: vec![],
            token: String::new(),
            ca: None,
            state_dir: None,
        };
        let fields: Vec<_> = config
            .check()
            .unwrap_err()
            .errors
            .into_iter()
            .map(|e| e.field)
            .collect();
        assert_eq!(
            fields,
            [
                "id",
                "admin",
                "limits.head",
                "limits.connections_per_client",
                "limits.min_rate_out",
                "limits.queue_timeout",
                "limits.keepalive",
                "limits.tunnel_max_age",
                "source.addresses"
            ]
        );
    }
}
