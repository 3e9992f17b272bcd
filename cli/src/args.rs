//! Everything that may be typed.

mod agent;
mod ctl;
mod demo;
mod dev;
mod overrule;
mod plugins;
mod releases;
mod switch;

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

pub(crate) use agent::{AgentArgs, AgentCommand, SocketArgs};
pub(crate) use ctl::{
    AcknowledgeArgs, ApplyArgs, Connect, CtlArgs, CtlCommand, DeletableKind, DevPart, DrainArgs,
    FileArgs, GetArgs, GetKind, HistoryCommand, KeepArg, SnapshotCommand, TokenCommand, TopArgs,
    WeightArgs, WriteArgs,
};
pub(crate) use demo::DemoArgs;
pub(crate) use dev::DevArgs;
pub(crate) use plugins::{BindTo, FallbackCommand, GroupsCommand, PluginWrite, PluginsCommand};
pub(crate) use releases::{OrderArgs, ReleaseCommand};
pub(crate) use switch::{GuardArg, GuardLimits, SwitchArgs, SwitchCommand, SwitchWord};

use crate::config::{registry::RegistrySettings, router::RouterSettings};

/// Cardea: services register themselves, callers reach them, and nothing is lost when they move.
#[derive(Debug, Parser)]
#[command(
    name = "cardea",
    version = env!("CARDEA_VERSION"),
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  cardea dev                                          try everything on this machine
  cardea registry --config /etc/cardea/registry.toml  run a registry
  cardea router --config /etc/cardea/router.toml      run a router
  cardea agent run --help                             put a service under the agent
  cardea ctl get instances                            look at what is registered

Settings: a flag wins over the environment (CARDEA_…), that over the file, that over the default."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line; a wrong one ends the program with 2.
    pub(crate) fn read() -> Self {
        Self::read_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads these words as the command line.
    pub(crate) fn read_from<I>(words: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item: Into<std::ffi::OsString> + Clone>,
    {
        let matches = Self::tree().try_get_matches_from(words)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.overrule(&matches)?;
        Ok(cli)
    }

    /// Every command, with no value from the environment in its help: it may be a secret.
    pub(crate) fn tree() -> clap::Command {
        hide_values(Self::command())
    }
}

fn hide_values(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| argument.hide_env_values(true))
        .mut_subcommands(hide_values)
}

/// The program's own log.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, off, or a list such as warn,cardea_router=debug
    #[arg(
        long,
        global = true,
        env = "CARDEA_LOG",
        value_name = "LEVEL",
        help_heading = "Log"
    )]
    pub(crate) log_level: Option<String>,
    /// How it is written to stderr; auto: pretty on a terminal, otherwise JSON
    #[arg(
        long,
        global = true,
        env = "CARDEA_LOG_FORMAT",
        value_name = "FORMAT",
        help_heading = "Log"
    )]
    pub(crate) log_format: Option<LogFormat>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Auto,
    Pretty,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a registry, a router and two demo services on this machine, to try things
    Dev(DevArgs),
    /// Run a registry: who is where
    #[command(after_help = "Examples:
  cardea registry                                    SQLite in ./data, API on 127.0.0.1:7400
  cardea registry --config /etc/cardea/registry.toml
  CARDEA_DATABASE=postgres://cardea:secret@db/cardea cardea registry --listen 0.0.0.0:7400

The first start writes an admin token to admin.token in the data directory.")]
    Registry(Box<RegistryArgs>),
    /// Run a router: callers' requests to the right instance
    #[command(after_help = "Examples:
  cardea router --registry http://10.0.0.1:7400 --registry http://10.0.0.2:7400 \\
      --cluster dc-a --token-file /etc/cardea/router.token --data-dir /var/lib/cardea
  cardea router --static services.toml --listen 127.0.0.1:8080   no registry: serve a file
  cardea router --upgrade --config /etc/cardea/router.toml       take over from the running router

HUP opens the access log again.")]
    Router(Box<RouterArgs>),
    /// Register a service, keep it registered, and take it out before it stops
    Agent(AgentArgs),
    /// Look at and change what a registry has
    Ctl(CtlArgs),
    /// Check settings and print them as they would hold, secrets masked
    #[command(after_help = "Examples:
  cardea check-config registry --config /etc/cardea/registry.toml
  cardea check-config router -- --registry http://10.0.0.1:7400 --cluster dc-a")]
    CheckConfig(CheckConfigArgs),
    /// Print completions for a shell
    #[command(after_help = "Examples:
  cardea completions bash > /etc/bash_completion.d/cardea
  cardea completions zsh > \"${fpath[1]}/_cardea\"
  cardea completions fish > ~/.config/fish/completions/cardea.fish")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// A small HTTP service to try things with
    #[command(hide = true)]
    DemoService(DemoArgs),
}

/// `cardea registry`.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// Settings file (TOML): the [registry] table
    #[arg(long, env = "CARDEA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: RegistrySettings,
}

/// `cardea router`.
#[derive(Debug, Args)]
pub(crate) struct RouterArgs {
    /// Settings file (TOML): the [router] table
    #[arg(long, env = "CARDEA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Take over from the router that runs with this data directory: it hands over its sockets, and
    /// no connection is lost. If this fails, it goes on as before
    #[arg(long)]
    pub(crate) upgrade: bool,
    /// With --upgrade: return when the new process has taken over, or failed to, and leave it running
    #[arg(long, requires = "upgrade")]
    pub(crate) detach: bool,
    /// Say on standard input that the router serves
    #[arg(long, hide = true)]
    pub(crate) announce: bool,
    #[command(flatten)]
    pub(crate) settings: RouterSettings,
}

/// `cardea check-config`.
#[derive(Debug, Args)]
pub(crate) struct CheckConfigArgs {
    /// Whose settings
    #[arg(value_name = "ROLE")]
    pub(crate) role: ConfigRole,
    /// The settings file
    #[arg(long, env = "CARDEA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON instead of TOML
    #[arg(long)]
    pub(crate) json: bool,
    /// Flags as the role would get them
    #[arg(last = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<String>,
}

/// Roles with settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigRole {
    Registry,
    Router,
    Agent,
}
