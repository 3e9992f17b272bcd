//! `cardea ctl release …`.

use cardea_registry_api::{
    Name,
    plugin::Percent,
    policy::HashKey,
    release::{ByShare, BySide, ByWeights, Limits, OnWorse, Step},
};
use clap::{Args, Subcommand, ValueEnum};

/// `ctl release …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Say what a release would do, and what to know before it is started
    #[command(after_help = "Example:
  cardea ctl release preview search --to v2")]
    Preview {
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Start a release with its first step
    #[command(after_help = "Examples:
  cardea ctl release start search --to v2 --reason 'new ranking'
  cardea ctl release start search --to v2 --reason 'new ranking' --key cookie:session \\
      --steps 5:2m,25:5m,50:manual,100 --watch
  cardea ctl release start search --to green --how blue-green --reason 'new ranking'
  cardea ctl release start search --to b --how ab --experiment button --reason 'b has won'

What is said of steps, limits and orders: docs/operations.md, \"A release\".")]
    Start {
        #[command(flatten)]
        plan: PlanArgs,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
        /// Show how it goes on, until it is over
        #[arg(long)]
        watch: bool,
    },
    /// Show how a release stands, and what the figures say
    Status {
        /// Its name [default: the newest that is under way, else the newest]
        id: Option<Name>,
        /// Show how it goes on, until it is over
        #[arg(long)]
        watch: bool,
    },
    /// Show the releases under way, and those that are over
    List,
    /// Take the next step now, whatever the figures say
    #[command(after_help = "Examples:
  cardea ctl release promote search-mihay0ao
  cardea ctl release promote search-mihay0ao --full      all requests at once")]
    Promote {
        #[command(flatten)]
        order: OrderArgs,
        /// All requests to the candidate at once
        #[arg(long)]
        full: bool,
    },
    /// Keep a release at its share
    Pause {
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Let a paused release go on: its step begins anew
    Resume {
        #[command(flatten)]
        order: OrderArgs,
    },
    /// End a release where it is: requests stay shared out as they are
    Abort {
        #[command(flatten)]
        order: OrderArgs,
    },
    /// End a release with all requests at the baseline again; also one that is over
    #[command(after_help = "Examples:
  cardea ctl release rollback
  cardea ctl release rollback --while-away --reason 'errors'      the database is away")]
    Rollback {
        #[command(flatten)]
        order: OrderArgs,
        /// Also while the database is away: it is done in it when it is back; say why
        #[arg(long, requires = "reason")]
        while_away: bool,
    },
}

/// What is wanted.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Whose traffic moves
    pub(crate) service: Name,
    /// Whereto: a group of the service; with --how ab a variant
    #[arg(long = "to", value_name = "GROUP")]
    pub(crate) to: Name,
    /// Wherefrom [default: where requests go now]
    #[arg(long = "from", value_name = "GROUP")]
    pub(crate) from: Option<Name>,
    /// How requests are moved
    #[arg(long, value_enum, default_value = "gray")]
    pub(crate) how: HowArg,
    /// By what callers are known who are to see the same version: header:NAME, cookie:NAME, client …
    /// [default: requests are drawn by lot]
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<HashKey>,
    /// With --how ab: which experiment of the plugin
    #[arg(long, value_name = "NAME", required_if_eq("how", "ab"))]
    pub(crate) experiment: Option<Name>,
    /// The plugin that is moved [default: the service's own of this kind, or a new one]
    #[arg(long, value_name = "NAME")]
    pub(crate) plugin: Option<Name>,
    /// PERCENT[:PAUSE], the last 100; a pause is a time or `manual` [default: 25:1m,50:1m,100:0s]
    #[arg(long, value_name = "STEPS", value_delimiter = ',')]
    pub(crate) steps: Vec<Step>,
    /// Of a hundred releases with nothing wrong, so many may be rolled back by mistake [default: 1]
    #[arg(long, value_name = "PERCENT", value_parser = percent, help_heading = "Limits")]
    pub(crate) alpha: Option<Percent>,
    /// Requests that candidate and baseline each must have had in a step [default: 50]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) least_requests: Option<u64>,
    /// Points more of 5xx that are no reason [default: 0.5]
    #[arg(long, value_name = "POINTS", value_parser = percent, help_heading = "Limits")]
    pub(crate) tolerated_errors: Option<Percent>,
    /// Percent longer of the P99 that are no reason [default: 20]
    #[arg(long, value_name = "PERCENT", help_heading = "Limits")]
    pub(crate) tolerated_p99: Option<u16>,
    /// What is done when the candidate is worse
    #[arg(long, value_enum, default_value = "rollback", help_heading = "Limits")]
    pub(crate) on_worse: OnWorseArg,
    /// Why; kept
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

/// How requests are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HowArg {
    /// By a share of requests, or of callers
    Gray,
    /// All at once, by making the other side live
    BlueGreen,
    /// By the weights of an experiment's variants
    Ab,
}

/// What is done when the candidate is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnWorseArg {
    /// All requests go back
    Rollback,
    /// It waits for somebody
    Pause,
}

/// Which release, and why.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// Its name [default: the one that is under way]
    pub(crate) id: Option<Name>,
    /// Why; kept
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Don't ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

fn percent(text: &str) -> Result<Percent, String> {
    let step: Step = text
        .parse()
        .map_err(|_| format!("`{text}` is no number from 0 to 100"))?;
    Ok(step.percent)
}

impl From<PlanArgs> for cardea_registry_api::ReleasePlan {
    fn from(args: PlanArgs) -> Self {
        let default = Limits::default();
        let mut plan = Self::of(args.service, args.to, &args.reason);
        plan.baseline = args.from;
        match (args.how, args.experiment) {
            (HowArg::Gray, _) => plan.gray = Some(ByShare { key: args.key }),
            (HowArg::BlueGreen, _) => plan.blue_green = Some(BySide {}),
            (HowArg::Ab, experiment) => {
                plan.ab = experiment.map(|experiment| ByWeights { experiment });
            }
        }
        plan.plugin = args.plugin;
        plan.steps = args.steps;
        plan.limits = Limits {
            alpha: args.alpha.unwrap_or(default.alpha),
            least_requests: args.least_requests.unwrap_or(default.least_requests),
            tolerated_errors: args.tolerated_errors.unwrap_or(default.tolerated_errors),
            tolerated_p99: args.tolerated_p99.unwrap_or(default.tolerated_p99),
        };
        plan.on_worse = match args.on_worse {
            OnWorseArg::Rollback => OnWorse::Rollback,
            OnWorseArg::Pause => OnWorse::Pause,
        };
        plan
    }
}
