//! Who follows other clusters: as many as the own cluster's traffic names, from when it names them until it
//! does not.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use cardea_registry_api::{
    Name, Span,
    client::{Pull, Pulled},
};
use futures_util::future::{BoxFuture, JoinAll};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Settings, Sync, company::Company, disk, handle::Identity, replica::Replica};

/// The folder of their copies on disk, within the router's.
const FOLDER: &str = "clusters";

/// What asking for the other clusters' sets may take before the first table.
const MEETING: Duration = Duration::from_secs(2);
/// Starts and stops them.
#[derive(Debug)]
pub(super) struct Others {
    settings: Settings,
    company: Arc<Company>,
    identity: Arc<Identity>,
    running: BTreeMap<Name, CancellationToken>,
    tasks: JoinSet<Name>,
}

impl Others {
    pub(super) fn new(settings: Settings, company: Arc<Company>, identity: Arc<Identity>) -> Self {
        Self {
            settings,
            company,
            identity,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Follows whom the table needs, for ever.
    pub(super) async fn run(&mut self) {
        let mut needed = self.company.needed.subscribe();
        loop {
            let wanted = needed.borrow_and_update().clone();
            let unwanted = self
                .running
                .iter()
                .filter(|(name, _)| !wanted.contains(*name));
            unwanted.for_each(|(_, end)| end.cancel());
            for cluster in wanted {
                // One that is on its way out is started again when it is gone.
                if !self.running.contains_key(&cluster) {
                    self.start(cluster).await;
                }
            }
            tokio::select! {
                // The company has the sender: it never ends.
                _ = needed.changed() => {}
                Some(gone) = self.tasks.join_next() => match gone {
                    Ok(cluster) => {
                        self.running.remove(&cluster);
                        self.company.leave(&cluster);
                    }
                    Err(error) => tracing::error!(%error, "a follower of another cluster ended badly"),
                },
            }
        }
    }

    async fn start(&mut self, cluster: Name) {
        let member = if let Some(member) = self.company.member(&cluster) {
            member
        } else {
            let (folder, name) = (folder(&self.settings, &cluster), cluster.clone());
            let read = move || restore(folder, name);
            let restored = tokio::task::spawn_blocking(read).await;
            let replica = restored.unwrap_or_else(|_| Replica::of_instances(cluster.clone()));
            self.company.join(&cluster, replica)
        };
        let end = CancellationToken::new();
        let company = Arc::clone(&self.company);
        let sync = Sync::of_other(&self.settings, &cluster, member, company, &self.identity);
        self.running.insert(cluster.clone(), end.clone());
        match sync {
            Ok(sync) => drop(self.tasks.spawn(follow(sync, end, cluster))),
            Err(error) => tracing::error!(%error, %cluster, "this cluster cannot be followed"),
        }
    }

    /// Ends all of them, as the own follower ends.
    pub(super) async fn stop(mut self) {
        self.running.values().for_each(CancellationToken::cancel);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Sync {
    /// Before the first table: asks for the other clusters' sets, so that no request goes where it would
    /// not if they were known. None of them is waited for long.
    pub(super) async fn meet_others(&self) {
        let needed = self.company.needs();
        let asked = needed.into_iter().map(|cluster| async move {
            let folder = folder(&self.settings, &cluster);
            let name = cluster.clone();
            let read = tokio::task::spawn_blocking(move || restore(folder, name));
            let mut replica = match read.await {
                Ok(replica) => replica,
                Err(_) => Replica::of_instances(cluster.clone()),
            };
            // As somebody who only looks: the follower proves what it has applied.
            let pull = Pull {
                cluster: cluster.clone(),
                applied: None,
                wait: Span::secs(0),
                router: None,
                version: String::new(),
                full: true,
            };
            let pulled = tokio::time::timeout(MEETING, self.client.pull(&pull)).await;
            if let Ok(Ok(Pulled::Update { update, .. })) = pulled
                && let Err(refused) = replica.apply(&update)
            {
                tracing::error!(%cluster, %refused, "refused an update");
            }
            (cluster, replica)
        });
        let met: JoinAll<_> = asked.collect();
        for (cluster, replica) in met.await {
            self.company.join(&cluster, replica);
        }
    }
}

/// (A box: who follows the own cluster runs those who follow others, and is written once for both.)
fn follow(sync: Sync, end: CancellationToken, cluster: Name) -> BoxFuture<'static, Name> {
    Box::pin(async move {
        sync.run(end).await;
        cluster
    })
}

/// The folder of a cluster's copies.
pub(super) fn folder(settings: &Settings, cluster: &Name) -> Option<PathBuf> {
    let dir = settings.state_dir.as_ref()?;
    Some(dir.join(FOLDER).join(cluster.as_str()))
}

/// What is known of a cluster from its copy on disk. Blocks.
pub(super) fn restore(folder: Option<PathBuf>, cluster: Name) -> Replica {
    let Some(folder) = folder else {
        return Replica::of_instances(cluster);
    };
    let restored = disk::read(&folder, &cluster);
    for problem in &restored.problems {
        tracing::error!(%cluster, problem, "a cluster's copy on disk has a problem");
    }
    restored.replica.map_or_else(
        || Replica::of_instances(cluster),
        Replica::with_instances_only,
    )
}
