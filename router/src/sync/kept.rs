//! The replica as the loop that follows the registry shares it, with the task that writes it to disk. The
//! disk may hang: nothing but that task waits for it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cardea_registry_api::Name;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::{disk::Image, replica::Replica};
use crate::{
    phase::Phase,
    shared::{Shared, count},
};

/// The disk copy is written at most this often.
const EVERY: Duration = Duration::from_secs(1);
/// How long the router's end, or the process that takes over, waits for the disk.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The replica, shared with the task that writes it to disk.
#[derive(Debug)]
pub(super) struct Kept {
    replica: Mutex<Replica>,
    unwritten: AtomicBool,
    change: Notify,
    /// The number of the last table that was written. Held while one is written, which goes on when its
    /// task is stopped: so the last one, at the farewell, does not mix with it.
    written: Arc<AsyncMutex<u64>>,
}

impl Kept {
    pub(super) fn new(replica: Replica) -> Self {
        Self {
            replica: Mutex::new(replica),
            unwritten: AtomicBool::new(false),
            change: Notify::new(),
            written: Arc::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy on disk is no longer what there is.
    pub(super) fn changed(&self) {
        self.unwritten.store(true, Ordering::Release);
        self.change.notify_one();
    }

    #[cfg(test)]
    pub(super) fn is_writing(&self) -> bool {
        self.written.try_lock().is_err()
    }

    /// Returns when nothing is being written.
    pub(super) async fn settled(&self) {
        drop(self.written.lock().await);
    }
}

/// Writes the replica to disk when it has changed.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    cluster: Name,
    kept: Arc<Kept>,
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn new(dir: PathBuf, cluster: Name, kept: Arc<Kept>, shared: Arc<Shared>) -> Self {
        Self {
            dir,
            cluster,
            kept,
            shared,
        }
    }

    /// Runs for ever.
    pub(super) async fn run(&self) {
        self.shared.tenure.reached(Phase::Sole).await;
        loop {
            self.write_if_changed().await;
            tokio::time::sleep(EVERY).await;
            if !self.kept.unwritten.load(Ordering::Acquire) {
                self.kept.change.notified().await;
            }
        }
    }

    /// Writes the last copy, unless the disk hangs.
    pub(super) async fn finish(&self) {
        let last = async {
            self.write_if_changed().await;
            // One that had begun before goes on when its task has been stopped.
            self.kept.settled().await;
        };
        if tokio::time::timeout(PATIENCE, last).await.is_err() {
            tracing::error!("the disk hangs: the table's last copy is not written");
        }
    }

    async fn write_if_changed(&self) {
        let mut last = Arc::clone(&self.kept.written).lock_owned().await;
        // Nothing is waited for from here until the write has been handed over: it is not lost when this
        // task is stopped.
        if !self.kept.unwritten.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(image) = Image::of(&self.kept.lock(), &self.cluster) else {
            return;
        };
        let (dir, shared) = (self.dir.clone(), Arc::clone(&self.shared));
        let number = *self.shared.watch().borrow();
        let written = tokio::task::spawn_blocking(move || {
            // Another process may have become the one that writes.
            if number < *last || shared.tenure.phase() != Phase::Sole {
                return Ok(());
            }
            *last = number;
            image.write(&dir, &|| shared.tenure.phase() == Phase::Sole)
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
            // A second later, or at the farewell, it is tried again.
            self.kept.changed();
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
