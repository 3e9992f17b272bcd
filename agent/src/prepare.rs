//! From a configuration to an agent that can run.

use std::{
    ffi::OsString,
    io::IsTerminal,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use cardea_registry_api::{
    Address, InstanceKey, Invalid, Span,
    client::{Client, ClientConfig},
};

use crate::{
    agent::{Agent, Jobs, Service, Trouble},
    children::{Children, Started},
    config::{Config, ServiceConfig, registration},
    error::AgentError,
    host,
    life::{Life, Rules},
    local::SOCKET_ENV,
    probe::{Probe, Tools},
    stop::Stop,
};

/// How long one registry may take to accept a connection, and to answer: short, so that another one
/// is reached well within a stop's ceiling.
const CONNECT_TIMEOUT: Span = Span::secs(1);
const REQUEST_TIMEOUT: Span = Span::secs(2);

/// What is needed before the process may be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    client: Client,
    pub(crate) tools: Tools,
    services: Vec<Service>,
}

/// Checks the configuration, reads the token and finds out addresses.
pub(crate) async fn prepare(config: &Config) -> Result<Prepared, AgentError> {
    config.check()?;
    let client = Client::new(&ClientConfig {
        addresses: config.registries.clone(),
        token: token(config)?,
        ca_file: config.ca_file.clone(),
        connect_timeout: CONNECT_TIMEOUT,
        request_timeout: REQUEST_TIMEOUT,
        user_agent: concat!("cardea-agent/", env!("CARGO_PKG_VERSION")).to_owned(),
    })?;
    let children = Children::default();
    let tools = Tools::new(children).map_err(|error| AgentError::System {
        what: "the probes' HTTP client cannot be made",
        source: std::io::Error::other(error),
    })?;
    let mut services = Vec::new();
    for (i, service) in config.services.iter().enumerate() {
        let address = address(config, service)
            .await
            .map_err(|why| Invalid::field(format!("service[{i}].port"), why))?;
        services.push(self::service(config, service, address));
    }
    Ok(Prepared {
        client,
        tools,
        services,
    })
}

impl Prepared {
    pub(crate) fn into_agent(self, config: &Config, child: Option<Started>) -> Agent {
        Agent {
            client: self.client,
            cluster: config.cluster.clone(),
            tools: self.tools,
            services: self.services,
            stop: Stop::new(config.kill_timeout.duration(), child.is_some()),
            child,
            signal_group: config.signal_group,
            jobs: Jobs::default(),
            waiters: Vec::new(),
        }
    }
}

/// Starts the process that is wrapped.
pub(crate) fn start(
    words: &[OsString],
    socket: &Path,
    children: &Children,
) -> Result<Started, AgentError> {
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| Invalid::field("command", "say what to run, behind `--`"))?;
    // Orphans of the process come to us, also when we are not process 1.
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| AgentError::System {
        what: "orphans cannot be taken in",
        source: error.into(),
    })?;
    let mut command = Command::new(program);
    command.args(arguments).env(SOCKET_ENV, socket);
    // In a group of its own, so that a terminal's Ctrl-C reaches us alone and we deregister first.
    // The terminal would stop such a process if it read from it.
    if std::io::stdin().is_terminal() {
        command.stdin(Stdio::null());
    }
    children
        .start(&mut command)
        .map_err(|source| AgentError::Start {
            command: program.to_string_lossy().into_owned(),
            source,
        })
}

fn token(config: &Config) -> Result<String, Invalid> {
    let Some(path) = &config.token_file else {
        return Ok(config.token.clone());
    };
    let bad = |why: String| Invalid::field("token_file", format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(bad("the file is empty".to_owned()));
    }
    Ok(token.to_owned())
}

async fn address(config: &Config, service: &ServiceConfig) -> Result<Address, String> {
    match (&service.address, service.port) {
        (Some(address), _) => Ok(address.clone()),
        (None, Some(port)) => host::at(host::detect(&config.registries).await, port),
        (None, None) => Err("neither `address` nor `port` is given".to_owned()),
    }
}

fn service(config: &Config, service: &ServiceConfig, address: Address) -> Service {
    let warm_up = Probe::warm_up(&service.warm_up, &address);
    let rules = Rules {
        interval: service.probe.interval.duration(),
        failures: service.probe.failures,
        successes: service.probe.successes,
        warm_time: service.warm_up.time.duration(),
        warm_url: warm_up.is_some(),
        lease: service.lease.duration(),
    };
    Service {
        key: InstanceKey {
            cluster: config.cluster.clone(),
            service: service.name.clone(),
            id: service.id.clone().unwrap_or_else(|| address.to_id()),
        },
        readiness: Probe::readiness(&service.probe, &address),
        warm_up,
        registration: registration(service, address),
        stop_ceiling: service.stop_ceiling,
        life: Life::new(rules, Instant::now()),
        trouble: Trouble::default(),
    }
}
