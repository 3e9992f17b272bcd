//! A site under test: registries, routers and agents as processes, with what they share.
//!
//! Ports are fixed for a site's life, so that a process that was killed comes back where it was.

mod agent;
mod registry;
mod router;

use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use cardea_registry_api::{
    Address, Name, Route, Service,
    api::{ApplyRequest, Registration, Written},
    client::{Client, ClientConfig},
    instance::InstanceKey,
};

pub use agent::{Agent, AgentSetup};
pub use registry::{Registry, RegistrySetup};
pub use router::{Router, RouterSetup, metric_in};

use crate::{postgres::Postgres, scratch::Scratch};

/// For what should take a moment.
pub const SOON: Duration = Duration::from_secs(20);
/// The cluster unless a test says otherwise.
pub const CLUSTER: &str = "default";

/// A token that each registry of the tests is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Role `admin`.
    Admin,
    /// Role `operator`.
    Operator,
    /// Role `viewer`.
    Viewer,
    /// Role `router`.
    Router,
    /// Role `agent`, for every service.
    Agent,
    /// Role `agent`, bound to service `bound`.
    BoundAgent,
}

impl Token {
    /// All of them, with name, role and services.
    const ALL: [(Self, &str, &str, &str); 6] = [
        (Self::Admin, "test-admin", "admin", ""),
        (Self::Operator, "test-operator", "operator", ""),
        (Self::Viewer, "test-viewer", "viewer", ""),
        (Self::Router, "test-router", "router", ""),
        (Self::Agent, "test-agent", "agent", ""),
        (Self::BoundAgent, "test-bound", "agent", "\"bound\""),
    ];

    /// What callers send.
    pub fn secret(self) -> String {
        format!("cardea_test_{:a<43}", format!("{self:?}").to_lowercase())
    }

    /// Its name in the registry.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(token, ..)| *token == self)
            .expect("all are listed")
            .1
    }

    fn toml() -> String {
        let mut text = String::new();
        for (token, name, role, services) in Self::ALL {
            write!(
                text,
                "[[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\n\
                 secret = \"{}\"\nservices = [{services}]\n",
                token.secret()
            )
            .expect("a text grows");
        }
        text
    }
}

/// A client of some registries.
pub fn client_of(addresses: impl IntoIterator<Item = SocketAddr>, token: Token) -> Client {
    let addresses = addresses
        .into_iter()
        .map(|address| format!("http://{address}"));
    Client::new(&ClientConfig {
        addresses: addresses.collect(),
        token: token.secret(),
        ..ClientConfig::default()
    })
    .expect("a sound client")
}

/// A site: what a test starts first. Fields end in this order: routers and agents before the
/// registries, these before PostgreSQL.
#[derive(Debug)]
pub struct Site {
    /// Agents with their instances.
    pub agents: Vec<Agent>,
    /// Routers.
    pub routers: Vec<Router>,
    /// Registries.
    pub registries: Vec<Registry>,
    /// The database, unless it is SQLite.
    pub postgres: Option<Postgres>,
    /// Where everything keeps its files.
    pub scratch: Scratch,
}

impl Site {
    /// A site with nothing in it.
    pub fn empty(name: &str) -> Self {
        Self {
            agents: Vec::new(),
            routers: Vec::new(),
            registries: Vec::new(),
            postgres: None,
            scratch: Scratch::new(name),
        }
    }

    /// One registry on SQLite and one router.
    pub async fn on_sqlite(name: &str) -> Self {
        let mut site = Self::empty(name);
        site.add_registry(|setup| setup).await;
        site.add_router(|setup| setup).await;
        site
    }

    /// PostgreSQL, so many registries and routers.
    pub async fn on_postgres(name: &str, registries: usize, routers: usize) -> Self {
        let mut site = Self::empty(name);
        site.postgres = Some(Postgres::start().await);
        for _ in 0..registries {
            site.add_registry(|setup| setup).await;
        }
        for _ in 0..routers {
            site.add_router(|setup| setup).await;
        }
        site
    }

    /// The folder for files.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Adds a registry on the site's database.
    pub async fn add_registry(
        &mut self,
        change: impl FnOnce(RegistrySetup) -> RegistrySetup,
    ) -> &mut Registry {
        let name = format!("registry-{}", self.registries.len() + 1);
        let database = self.postgres.as_ref().map(Postgres::url);
        let setup = change(RegistrySetup::new(&name, database));
        let registry = Registry::start(setup, self.dir()).await;
        self.registries.push(registry);
        self.registries.last_mut().expect("just pushed")
    }

    /// Adds a router that knows all the registries there are.
    pub async fn add_router(
        &mut self,
        change: impl FnOnce(RouterSetup) -> RouterSetup,
    ) -> &mut Router {
        let name = format!("router-{}", self.routers.len() + 1);
        let setup = change(RouterSetup::new(&name, &self.registry_addresses()));
        let router = Router::start(setup, self.dir()).await;
        self.routers.push(router);
        self.routers.last_mut().expect("just pushed")
    }

    /// Adds an instance of `service` behind an agent, and waits until it is registered.
    pub async fn add_agent(
        &mut self,
        service: &str,
        change: impl FnOnce(AgentSetup) -> AgentSetup,
    ) -> &mut Agent {
        let name = format!("{service}-{}", self.agents.len() + 1);
        let setup = change(AgentSetup::new(&name, service, &self.registry_addresses()));
        let agent = Agent::start(setup, self.dir());
        self.agents.push(agent);
        let client = self.client();
        let agent = self.agents.last_mut().expect("just pushed");
        agent.wait_registered(&client).await;
        agent
    }

    /// Adds several instances side by side.
    pub async fn add_agents(&mut self, service: &str, count: usize) {
        let first = self.agents.len();
        for number in first + 1..=first + count {
            let setup = AgentSetup::new(
                &format!("{service}-{number}"),
                service,
                &self.registry_addresses(),
            );
            self.agents.push(Agent::start(setup, self.scratch.path()));
        }
        let client = self.client();
        for agent in &mut self.agents[first..] {
            agent.wait_registered(&client).await;
        }
    }

    /// Where the registries are.
    pub fn registry_addresses(&self) -> Vec<SocketAddr> {
        self.registries.iter().map(Registry::api).collect()
    }

    /// A client of all registries with role `admin`.
    pub fn client(&self) -> Client {
        client_of(self.registry_addresses(), Token::Admin)
    }

    /// Puts a service with a route for all of `host`, as `change` likes it.
    pub async fn route(
        &self,
        host: &str,
        service: &str,
        change: impl FnOnce(&mut Service),
    ) -> Written {
        let mut object = Service::named(name(service));
        change(&mut object);
        let route = Route {
            id: name(&host.replace('*', "any")),
            host: host.parse().expect("a host"),
            prefix: "/".parse().expect("a prefix"),
            service: name(service),
        };
        let request = ApplyRequest {
            services: vec![object],
            routes: vec![route],
            ..ApplyRequest::default()
        };
        let applied = self
            .client()
            .apply(&request, false)
            .await
            .expect("an applied file");
        applied.written.expect("it was no dry run")
    }

    /// Registers an instance by the API, without an agent and without a lease to renew.
    pub async fn register(&self, service: &str, id: &str, address: SocketAddr) -> Written {
        register(&self.client(), CLUSTER, service, id, address).await
    }

    /// Waits until every router has applied what the (first running) registry has now.
    pub async fn settled(&self) {
        let mut running = self
            .registries
            .iter()
            .filter(|registry| registry.is_running());
        let revision = running
            .next()
            .expect("a running registry")
            .status()
            .await
            .revision;
        for router in &self.routers {
            router.wait_applied(revision).await;
        }
    }

    /// # Panics
    /// When the change log in PostgreSQL says that a lease has lapsed: an outage takes nobody out.
    pub async fn assert_none_expired(&self) {
        let postgres = self.postgres.as_ref().expect("PostgreSQL");
        let expired = postgres
            .texts("SELECT key FROM changes WHERE cause IN ('expired', 'stale')")
            .await;
        assert!(expired.is_empty(), "expired by an outage: {expired:?}");
    }

    /// The record files of all agents' instances.
    pub fn records(&self) -> Vec<PathBuf> {
        self.agents
            .iter()
            .map(|agent| agent.record().to_path_buf())
            .collect()
    }
}

/// Registers a `manual` instance without a lease.
pub async fn register(
    client: &Client,
    cluster: &str,
    service: &str,
    id: &str,
    address: SocketAddr,
) -> Written {
    let registration = Registration {
        source: cardea_registry_api::Source::Manual,
        lease: None,
        ..Registration::at(address_of(address))
    };
    client
        .register(&key(cluster, service, id), &registration)
        .await
        .expect("a registration")
}

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// An instance's key.
pub fn key(cluster: &str, service: &str, id: &str) -> InstanceKey {
    InstanceKey {
        cluster: name(cluster),
        service: name(service),
        id: id.parse().expect("an instance id"),
    }
}

/// A socket's address as the registry writes it.
pub fn address_of(address: SocketAddr) -> Address {
    address.to_string().parse().expect("an address")
}
