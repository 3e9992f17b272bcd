//! Writes disk snapshots: on a timer when something changed, and when the registry stops.

use std::{sync::Arc, time::Duration};

use cardea_registry_api::api::SnapshotInfo;

use crate::{clock::wall_ms, shared::Shared, state::State};

/// Unchanged, a snapshot is written again after so many intervals, so that its age stays a sign of life.
const AGAIN: u32 = 10;

pub(super) async fn run(shared: &Shared) {
    let mut last: Option<(Arc<str>, u64)> = None;
    let mut unchanged = 0;
    let interval = shared.config.snapshots.interval;
    // The first one soon: a registry that has just started for the first time has none.
    let mut wait = interval.min(Duration::from_secs(2));
    while super::pause(shared, wait).await {
        wait = interval;
        let state = shared.state.load_full();
        let now = (Arc::clone(&state.epoch), state.revision);
        if last.as_ref() == Some(&now) && unchanged + 1 < AGAIN {
            unchanged += 1;
        } else if write(shared).await.is_ok() {
            unchanged = 0;
            last = Some(now);
        }
    }
}

/// Writes what is served now.
pub(crate) async fn write(shared: &Shared) -> std::io::Result<SnapshotInfo> {
    let state: Arc<State> = shared.state.load_full();
    let disk = shared.disk.clone();
    let result = tokio::task::spawn_blocking(move || disk.write(&state, wall_ms()))
        .await
        .map_err(std::io::Error::other)?;
    match result {
        Ok(info) => {
            shared.clear("snapshot_failed");
            Ok(info)
        }
        Err(damage) => {
            shared.raise(
                "snapshot_failed",
                format!("the disk snapshot cannot be written: {damage}. Free or mend the disk."),
            );
            Err(std::io::Error::other(damage))
        }
    }
}
