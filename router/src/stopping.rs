//! How a router's threads are told to stop.

use tokio_util::sync::CancellationToken;

/// Three words, each stronger than the one before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopping {
    /// Accept no more connections; each is closed after its next answer.
    pub(crate) drain: CancellationToken,
    /// Close idle connections as well.
    pub(crate) hurry: CancellationToken,
    /// The workers have drained, or nothing is waited for any longer.
    pub(crate) end: CancellationToken,
}

impl Stopping {
    /// Stop, with nobody to take over.
    pub(crate) fn stop(&self) {
        self.hurry.cancel();
        self.drain.cancel();
    }

    /// End, whatever is open.
    pub(crate) fn cut(&self) {
        self.stop();
        self.end.cancel();
    }
}
