//! Settings of `cardea router`: the `[router]` table.

use std::{net::SocketAddr, path::PathBuf};

use cardea_registry_api::{Invalid, Name, Span, api::DEFAULT_REGISTRY, invalid::Check};
use cardea_router::{AccessLog, BelieveIds, Config, Network, Source};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

mod http2;
mod limits;
mod mirror;
mod tls;

use http2::Http2;
use limits::Limits;
use mirror::Mirror;
use tls::{Listen, TlsMin};

/// What can be said about a router.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RouterSettings {
    /// Where callers connect, or off: with TLS only [default: 127.0.0.1:8080]
    #[arg(long, env = "CARDEA_ROUTER_LISTEN", value_name = "ADDR|off")]
    pub(crate) listen: Option<Listen>,
    /// Where callers connect that speak TLS [default: none]
    #[arg(long, env = "CARDEA_ROUTER_LISTEN_TLS", value_name = "ADDR")]
    pub(crate) listen_tls: Option<SocketAddr>,
    /// The lowest version of TLS that is spoken with callers [default: 1.2]
    #[arg(long, env = "CARDEA_ROUTER_TLS_MIN_VERSION", value_name = "VERSION")]
    pub(crate) tls_min_version: Option<TlsMin>,
    /// Where operators ask: health, metrics, peers [default: 127.0.0.1:8081]
    #[arg(long, env = "CARDEA_ROUTER_ADMIN", value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Serve this file of services and routes, whatever registry is named; reloaded when it changes
    #[arg(long = "static", env = "CARDEA_ROUTER_STATIC", value_name = "FILE")]
    #[serde(rename = "static")]
    pub(crate) static_file: Option<PathBuf>,
    /// A registry's address; give each replica [default: http://127.0.0.1:7400]
    #[arg(
        long,
        env = "CARDEA_REGISTRY",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) registry: Vec<String>,
    /// The cluster whose traffic it serves [default: default]
    #[arg(long, env = "CARDEA_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<Name>,
    /// Where it stands: instances there come first where traffic says so [default: none]
    #[arg(long, env = "CARDEA_ZONE", value_name = "NAME")]
    pub(crate) zone: Option<Name>,
    /// Its name among the cluster's routers [default: the host's name]
    #[arg(long, env = "CARDEA_ROUTER_ID", value_name = "NAME")]
    pub(crate) id: Option<String>,
    /// A token of role router (visible in the process list: better a file)
    #[arg(long, env = "CARDEA_TOKEN", value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A file with the token
    #[arg(long, env = "CARDEA_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// For https: certificates (PEM) to trust instead of the system's
    #[arg(long, env = "CARDEA_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Where the last table is kept, for a start without a registry [default: data/router]
    #[arg(long, env = "CARDEA_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Worker threads; 0: one for each core [default: 0]
    #[arg(long, env = "CARDEA_ROUTER_THREADS", value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Ask the system for large pages of memory: with many routes 3 % less CPU, and some MiB more [default: true]
    #[arg(
        long,
        env = "CARDEA_ROUTER_LARGE_PAGES",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub(crate) large_pages: Option<bool>,
    /// A file, stdout or off [default: stdout]
    #[arg(long, env = "CARDEA_ROUTER_ACCESS_LOG", value_name = "PATH|stdout|off")]
    pub(crate) access_log: Option<String>,
    /// How long a graceful stop may take [default: 30s]
    #[arg(long, env = "CARDEA_ROUTER_DRAIN", value_name = "TIME")]
    pub(crate) drain: Option<Span>,
    /// How long a WebSocket outlives its instance's removal, or its cluster's last share of traffic [default: 10m]
    #[arg(long, env = "CARDEA_ROUTER_TUNNEL_CEILING", value_name = "TIME")]
    pub(crate) tunnel_ceiling: Option<Span>,
    #[command(flatten)]
    pub(crate) upgrade: Upgrade,
    #[command(flatten)]
    pub(crate) proxies: Proxies,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) http2: Http2,
    #[command(flatten)]
    pub(crate) mirror: Mirror,
}

/// How one process takes over from another.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Upgrade")]
pub(crate) struct Upgrade {
    /// The Unix socket where a process asks to take over, or off [default: upgrade.sock in the data
    /// directory; off with --static]
    #[arg(
        long = "upgrade-socket",
        env = "CARDEA_ROUTER_UPGRADE_SOCKET",
        value_name = "PATH|off"
    )]
    pub(crate) socket: Option<String>,
    /// How long a process that takes over waits for a table before it gives up [default: 30s]
    #[arg(
        long = "upgrade-patience",
        env = "CARDEA_ROUTER_UPGRADE_PATIENCE",
        value_name = "TIME"
    )]
    pub(crate) patience: Option<Span>,
}

/// What stands before the router, and whom to believe.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Proxies")]
pub(crate) struct Proxies {
    /// Networks of the proxies before it, whose X-Forwarded-... and Forwarded are believed; everybody
    /// else's are replaced [default: none]
    #[arg(
        long = "trusted-proxies",
        env = "CARDEA_ROUTER_TRUSTED_PROXIES",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) trusted: Vec<Network>,
    /// Networks of the proxies whose connections begin with a PROXY protocol header, version 1 or 2;
    /// from anybody else it is refused [default: none]
    #[arg(
        long,
        env = "CARDEA_ROUTER_PROXY_PROTOCOL",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) proxy_protocol: Vec<Network>,
    /// Whose X-Request-Id and traceparent go on [default: anyone]
    #[arg(long, env = "CARDEA_ROUTER_BELIEVE_IDS", value_name = "WHOSE")]
    pub(crate) believe_ids: Option<Believe>,
    /// Drop every header with a `_` in its name, not only those that shadow X-Forwarded-... and the
    /// like [default: false]
    #[arg(
        long,
        env = "CARDEA_ROUTER_DROP_UNDERSCORES",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub(crate) drop_underscores: Option<bool>,
}

/// As [`BelieveIds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Believe {
    /// Anybody's.
    Anyone,
    /// The trusted proxies' only.
    Trusted,
}

impl From<Believe> for BelieveIds {
    fn from(believe: Believe) -> Self {
        match believe {
            Believe::Anyone => Self::Anyone,
            Believe::Trusted => Self::Trusted,
        }
    }
}

mirror! {
    RouterSettings => Config {
        listen, tls_min_version, admin, cluster, id, threads, drain, tunnel_ceiling,
        limits.head, limits.header_timeout, limits.idle_timeout, limits.keepalive,
        limits.min_rate_in, limits.min_rate_out, limits.rate_window,
        limits.connections, limits.queue_timeout, upgrade.patience,
        http2.streams, http2.window, http2.send_buffer, http2.ping_interval, http2.ping_timeout,
        mirror.at_once, mirror.queue, mirror.memory,
        http2.credit,
    }
}

impl RouterSettings {
    /// Every setting as it holds when nobody says anything.
    pub(crate) fn defaults() -> Self {
        Self {
            registry: vec![DEFAULT_REGISTRY.to_owned()],
            data_dir: Some(PathBuf::from("data/router")),
            large_pages: Some(true),
            access_log: Some("stdout".to_owned()),
            proxies: Proxies {
                trusted: Vec::new(),
                proxy_protocol: Vec::new(),
                believe_ids: Some(Believe::Anyone),
                drop_underscores: Some(Config::default().drop_underscores),
            },
            ..Self::mirrored()
        }
    }

    /// The router's own form, checked.
    pub(crate) fn into_config(self) -> Result<Config, Invalid> {
        let mut config = Config {
            commit: env!("CARDEA_BUILT_FROM").to_owned(),
            ..Config::default()
        };
        self.lay_over(&mut config);
        config.listen_tls = self.listen_tls;
        config.zone = self.zone;
        config.limits.body = self.limits.body;
        config.limits.connections_per_client = self.limits.connections_per_client;
        config.limits.requests_per_connection = self.limits.requests_per_connection;
        config.limits.tunnel_max_age = self.limits.tunnel_max_age.map(Span::duration);
        config.proxy_protocol = self.proxies.proxy_protocol.into_iter().collect();
        config.mirror.allow = self.mirror.allow;
        config.trusted_proxies = self.proxies.trusted.into_iter().collect();
        if let Some(believe) = self.proxies.believe_ids {
            config.believe_ids = believe.into();
        }
        if let Some(drop) = self.proxies.drop_underscores {
            config.drop_underscores = drop;
        }
        let mut check = Check::default();
        config.upgrade.socket = match self.upgrade.socket.as_deref() {
            Some("off") => None,
            Some(path) => Some(PathBuf::from(path)),
            None if self.static_file.is_some() => None,
            None => (self.data_dir.as_ref()).map(|dir| dir.join("upgrade.sock")),
        };
        config.source = match self.static_file {
            Some(file) => Source::Static { file },
            None => Source::Registry {
                addresses: self.registry,
                token: check
                    .merge("", super::token(self.token, self.token_file.as_deref()))
                    .unwrap_or_default(),
                ca: self.ca,
                state_dir: self.data_dir,
            },
        };
        if let Some(log) = self.access_log {
            config.access_log = match log.as_str() {
                "off" => AccessLog::Off,
                "stdout" | "-" => AccessLog::Stdout,
                path => AccessLog::File(PathBuf::from(path)),
            };
        }
        check.merge("", config.check().map_err(as_settings));
        check.finish()?;
        Ok(config)
    }
}

/// The router's names of settings as they are called here.
fn as_settings(mut invalid: Invalid) -> Invalid {
    for error in &mut invalid.errors {
        let field = error.field.replace("source.addresses", "registry");
        error.field = field
            .replace("source.state_dir", "data_dir")
            .replace("source.", "");
    }
    invalid
}
