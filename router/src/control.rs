//! The control thread: keeps the table fresh, checks peers, answers on the admin port. One event
//! loop of its own, so that nothing here ever stands in a request's way.

use std::{fmt, io, net::TcpListener, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{config::Config, shared::Shared};

/// Appends the workers' metrics in Prometheus text form.
pub(crate) type Render = Arc<dyn Fn(&mut String) + Send + Sync>;

/// What the control thread works with.
pub(crate) struct Control {
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    /// The bound admin port.
    pub(crate) admin: TcpListener,
    pub(crate) render: Render,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// The control thread's body. At `stopping` it tells the registry that this router goes and writes
/// the last copy to disk; it answers on the admin port (not ready) until `drained`.
pub(crate) fn run(
    control: &Control,
    stopping: &CancellationToken,
    drained: &CancellationToken,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tracing::debug!(cluster = %control.config.cluster, "control thread runs");
        stopping.cancelled().await;
        control.shared.start_draining();
        drained.cancelled().await;
    });
    Ok(())
}
