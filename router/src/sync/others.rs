//! Who follows other clusters: as many as the own cluster's traffic names, from when it names them until it
//! does not.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Name, Span,
    client::{Pull, Pulled},
};
use futures_util::future::{BoxFuture, JoinAll};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Settings, Sync, company::Company, disk, handle::Identity, replica::Replica};

/// The folder of their copies on disk, within the router's.
const FOLDER: &str = "clusters";

/// What asking for the other clusters' sets may take before the first table.
const MEETING: Duration = Duration::from_secs(2);
/// For how long a cluster whose follower died is left alone.
const REST: Duration = Duration::from_secs(1);

/// Starts and stops them.
#[derive(Debug)]
pub(super) struct Others {
    settings: Settings,
    company: Arc<Company>,
    identity: Arc<Identity>,
    running: BTreeMap<Name, CancellationToken>,
    /// Whose task died, and until when it is left alone.
    resting: BTreeMap<Name, Instant>,
    tasks: JoinSet<()>,
    /// Whose task it is.
    whose: HashMap<Id, Name>,
}

impl Others {
    pub(super) fn new(settings: Settings, company: Arc<Company>, identity: Arc<Identity>) -> Self {
        Self {
            settings,
            company,
            identity,
            running: BTreeMap::new(),
            resting: BTreeMap::new(),
            tasks: JoinSet::new(),
            whose: HashMap::new(),
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
            self.resting.retain(|cluster, _| {
                let stays = wanted.contains(cluster);
                if !stays {
                    self.company.leave(cluster);
                }
                stays
            });
            let now = Instant::now();
            for cluster in wanted {
                // One that is on its way out is started again when it is gone.
                let rests = self.resting.get(&cluster).is_some_and(|until| *until > now);
                if !self.running.contains_key(&cluster) && !rests {
                    self.start(cluster).await;
                }
            }
            let rested = self.resting.values().min().copied();
            tokio::select! {
                // The company has the sender: it never ends.
                _ = needed.changed() => {}
                Some(gone) = self.tasks.join_next_with_id() => self.gone(gone),
                () = tokio::time::sleep_until(rested.unwrap_or(now).into()), if rested.is_some() => {}
            }
        }
    }

    /// A task has ended: its cluster is needed no more, or the task died. What the dead one had learnt is
    /// served on; it is followed again after a rest, if it is still needed then.
    fn gone(&mut self, gone: Result<(Id, ()), JoinError>) {
        let id = gone.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(cluster) = self.whose.remove(&id) else {
            return;
        };
        self.running.remove(&cluster);
        match gone {
            Ok(_) => self.company.leave(&cluster),
            Err(error) => {
                tracing::error!(%error, %cluster, "a follower of another cluster died: it is started again");
                self.rest(cluster);
            }
        }
    }

    fn rest(&mut self, cluster: Name) {
        self.resting.insert(cluster, Instant::now() + REST);
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
        let died = self.resting.remove(&cluster).is_some();
        let end = CancellationToken::new();
        let company = Arc::clone(&self.company);
        let sync = Sync::of_other(&self.settings, &cluster, member, company, &self.identity);
        match sync {
            Ok(sync) => {
                let task = self.tasks.spawn(follow(sync, end.clone(), died));
                self.whose.insert(task.id(), cluster.clone());
                self.running.insert(cluster, end);
            }
            Err(error) => {
                tracing::error!(%error, %cluster, "this cluster cannot be followed");
                self.rest(cluster);
            }
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
            // As far as the disk knows, it is news.
            self.company.join(&cluster, replica).kept.changed();
        }
    }
}

/// (A box: who follows the own cluster runs those who follow others, and is written once for both.)
fn follow(sync: Sync, end: CancellationToken, again: bool) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        if again {
            // Who died may have taken in what it told nobody of.
            let everything = sync.kept.lock().everything();
            let (company, cluster) = (&sync.company, &sync.settings.cluster);
            company.learn(cluster, &sync.kept, &everything, Instant::now());
        }
        sync.run(end).await;
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
