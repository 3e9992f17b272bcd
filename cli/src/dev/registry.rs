//! The registry inside `cardea dev`, which can be stopped and started while the rest goes on.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use cardea_registry::{
    Config, Registry,
    config::{BootstrapToken, DatabaseUrl, Secret},
};
use cardea_registry_api::{
    Name,
    api::{ApplyRequest, Role},
    client::{Client, ClientConfig, ClientError},
    manifest::Manifest,
};
use tokio::{runtime::Runtime, time::timeout};

use super::dir::DataDir;
use crate::{args::DevArgs, config::registry::default_threads, exit::Exit, roles::multi_thread};

/// What the demo services are, and where they are reached.
const MANIFEST: &str = include_str!("demo.toml");
/// How long the registry may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// The registry, running or not.
pub(super) struct Part {
    runtime: Option<Runtime>,
    config: Config,
    running: Option<Registry>,
}

impl Part {
    /// Starts it for the first time; later starts use the ports that it has got.
    pub(super) async fn start(args: &DevArgs, dir: &DataDir) -> Result<Self, Exit> {
        let config = Config {
            listen: args.api,
            admin: args.registry_admin,
            data_dir: dir.path().to_owned(),
            database: args.postgres.as_deref().map(DatabaseUrl::new),
            tokens: [Role::Admin, Role::Operator, Role::Router, Role::Agent]
                .into_iter()
                .map(|role| bootstrap(dir, role))
                .collect::<Result<_, _>>()?,
            ..Config::default()
        };
        config.check().map_err(|e| Exit::invalid("", &e))?;
        let mut part = Self {
            runtime: Some(multi_thread("registry", default_threads())?),
            config,
            running: None,
        };
        part.resume().await?;
        Ok(part)
    }

    /// Starts it again.
    pub(super) async fn resume(&mut self) -> Result<(), Exit> {
        let Some(runtime) = &self.runtime else {
            return Err(Exit::failed("everything is stopping"));
        };
        let start = cardea_registry::start(self.config.clone());
        let started = runtime.spawn(start).await.map_err(Exit::failed)?;
        let registry = started.map_err(crate::roles::registry::failure)?;
        self.config.listen = registry.api_address();
        self.config.admin = registry.admin_address();
        self.running = Some(registry);
        Ok(())
    }

    /// Stops it gracefully.
    pub(super) async fn stop(&mut self) {
        let (Some(registry), Some(runtime)) = (self.running.take(), &self.runtime) else {
            return;
        };
        if timeout(STOP, runtime.spawn(registry.stop())).await.is_err() {
            tracing::warn!("the registry did not stop in time");
        }
    }

    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Waits until it dies by itself.
    pub(super) async fn ended(&mut self) -> String {
        match &mut self.running {
            Some(registry) => registry.ended().await.to_string(),
            None => std::future::pending().await,
        }
    }

    /// Where the API is.
    pub(super) fn api(&self) -> SocketAddr {
        self.config.listen
    }

    /// Where its health and metrics are.
    pub(super) fn admin(&self) -> SocketAddr {
        self.config.admin
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Not by waiting, which a runtime inside another may not do.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn bootstrap(dir: &DataDir, role: Role) -> Result<BootstrapToken, Exit> {
    let file = Path::new(super::dir::token_file(role));
    let name = format!("dev-{}", file.with_extension("").display());
    Ok(BootstrapToken {
        name: name.parse().map_err(Exit::failed)?,
        role,
        services: Vec::new(),
        secret: Secret::new(dir.token(role)?),
    })
}

/// Puts the demo services and their routes, where they are not there yet: what somebody has changed
/// stays changed.
pub(super) async fn seed(api: SocketAddr, token: &str) -> Result<(), Exit> {
    let cluster: Name = "default".parse().map_err(Exit::failed)?;
    let manifest = Manifest::from_toml(MANIFEST).map_err(|e| Exit::invalid("", &e))?;
    let wanted = manifest.into_request(&cluster);
    let client = Client::new(&ClientConfig {
        addresses: vec![format!("http://{api}")],
        token: token.to_owned(),
        ..ClientConfig::default()
    });
    let client = client.map_err(|e| Exit::invalid("", &e))?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match put_missing(&client, &wanted).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_temporary() && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(Exit::failed(format!("the demo's routes: {error}"))),
        }
    }
}

async fn put_missing(client: &Client, wanted: &ApplyRequest) -> Result<(), ClientError> {
    let services = client.all_services().await?;
    let routes = client.all_routes().await?;
    let mut missing = wanted.clone();
    missing.services.retain(|service| {
        services
            .iter()
            .all(|known| known.object.name != service.name)
    });
    missing.routes.retain(|route| {
        routes.iter().all(|known| {
            let known = &known.object;
            known.id != route.id && (&known.host, &known.prefix) != (&route.host, &route.prefix)
        })
    });
    if missing != ApplyRequest::default() {
        client.apply(&missing, false).await?;
    }
    Ok(())
}
