//! What a registry is told before it starts. The command line builds it from file, environment and
//! flags; [`Config::check`] says what is wrong before any port is bound.

use std::{fmt, net::SocketAddr, path::PathBuf};

use cardea_registry_api::{Invalid, Name, Span, api::Role, invalid::Check};

/// Everything a registry can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API listens. Default `127.0.0.1:7400`.
    pub listen: SocketAddr,
    /// Where health and metrics are served, in plain HTTP. Default `127.0.0.1:7401`.
    pub admin: SocketAddr,
    /// Where snapshots, the journal, `admin.token` and the SQLite file are kept. Default `data`.
    pub data_dir: PathBuf,
    /// The database. Default: none, which means SQLite in `data_dir`.
    pub database: Option<DatabaseUrl>,
    /// How long connecting or a statement may take before the database counts as lost. Default `2s`.
    pub database_timeout: Span,
    /// SQLite: whether each write waits for the disk. Without, a power cut may lose the last writes,
    /// a crash of the program none. Default no.
    pub sqlite_full_sync: bool,
    /// This replica's id, unique among the replicas of one database. Default: none, which means one
    /// is made at the first start and kept in `data_dir`.
    pub replica: Option<Name>,
    /// Certificate and key of the API. Default: none, which means plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Tokens that are put at each start, replacing what has the same name. Default: none.
    pub tokens: Vec<BootstrapToken>,
    /// Limits of the API's connections.
    pub http: HttpConfig,
    /// When leases lapse.
    pub leases: LeaseConfig,
    /// How many lapsed instances may leave.
    pub guard: GuardConfig,
    /// Disk snapshots.
    pub snapshots: SnapshotConfig,
    /// When routers count.
    pub routers: RouterConfig,
    /// How much of the change log is kept.
    pub history: HistoryConfig,
    /// How many changes of instances may wait, in memory and on disk, for a database that is away.
    /// Beyond, instances that are not known are refused; those that are known go on. At least 1,000.
    /// Default 200,000.
    pub max_pending_changes: usize,
    /// The commit that the program was built from, for metrics. Default: empty, which means unknown.
    pub commit: String,
}

/// A database's URL, such as `postgres://user:password@host/name`; its password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The API's certificate, read again when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that signed it, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// A token that is put at each start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    /// Its name: what the change log shows as the actor.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// For role `agent`: only these services; empty: all.
    pub services: Vec<Name>,
    /// What callers send, at least 32 characters without spaces.
    pub secret: Secret,
}

/// Limits of the API's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// The most connections at once; more wait to be accepted. Default 10,000.
    pub max_connections: usize,
    /// How long a client may take for a TLS handshake or a request's head, which is also how long an
    /// idle connection is kept. Default `60s`.
    pub header_timeout: Span,
    /// How long requests in flight may take when the registry stops. Default `5s`.
    pub stop_timeout: Span,
}

/// When leases lapse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseConfig {
    /// How often lapsed leases are looked for. Default `1s`.
    pub tick: Span,
    /// How often renewals are handed, all at once, to the replica that looks for lapsed leases.
    /// Default `3s`.
    pub flush: Span,
    /// What every lease gets on top of its full length after the registry started, its database came
    /// back, or another replica took over, so that agents can reach it again before anything expires.
    /// Default `30s`.
    pub grace: Span,
}

/// The collapse guard: how many instances of a service may leave because their leases lapsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardConfig {
    /// At most this share of a service's instances in a cluster a minute … Default 20.
    pub max_percent: u8,
    /// … or this many, whichever is more. Default 3.
    pub max_count: usize,
    /// Whether the last instance of a service in a cluster is kept whatever its lease says. Default
    /// yes.
    pub keep_last: bool,
    /// How long an instance that the guard kept stays, marked stale. Default `24h`.
    pub stale_after: Span,
}

/// Disk snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// How often one is written, when something changed. Default `30s`.
    pub every: Span,
    /// How many are kept. Default 5.
    pub keep: usize,
}

/// When routers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterConfig {
    /// A router that has not asked for this long no longer counts for acknowledgements. Longer than
    /// a router's long poll. Default `45s`.
    pub live: Span,
}

/// How much of the change log is kept. Objects themselves never go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Changes are kept this long, at least 1 h. Default 30 days.
    pub keep_for: Span,
    /// … and at least this many, however old, at least 10,000. Default 100,000.
    pub at_least: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            admin: SocketAddr::from(([127, 0, 0, 1], 7401)),
            data_dir: PathBuf::from("data"),
            database: None,
            database_timeout: Span::secs(2),
            sqlite_full_sync: false,
            replica: None,
            tls: None,
            tokens: Vec::new(),
            http: HttpConfig::default(),
            leases: LeaseConfig::default(),
            guard: GuardConfig::default(),
            snapshots: SnapshotConfig::default(),
            routers: RouterConfig::default(),
            history: HistoryConfig::default(),
            max_pending_changes: 200_000,
            commit: String::new(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            header_timeout: Span::secs(60),
            stop_timeout: Span::secs(5),
        }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            tick: Span::secs(1),
            flush: Span::secs(3),
            grace: Span::secs(30),
        }
    }
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            max_percent: 20,
            max_count: 3,
            keep_last: true,
            stale_after: Span::secs(86_400),
        }
    }
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            every: Span::secs(30),
            keep: 5,
        }
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            keep_for: Span::secs(30 * 86_400),
            at_least: 100_000,
        }
    }
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            live: Span::secs(45),
        }
    }
}

impl Config {
    /// Checks what the types alone cannot; the error names each setting.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            self.listen.port() == 0 || self.listen != self.admin,
            "admin",
            format!("`listen` has {} already; give another port", self.listen),
        );
        check.ensure(
            !self.data_dir.as_os_str().is_empty(),
            "data_dir",
            "name a directory",
        );
        if let Some(database) = &self.database {
            check.ensure(
                database.0.starts_with("postgres://") || database.0.starts_with("postgresql://"),
                "database",
                "write postgres://user:password@host/name, or leave it out for SQLite in `data_dir`",
            );
        }
        check.merge("tokens", self.check_tokens());
        check.ensure(
            self.http.max_connections > 0,
            "http.max_connections",
            "at least 1",
        );
        let spans = [
            ("database_timeout", self.database_timeout),
            ("http.header_timeout", self.http.header_timeout),
            ("leases.tick", self.leases.tick),
            ("leases.flush", self.leases.flush),
            ("guard.stale_after", self.guard.stale_after),
            ("snapshots.every", self.snapshots.every),
            ("routers.live", self.routers.live),
        ];
        for (field, span) in spans {
            let wanted = "longer than nothing, such as 10s";
            check.ensure(span > Span::secs(0), field, wanted);
        }
        check.ensure(
            self.guard.max_percent <= 100,
            "guard.max_percent",
            "a share is 0 to 100",
        );
        check.ensure(
            self.history.keep_for >= Span::secs(3600),
            "history.keep_for",
            "at least 1h: what other replicas may still have to follow is not removed",
        );
        check.ensure(
            self.history.at_least >= 10_000,
            "history.at_least",
            "at least 10000: what other replicas may still have to follow is not removed",
        );
        check.ensure(
            self.max_pending_changes >= 1000,
            "max_pending_changes",
            "at least 1000: one call may register as many",
        );
        check.ensure(
            (1..=1000).contains(&self.snapshots.keep),
            "snapshots.keep",
            "1 to 1000",
        );
        check.finish()
    }

    fn check_tokens(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for (i, token) in self.tokens.iter().enumerate() {
            let twice = self.tokens[..i].iter();
            check.ensure(
                twice.clone().all(|other| other.name != token.name),
                &format!("[{i}].name"),
                format!("`{}` stands twice", token.name),
            );
            check.ensure(
                twice.clone().all(|other| other.secret != token.secret),
                &format!("[{i}].secret"),
                "another token has this secret too",
            );
            let secret = token.secret.expose();
            check.ensure(
                (32..=256).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic()),
                &format!("[{i}].secret"),
                "32 to 256 visible ASCII characters, such as `openssl rand -hex 32` prints",
            );
            check.ensure(
                token.services.is_empty() || token.role == Role::Agent,
                &format!("[{i}].services"),
                "only a token of role `agent` can be bound to services",
            );
        }
        check.finish()
    }
}

impl DatabaseUrl {
    /// Takes a URL as it is; [`Config::check`] looks at it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (url, query) = match self.0.split_once('?') {
            Some((url, _)) => (url, "?***"),
            None => (self.0.as_str(), ""),
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return f.write_str("***");
        };
        // A password may hold a `/` or `@` that somebody forgot to encode: up to the last `@` is secret.
        match rest.rsplit_once('@') {
            Some((login, host)) => {
                let user = login.split(':').next().unwrap_or_default();
                write!(f, "{scheme}://{user}:***@{host}{query}")
            }
            None => write!(f, "{scheme}://{rest}{query}"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound() {
        Config::default().check().unwrap();
    }

    #[test]
    fn wrong_settings_are_named() {
        let token = BootstrapToken {
            name: "ci".parse().unwrap(),
            role: Role::Viewer,
            services: vec!["search".parse().unwrap()],
            secret: Secret::new("short"),
        };
        let mut config = Config {
            admin: SocketAddr::from(([127, 0, 0, 1], 7400)),
            database: Some(DatabaseUrl::new("mysql://x")),
            tokens: vec![token.clone(), token],
            ..Config::default()
        };
        config.guard.max_percent = 101;
        config.snapshots.keep = 0;
        config.leases.flush = Span::secs(0);
        let fields: Vec<String> = config
            .check()
            .unwrap_err()
            .errors
            .into_iter()
            .map(|e| e.field)
            .collect();
        assert_eq!(
            fields,
            [
                "admin",
                "database",
                "tokens[0].secret",
                "tokens[0].services",
                "tokens[1].name",
                "tokens[1].secret",
                "tokens[1].secret",
                "tokens[1].services",
                "leases.flush",
                "guard.max_percent",
                "snapshots.keep",
            ]
        );
    }

    #[test]
    fn secrets_are_never_shown() {
        for (url, shown) in [
            (
                "postgres://me:pa@ss/word@db:5432/cardea",
                "postgres://me:***@db:5432/cardea",
            ),
            (
                "postgres://db/cardea?password=x&user=y",
                "postgres://db/cardea?***",
            ),
            ("nonsense", "***"),
        ] {
            assert_eq!(format!("{:?}", DatabaseUrl::new(url)), shown);
        }
        assert_eq!(format!("{:?}", Secret::new("x")), "***");
    }
}
