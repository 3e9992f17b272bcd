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
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Invalid, Name, Span,
    client::{Client, ClientConfig, ClientError, Position as Applied, Pull, Pulled},
    feed::Update,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    phase::Phase,
    shared::{Shared, count},
    table::{
        Origin,
        builder::{Builder, Stamp},
        objects::Dirty,
    },
    tls,
};

mod backoff;
mod disk;
mod handle;
pub(crate) mod replica;
#[cfg(test)]
mod tests;

use backoff::Backoff;
use disk::Image;
pub(crate) use handle::Handle;
use handle::{Identity, farewell};
use replica::Replica;

/// How long the registry may hold a poll: also how soon a frozen registry is noticed.
const WAIT: Span = Span::secs(10);
const FULL_EVERY: Duration = Duration::from_mins(10);
/// The disk copy is written at most this often.
const DISK_EVERY: Duration = Duration::from_secs(1);
/// What the farewell to the registry may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Whom to follow and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) cluster: Name,
    pub(crate) router: String,
    pub(crate) client: ClientConfig,
    pub(crate) state_dir: Option<PathBuf>,
    /// The lowest version of TLS that is spoken with callers.
    pub(crate) lowest_tls: tls::Version,
}

/// Follows a registry.
#[derive(Debug)]
pub(crate) struct Sync {
    settings: Settings,
    shared: Arc<Shared>,
    client: Client,
    identity: Arc<Identity>,
    builder: Builder,
    kept: Arc<Kept>,
    last_full: Option<Instant>,
    backoff: Backoff,
}

/// The replica, shared with the task that writes it to disk.
#[derive(Debug)]
struct Kept {
    replica: Mutex<Replica>,
    unwritten: AtomicBool,
    /// The number of the last table that was written. A write goes on when its task is stopped; this
    /// keeps the last one, at the farewell, from mixing with it.
    written: Mutex<u64>,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while the disk copy is written.
    fn writing(&self) -> MutexGuard<'_, u64> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sync {
    /// Checks the settings and serves what was handed over, or the copy on disk, if there is one.
    /// Blocks on the disk.
    pub(crate) fn new(
        settings: Settings,
        shared: Arc<Shared>,
        handed: Option<&[u8]>,
    ) -> Result<Self, Invalid> {
        let client = Client::new(&settings.client)?;
        let mut sync = Self {
            client,
            identity: Arc::new(Identity::new(&settings.router)),
            builder: Builder::new(settings.cluster.clone(), &shared, settings.lowest_tls),
            kept: Arc::new(Kept {
                replica: Mutex::new(Replica::new(settings.cluster.clone())),
                unwritten: AtomicBool::new(false),
                written: Mutex::new(0),
            }),
            last_full: None,
            backoff: Backoff::default(),
            settings,
            shared,
        };
        sync.recall_share();
        if !handed.is_some_and(|table| sync.take_handed(table)) {
            sync.restore();
        }
        Ok(sync)
    }

    /// A hand on it while it runs.
    pub(crate) fn handle(&self) -> Handle {
        Handle {
            kept: Arc::clone(&self.kept),
            cluster: self.settings.cluster.clone(),
            client: self.client.clone(),
            identity: Arc::clone(&self.identity),
        }
    }

    /// Serves the table of the process that is taken over from; `false`: it is of no use.
    fn take_handed(&mut self, table: &[u8]) -> bool {
        match disk::decode(
            table,
            &self.settings.cluster,
            Path::new("the table handed over"),
        ) {
            Ok(replica) => {
                self.kept.unwritten.store(true, Ordering::Release);
                self.serve(replica, Origin::HandedOver);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the running router's table is not taken over");
                false
            }
        }
    }

    /// Takes this router's share of divided limits to be what it last was: with the whole of them, a
    /// restart while the registry is away would let through what all routers together may.
    fn recall_share(&self) {
        let Some(dir) = &self.settings.state_dir else {
            return;
        };
        if let Some(routers) = disk::read_routers(dir, &self.settings.cluster) {
            let now = clock::millis(Instant::now());
            self.shared.plugins.share.routers(routers, now);
        }
    }

    /// Keeps the number of routers for the next start.
    async fn keep_share(&self, routers: u64) {
        let Some(dir) = self.settings.state_dir.clone() else {
            return;
        };
        let cluster = self.settings.cluster.clone();
        let write = move || disk::write_routers(&dir, &cluster, routers);
        let written = tokio::task::spawn_blocking(write).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the next start will not know how many routers there are");
        }
    }

    fn serve(&mut self, replica: Replica, origin: Origin) {
        *self.kept.lock() = replica;
        let dirty = self.kept.lock().everything();
        self.publish(&dirty, origin, Instant::now());
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
            self.serve(replica, Origin::Disk);
            self.shared.set_degraded(
                "disk_copy",
                Some("serving the copy on disk; no registry has confirmed it yet".to_owned()),
            );
        }
    }

    /// Follows until `end`, then says farewell and writes the last copy. While connections drain, new
    /// requests are still balanced: until the end it follows, and a deregistration waits for it.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let writer = self.settings.state_dir.clone().map(|dir| Writer {
            dir,
            cluster: self.settings.cluster.clone(),
            kept: Arc::clone(&self.kept),
            shared: Arc::clone(&self.shared),
        });
        let writing = async {
            match &writer {
                Some(writer) => writer.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end.cancelled() => {}
            () = self.follow() => {}
            () = writing => {}
        }
        // The name belongs to the router that this one failed to take over from.
        if self.shared.tenure.phase() >= Phase::Sole {
            farewell(&self.client, &self.settings.cluster, &self.identity.id()).await;
        }
        if let Some(writer) = &writer {
            writer.write_if_changed().await;
        }
    }

    async fn follow(&mut self) {
        let mut names = self.identity.wanted.subscribe();
        loop {
            let id = Arc::clone(&names.borrow_and_update());
            let renamed = *self.identity.heard.borrow() != id;
            let pull = self.next_pull(&id, renamed);
            let began = Instant::now();
            let pulled = tokio::select! {
                pulled = self.client.pull(&pull) => pulled,
                _ = names.changed() => continue,
            };
            let mut news = None;
            if let Ok(Pulled::NotModified { routers, .. } | Pulled::Update { routers, .. }) =
                &pulled
            {
                self.identity.heard.send_replace(id);
                if let Some(routers) = routers {
                    let now = clock::millis(Instant::now());
                    let share = &self.shared.plugins.share;
                    news = share.routers(*routers, now).then_some(*routers);
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
                Ok(Pulled::Update { update, .. }) => self.take(&update),
                Err(error) => Some(self.failed(&error)),
            };
            if let Some(routers) = news {
                self.keep_share(routers).await;
            }
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
            router: Some(id.to_owned()),
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

    /// Applies an update; when it has to be refused, tells how long to pause at least.
    fn take(&mut self, update: &Update) -> Option<Duration> {
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
                self.kept.unwritten.store(true, Ordering::Release);
                self.publish(&dirty, Origin::Registry, began);
                self.shared.set_alarms("refused_update", []);
                self.shared.set_degraded(
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
                self.shared.set_alarms(
                    "refused_update",
                    [(
                        format!("the update from {registry}"),
                        format!("was refused whole: {refused}"),
                    )],
                );
                self.last_full = None;
                if full {
                    self.client.move_on();
                }
                Some(Duration::ZERO)
            }
        }
    }

    fn publish(&mut self, dirty: &Dirty, origin: Origin, began: Instant) {
        let replica = self.kept.lock();
        let Some(position) = replica.position() else {
            return;
        };
        let stamp = Stamp {
            epoch: Arc::clone(&position.epoch),
            revision: position.revision,
            origin,
        };
        let start = Instant::now();
        let built = self.builder.build(replica.objects(), dirty, stamp, start);
        built.publish(&self.shared);
        self.shared.counts.builds.observe(start.elapsed());
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared
            .counts
            .apply_micros
            .store(micros, Ordering::Relaxed);
        let skipped = replica.skipped().chain(self.builder.refused());
        self.shared.set_alarms("skipped_object", skipped);
        let retained = replica.retained().len();
        self.shared.set_degraded(
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
        self.shared.confirm();
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
            self.shared.set_alarms(
                "refused_update",
                [(
                    format!("the update from {address}"),
                    format!("was refused whole: {reason}"),
                )],
            );
            self.last_full = None;
        }
        let news = self.shared.set_degraded(
            "registry_unreachable",
            Some(format!("serving the last table: {error}")),
        );
        if news {
            tracing::warn!(%error, "no registry answers; serving the last table");
        }
        error.retry_after().unwrap_or_default()
    }
}

/// Writes the replica to disk when it has changed.
struct Writer {
    dir: PathBuf,
    cluster: Name,
    kept: Arc<Kept>,
    shared: Arc<Shared>,
}

impl Writer {
    async fn run(&self) {
        self.shared.tenure.reached(Phase::Sole).await;
        let mut tables = self.shared.watch();
        loop {
            self.write_if_changed().await;
            tokio::time::sleep(DISK_EVERY).await;
            if !self.kept.unwritten.load(Ordering::Acquire) && tables.changed().await.is_err() {
                return;
            }
        }
    }

    async fn write_if_changed(&self) {
        if !self.kept.unwritten.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(image) = Image::of(&self.kept.lock(), &self.cluster) else {
            return;
        };
        let (dir, kept, shared) = (
            self.dir.clone(),
            Arc::clone(&self.kept),
            Arc::clone(&self.shared),
        );
        let number = *self.shared.watch().borrow();
        let written = tokio::task::spawn_blocking(move || {
            let mut last = kept.writing();
            // Another process may have become the one that writes.
            if number < *last || shared.tenure.phase() != Phase::Sole {
                return Ok(());
            }
            *last = number;
            image.write(&dir)
        })
        .await;
        let failure = match written {
            Ok(Ok(())) => {
                count(&self.shared.counts.disk_written);
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = &failure {
            count(&self.shared.counts.disk_failed);
            tracing::error!(why, "cannot write the table's copy to disk");
            // The next change, or the farewell, tries again.
            self.kept.unwritten.store(true, Ordering::Release);
        }
        self.shared.set_alarms(
            "disk_copy_failed",
            failure.map(|why| {
                (
                    "copy on disk".to_owned(),
                    format!("cannot be written: {why}"),
                )
            }),
        );
    }
}
