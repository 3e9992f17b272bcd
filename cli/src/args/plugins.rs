//! `cardea ctl plugins|groups|fallback …`.

use std::path::PathBuf;

use cardea_registry_api::Name;
use clap::{Args, Subcommand};

use super::WriteArgs;

/// `ctl plugins …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginsCommand {
    /// Show the plugins
    List {
        /// Only those that reach this service's requests
        #[arg(long, value_name = "NAME")]
        service: Option<Name>,
    },
    /// Show one plugin
    Get {
        /// Its name
        name: Name,
    },
    /// Show what a plugin of a kind may say, as JSON Schema
    Schema {
        /// The kind, such as gray; none: which kinds there are
        kind: Option<String>,
    },
    /// Bind a plugin to something, and switch it on
    #[command(after_help = "Examples:
  cardea ctl plugins bind search-gray --route search
  cardea ctl plugins bind house-rules --everything --dry-run")]
    Bind {
        /// Its name
        name: Name,
        #[command(flatten)]
        to: BindTo,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Bind a plugin to nothing: it is kept, switched off
    Unbind(PluginWrite),
    /// Let a plugin decide, count and log, and do nothing
    #[command(after_help = "Examples:
  cardea ctl plugins shadow search-gray
  cardea ctl plugins shadow search-gray --off     it does again what it decides")]
    Shadow {
        /// Let it do again what it decides
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        which: PluginWrite,
    },
    /// Switch a plugin on
    Enable(PluginWrite),
    /// Switch a plugin off
    Disable(PluginWrite),
    /// Delete a plugin
    Delete(PluginWrite),
}

/// Which plugin.
#[derive(Debug, Args)]
pub(crate) struct PluginWrite {
    /// Its name
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// What a plugin is bound to.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct BindTo {
    /// To a cluster's routers
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<Name>,
    /// To a service's routes
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<Name>,
    /// To a route
    #[arg(long, value_name = "ID")]
    pub(crate) route: Option<Name>,
    /// To every route
    #[arg(long)]
    pub(crate) everything: bool,
}

/// `ctl groups …`.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// Show the groups of services, and how many instances each has
    List {
        /// Only this service's
        service: Option<Name>,
    },
    /// Name a part of a service's instances, by labels
    #[command(after_help = "Example:
  cardea ctl groups set search gray version=v2 stage=gray")]
    Set {
        /// The service
        service: Name,
        /// The group
        group: Name,
        /// Labels that its instances have, all of them
        #[arg(required = true, value_name = "LABEL=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Take a group's name away, unless a plugin needs it
    Unset {
        /// The service
        service: Name,
        /// The group
        group: Name,
        #[command(flatten)]
        write: WriteArgs,
    },
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "write LABEL=VALUE, such as version=v2".to_owned())?;
    if name.is_empty() {
        return Err("a label has a name: write LABEL=VALUE".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `ctl fallback …`.
#[derive(Debug, Subcommand)]
pub(crate) enum FallbackCommand {
    /// Store a body, for answers that stand in for a service's
    #[command(after_help = "Examples:
  cardea ctl fallback put sorry sorry.html
  cardea ctl fallback put empty-list - --content-type application/json < empty.json")]
    Put {
        /// Its name
        name: Name,
        /// The file; - is the standard input
        file: PathBuf,
        /// Its media type [default: by the file's ending]
        #[arg(long, value_name = "TYPE")]
        content_type: Option<String>,
        /// The status that goes with it [default: as the plugin says]
        #[arg(long, value_name = "STATUS")]
        status: Option<u16>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Print a stored body as it is
    Get {
        /// Its name
        name: Name,
    },
    /// Show the stored bodies
    List,
    /// Delete a stored body, unless a plugin needs it
    Delete {
        /// Its name
        name: Name,
        #[command(flatten)]
        write: WriteArgs,
    },
}
