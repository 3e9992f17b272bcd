//! `cardea ctl …`.

mod operate;

use std::path::PathBuf;

use cardea_registry_api::{InstanceState, Name, Span, figures::By};
use clap::{Args, Subcommand, ValueEnum};

pub(crate) use operate::{
    AcknowledgeArgs, HistoryArgs, HistoryCommand, KeepArg, SnapshotCommand, TokenCommand,
};

use super::{FallbackCommand, GroupsCommand, PluginsCommand, ReleaseCommand, SwitchCommand};

/// A client of a running registry.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  cardea ctl get instances --service search
  cardea ctl apply -f services.toml --dry-run
  cardea ctl drain search/10.0.0.7:9001
  cardea ctl explain GET http://search.svc.local/api/v1 -H 'X-User: 7'

Which registry, with which token: --registry and --token (or --token-file), or CARDEA_REGISTRY and
CARDEA_TOKEN. In a directory where `cardea dev` runs, both are found by themselves."
)]
pub(crate) struct CtlArgs {
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

/// Which registry, with which token, and how answers are printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connect {
    /// A registry's address; give each replica [default: http://127.0.0.1:7400]
    #[arg(
        long,
        global = true,
        env = "CARDEA_REGISTRY",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Connection"
    )]
    pub(crate) registry: Vec<String>,
    /// The token (visible in the process list: better CARDEA_TOKEN or a file)
    #[arg(
        long,
        global = true,
        env = "CARDEA_TOKEN",
        value_name = "TOKEN",
        help_heading = "Connection"
    )]
    pub(crate) token: Option<String>,
    /// A file with the token
    #[arg(
        long,
        global = true,
        env = "CARDEA_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// For https: certificates (PEM) to trust instead of the system's
    #[arg(
        long,
        global = true,
        env = "CARDEA_CA",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub(crate) ca: Option<PathBuf>,
    /// How long a registry may take to answer
    #[arg(
        long,
        global = true,
        env = "CARDEA_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        help_heading = "Connection"
    )]
    pub(crate) timeout: Span,
    /// Where `cardea dev` or the registry on this machine keeps its data: its token is used
    #[arg(
        long,
        global = true,
        env = "CARDEA_DATA_DIR",
        value_name = "DIR",
        default_value = "data",
        help_heading = "Connection"
    )]
    pub(crate) data_dir: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// Show objects
    #[command(after_help = "Examples:
  cardea ctl get services
  cardea ctl get service search --json
  cardea ctl get instances --service search --state draining
  cardea ctl get changes --after 1200")]
    Get(GetArgs),
    /// Create or update what a file says, all of it or nothing
    #[command(after_help = "Examples:
  cardea ctl apply -f services.toml
  cardea ctl apply -f services.yaml -f routes.yaml --dry-run
  generate | cardea ctl apply -f -

Nothing is deleted by leaving it out. The form is that of `cardea router --static`:
  [[service]]
  name = \"search\"
  [[route]]
  host = \"search.svc.local\"
  service = \"search\"")]
    Apply(ApplyArgs),
    /// Show what `apply` would change
    #[command(after_help = "Example:
  cardea ctl diff -f services.toml      exit status 0: nothing to change, 1: something")]
    Diff(DiffArgs),
    /// Delete a cluster, service, route, plugin …, or take an instance out
    #[command(after_help = "Examples:
  cardea ctl delete route search.svc.local
  cardea ctl delete instance search/10.0.0.7:9001 --yes")]
    Delete {
        /// What kind of object
        kind: DeletableKind,
        /// Its name
        name: String,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// No new requests for instances; open ones finish
    #[command(after_help = "Examples:
  cardea ctl drain search/10.0.0.7:9001
  cardea ctl drain --service search --cluster dc-a --yes

It holds, whatever the instance reports, until `undrain` or until it deregisters.")]
    Drain(DrainArgs),
    /// New requests again for drained instances
    #[command(after_help = "Example:
  cardea ctl undrain search/10.0.0.7:9001")]
    Undrain(DrainArgs),
    /// Set an instance's share of the traffic
    #[command(after_help = "Examples:
  cardea ctl weight search/10.0.0.7:9001 50
  cardea ctl weight search/10.0.0.7:9001 reported     back to what it reports")]
    Weight(WeightArgs),
    /// Show the routers and what they have applied
    #[command(after_help = "Example:
  cardea ctl routers --cluster dc-a")]
    Routers {
        /// Only this cluster's
        #[arg(long, value_name = "NAME")]
        cluster: Option<Name>,
    },
    /// Show what goes on, service by service, live
    #[command(after_help = "Examples:
  cardea ctl top
  cardea ctl top --cluster dc-a --by group --service search
  cardea ctl top --once --json

Over the last 15 seconds, as the cluster's routers report them. 4xx and 5xx are shares of all
requests; peers are those that new requests may go to, of all. Ctrl-C ends it.")]
    Top(TopArgs),
    /// Ask a router where a request would go, and why
    #[command(after_help = "Examples:
  cardea ctl explain GET http://search.svc.local/api/v1
  cardea ctl explain GET http://search.svc.local/ -H 'X-User: 7' --router http://10.0.0.5:8081")]
    Explain {
        /// The request's method
        method: String,
        /// The request's URL, with the host that the caller uses
        url: String,
        /// A header of the request, `Name: value`
        #[arg(short = 'H', long = "header", value_name = "HEADER")]
        headers: Vec<String>,
        /// The router's admin address [default: http://127.0.0.1:8081]
        #[arg(long, env = "CARDEA_ROUTER", value_name = "URL")]
        router: Option<String>,
    },
    /// Move requests between data centres in stages, and back
    #[command(subcommand, visible_alias = "switches")]
    Switch(SwitchCommand),
    /// Show and change plugins, and what they are bound to
    #[command(subcommand, visible_alias = "plugin")]
    Plugins(PluginsCommand),
    /// Move a service's traffic from one group to another, in steps that are watched
    #[command(subcommand, visible_alias = "releases")]
    Release(ReleaseCommand),
    /// Show and change groups: named parts of a service's instances
    #[command(subcommand, visible_alias = "group")]
    Groups(GroupsCommand),
    /// Store bodies for answers that stand in for a service's
    #[command(subcommand, visible_alias = "fallbacks")]
    Fallback(FallbackCommand),
    /// Make, list and delete tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Say which history holds, after a database came back emptied or older
    History(HistoryArgs),
    /// Take note of an alarm that stands until somebody does
    Acknowledge(AcknowledgeArgs),
    /// Write or verify disk snapshots
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Stop and start the registry of `cardea dev` in this directory
    #[command(after_help = "Example:
  cardea ctl dev stop-registry      traffic goes on: try it")]
    Dev {
        /// What to do
        #[arg(value_enum)]
        part: DevPart,
    },
}

/// `ctl get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// What
    pub(crate) kind: GetKind,
    /// Only this one
    pub(crate) name: Option<String>,
    /// Only this cluster's
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<Name>,
    /// Only this service's
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<Name>,
    /// Only instances in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<StateArg>,
    /// Only changes after this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) after: Option<u64>,
    /// At most so many changes [default: the last 50]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetKind {
    #[value(alias = "cluster")]
    Clusters,
    #[value(alias = "service", alias = "svc")]
    Services,
    #[value(alias = "route")]
    Routes,
    #[value(alias = "certificate", alias = "cert", alias = "certs")]
    Certificates,
    #[value(alias = "plugin")]
    Plugins,
    Traffic,
    #[value(alias = "fallback")]
    Fallbacks,
    #[value(alias = "instance")]
    Instances,
    #[value(alias = "router")]
    Routers,
    #[value(alias = "token")]
    Tokens,
    #[value(alias = "change")]
    Changes,
    Status,
    #[value(alias = "snapshot")]
    Snapshots,
}

/// What can be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeletableKind {
    Cluster,
    Service,
    Route,
    #[value(alias = "cert")]
    Certificate,
    Plugin,
    Traffic,
    Fallback,
    Instance,
}

/// An instance's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateArg {
    Starting,
    Up,
    Draining,
    Disabled,
}

impl From<StateArg> for InstanceState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Starting => Self::Starting,
            StateArg::Up => Self::Up,
            StateArg::Draining => Self::Draining,
            StateArg::Disabled => Self::Disabled,
        }
    }
}

/// Switches of writes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WriteArgs {
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `ctl apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `ctl diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// Which files.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// A file in TOML, YAML or JSON; - is the standard input
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The cluster of instances that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) cluster: Name,
}

/// `ctl drain` and `ctl undrain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Instances: cluster/service/id, or service/id or id where only one fits
    #[arg(required_unless_present = "service", value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// All instances of this service
    #[arg(long, value_name = "NAME", conflicts_with = "instances")]
    pub(crate) service: Option<Name>,
    /// With --service: only those of this cluster
    #[arg(long, value_name = "NAME", requires = "service")]
    pub(crate) cluster: Option<Name>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `ctl weight`.
#[derive(Debug, Args)]
pub(crate) struct WeightArgs {
    /// The instance: cluster/service/id, or service/id or id where only one fits
    pub(crate) instance: String,
    /// 0 to 1000 (0: no new requests), or `reported`
    #[arg(value_parser = weight)]
    pub(crate) weight: Weight,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// A forced weight; none lifts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight(pub(crate) Option<u16>);

fn weight(text: &str) -> Result<Weight, String> {
    if text == "reported" {
        return Ok(Weight(None));
    }
    let most = cardea_registry_api::instance::MAX_WEIGHT;
    text.parse()
        .ok()
        .filter(|weight| *weight <= most)
        .map(|weight| Weight(Some(weight)))
        .ok_or_else(|| format!("a weight is 0 to {most}, or `reported`"))
}

/// What can be done to `cardea dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DevPart {
    /// Stop the registry; the router and the services go on
    StopRegistry,
    /// Start it again
    StartRegistry,
    /// What runs
    Status,
}

/// `ctl top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Of this cluster
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) cluster: Name,
    /// Only of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<Name>,
    /// By what requests are told apart: service, group or route
    #[arg(long, value_name = "WHAT", default_value = "service", value_parser = crate::ctl::by)]
    pub(crate) by: By,
    /// How often
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::ctl::interval)]
    pub(crate) every: Span,
    /// Show it once
    #[arg(long)]
    pub(crate) once: bool,
}
