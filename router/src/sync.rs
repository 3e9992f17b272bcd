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
    sync::{Arc, atomic::Ordering},
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
mod kept;
pub(crate) mod replica;
#[cfg(test)]
mod tests;

use backoff::Backoff;
pub(crate) use handle::Handle;
use handle::{Identity, farewell};
use kept::{Kept, Writer};
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
            kept: Arc::new(Kept::new(Replica::new(settings.cluster.clone()))),
            last_full: None,
            backoff: Backoff::default(),
            settings,
            shared,
        };
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
                self.kept.changed();
                self.serve(replica, Origin::HandedOver);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the running router's table is not taken over");
                false
            }
        }
    }

    fn serve(&mut self, replica: Replica, origin: Origin) {
        // Before the table: with all of a divided limit this router would let through what all of them
        // together may.
        if let Some(routers) = replica.routers() {
            self.share_among(routers);
        }
        *self.kept.lock() = replica;
        let dirty = self.kept.lock().everything();
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
            if let Ok(Pulled::NotModified { routers, .. } | Pulled::Update { routers, .. }) =
                &pulled
            {
                self.identity.heard.send_replace(id);
                if let Some(routers) = *routers
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
                Ok(Pulled::Update { update, .. }) => self.take(&update),
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
                self.kept.changed();
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
