//! `cardea demo-service`.

use std::{net::SocketAddr, path::PathBuf};

use cardea_registry_api::Span;
use clap::Args;

use crate::demo::Mode;

/// A small HTTP service that says who it is.
#[derive(Debug, Args)]
#[command(
    after_help = "Any path answers who it is, as JSON; a body is sent back as it came, and a
WebSocket's messages too. ?sleep=MS answers later, ?bytes=N with so many bytes, ?status=N with it.
  GET  /healthz        200 (503 once it is told to stop)
  PUT  /_mode          body: ok, hang, error500, reset or slow:MS
  GET  /_mode, /_status
  GET  /_count         bodies by their Idempotency-Key: how often each was seen

Example:
  cardea demo-service --port 9001 --service hello --instance hello-1"
)]
pub(crate) struct DemoArgs {
    /// Where it listens, on loopback; 0: any free port
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Where it listens, if not on loopback
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The service it says it is
    #[arg(long, default_value = "demo", value_name = "NAME")]
    pub(crate) service: String,
    /// The instance it says it is [default: its process id]
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// The version it says it has
    #[arg(long, default_value = "1", value_name = "TEXT")]
    pub(crate) app_version: String,
    /// How it behaves: ok, hang, error500, reset or slow:MS
    #[arg(long, default_value = "ok")]
    pub(crate) mode: Mode,
    /// Each counted body also goes to this file, one line each
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// How long requests in flight may take when it stops
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub(crate) drain: Span,
    /// Ends when the process that started it ends
    #[arg(long)]
    pub(crate) die_with_parent: bool,
}
