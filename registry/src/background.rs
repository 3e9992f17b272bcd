//! What runs by itself: each task does the same thing when run twice, on a timer and (where there is
//! one) on a signal, and ends when the registry stops.

mod checkpoints;
mod expiry;
mod figures;
mod follow;
pub(crate) mod operations;
mod retention;
mod sharing;
mod snapshots;

pub(crate) use checkpoints::EVERY as CHECKPOINT_EVERY;
pub(crate) use snapshots::write as write_snapshot;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{clock::ms, shared::Shared, writer::Writer};

/// How long the tasks may take to end.
const STOP: Duration = Duration::from_secs(10);

/// Owns everything that runs in the background.
#[derive(Debug)]
pub struct Background {
    shared: Arc<Shared>,
    tasks: JoinSet<&'static str>,
}

impl Background {
    pub(crate) fn start(shared: Arc<Shared>, writer: Writer) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            writer.run().await;
            "writer"
        });
        let of = |shared: &Arc<Shared>| Arc::clone(shared);
        let task = of(&shared);
        tasks.spawn(async move {
            follow::follow(&task).await;
            "follower"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            follow::probe(&task).await;
            "prober"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            expiry::run(&task).await;
            "expiry"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            operations::run(&task).await;
            "operations"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            sharing::run(&task).await;
            "sharing"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            snapshots::run(&task).await;
            "snapshots"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            retention::run(&task).await;
            "retention"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            checkpoints::run(&task).await;
            "checkpoints"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            figures::take(&task).await;
            "figures"
        });
        let task = of(&shared);
        tasks.spawn(async move {
            figures::settle(&task).await;
            "old figures"
        });
        Self { shared, tasks }
    }

    /// Returns only if a part ends by itself, with its name: the registry cannot go on then.
    pub async fn ended(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                tracing::error!(%error, "a part of the core died");
                "a task that panicked"
            }
            None => "everything",
        }
    }

    /// Stops everything: what was accepted is written, a last snapshot too. Bounded.
    pub async fn stop(mut self) {
        self.shared.stopping.cancel();
        let ended = tokio::time::timeout(STOP, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a part of the core had died");
                }
            }
        });
        if ended.await.is_err() {
            tracing::error!("the core's tasks did not end in time");
            self.tasks.abort_all();
        }
        if let Err(error) = snapshots::write(&self.shared).await {
            tracing::error!(%error, "the last disk snapshot could not be written");
        }
        let replica = &self.shared.config.replica;
        if self.shared.mode() == cardea_registry_api::api::Mode::Ok
            && let Err(error) = self.shared.store.drop_jobs(replica).await
        {
            // The jobs' leases run out by themselves.
            tracing::debug!(%error, "could not hand over the jobs");
        }
    }
}

#[cfg(test)]
impl Background {
    /// Whether every task still runs.
    pub(crate) fn is_whole(&mut self) -> bool {
        self.tasks.try_join_next().is_none()
    }

    /// As `kill -9` would: nothing is finished.
    pub(crate) fn kill(mut self) {
        self.tasks.abort_all();
    }
}

/// Waits; whether to go on.
async fn pause(shared: &Shared, time: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = shared.stopping.cancelled() => false,
    }
}

/// A wall-clock moment some time from now, Unix ms.
fn from_now(shared: &Shared, time: Duration) -> i64 {
    shared.clock.now() + ms(time)
}
