//! What another process that takes over needs of the one that follows the registry: its table, its
//! name, and that it writes nothing any more.

use std::{sync::Arc, time::Duration};

use cardea_registry_api::{Name, client::Client};
use futures_util::future::join_all;
use tokio::sync::watch;

use super::{
    FAREWELL,
    company::Company,
    disk::Image,
    kept::{Kept, PATIENCE},
    named,
};

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
    pub(super) company: Arc<Company>,
    pub(super) cluster: Name,
    pub(super) client: Client,
    pub(super) identity: Arc<Identity>,
}

impl Handle {
    /// The newest sets, as they would be written to disk: the own cluster's first, then those of the others
    /// that are followed. Empty: there is no table yet.
    pub(crate) fn tables(&self) -> Vec<Vec<u8>> {
        let encode = |cluster: &Name, kept: &Kept| {
            let image = Image::of(&kept.lock(), cluster)?;
            image
                .encode()
                .inspect_err(|error| tracing::error!(%error, "a table cannot be handed over"))
                .ok()
        };
        let Some(own) = encode(&self.cluster, &self.company.home) else {
            return Vec::new();
        };
        let others = self.company.members().into_iter();
        let others = others.filter_map(|(cluster, member)| encode(&cluster, &member.kept));
        std::iter::once(own).chain(others).collect()
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
    /// waits for that name's acknowledgements –, for each cluster that is followed, or when none does.
    pub(crate) async fn rename(&self, id: &str) {
        self.identity.wanted.send_replace(id.into());
        let mut all = vec![self.identity.heard.subscribe()];
        let members = self.company.members().into_iter();
        all.extend(members.map(|(_, member)| member.heard.subscribe()));
        let answered = async {
            for heard in &mut all {
                // Whose follower is gone is not waited for.
                let _ = heard.wait_for(|heard| **heard == *id).await;
            }
        };
        if tokio::time::timeout(RENAME, answered).await.is_err() {
            tracing::info!(id, "no registry has heard of the other name yet");
        }
    }

    /// Tells the registry not to wait for a name any longer.
    pub(crate) async fn forget(&self, id: &str) {
        farewell(&self.client, &self.cluster, id).await;
        for (cluster, _) in self.company.members() {
            let name = named(Some(&self.cluster), id);
            farewell(&self.client, &cluster, &name).await;
        }
    }

    /// Returns when nothing is being written to disk, or the disk hangs. Nothing begins to be written
    /// once another process has taken over, and what hung does not take the place of that one's copy.
    pub(crate) async fn settle(&self) {
        let mut all = vec![Arc::clone(&self.company.home)];
        let members = self.company.members().into_iter();
        all.extend(members.map(|(_, member)| Arc::clone(&member.kept)));
        let settled = join_all(all.iter().map(|kept| kept.settled()));
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            tracing::warn!("the disk hangs: the process that takes over does not wait for it");
        }
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
