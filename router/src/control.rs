//! The control thread: keeps the table fresh, resolves names, checks peers, answers on the admin
//! port. One event loop of its own, so that nothing here ever stands in a request's way.

use std::{fmt, io, net::TcpListener, sync::Arc};

use cardea_registry_api::{Invalid, client::ClientConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin},
    check::Checks,
    config::{Config, Source},
    resolve,
    shared::Shared,
    static_file::StaticFile,
    sync::{Settings, Sync},
};

/// Appends the workers' metrics in Prometheus text form.
pub(crate) type Render = Arc<dyn Fn(&mut String) + Send + std::marker::Sync>;

/// What the control thread works with.
pub(crate) struct Control {
    source: Table,
    shared: Arc<Shared>,
    admin: Admin,
    listener: TcpListener,
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
    /// (which must be good) or the copy on disk. Blocks on the disk; call it before the workers
    /// start. `listener` is the bound admin port.
    pub(crate) fn new(
        config: &Config,
        shared: Arc<Shared>,
        listener: TcpListener,
        render: Render,
    ) -> Result<Self, Invalid> {
        let source = match &config.source {
            Source::Static { file } => Table::File(Box::new(StaticFile::new(
                file.clone(),
                config.cluster.clone(),
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
                    router: config.id.clone(),
                    client: ClientConfig {
                        addresses: addresses.clone(),
                        token: token.clone(),
                        ca_file: ca.clone(),
                        ..ClientConfig::default()
                    },
                    state_dir: state_dir.clone(),
                };
                let sync = Sync::new(settings, Arc::clone(&shared));
                Table::Registry(Box::new(sync.map_err(|e| e.under("source"))?))
            }
        };
        Ok(Self {
            source,
            admin: Admin {
                shared: Arc::clone(&shared),
                render,
                cluster: config.cluster.as_str().into(),
                router: config.id.as_str().into(),
                commit: config.commit.as_str().into(),
            },
            shared,
            listener,
        })
    }

    /// The control thread's body. At `stopping` the router is no longer ready, tells the registry
    /// that it goes and writes the last copy to disk; the admin port answers until `drained`.
    pub(crate) fn run(
        self,
        stopping: &CancellationToken,
        drained: &CancellationToken,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let Self {
            source,
            shared,
            admin,
            listener,
        } = self;
        runtime.block_on(async {
            let tables = async {
                match source {
                    Table::Registry(sync) => sync.run(stopping.clone()).await,
                    Table::File(file) => {
                        tokio::select! {
                            () = file.run() => {}
                            () = stopping.cancelled() => {}
                        }
                    }
                }
            };
            let mark = async {
                stopping.cancelled().await;
                shared.start_draining();
            };
            let upkeep = async {
                tokio::select! {
                    () = Checks::new(Arc::clone(&shared)).run() => {}
                    () = resolve::run(Arc::clone(&shared)) => {}
                    () = drained.cancelled() => {}
                }
            };
            let (served, (), (), ()) = tokio::join!(
                admin::serve(admin, listener, drained.clone()),
                tables,
                mark,
                upkeep
            );
            served
        })
    }
}
