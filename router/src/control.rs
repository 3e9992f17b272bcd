//! The control thread: keeps the table fresh, resolves names, checks peers, answers on the admin
//! port. One event loop of its own, so that nothing here ever stands in a request's way.

use std::{fmt, io, net::TcpListener, sync::Arc};

use crate::{
    admin::{self, Admin},
    check::Checks,
    config::{Config, Source},
    figures::Reporter,
    metrics::Metrics,
    phase::Phase,
    resolve, retired,
    shared::Shared,
    static_file::StaticFile,
    stopping::Stopping,
    sync::{Handle, Settings, Sync},
    tls::expiry,
    upgrade::give::Giver,
};
use cardea_registry_api::{Invalid, client::ClientConfig};

/// Appends the workers' metrics in Prometheus text form.
pub(crate) type Render = Arc<dyn Fn(&mut String) + Send + std::marker::Sync>;

/// What the control thread works with.
pub(crate) struct Control {
    source: Table,
    shared: Arc<Shared>,
    admin: Admin,
    listener: TcpListener,
    giver: Option<Giver>,
    /// Where a registry hears of live figures.
    reporter: Option<Reporter>,
}

/// Where tables come from.
enum Table {
    Registry(Box<Sync>),
    File(Box<StaticFile>),
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Checks the source and publishes the first table if there is one at hand: the static file
    /// (which must be good), the table `handed` over, or the copy on disk. Blocks on the disk; call
    /// it before the workers start. `listener` is the bound admin port.
    pub(crate) fn new(
        config: &Config,
        (shared, listener, metrics): (Arc<Shared>, TcpListener, Arc<Metrics>),
        handed: &[Vec<u8>],
    ) -> Result<Self, Invalid> {
        let source = match &config.source {
            Source::Static { file } => Table::File(Box::new(StaticFile::new(
                file.clone(),
                (config.cluster.clone(), config.zone.clone()),
                config.tls_min_version,
                Arc::clone(&shared),
            )?)),
            Source::Registry {
                addresses,
                token,
                ca,
                state_dir,
            } => {
                let settings = Settings {
                    cluster: config.cluster.clone(),
                    zone: config.zone.clone(),
                    home: None,
                    router: config.id.clone(),
                    client: ClientConfig {
                        addresses: addresses.clone(),
                        token: token.clone(),
                        ca_file: ca.clone(),
                        ..ClientConfig::default()
                    },
                    state_dir: state_dir.clone(),
                    lowest_tls: config.tls_min_version,
                };
                let sync = Sync::new(settings, Arc::clone(&shared), handed);
                Table::Registry(Box::new(sync.map_err(|e| e.under("source"))?))
            }
        };
        let reporter = match &source {
            Table::Registry(sync) => Some(Reporter {
                client: sync.handle().client(),
                cluster: config.cluster.clone(),
                router: config.id.clone(),
                shared: Arc::clone(&shared),
                metrics: Arc::clone(&metrics),
            }),
            Table::File(_) => None,
        };
        let render: Render = Arc::new(move |out: &mut String| metrics.render(out));
        Ok(Self {
            source,
            reporter,
            admin: Admin {
                shared: Arc::clone(&shared),
                render,
                cluster: config.cluster.as_str().into(),
                router: config.id.as_str().into(),
                commit: config.commit.as_str().into(),
            },
            shared,
            listener,
            giver: None,
        })
    }

    /// A hand on what follows the registry, if one is followed.
    pub(crate) fn sync(&self) -> Option<Handle> {
        match &self.source {
            Table::Registry(sync) => Some(sync.handle()),
            Table::File(_) => None,
        }
    }

    /// Lets other processes take over through `giver`.
    pub(crate) fn give_through(&mut self, giver: Giver) {
        self.giver = Some(giver);
    }

    /// The control thread's body. When the router drains it is no longer ready; at the end it tells
    /// the registry that it goes, reports the last figures and writes the last copy to disk. The admin port answers until
    /// then, or until another process answers there.
    pub(crate) fn run(self, stopping: &Stopping) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let Self {
            source,
            shared,
            admin,
            listener,
            giver,
            reporter,
        } = self;
        let served = runtime.block_on(async {
            let tables = async {
                match source {
                    Table::Registry(sync) => sync.run(stopping.end.clone()).await,
                    Table::File(file) => {
                        tokio::select! {
                            () = file.run() => {}
                            () = stopping.end.cancelled() => {}
                        }
                    }
                }
            };
            let mark = async {
                stopping.drain.cancelled().await;
                shared.start_draining();
            };
            let answer = async {
                let others = stopping.end.child_token();
                tokio::select! {
                    () = shared.tenure.reached(Phase::Accepting) => {}
                    () = stopping.end.cancelled() => return Ok(()),
                }
                let until = async {
                    tokio::select! {
                        () = shared.tenure.reached(Phase::Released) => others.cancel(),
                        () = stopping.end.cancelled() => {}
                    }
                };
                let serve = admin::serve(admin, listener, others.clone());
                tokio::join!(serve, until).0
            };
            let give = async {
                if let Some(giver) = giver {
                    giver.run().await;
                }
            };
            let upkeep = async {
                tokio::select! {
                    () = Checks::new(Arc::clone(&shared)).run() => {}
                    () = resolve::run(Arc::clone(&shared)) => {}
                    () = retired::run(Arc::clone(&shared)) => {}
                    () = expiry::run(Arc::clone(&shared)) => {}
                    () = stopping.end.cancelled() => {}
                }
            };
            let report = async {
                if let Some(reporter) = reporter {
                    reporter.run(stopping.end.clone()).await;
                }
            };
            let (served, (), (), (), (), ()) =
                tokio::join!(answer, tables, mark, upkeep, give, report);
            served
        });
        // A write to a disk that hangs would be waited for.
        runtime.shutdown_background();
        served
    }
}
