//! The agent: registers services late and deregisters them early, so that no request is lost when
//! they move.
//!
//! [`run`] wraps a process (`cardea agent run -- CMD…`) or stands beside services (`cardea agent
//! serve`). A service is registered when its readiness probe passes and its warm-up is over; while
//! it is registered, its lease is renewed and its probe watched. When it is to stop, it is
//! deregistered first, the routers' word is awaited that they have let go, and only then the process
//! is told.
//!
//! [`run`] → `prepare` (tokens, addresses, the process) → `agent` (the loop) → `life` and `stop` (what
//! to do, pure) → `probe`, `registrar`, `children` (doing it).

mod agent;
mod children;
mod config;
mod error;
mod host;
mod life;
mod listen;
mod local;
mod memory;
mod prepare;
mod probe;
mod registrar;
mod signals;
mod stop;

pub use config::{Config, ProbeConfig, ServiceConfig, WarmUpConfig};
pub use error::AgentError;
pub use local::{
    AgentStatus, LeaveOutcome, Left, LocalError, Phase, SOCKET_ENV, ServiceStatus, default_socket,
    deregister, status,
};

use std::ffi::OsString;

/// Runs an agent on a runtime of its own, on this thread, and returns the exit status to end with.
/// See [`run`].
pub fn block_on(config: Config, command: Option<Vec<OsString>>) -> Result<i32, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For name look-ups only.
        .max_blocking_threads(2)
        .build()
        .map_err(|source| AgentError::System {
            what: "the event loop cannot be made",
            source,
        })?;
    runtime.block_on(run(config, command))
}

/// Runs an agent until its wrapped process ends or it is told to stop, and returns the exit status
/// to end with: the process's own, 128+n when signal n ended it, 0 without a process.
///
/// It takes over the process it runs in – its signals, and all children, also those of others, which
/// it reaps – so there is one a process. Needs a current-thread runtime.
pub async fn run(config: Config, command: Option<Vec<OsString>>) -> Result<i32, AgentError> {
    let prepared = prepare::prepare(&config).await?;
    let socket = config.socket.clone().unwrap_or_else(default_socket);
    let mut listener = match listen::Listener::bind(&socket) {
        Ok(listener) => Some(listener),
        // Nobody asked for a socket here: rather a service without one than none.
        Err(error @ AgentError::Socket { .. }) if config.socket.is_none() => {
            tracing::warn!(%error, "running without a local socket");
            None
        }
        Err(error) => return Err(error),
    };
    // Before the process is started: its end, or ours, may come at once.
    let signals = signals::Signals::take().map_err(|source| AgentError::System {
        what: "the signals cannot be taken",
        source,
    })?;
    let child = command
        .map(|words| prepare::start(&words, &socket, &prepared.tools.children))
        .transpose()?;
    let agent = prepared.into_agent(&config, child);
    let (sender, asked) = tokio::sync::mpsc::channel(16);
    let status = tokio::select! {
        status = agent.run(signals, asked) => status,
        never = async {
            match &mut listener {
                Some(listener) => listener.serve(&sender).await,
                None => std::future::pending().await,
            }
        } => match never {},
    };
    if let Some(listener) = listener {
        listener.finish().await;
    }
    Ok(status)
}
