//! Whose the sockets, the registry's list entry and the disk copy are, while one process takes over
//! from another. A router that starts by itself owns everything at once.

use tokio::sync::watch;

/// How far a process has come; it only ever goes forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes over: it has the sockets and accepts nothing yet.
    Preparing,
    /// Accepts connections, and so may the one before it.
    Accepting,
    /// The only one.
    #[default]
    Sole,
    /// Another process has taken over; what is open here is finished here.
    Released,
}

/// A process's phase, for those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Tenure(watch::Sender<Phase>);

impl Tenure {
    /// The phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Goes on to `phase`.
    pub(crate) fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// Waits until it is `phase` or later.
    pub(crate) async fn reached(&self, phase: Phase) {
        // The sender lives as long as `self`: there is no other end of the wait.
        let _ = self.0.subscribe().wait_for(|now| *now >= phase).await;
    }
}
