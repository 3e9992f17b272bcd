//! Settings of `cardea router`: the `[router.mirror]` table.

use clap::Args;
use serde::{Deserialize, Serialize};

/// What each worker sets aside for copies of requests, and where they may go.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Copies of requests")]
pub(crate) struct Mirror {
    /// Addresses that are no instance's and may be sent copies; * is any port [default: none]
    #[arg(
        long = "mirror-allow",
        env = "CARDEA_ROUTER_MIRROR_ALLOW",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) allow: Vec<String>,
    /// Copies that are on their way at a time [default: 64]
    #[arg(
        long = "mirror-at-once",
        env = "CARDEA_ROUTER_MIRROR_AT_ONCE",
        value_name = "N"
    )]
    pub(crate) at_once: Option<usize>,
    /// Copies that may wait [default: 1024]
    #[arg(
        long = "mirror-queue",
        env = "CARDEA_ROUTER_MIRROR_QUEUE",
        value_name = "N"
    )]
    pub(crate) queue: Option<usize>,
    /// What copies may hold, in bytes [default: 16777216]
    #[arg(
        long = "mirror-memory",
        env = "CARDEA_ROUTER_MIRROR_MEMORY",
        value_name = "BYTES"
    )]
    pub(crate) memory: Option<usize>,
}
