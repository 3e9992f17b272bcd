//! `cardea agent …`.

use std::{ffi::OsString, path::PathBuf};

use cardea_registry_api::{Name, Span};
use clap::{Args, Subcommand};

use crate::config::agent::{AgentSettings, ServiceSettings};

/// Register a service, keep it registered, and take it out before it stops.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

/// What the agent does.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Start a process, register it when it is ready, deregister it before it stops
    #[command(after_help = "Examples:
  cardea agent run --service search --port 9001 -- ./search --port 9001
  cardea agent run --service search --address 10.0.0.5:9001 --probe-http /ready \\
      --warm-up 5s --token-file /etc/cardea/agent.token -- java -jar search.jar

On TERM or INT: the service is deregistered, the routers' word is awaited that they have let go (at
most --stop-ceiling), and only then the process is told to stop. Its exit status is passed on.")]
    Run(Box<RunArgs>),
    /// Stand beside services that somebody else starts
    #[command(after_help = "Example:
  cardea agent serve --config /etc/cardea/agent.toml

with
  registries = [\"http://10.0.0.1:7400\", \"http://10.0.0.2:7400\"]
  token_file = \"/etc/cardea/agent.token\"
  [[service]]
  name = \"search\"
  port = 9001
  probe = { http = \"/ready\" }")]
    Serve(Box<ServeArgs>),
    /// Tell the running agent to deregister, and wait until the routers have let go
    #[command(after_help = "Examples:
  cardea agent deregister --wait 8s
  trap 'cardea agent deregister --wait 8s; kill -TERM $PID; wait $PID' TERM INT")]
    Deregister {
        /// At most so long [default: the services' own ceilings]
        #[arg(long, value_name = "TIME")]
        wait: Option<Span>,
        /// Only this service
        #[arg(long, value_name = "NAME")]
        service: Option<Name>,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Show how the running agent stands
    #[command(after_help = "Example:
  cardea agent status --json")]
    Status {
        #[command(flatten)]
        socket: SocketArgs,
    },
}

/// `agent run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Settings file (TOML), with one [[service]] at most
    #[arg(long, env = "CARDEA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: AgentSettings,
    #[command(flatten)]
    pub(crate) service: ServiceSettings,
    /// Ends when the process that started it ends
    #[arg(long, hide = true)]
    pub(crate) die_with_parent: bool,
    /// The process to start
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// `agent serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Settings file (TOML)
    #[arg(long, env = "CARDEA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: AgentSettings,
    #[command(flatten)]
    pub(crate) service: ServiceSettings,
}

/// Where the running agent listens.
#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// The agent's local socket [default: as the agent's]
    #[arg(long, env = "CARDEA_AGENT_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
