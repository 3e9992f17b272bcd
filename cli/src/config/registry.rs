//! Settings of `cardea registry`: the `[registry]` table.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf};

use cardea_registry::{
    Config,
    config::{BootstrapToken, DatabaseUrl, Secret, TlsFiles},
};
use cardea_registry_api::{Invalid, Name, Span, api::Role, invalid::Check};
use clap::Args;
use serde::{Deserialize, Serialize};

/// What can be said about a registry.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RegistrySettings {
    /// Where the API listens [default: 127.0.0.1:7400]
    #[arg(long, env = "CARDEA_REGISTRY_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where health and metrics are served [default: 127.0.0.1:7401]
    #[arg(long, env = "CARDEA_REGISTRY_ADMIN", value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Where snapshots, the journal, admin.token and the SQLite file are kept [default: data]
    #[arg(long, env = "CARDEA_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// postgres://user:password@host/name [default: SQLite in the data directory]
    #[arg(long, env = "CARDEA_DATABASE", value_name = "URL")]
    pub(crate) database: Option<String>,
    /// SQLite: each write waits for the disk, so that a power cut loses none [default: false]
    #[arg(
        long,
        env = "CARDEA_SQLITE_FULL_SYNC",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub(crate) sqlite_full_sync: Option<bool>,
    /// Threads that serve requests [default: half of the cores]
    #[arg(long, env = "CARDEA_REGISTRY_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// This replica's id among those of one database [default: made once, kept in the data directory]
    #[arg(long, env = "CARDEA_REGISTRY_REPLICA", value_name = "NAME")]
    pub(crate) replica: Option<Name>,
    /// How many changes of instances may wait for a database that is away; beyond, new instances are
    /// refused, at least 1000 [default: 200000]
    #[arg(long, env = "CARDEA_MAX_PENDING_CHANGES", value_name = "N")]
    pub(crate) max_pending_changes: Option<usize>,
    #[command(flatten)]
    pub(crate) tls: Tls,
    /// Tokens that are put at each start.
    #[arg(skip)]
    pub(crate) tokens: Vec<Token>,
    #[command(flatten)]
    pub(crate) http: Http,
    #[command(flatten)]
    pub(crate) leases: Leases,
    #[command(flatten)]
    pub(crate) guard: Guard,
    #[command(flatten)]
    pub(crate) snapshots: Snapshots,
    #[command(flatten)]
    pub(crate) routers: Routers,
    #[command(flatten)]
    pub(crate) history: History,
}

/// The API's certificate.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tls {
    /// The API's certificate and those that signed it, PEM; read again when it changes
    #[arg(
        long = "tls-cert",
        env = "CARDEA_TLS_CERT",
        value_name = "FILE",
        requires = "key"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(
        long = "tls-key",
        env = "CARDEA_TLS_KEY",
        value_name = "FILE",
        requires = "cert"
    )]
    pub(crate) key: Option<PathBuf>,
}

/// A token that is put at each start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) name: Name,
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) services: Vec<Name>,
    #[serde(default)]
    pub(crate) secret: Option<String>,
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
}

/// Limits of the API's connections.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Http {
    /// The most connections at once [default: 10000]
    #[arg(long, env = "CARDEA_HTTP_MAX_CONNECTIONS", value_name = "N")]
    pub(crate) max_connections: Option<usize>,
    /// For a TLS handshake or a request's head, and for an idle connection [default: 1m]
    #[arg(long, env = "CARDEA_HTTP_HEADER_TIMEOUT", value_name = "TIME")]
    pub(crate) header_timeout: Option<Span>,
    /// For requests in flight when it stops [default: 5s]
    #[arg(long, env = "CARDEA_HTTP_STOP_TIMEOUT", value_name = "TIME")]
    pub(crate) stop_timeout: Option<Span>,
}

/// When leases lapse.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Leases")]
pub(crate) struct Leases {
    /// How often renewals are handed to the replica that looks for lapsed leases [default: 3s]
    #[arg(long = "lease-flush", env = "CARDEA_LEASE_FLUSH", value_name = "TIME")]
    pub(crate) flush: Option<Span>,
    /// What every lease gets on top after a start or an outage of the database [default: 30s]
    #[arg(long = "lease-grace", env = "CARDEA_LEASE_GRACE", value_name = "TIME")]
    pub(crate) grace: Option<Span>,
}

/// The collapse guard.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Leases")]
pub(crate) struct Guard {
    /// At most this share of a service may expire a minute, in percent [default: 20]
    #[arg(
        long = "guard-max-percent",
        env = "CARDEA_GUARD_MAX_PERCENT",
        value_name = "N"
    )]
    pub(crate) max_percent: Option<u8>,
    /// … or this many instances, whichever is more [default: 3]
    #[arg(
        long = "guard-max-count",
        env = "CARDEA_GUARD_MAX_COUNT",
        value_name = "N"
    )]
    pub(crate) max_count: Option<usize>,
    /// How long what the guard kept stays, marked stale [default: 24h]
    #[arg(
        long = "guard-stale-after",
        env = "CARDEA_GUARD_STALE_AFTER",
        value_name = "TIME"
    )]
    pub(crate) stale_after: Option<Span>,
}

/// Disk snapshots.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Snapshots")]
pub(crate) struct Snapshots {
    /// How often a disk snapshot is written, when something changed [default: 30s]
    #[arg(
        long = "snapshots-every",
        env = "CARDEA_SNAPSHOTS_EVERY",
        value_name = "TIME"
    )]
    pub(crate) every: Option<Span>,
    /// How many are kept [default: 5]
    #[arg(
        long = "snapshots-keep",
        env = "CARDEA_SNAPSHOTS_KEEP",
        value_name = "N"
    )]
    pub(crate) keep: Option<usize>,
}

/// When routers count.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Routers {
    /// A router that has not asked for this long is not waited for [default: 45s]
    #[arg(
        long = "routers-live",
        env = "CARDEA_ROUTERS_LIVE",
        value_name = "TIME"
    )]
    pub(crate) live: Option<Span>,
}

/// How much of the change log is kept.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Change log")]
pub(crate) struct History {
    /// Changes are kept this long, at least 1h [default: 720h]
    #[arg(
        long = "history-keep-for",
        env = "CARDEA_HISTORY_KEEP_FOR",
        value_name = "TIME"
    )]
    pub(crate) keep_for: Option<Span>,
    /// … and at least this many, however old, at least 10000 [default: 100000]
    #[arg(
        long = "history-at-least",
        env = "CARDEA_HISTORY_AT_LEAST",
        value_name = "N"
    )]
    pub(crate) at_least: Option<u64>,
}

mirror! {
    RegistrySettings => Config {
        listen, admin, data_dir, sqlite_full_sync, max_pending_changes,
        http.max_connections, http.header_timeout, http.stop_timeout,
        leases.flush, leases.grace,
        guard.max_percent, guard.max_count, guard.stale_after,
        snapshots.every, snapshots.keep,
        routers.live,
        history.keep_for, history.at_least,
    }
}

impl RegistrySettings {
    /// Every setting as it holds when nobody says anything.
    pub(crate) fn defaults() -> Self {
        Self {
            threads: Some(default_threads()),
            ..Self::mirrored()
        }
    }

    /// How many threads serve requests.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(default_threads)
    }

    /// The registry's own form, checked.
    pub(crate) fn into_config(self) -> Result<Config, Invalid> {
        let mut config = Config {
            commit: env!("CARDEA_BUILT_FROM").to_owned(),
            ..Config::default()
        };
        self.lay_over(&mut config);
        let mut check = Check::default();
        config.tls = check.merge("tls", self.tls.files()).flatten();
        for (i, token) in self.tokens.into_iter().enumerate() {
            let token = check.merge(&format!("tokens[{i}]"), token.read());
            config.tokens.extend(token);
        }
        check.finish()?;
        config.database = self.database.map(DatabaseUrl::new);
        config.replica = self.replica;
        config.check()?;
        Ok(config)
    }
}

/// Half of the cores: an event that finds a second idle thread wakes it for nothing, which a lone
/// write notices, and the database wants cores too.
pub(crate) fn default_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
}

impl Tls {
    fn files(self) -> Result<Option<TlsFiles>, Invalid> {
        match (self.cert, self.key) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Invalid::field("key", "missing: `cert` needs it")),
            (None, Some(_)) => Err(Invalid::field("cert", "missing: `key` needs it")),
        }
    }
}

impl Token {
    fn read(self) -> Result<BootstrapToken, Invalid> {
        let secret = match (self.secret, self.secret_file) {
            (Some(secret), None) => secret,
            (None, Some(file)) => super::secret_from(&file, "secret_file")?,
            _ => {
                let text = "give `secret` or `secret_file`, and only one of them";
                return Err(Invalid::field("secret", text));
            }
        };
        Ok(BootstrapToken {
            name: self.name,
            role: self.role,
            services: self.services,
            secret: Secret::new(secret),
        })
    }
}
