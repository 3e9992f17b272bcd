//! TERM and INT stop gracefully, a second one hurries; HUP asks for files to be opened again.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;

/// The signals that a role listens to.
#[derive(Debug)]
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Stop.
    Stop,
    /// Open files again.
    Reopen,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Exit> {
        let on = |kind| signal(kind).map_err(|e| Exit::failed(format!("signals: {e}")));
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.term.recv() => Asked::Stop,
            _ = self.int.recv() => Asked::Stop,
            _ = self.hup.recv() => Asked::Reopen,
        }
    }

    /// Waits until it is to stop.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }

    /// Lets `stopping` finish, unless another TERM or INT comes.
    pub(crate) async fn unless_hurried(&mut self, stopping: impl Future<Output = ()>) {
        tokio::select! {
            () = stopping => {}
            () = self.stop() => tracing::warn!("asked again to stop: not waiting any longer"),
        }
    }
}

/// Tells systemd, if it wants to know; says nothing elsewhere.
pub(crate) fn tell_service_manager(state: &sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
