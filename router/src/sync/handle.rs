//! What another process that takes over needs of the one that follows the registry: its table, its
//! name, and that it writes nothing any more.

use std::{sync::Arc, time::Duration};

use cardea_registry_api::{Name, client::Client};
use tokio::sync::watch;

use super::{FAREWELL, disk::Image, kept::Kept};

/// How long a registry may take to hear of another name.
const RENAME: Duration = Duration::from_secs(2);

/// Under which name the registry is asked.
#[derive(Debug)]
pub(super) struct Identity {
    /// To ask under from now on.
    pub(super) wanted: watch::Sender<Arc<str>>,
    /// Of the last call that a registry answered.
    pub(super) heard: watch::Sender<Arc<str>>,
}

impl Identity {
    pub(super) fn new(id: &str) -> Self {
        let id: Arc<str> = id.into();
        Self {
            wanted: watch::Sender::new(Arc::clone(&id)),
            heard: watch::Sender::new(id),
        }
    }

    /// The name in use.
    pub(super) fn id(&self) -> Arc<str> {
        Arc::clone(&self.wanted.borrow())
    }
}

/// A hand on the sync while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(super) kept: Arc<Kept>,
    pub(super) cluster: Name,
    pub(super) client: Client,
    pub(super) identity: Arc<Identity>,
}

impl Handle {
    /// The newest set, as it would be written to disk; none: there is no table yet.
    pub(crate) fn table(&self) -> Option<Vec<u8>> {
        let image = Image::of(&self.kept.lock(), &self.cluster)?;
        image
            .encode()
            .inspect_err(|error| tracing::error!(%error, "the table cannot be handed over"))
            .ok()
    }

    /// How the registry is asked.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The name in use.
    pub(crate) fn id(&self) -> Arc<str> {
        self.identity.id()
    }

    /// Follows under another name. Returns when a registry has answered to it – from then on it
    /// waits for that name's acknowledgements – or when none does.
    pub(crate) async fn rename(&self, id: &str) {
        let mut heard = self.identity.heard.subscribe();
        self.identity.wanted.send_replace(id.into());
        let answered = heard.wait_for(|heard| **heard == *id);
        if tokio::time::timeout(RENAME, answered).await.is_err() {
            tracing::info!(id, "no registry has heard of the other name yet");
        }
    }

    /// Tells the registry not to wait for a name any longer.
    pub(crate) async fn forget(&self, id: &str) {
        farewell(&self.client, &self.cluster, id).await;
    }

    /// Returns when nothing is being written to disk. Nothing begins to be once another process
    /// has taken over.
    pub(crate) async fn settle(&self) {
        let kept = Arc::clone(&self.kept);
        let _ = tokio::task::spawn_blocking(move || drop(kept.writing())).await;
    }
}

/// Says goodbye under a name.
pub(super) async fn farewell(client: &Client, cluster: &Name, id: &str) {
    match tokio::time::timeout(FAREWELL, client.forget_router(cluster, id)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, id, "no registry heard that this router stops"),
        Err(_) => tracing::info!(id, "no registry heard that this router stops, in time"),
    }
}
