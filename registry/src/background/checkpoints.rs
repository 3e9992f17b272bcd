//! Moves what was written from SQLite's write-ahead log to its file, beside the writer.
//!
//! SQLite would do it within the commit that makes the log long, and let that commit and all behind it
//! wait for the disk. A passive checkpoint on another connection holds nobody up; the writer's own
//! remains as a bound (`sqlite.rs`), and finds most of it done.

use crate::shared::Shared;

/// After how many changes it is worth it: about as many pages as SQLite itself would wait for.
pub(crate) const EVERY: u64 = 512;

pub(super) async fn run(shared: &Shared) {
    loop {
        tokio::select! {
            () = shared.grown.notified() => {}
            () = shared.stopping.cancelled() => return,
        }
        if let Err(error) = shared.store.checkpoint().await {
            // Nothing is lost: the next one, or the writer's own, takes it along.
            tracing::debug!(%error, "SQLite's write-ahead log could not be moved to its file");
        }
    }
}
