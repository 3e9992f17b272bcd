//! A worker: a thread with its own event loop, share of the listener, pools and balancing state.

use std::{io, net::TcpListener};

use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Runs a worker until it is stopped and drained.
pub(crate) fn run(
    share: TcpListener,
    config: &Config,
    stopping: &CancellationToken,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let _listener = tokio::net::TcpListener::from_std(share)?;
        tracing::debug!(connections = config.limits.connections, "worker runs");
        stopping.cancelled().await;
        Ok(())
    })
}
