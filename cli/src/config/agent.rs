//! Settings of `cardea agent`: the file is the agent's own form; flags are laid over it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use cardea_agent::Config;
use cardea_registry_api::{Address, InstanceId, Name, Span, strict};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{json as as_json, overlay};
use crate::exit::Exit;

/// What can be said about an agent on the command line.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub(crate) struct AgentSettings {
    /// A registry's address; give each replica [default: http://127.0.0.1:7400]
    #[arg(
        long,
        env = "CARDEA_REGISTRY",
        value_name = "URL",
        value_delimiter = ','
    )]
    #[serde(rename = "registries")]
    pub(crate) registry: Vec<String>,
    /// A token of role agent (visible in the process list: better a file)
    #[arg(long, env = "CARDEA_TOKEN", value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A file with the token
    #[arg(long, env = "CARDEA_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// For https: certificates (PEM) to trust instead of the system's
    #[arg(long, env = "CARDEA_CA", value_name = "FILE")]
    #[serde(rename = "ca_file")]
    pub(crate) ca: Option<PathBuf>,
    /// The cluster that the services belong to [default: default]
    #[arg(long, env = "CARDEA_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<Name>,
    /// The local socket for deregister and status [default: /run/cardea/agent.sock, else under
    /// $XDG_RUNTIME_DIR, else under ./data]
    #[arg(long, env = "CARDEA_AGENT_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How long the process may take to stop before it is killed [default: 10s]
    #[arg(long, env = "CARDEA_AGENT_KILL_TIMEOUT", value_name = "TIME")]
    pub(crate) kill_timeout: Option<Span>,
    /// Send signals to the process's whole group: for scripts that do not pass them on
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) signal_group: bool,
}

/// What can be said about one service on the command line.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Service")]
pub(crate) struct ServiceSettings {
    /// The service's name
    #[arg(long, env = "CARDEA_SERVICE", value_name = "NAME")]
    pub(crate) service: Option<Name>,
    /// Where others reach it, host:port
    #[arg(long, env = "CARDEA_SERVICE_ADDRESS", value_name = "ADDR")]
    pub(crate) address: Option<Address>,
    /// Its port, on the address that this machine uses towards the registry
    #[arg(long, env = "CARDEA_SERVICE_PORT", value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The instance's id [default: its address]
    #[arg(long, env = "CARDEA_INSTANCE_ID", value_name = "ID")]
    pub(crate) id: Option<InstanceId>,
    /// Its share of the traffic, 0 to 1000 [default: 100]
    #[arg(long, env = "CARDEA_SERVICE_WEIGHT", value_name = "N")]
    pub(crate) weight: Option<u16>,
    /// Where it stands
    #[arg(long, env = "CARDEA_ZONE", value_name = "NAME")]
    pub(crate) zone: Option<Name>,
    /// A label; give each
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// The version of the program
    #[arg(long, env = "CARDEA_SERVICE_VERSION", value_name = "TEXT")]
    pub(crate) app_version: Option<String>,
    /// How many requests a second it can serve, where that is known
    #[arg(long, env = "CARDEA_SERVICE_CAPACITY", value_name = "N")]
    pub(crate) capacity: Option<u32>,
    /// How long it stays registered without a renewal [default: 15s]
    #[arg(long, env = "CARDEA_SERVICE_LEASE", value_name = "TIME")]
    pub(crate) lease: Option<Span>,
    /// How long a stop waits, at most, for the routers to let go [default: 8s]
    #[arg(long, env = "CARDEA_SERVICE_STOP_CEILING", value_name = "TIME")]
    pub(crate) stop_ceiling: Option<Span>,
    /// Ready when a TCP connection to this address can be made [default: the service's address]
    #[arg(long, value_name = "ADDR", help_heading = "Readiness", group = "probe")]
    pub(crate) probe_tcp: Option<Address>,
    /// Ready when a GET of this URL, or path, is answered with an expected status
    #[arg(long, value_name = "URL", help_heading = "Readiness", group = "probe")]
    pub(crate) probe_http: Option<String>,
    /// Ready when this shell command exits with 0
    #[arg(
        long,
        value_name = "COMMAND",
        help_heading = "Readiness",
        group = "probe"
    )]
    pub(crate) probe_exec: Option<String>,
    /// For --probe-http: the statuses that pass [default: 200 to 399]
    #[arg(
        long,
        value_name = "STATUS",
        value_delimiter = ',',
        help_heading = "Readiness",
        requires = "probe_http"
    )]
    pub(crate) probe_status: Vec<u16>,
    /// How often it is probed [default: 2s]
    #[arg(long, value_name = "TIME", help_heading = "Readiness")]
    pub(crate) probe_interval: Option<Span>,
    /// How long one probe may take [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Readiness")]
    pub(crate) probe_timeout: Option<Span>,
    /// Failures in a row until it is drained [default: 3]
    #[arg(long, value_name = "N", help_heading = "Readiness")]
    pub(crate) probe_failures: Option<u32>,
    /// Registered so long after it was first ready [default: 0s]
    #[arg(long, value_name = "TIME", help_heading = "Readiness")]
    pub(crate) warm_up: Option<Span>,
    /// Registered when a GET of this URL, or path, is answered with 200 to 299
    #[arg(long, value_name = "URL", help_heading = "Readiness")]
    pub(crate) warm_up_url: Option<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}`: write KEY=VALUE, such as lane=gray"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl ServiceSettings {
    /// As a [[service]] table; what is not said is null.
    fn table(&self) -> Value {
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        let exec: Vec<&str> = self
            .probe_exec
            .iter()
            .flat_map(|command| ["/bin/sh", "-c", command])
            .collect();
        json!({
            "name": self.service,
            "address": self.address,
            "port": self.port,
            "id": self.id,
            "weight": self.weight,
            "zone": self.zone,
            "labels": labels,
            "version": self.app_version,
            "capacity": self.capacity,
            "lease": self.lease,
            "stop_ceiling": self.stop_ceiling,
            "probe": {
                "tcp": self.probe_tcp,
                "http": self.probe_http,
                "exec": exec,
                "statuses": self.probe_status,
                "interval": self.probe_interval,
                "timeout": self.probe_timeout,
                "failures": self.probe_failures,
            },
            "warm_up": { "time": self.warm_up, "url": self.warm_up_url },
        })
    }
}

/// Merges file and flags, and checks the result.
pub(crate) fn merge(
    file: Option<&Path>,
    settings: &AgentSettings,
    service: &ServiceSettings,
) -> Result<(Config, super::LogSettings), Exit> {
    let file = file.map(super::read).transpose()?;
    let mut value = json!({});
    let mut log = super::LogSettings::default();
    if let Some(file) = &file {
        let found = file.settings::<Config>()?;
        overlay(&mut value, found.value);
        log = found.log;
    }
    overlay(&mut value, as_json(settings));
    lay_service(&mut value, service.table())?;
    let file = file.as_ref();
    let wrong = |invalid| super::explain(file, invalid);
    let config: Config = strict::from_value(without_nulls(value)).map_err(wrong)?;
    config.check().map_err(wrong)?;
    Ok((config, log))
}

/// Lays the flags' service over the file's only one, or adds it.
fn lay_service(value: &mut Value, flags: Value) -> Result<(), Exit> {
    let flags = without_nulls(flags);
    if flags.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    let services = value["service"]
        .as_array_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    let mut services = services;
    match services.as_mut_slice() {
        [] => services.push(flags),
        [one] => {
            // One way to say where and when takes the place of the other.
            for (group, place) in [
                (&["address", "port"][..], ""),
                (&["tcp", "http", "exec"], "probe"),
            ] {
                let said = if place.is_empty() {
                    &flags
                } else {
                    &flags[place]
                };
                if group.iter().any(|key| !said[*key].is_null()) {
                    let table = if place.is_empty() {
                        Some(&mut *one)
                    } else {
                        one.get_mut(place)
                    };
                    if let Some(table) = table.and_then(Value::as_object_mut) {
                        table.retain(|key, _| !group.contains(&key.as_str()));
                    }
                }
            }
            overlay(one, flags);
        }
        _ => {
            return Err(Exit::Usage(
                "the file has several services: say in the file what holds for each".to_owned(),
            ));
        }
    }
    value["service"] = Value::Array(services);
    Ok(())
}

/// Leaves out what is not said.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key, without_nulls(value)))
            .filter(|(_, value)| match value {
                Value::Null => false,
                Value::Object(inner) => !inner.is_empty(),
                Value::Array(items) => !items.is_empty(),
                _ => true,
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_only_service() {
        let mut value = json!({"service": [
            {"name": "a", "port": 80, "weight": 5, "probe": {"tcp": "x:1", "interval": "1s"}}
        ]});
        let flags = ServiceSettings {
            address: Some("10.0.0.1:9001".parse().unwrap()),
            probe_http: Some("/ready".to_owned()),
            ..ServiceSettings::default()
        };
        lay_service(&mut value, flags.table()).unwrap();
        assert_eq!(
            value["service"][0],
            json!({"name": "a", "address": "10.0.0.1:9001", "weight": 5,
                   "probe": {"http": "/ready", "interval": "1s"}})
        );
    }

    #[test]
    fn several_services_are_the_files_matter() {
        let mut value = json!({"service": [{"name": "a"}, {"name": "b"}]});
        lay_service(&mut value, ServiceSettings::default().table()).unwrap();
        let flags = ServiceSettings {
            weight: Some(1),
            ..ServiceSettings::default()
        };
        assert!(matches!(
            lay_service(&mut value, flags.table()),
            Err(Exit::Usage(_))
        ));
    }
}
