//! `cardea ctl switch …`.

use cardea_registry_api::{Name, Span};
use clap::{Args, Subcommand, ValueEnum};

use super::WriteArgs;

/// `ctl switch …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SwitchCommand {
    /// Say what a switch would move, and what is missing where it leads
    #[command(after_help = "Examples:
  cardea ctl switch preview dc-a --to dc-b=100
  cardea ctl switch preview dc-a --service search --to dc-a=50,dc-b=50")]
    Preview(SwitchArgs),
    /// Move requests to other clusters, in stages that are watched
    #[command(after_help = "Examples:
  cardea ctl switch start dc-a --to dc-b=100 --reason 'power in dc-a'
  cardea ctl switch start dc-a --to dc-b=100 --at-once --watch 0s --yes --reason 'dc-a burns'
  cardea ctl switch start dc-a --service search --to dc-b=100 --stages 1,10,50,100 --reason drill
  cardea ctl switch start dc-a --to dc-b=100 --errors-above 0.25 --p99-percent 150 --reason drill

  cardea ctl switch start dc-a --to dc-a=100 --while-away --reason 'cut off from dc-b'

A guard that trips makes everything as it was before. `ctl switch undo` does so at any time.")]
    Start {
        #[command(flatten)]
        switch: SwitchArgs,
        /// Begin though something speaks against it: say why in --reason
        #[arg(long)]
        force: bool,
        /// The database is away: move them at once, for the routers that this registry reaches
        #[arg(long, conflicts_with_all = ["force", "approval", "narrower"])]
        while_away: bool,
        /// Somebody else, with another token, has to approve it
        #[arg(long)]
        approval: bool,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show a switch, what it waits for, and what happened to it
    #[command(after_help = "Examples:
  cardea ctl switch status                  the newest one
  cardea ctl switch status switch-7 --watch")]
    Status {
        /// Which [default: the newest]
        id: Option<Name>,
        /// Show it again and again until it ends
        #[arg(long)]
        watch: bool,
    },
    /// Keep a switch at its stage
    Pause(SwitchWord),
    /// Let a switch go on: its stage is watched from the beginning
    Resume(SwitchWord),
    /// Make everything as it was before a switch, at once
    #[command(after_help = "Examples:
  cardea ctl switch undo switch-7 --yes
  cardea ctl switch undo switch-7 --force --yes     also over what somebody changed by hand since")]
    Undo(SwitchWord),
    /// Let a switch begin that somebody else has asked for
    Approve(SwitchWord),
    /// Show the switches, the newest first
    List,
}

/// What is moved, and how.
#[derive(Debug, Args)]
pub(crate) struct SwitchArgs {
    /// Whose requests: those that the routers of this cluster get
    pub(crate) cluster: Name,
    /// Whereto: CLUSTER=SHARE, each 0 to 100
    #[arg(
        long,
        value_name = "CLUSTER=SHARE",
        required = true,
        value_delimiter = ',',
        value_parser = share
    )]
    pub(crate) to: Vec<(Name, u8)>,
    /// Only requests of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<Name>,
    /// Also services that have a traffic object of their own
    #[arg(long, conflicts_with = "service")]
    pub(crate) narrower: bool,
    /// How much of the way at each stage, in percent
    #[arg(
        long,
        value_name = "PERCENT",
        value_delimiter = ',',
        default_value = "10,50,100"
    )]
    pub(crate) stages: Vec<u8>,
    /// One stage only
    #[arg(long, conflicts_with = "stages")]
    pub(crate) at_once: bool,
    /// How long each stage is watched
    #[arg(long, value_name = "TIME", default_value = "1m")]
    pub(crate) watch: Span,
    /// Guards to leave out
    #[arg(long, value_name = "GUARD", value_delimiter = ',')]
    pub(crate) without: Vec<GuardArg>,
    #[command(flatten)]
    pub(crate) limits: GuardLimits,
    /// Why: kept with the switch
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

/// When guards trip.
#[derive(Debug, Default, Args)]
pub(crate) struct GuardLimits {
    /// Guard errors: so many points of 5xx more than before are allowed [default: 1]
    #[arg(long, value_name = "POINTS", value_parser = points)]
    pub(crate) errors_above: Option<u32>,
    /// Guard p99: so long is allowed, in percent of what it was before [default: 200]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) p99_percent: Option<u32>,
    /// Guard p99: and at least so much longer [default: 50ms]
    #[arg(long, value_name = "TIME")]
    pub(crate) p99_margin: Option<Span>,
    /// Guards errors and p99: fewer requests say nothing [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) least_requests: Option<u64>,
    /// Guard routers: how long they may take to apply a stage [default: 1m]
    #[arg(long, value_name = "TIME")]
    pub(crate) routers_within: Option<Span>,
}

/// Points of a percentage, in hundredths.
fn points(text: &str) -> Result<u32, String> {
    let wrong = || "points of a percentage, 0 to 100, such as 1 or 0.25".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 2 {
        return Err(wrong());
    }
    let part = format!("{part:0<2}").parse::<u32>().map_err(|_| wrong())?;
    let whole = whole.parse::<u32>().ok().filter(|whole| *whole <= 100);
    let hundredths = whole.ok_or_else(wrong)? * 100 + part;
    if hundredths <= 10_000 {
        Ok(hundredths)
    } else {
        Err(wrong())
    }
}

/// A guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuardArg {
    /// The share of 5xx
    Errors,
    /// How long 99 in 100 requests take
    P99,
    /// Healthy capacity where it leads
    Capacity,
    /// All routers follow
    Routers,
}

/// What is done to a switch.
#[derive(Debug, Args)]
pub(crate) struct SwitchWord {
    /// Which
    pub(crate) id: Name,
    /// Why: kept with the switch
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Also over what somebody changed by hand; approve: though something speaks against it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

fn share(text: &str) -> Result<(Name, u8), String> {
    let (cluster, share) = text
        .split_once('=')
        .ok_or_else(|| format!("write CLUSTER=SHARE, such as {text}=100"))?;
    let cluster = cluster.parse().map_err(|e| format!("{e}"))?;
    let share = share.parse().ok().filter(|share| *share <= 100);
    Ok((cluster, share.ok_or("a share is 0 to 100")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_exactly() {
        for (text, hundredths) in [
            ("1", 100),
            ("0.25", 25),
            ("0.5", 50),
            ("0", 0),
            ("100", 10_000),
        ] {
            assert_eq!(points(text), Ok(hundredths), "{text}");
        }
        for wrong in ["", "-1", "1.", ".5", "0.001", "100.01", "101", "x", "1e2"] {
            assert!(points(wrong).is_err(), "{wrong}");
        }
    }
}
