//! What an agent is told before it starts.
//!
//! The command line merges file, environment and flags into a [`Config`]; [`Config::check`] says
//! everything that is wrong with it before anything is touched.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use cardea_registry_api::{
    Address, InstanceId, Invalid, Name, Span,
    api::{DEFAULT_LEASE, DEFAULT_REGISTRY, DEFAULT_WEIGHT, default_weight},
    cluster::default_cluster,
    invalid::Check,
    strict,
};
use serde::{Deserialize, Serialize};

mod check;

pub(crate) use check::registration;

/// The most services of one agent: what one call can renew, with room.
const MOST_SERVICES: usize = 1000;

/// Everything an agent can be told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The registries; the first that answers is used, the others when it does not.
    /// Default `http://127.0.0.1:7400`.
    pub registries: Vec<String>,
    /// The token; empty: none, or what `token_file` has.
    pub token: String,
    /// A file with the token.
    pub token_file: Option<PathBuf>,
    /// For registries with `https`: the certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The cluster that the services belong to. Default `default`.
    pub cluster: Name,
    /// The local socket for `deregister` and `status`. Default: [`crate::default_socket`].
    pub socket: Option<PathBuf>,
    /// How long the wrapped process may take to stop before it is killed, at most 1 h. Default `10s`.
    pub kill_timeout: Span,
    /// Sends signals to the wrapped process and all that it started in its process group, not to
    /// itself alone: for shell scripts that do not pass them on. Default `false`.
    pub signal_group: bool,
    /// The services.
    #[serde(rename = "service")]
    pub services: Vec<ServiceConfig>,
}

/// One service that the agent answers for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// Its name.
    pub name: Name,
    /// Where others reach it, `host:port`. Give this, or `port`.
    #[serde(default)]
    pub address: Option<Address>,
    /// Its port, when the host is to be found out: the address that this machine uses towards the
    /// registry.
    #[serde(default)]
    pub port: Option<u16>,
    /// The instance's id. Default: its address.
    #[serde(default)]
    pub id: Option<InstanceId>,
    /// Its share of the traffic, 0–1000. Default 100.
    #[serde(default = "default_weight")]
    pub weight: u16,
    /// Where it stands.
    #[serde(default)]
    pub zone: Option<Name>,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version of the program.
    #[serde(default)]
    pub version: String,
    /// How many requests a second it can serve, where that is known.
    #[serde(default)]
    pub capacity: Option<u32>,
    /// How long it stays registered without a renewal; renewed three times as often. Default `15s`.
    #[serde(default = "default_lease")]
    pub lease: Span,
    /// When it is ready.
    #[serde(default)]
    pub probe: ProbeConfig,
    /// When it is warm, after it is ready for the first time.
    #[serde(default)]
    pub warm_up: WarmUpConfig,
    /// How long a stop waits, at most, for the routers to let go; 0–60 s, usually 5–10 s.
    /// Default `8s`.
    #[serde(default = "default_stop_ceiling")]
    pub stop_ceiling: Span,
}

/// When a service is ready. Give one of `tcp`, `http` and `exec`; without any, a TCP connection to
/// the service's address is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeConfig {
    /// A TCP connection to this address can be made.
    pub tcp: Option<Address>,
    /// A GET of this URL, or of this path at the service's address, is answered with one of
    /// `statuses`.
    pub http: Option<String>,
    /// For `http`: the statuses that pass. Default: 200–399.
    pub statuses: Vec<u16>,
    /// This command exits with 0.
    pub exec: Vec<String>,
    /// How often. Until the service is ready for the first time: at least four times a second.
    /// Default `2s`.
    pub interval: Span,
    /// How long one probe may take. Default `1s`.
    pub timeout: Span,
    /// Failures in a row until a registered service is drained. Default 3.
    pub failures: u32,
    /// Successes in a row until it counts as ready. Default 1.
    pub successes: u32,
}

/// When a service is warm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WarmUpConfig {
    /// So long after it was first ready. Default `0s`.
    pub time: Span,
    /// When a GET of this URL, or of this path at the service's address, is answered with 200–299.
    pub url: Option<String>,
    /// How long one GET of `url` may take: it may be what warms the service up. Default `30s`.
    pub timeout: Span,
}

fn default_lease() -> Span {
    DEFAULT_LEASE
}

fn default_stop_ceiling() -> Span {
    Span::secs(8)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registries: vec![DEFAULT_REGISTRY.to_owned()],
            token: String::new(),
            token_file: None,
            ca_file: None,
            cluster: default_cluster(),
            socket: None,
            kill_timeout: Span::secs(10),
            signal_group: false,
            services: Vec::new(),
        }
    }
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            tcp: None,
            http: None,
            statuses: Vec::new(),
            exec: Vec::new(),
            interval: Span::secs(2),
            timeout: Span::secs(1),
            failures: 3,
            successes: 1,
        }
    }
}

impl Default for WarmUpConfig {
    fn default() -> Self {
        Self {
            time: Span::secs(0),
            url: None,
            timeout: Span::secs(30),
        }
    }
}

impl ServiceConfig {
    /// A service with every default, and no address yet.
    pub fn named(name: Name) -> Self {
        Self {
            name,
            address: None,
            port: None,
            id: None,
            weight: DEFAULT_WEIGHT,
            zone: None,
            labels: BTreeMap::new(),
            version: String::new(),
            capacity: None,
            lease: DEFAULT_LEASE,
            probe: ProbeConfig::default(),
            warm_up: WarmUpConfig::default(),
            stop_ceiling: default_stop_ceiling(),
        }
    }
}

impl Config {
    /// Reads a TOML text. Unknown names are refused with the nearest known one; what the values
    /// mean is checked by [`Config::check`].
    pub fn from_toml(text: &str) -> Result<Self, Invalid> {
        let value: serde_json::Value =
            toml::from_str(text).map_err(|e| Invalid::field("", e.to_string()))?;
        strict::from_value(value)
    }

    /// Says everything that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.merge("", check::registries(self));
        check.ensure(
            self.token.is_empty() || self.token_file.is_none(),
            "token_file",
            "give `token` or `token_file`, not both",
        );
        check.ensure(
            (Span::millis(100)..=Span::secs(3600)).contains(&self.kill_timeout),
            "kill_timeout",
            "between 100ms and 1h",
        );
        check.ensure(
            !self.services.is_empty(),
            "service",
            "name at least one service: a [[service]] table, or --service",
        );
        check.ensure(
            self.services.len() <= MOST_SERVICES,
            "service",
            format!("at most {MOST_SERVICES} services"),
        );
        for (i, service) in self.services.iter().enumerate() {
            check.merge(&format!("service[{i}]"), check::service(self, service));
            let twin = self.services[..i]
                .iter()
                .any(|other| other.name == service.name && check::same_instance(other, service));
            check.ensure(
                !twin,
                &format!("service[{i}]"),
                format!("instance of `{}` is named twice", service.name),
            );
        }
        check.finish()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("registries", &self.registries)
            .field("token", &if self.token.is_empty() { "" } else { "…" })
            .field("token_file", &self.token_file)
            .field("ca_file", &self.ca_file)
            .field("cluster", &self.cluster)
            .field("socket", &self.socket)
            .field("kill_timeout", &self.kill_timeout)
            .field("signal_group", &self.signal_group)
            .field("services", &self.services)
            .finish()
    }
}

#[cfg(test)]
mod tests;
