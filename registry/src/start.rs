//! Starting and stopping a registry, in the order that loses nothing.
//!
//! Ports are bound first, so that a taken one is found before anything is touched; the admin port
//! answers while the first set is loaded; the API opens when it is. Stopping goes the other way: the
//! API lets go of everybody who waits, the core writes what is left, the admin port closes last.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cardea_registry_api::{Invalid, Name};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::first::{self, FirstTokenError},
    config::{BootstrapToken, Config},
    core::{
        Background, Core, CoreConfig, OpenError,
        config::{GuardConfig, HistoryConfig, LeaseConfig, SnapshotConfig, StoreConfig},
    },
    http::{self, health::Health},
    metrics,
    server::{self, Server},
    tls::{Certificate, TlsError},
};

/// How often metrics that nobody reads are tidied up.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often tokens that could not be put are tried again.
const TOKEN_RETRY: Duration = Duration::from_secs(2);
/// Connections of the admin port.
const ADMIN_CONNECTIONS: usize = 256;
/// How long the admin port may take to close.
const ADMIN_STOP: Duration = Duration::from_secs(1);

/// Why a registry did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings are wrong.
    #[error(transparent)]
    Config(#[from] Invalid),
    /// An address cannot be listened on.
    #[error("`{setting}`: cannot listen on {address}: {}", bind_help(.source))]
    Bind {
        /// `listen` or `admin`.
        setting: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS cannot be set up with these settings.
    #[error("cannot set TLS up: {0}")]
    Rustls(#[from] rustls::Error),
    /// The data directory cannot be used.
    #[error("`data_dir`: cannot use {}: {source}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The core did not start.
    #[error(transparent)]
    Core(#[from] OpenError),
    /// The first tokens could not be put.
    #[error(transparent)]
    Token(#[from] FirstTokenError),
}

fn bind_help(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this port; stop it, or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; choose one of its own".to_owned()
        }
        io::ErrorKind::PermissionDenied => "not permitted; choose a port from 1024 on".to_owned(),
        _ => error.to_string(),
    }
}

/// A part of a registry that should run until it is stopped, and did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry's {part} ended by itself: {reason}")]
pub struct Ended {
    /// Which part.
    pub part: &'static str,
    /// What is known.
    pub reason: String,
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    api: SocketAddr,
    admin: SocketAddr,
    background: Option<Background>,
    stopping: CancellationToken,
    closing: CancellationToken,
    parts: Parts,
}

/// Starts a registry; returns when it serves.
pub async fn start(config: Config) -> Result<Registry, StartError> {
    config.check()?;
    let (api_listener, api) = listen("listen", config.listen)?;
    let (admin_listener, admin) = listen("admin", config.admin)?;
    let certificate = config.tls.clone().map(Certificate::load).transpose()?;
    let replica = prepare(&config)?;

    let health = Arc::new(Health::default());
    let metrics = metrics::recorder();
    // From here on there is an owner: whatever fails, dropping it ends what was begun.
    let mut registry = Registry {
        api,
        admin,
        background: None,
        stopping: health.stopping.clone(),
        closing: CancellationToken::new(),
        parts: Parts::default(),
    };
    let closing = &registry.closing;
    let upkeep = upkeep(metrics.clone(), closing.clone());
    let admin_server = Server {
        name: "admin",
        listener: admin_listener,
        tls: None,
        app: http::admin(Arc::clone(&health), metrics, &config.commit),
        max_connections: ADMIN_CONNECTIONS,
        header_timeout: config.http.header_timeout.duration(),
        stop_timeout: ADMIN_STOP,
    };
    let admin_server = admin_server.run(closing.clone());
    registry.parts.run("upkeep of metrics", upkeep);
    registry.parts.run("admin port", admin_server);

    let (core, background) = match Core::open(core_config(&config, &replica)).await {
        Ok(opened) => opened,
        Err(error) => {
            registry.stop().await;
            return Err(error.into());
        }
    };
    registry.background = Some(background);
    let opened = registry
        .open_api(&config, core, health, api_listener, certificate)
        .await;
    match opened {
        Ok(()) => Ok(registry),
        Err(error) => {
            registry.stop().await;
            Err(error)
        }
    }
}

type LoadedCertificate = (Arc<Certificate>, crate::tls::Loaded);

impl Registry {
    async fn open_api(
        &mut self,
        config: &Config,
        core: Core,
        health: Arc<Health>,
        listener: TcpListener,
        certificate: Option<LoadedCertificate>,
    ) -> Result<(), StartError> {
        match first::put(&core, &config.tokens, &config.data_dir).await {
            Ok(()) => {}
            Err(error) if error.is_temporary() => {
                tracing::warn!(%error, "trying again until it works");
                let tokens = config.tokens.clone();
                let dir = config.data_dir.clone();
                let stop = self.stopping.clone();
                self.parts
                    .attend(keep_putting(core.clone(), tokens, dir, stop));
            }
            Err(error) => return Err(error.into()),
        }
        let tls = match certificate {
            Some((certificate, loaded)) => {
                let tls = certificate.server()?;
                let watch = certificate.watch(loaded, self.closing.clone());
                self.parts.run("watch over the certificate", watch);
                Some(tls)
            }
            None => None,
        };
        health.loaded(core.clone());
        let server = Server {
            name: "api",
            listener,
            tls,
            app: http::api(core, health, self.stopping.clone()),
            max_connections: config.http.max_connections,
            header_timeout: config.http.header_timeout.duration(),
            stop_timeout: config.http.stop_timeout.duration(),
        };
        self.parts.run("API", server.run(self.stopping.clone()));
        tracing::info!(api = %self.api, admin = %self.admin, tls = config.tls.is_some(), "the registry serves");
        Ok(())
    }

    /// Where the API listens.
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where health and metrics are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Stops: nobody new is let in, those who wait are answered, requests in flight finish within
    /// `http.stop_timeout`, what was accepted is written, the last disk snapshot too.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        self.parts.ended("API").await;
        if let Some(background) = self.background.take() {
            background.stop().await;
        }
        self.closing.cancel();
        while self.parts.next().await.is_some() {}
    }

    /// Waits until a part dies by itself; that is, for ever if all goes well.
    pub async fn ended(&mut self) -> Ended {
        let core = async {
            match &mut self.background {
                Some(background) => background.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = self.parts.next() => ended,
            part = core => Ended {
                part,
                reason: "its task ended; the log has the cause".to_owned(),
            },
            else => std::future::pending().await,
        }
    }
}

/// Without a stop, nothing goes on behind the owner's back either.
impl Drop for Registry {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.closing.cancel();
    }
}

/// The tasks of a registry, each with its name. Dropped, they are aborted.
#[derive(Debug, Default)]
struct Parts {
    tasks: JoinSet<()>,
    names: Vec<(tokio::task::Id, &'static str)>,
}

impl Parts {
    /// Runs a part that should not end before it is stopped.
    fn run(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(part);
        self.names.push((task.id(), name));
    }

    /// Runs something that may end.
    fn attend(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// The next part that ended; none: all have.
    async fn next(&mut self) -> Option<Ended> {
        while let Some(joined) = self.tasks.join_next_with_id().await {
            let (id, reason) = match joined {
                Ok((id, ())) => (id, "it returned".to_owned()),
                Err(error) => (error.id(), error.to_string()),
            };
            if let Some(at) = self.names.iter().position(|(known, _)| *known == id) {
                let (_, part) = self.names.swap_remove(at);
                return Some(Ended { part, reason });
            }
        }
        None
    }

    /// Waits until this part has ended, if it ever ran.
    async fn ended(&mut self, name: &str) {
        while self.names.iter().any(|(_, known)| *known == name) {
            if self.next().await.is_none() {
                return;
            }
        }
    }
}

fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = server::bind(address).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| StartError::Bind {
        setting,
        address,
        source,
    })
}

/// Makes the data directory and finds out this replica's id.
fn prepare(config: &Config) -> Result<Name, StartError> {
    let failed = |source| StartError::DataDir {
        path: config.data_dir.clone(),
        source,
    };
    std::fs::create_dir_all(&config.data_dir).map_err(failed)?;
    match &config.replica {
        Some(replica) => Ok(replica.clone()),
        None => replica_id(&config.data_dir).map_err(failed),
    }
}

/// The id that an earlier start has kept, or a new one.
fn replica_id(data_dir: &Path) -> io::Result<Name> {
    let path = data_dir.join("replica");
    let kept = std::fs::read_to_string(&path).ok();
    if let Some(Ok(name)) = kept.map(|text| text.trim().parse()) {
        return Ok(name);
    }
    let text = format!("r{:08x}", rand::random::<u32>());
    std::fs::write(&path, format!("{text}\n"))?;
    text.parse().map_err(io::Error::other)
}

fn core_config(config: &Config, replica: &Name) -> CoreConfig {
    let url = match &config.database {
        Some(url) => url.expose().to_owned(),
        None => format!("sqlite://{}", config.data_dir.join("registry.db").display()),
    };
    CoreConfig {
        store: StoreConfig {
            url,
            timeout: config.database_timeout.duration(),
            sqlite_full_sync: config.sqlite_full_sync,
            ..StoreConfig::default()
        },
        data_dir: config.data_dir.clone(),
        replica: replica.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        snapshots: SnapshotConfig {
            interval: config.snapshots.every.duration(),
            generations: config.snapshots.keep,
        },
        leases: LeaseConfig {
            tick: config.leases.tick.duration(),
            flush: config.leases.flush.duration(),
            grace: config.leases.grace.duration(),
        },
        guard: GuardConfig {
            percent: u32::from(config.guard.max_percent),
            at_least: config.guard.max_count,
            keep_last: config.guard.keep_last,
            stale_ttl: config.guard.stale_after.duration(),
            ..GuardConfig::default()
        },
        router_live: config.routers.live.duration(),
        router_return: CoreConfig::default().router_return,
        history: HistoryConfig {
            keep: config.history.keep_for.duration(),
            at_least: config.history.at_least,
            ..HistoryConfig::default()
        },
        max_pending: config.max_pending_changes,
    }
}

async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

/// The database was away when the registry started: the configuration's tokens are put when it is
/// back.
async fn keep_putting(
    core: Core,
    tokens: Vec<BootstrapToken>,
    data_dir: PathBuf,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(TOKEN_RETRY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        match first::put(&core, &tokens, &data_dir).await {
            Ok(()) => return,
            Err(error) if error.is_temporary() => {}
            Err(error) => tracing::error!(%error, "trying again until it works"),
        }
    }
}

#[cfg(test)]
mod tests;
