//! Writes disk snapshots: on a timer when something changed, and when the registry stops.

use std::sync::Arc;

use cardea_registry_api::api::SnapshotInfo;

use crate::{clock::wall_ms, shared::Shared, state::State};

pub(super) async fn run(shared: &Shared) {
    let mut last: Option<(Arc<str>, u64)> = None;
    let mut written_at = wall_ms();
    let interval = shared.config.snapshots.interval;
    // The first one soon: a registry that has just started for the first time has none.
    let mut wait = interval.min(std::time::Duration::from_secs(2));
    while super::pause(shared, wait).await {
        wait = interval;
        let state = shared.state.load_full();
        let now = (Arc::clone(&state.epoch), state.revision);
        if last.as_ref() == Some(&now) {
            written_at = wall_ms();
        } else if write(shared).await.is_ok() {
            written_at = wall_ms();
            last = Some(now);
        }
        metrics::gauge!("cardea_registry_snapshot_age_seconds")
            .set((wall_ms() - written_at) as f64 / 1000.0);
    }
}

/// Writes what is served now.
pub(crate) async fn write(shared: &Shared) -> std::io::Result<SnapshotInfo> {
    let state: Arc<State> = shared.state.load_full();
    let disk = shared.disk.clone();
    let result = tokio::task::spawn_blocking(move || disk.write(&state))
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
