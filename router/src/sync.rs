//! Follows the registry: pulls the cluster's set, applies it, acknowledges it, keeps a copy on disk.
//!
//! ```text
//! disk copy ─► Replica ─► Builder ─► swap ─► the next pull says after=REV: applied
//!                ▲                             │
//!                └── full set or delta ◄── long poll (any of the registries)
//! ```
//!
//! A full set is pulled at the start, every ten minutes and whenever anything is in doubt; otherwise
//! the long poll brings deltas. The next poll goes out at once after the swap, since it is what a
//! deregistration waits for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Invalid, Name, Span,
    client::{Client, ClientConfig, ClientError, Position as Applied, Pull, Pulled},
    feed::Update,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    phase::Phase,
    shared::{Shared, count},
    table::{Origin, builder::Builder, objects::Dirty},
    tls,
};

mod alarms;
mod backoff;
mod company;
mod disk;
mod handle;
mod kept;
mod others;
pub(crate) mod replica;
#[cfg(test)]
mod tests;

use backoff::Backoff;
use company::{Company, Member};
pub(crate) use handle::Handle;
use handle::{Identity, farewell};
use kept::{Kept, Writer};
use others::Others;
use replica::Replica;

/// How long the registry may hold a poll: also how soon a frozen registry is noticed.
const WAIT: Span = Span::secs(10);
const FULL_EVERY: Duration = Duration::from_mins(10);
/// What the farewell to the registry may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Whom to follow and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) cluster: Name,
    pub(crate) zone: Option<Name>,
    /// The router's own cluster, where another one is followed.
    pub(crate) home: Option<Name>,
    pub(crate) router: String,
    pub(crate) client: ClientConfig,
    pub(crate) state_dir: Option<PathBuf>,
    /// The lowest version of TLS that is spoken with callers.
    pub(crate) lowest_tls: tls::Version,
}

/// Follows a registry: for the own cluster, or for another one.
#[derive(Debug)]
pub(crate) struct Sync {
    settings: Settings,
    shared: Arc<Shared>,
    client: Client,
    identity: Arc<Identity>,
    company: Arc<Company>,
    /// Of another cluster.
    other: Option<Arc<Member>>,
    kept: Arc<Kept>,
    last_full: Option<Instant>,
    backoff: Backoff,
}

impl Sync {
    /// Checks the settings and serves what was handed over – the own cluster's set, then those of others –,
    /// or the copies on disk, if there are some. Blocks on the disk.
    pub(crate) fn new(
        settings: Settings,
        shared: Arc<Shared>,
        handed: &[Vec<u8>],
    ) -> Result<Self, Invalid> {
        let client = Client::new(&settings.client)?;
        let kept = Arc::new(Kept::new(Replica::new(settings.cluster.clone())));
        let builder = Builder::new(settings.cluster.clone(), &shared, settings.lowest_tls)
            .stands_in(settings.zone.clone());
        let company = Company::new(Arc::clone(&shared), Arc::clone(&kept), builder);
        let mut sync = Self {
            client,
            identity: Arc::new(Identity::new(&settings.router)),
            company: Arc::new(company),
            other: None,
            kept,
            last_full: None,
            backoff: Backoff::default(),
            settings,
            shared,
        };
        let (own, others) = handed.split_first().unzip();
        if !own.is_some_and(|own| sync.take_handed(own, others.unwrap_or_default())) {
            sync.restore();
        }
        Ok(sync)
    }

    /// Follows another cluster, as the same router.
    fn of_other(
        home: &Settings,
        cluster: &Name,
        member: Arc<Member>,
        company: Arc<Company>,
        identity: &Arc<Identity>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            client: Client::new(&home.client)?,
            identity: Arc::clone(identity),
            kept: Arc::clone(&member.kept),
            shared: Arc::clone(&company.shared),
            company,
            other: Some(member),
            last_full: None,
            backoff: Backoff::default(),
            settings: Settings {
                cluster: cluster.clone(),
                state_dir: others::folder(home, cluster),
                home: Some(home.cluster.clone()),
                ..home.clone()
            },
        })
    }

    /// Its name in the registry's list of the routers that follow the cluster.
    fn name(&self, id: &str) -> String {
        named(self.settings.home.as_ref(), id)
    }

    /// A hand on it while it runs.
    pub(crate) fn handle(&self) -> Handle {
        Handle {
            company: Arc::clone(&self.company),
            cluster: self.settings.cluster.clone(),
            client: self.client.clone(),
            identity: Arc::clone(&self.identity),
        }
    }

    /// Serves the table of the process that is taken over from; `false`: it is of no use.
    fn take_handed(&mut self, table: &[u8], others: &[Vec<u8>]) -> bool {
        let from = Path::new("the table handed over");
        match disk::decode(table, &self.settings.cluster, from) {
            Ok(replica) => {
                self.kept.changed();
                let others = others.iter().filter_map(|set| {
                    let read = disk::decode_any(set, from);
                    read.inspect_err(
                        |error| tracing::warn!(%error, "a cluster's set is not taken over"),
                    )
                    .ok()
                });
                self.serve(replica, Origin::HandedOver, others.collect());
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the running router's table is not taken over");
                false
            }
        }
    }

    fn serve(&mut self, replica: Replica, origin: Origin, mut handed: BTreeMap<Name, Replica>) {
        // Before the table: with all of a divided limit this router would let through what all of them
        // together may.
        if let Some(routers) = replica.routers() {
            self.share_among(routers);
        }
        *self.kept.lock() = replica;
        let dirty = self.kept.lock().everything();
        // So that requests go where they went before, from the first on.
        for cluster in self.company.needs() {
            let known = handed.remove(&cluster).map(Replica::with_instances_only);
            let folder = others::folder(&self.settings, &cluster);
            let replica = known.unwrap_or_else(|| others::restore(folder, cluster.clone()));
            self.company.join(&cluster, replica);
        }
        self.publish(&dirty, origin, Instant::now());
    }

    /// So many routers share what is divided; whether that is news.
    fn share_among(&self, routers: u64) -> bool {
        let now = clock::millis(Instant::now());
        self.shared.plugins.share.routers(routers, now)
    }

    fn restore(&mut self) {
        let Some(dir) = &self.settings.state_dir else {
            return;
        };
        let restored = disk::read(dir, &self.settings.cluster);
        for problem in &restored.problems {
            tracing::error!(problem, "the table's copy on disk has a problem");
        }
        let problems = restored.problems.into_iter().enumerate();
        self.shared.set_alarms(
            "disk_copy_damaged",
            problems.map(|(i, problem)| (format!("copy on disk ({})", i + 1), problem)),
        );
        if let Some(replica) = restored.replica {
            let objects = replica.objects().len();
            tracing::info!(objects, "serving the copy on disk until a registry answers");
            self.serve(replica, Origin::Disk, BTreeMap::new());
            self.shared.set_degraded(
                "disk_copy",
                Some("serving the copy on disk; no registry has confirmed it yet".to_owned()),
            );
        }
    }

    /// Follows until `end`, then says farewell and writes the last copy. While connections drain, new
    /// requests are still balanced: until the end it follows, and a deregistration waits for it.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let writer = self.settings.state_dir.clone().map(|dir| {
            let (kept, shared) = (Arc::clone(&self.kept), Arc::clone(&self.shared));
            Writer::new(dir, self.settings.cluster.clone(), kept, shared)
        });
        let writing = async {
            match &writer {
                Some(writer) => writer.run().await,
                None => std::future::pending().await,
            }
        };
        let mut others = self.other.is_none().then(|| {
            let company = Arc::clone(&self.company);
            Others::new(self.settings.clone(), company, Arc::clone(&self.identity))
        });
        let others_run = async {
            match &mut others {
                Some(others) => others.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end.cancelled() => {}
            () = self.follow() => {}
            () = writing => {}
            () = others_run => {}
        }
        let name = self.name(&self.identity.id());
        let farewell = async {
            // Otherwise the name belongs to the router that this one failed to take over from.
            if self.shared.tenure.phase() >= Phase::Sole {
                farewell(&self.client, &self.settings.cluster, &name).await;
            }
        };
        let others_end = async {
            if let Some(others) = others {
                others.stop().await;
            }
        };
        let copy = async {
            if let Some(writer) = &writer {
                writer.finish().await;
            }
        };
        // Side by side, each for a bounded time: none waits for another's trouble.
        tokio::join!(farewell, others_end, copy);
    }

    async fn follow(&mut self) {
        let mut names = self.identity.wanted.subscribe();
        loop {
            let id = Arc::clone(&names.borrow_and_update());
            let renamed = *self.heard().borrow() != id;
            let pull = self.next_pull(&id, renamed);
            let began = Instant::now();
            let pulled = tokio::select! {
                pulled = self.client.pull(&pull) => pulled,
                _ = names.changed() => continue,
            };
            if let Ok(Pulled::NotModified { routers, .. } | Pulled::Update { routers, .. }) =
                &pulled
            {
                self.heard().send_replace(id);
                if let Some(routers) = *routers
                    && self.other.is_none()
                    && self.share_among(routers)
                {
                    self.kept.lock().set_routers(routers);
                    self.kept.changed();
                }
            }
            let pause = match pulled {
                Ok(Pulled::NotModified { .. }) => {
                    count(&self.shared.counts.pulls_unchanged);
                    self.confirmed();
                    // A call under a new name is not meant to wait.
                    if renamed {
                        None
                    } else {
                        self.unchanged(began.elapsed())
                    }
                }
                Ok(Pulled::Update { update, .. }) => self.take(&update).await,
                Err(error) => Some(self.failed(&error)),
            };
            match pause {
                None => self.backoff.reset(),
                Some(at_least) => tokio::select! {
                    () = tokio::time::sleep(self.backoff.next(at_least)) => {}
                    _ = names.changed() => {}
                },
            }
        }
    }

    /// What to ask for as `id`; at once, if the registry is to hear of that name.
    fn next_pull(&self, id: &str, at_once: bool) -> Pull {
        let applied = self.kept.lock().position().map(|at| Applied {
            epoch: at.epoch.to_string(),
            revision: at.revision,
        });
        Pull {
            cluster: self.settings.cluster.clone(),
            applied,
            wait: if at_once { Span::secs(0) } else { WAIT },
            router: Some(self.name(id)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            full: self.last_full.is_none_or(|at| at.elapsed() >= FULL_EVERY),
        }
    }

    /// Nothing is newer. A registry that says so without waiting is stopping: ask another one.
    fn unchanged(&self, after: Duration) -> Option<Duration> {
        let at_once = after < WAIT.duration() / 2;
        at_once.then(|| {
            self.client.move_on();
            Duration::ZERO
        })
    }

    fn heard(&self) -> &watch::Sender<Arc<str>> {
        match &self.other {
            None => &self.identity.heard,
            Some(member) => &member.heard,
        }
    }

    /// Applies an update; when it has to be refused, tells how long to pause at least.
    async fn take(&mut self, update: &Update) -> Option<Duration> {
        let began = Instant::now();
        let full = update.head.after.is_none();
        let counts = &self.shared.counts;
        let applied = self.kept.lock().apply(update);
        match applied {
            Ok(dirty) => {
                count(if full {
                    &counts.pulls_full
                } else {
                    &counts.pulls_delta
                });
                if full {
                    self.last_full = Some(began);
                }
                self.kept.changed();
                if self.shared.table().is_none() && self.other.is_none() {
                    self.meet_others().await;
                }
                self.publish(&dirty, Origin::Registry, began);
                self.alarm("refused_update", None);
                self.degrade(
                    "registry_degraded",
                    update.head.degraded.then(|| {
                        "the registry serves from memory or disk, without its database".to_owned()
                    }),
                );
                self.confirmed();
                None
            }
            Err(refused) => {
                count(&counts.pulls_refused);
                let registry = self.client.current_address().to_owned();
                tracing::error!(%registry, %refused, full, "refused an update");
                let why = format!("was refused whole: {refused}");
                self.alarm("refused_update", Some((registry, why)));
                self.last_full = None;
                if full {
                    self.client.move_on();
                }
                Some(Duration::ZERO)
            }
        }
    }

    fn publish(&mut self, dirty: &Dirty, origin: Origin, began: Instant) {
        if self.other.is_some() {
            let cluster = &self.settings.cluster;
            self.company.learn(cluster, &self.kept, dirty, began);
        } else {
            self.company.publish(dirty, Some(origin), began);
        }
        let retained = self.kept.lock().retained().len();
        self.degrade(
            "retained",
            (retained > 0).then(|| {
                format!(
                    "the registry's history changed and lacks {retained} objects that this router \
                     keeps serving; accept the new history (POST /v1/history) or bring them back"
                )
            }),
        );
    }

    fn confirmed(&self) {
        if let Some(member) = &self.other {
            self.company.settle(member);
            self.degrade("registry_unreachable", None);
            return;
        }
        self.company.confirm();
        self.shared.set_degraded("disk_copy", None);
        if self.shared.set_degraded("registry_unreachable", None) {
            tracing::info!(
                registry = self.client.current_address(),
                "a registry answers again"
            );
        }
    }

    fn failed(&mut self, error: &ClientError) -> Duration {
        count(&self.shared.counts.pulls_failed);
        if let ClientError::Decode { address, reason } = error {
            tracing::error!(registry = address, reason, "refused an update");
            let why = format!("was refused whole: {reason}");
            self.alarm("refused_update", Some((address.clone(), why)));
            self.last_full = None;
        }
        if let Some(member) = &self.other {
            self.company.settle(member);
        }
        let why = format!("serving the last table: {error}");
        if self.degrade("registry_unreachable", Some(why)) {
            tracing::warn!(%error, "no registry answers; serving the last table");
        }
        error.retry_after().unwrap_or_default()
    }
}

/// A router's name in the list of those who follow a cluster: in another's list, with its own before it.
fn named(home: Option<&Name>, id: &str) -> String {
    match home {
        None => id.to_owned(),
        Some(home) => format!("{home}/{id}"),
    }
}
