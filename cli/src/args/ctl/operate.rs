//! `ctl token`, `ctl history`, `ctl snapshot` and `ctl acknowledge`.

use cardea_registry_api::{Name, api};
use clap::{Args, Subcommand, ValueEnum};

use super::WriteArgs;

/// `ctl token …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown this once
    #[command(after_help = "Examples:
  cardea ctl token create router-dc-a --role router
  cardea ctl token create search-agent --role agent --service search")]
    Create {
        /// Its name: what the change log shows
        name: Name,
        /// What it may do
        #[arg(long)]
        role: RoleArg,
        /// For role agent: only this service; give each
        #[arg(long = "service", value_name = "NAME")]
        services: Vec<Name>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show the tokens, without their secrets
    List,
    /// Delete a token: who uses it is refused from then on
    Delete {
        /// Its name
        name: Name,
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    Agent,
    Router,
    Viewer,
    Operator,
    Admin,
}

impl From<RoleArg> for api::Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Agent => Self::Agent,
            RoleArg::Router => Self::Router,
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Operator => Self::Operator,
            RoleArg::Admin => Self::Admin,
        }
    }
}

/// `ctl history`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cardea ctl get status                 mode: history_held
  cardea ctl history keep memory        write what the registry remembers into the database
  cardea ctl history keep database      the database is right, though it has less")]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    pub(crate) command: HistoryCommand,
}

/// `ctl history …`.
#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// Say which one holds
    Keep {
        /// Which
        which: KeepArg,
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Which history holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepArg {
    Database,
    Memory,
}

/// `ctl snapshot …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write one now
    Write,
    /// Read every kept one and say which are damaged
    Verify,
}

/// `ctl acknowledge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cardea ctl get status                        ALARM away_write_lost …
  cardea ctl acknowledge away_write_lost       at the registry that says so")]
pub(crate) struct AcknowledgeArgs {
    /// The alarm: away_write_lost
    pub(crate) code: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}
