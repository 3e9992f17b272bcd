//! Windows as they were counted, for those that decide by them: each a whole, mergeable exactly.

use std::{collections::BTreeMap, sync::Arc};

use cardea_registry_api::{
    Name,
    figures::{WINDOW_MS, window_of},
};

use super::{Figures, Window, telling::REPORTED_MS};

impl Figures {
    /// The windows of a cluster that lie within a time (Unix ms) and have been reported, by their
    /// beginning; none while the database does not answer, as what this replica knows may be little.
    pub(crate) async fn windows(
        &self,
        cluster: &Name,
        (from, to): (i64, i64),
        now: i64,
    ) -> Option<BTreeMap<i64, Window>> {
        let first = window_of(from + WINDOW_MS - 1);
        let end = window_of(to.min(now - REPORTED_MS));
        if end <= first {
            return Some(BTreeMap::new());
        }
        let mut degraded = false;
        let bodies = self
            .bodies(cluster, WINDOW_MS, (first, end), &mut degraded)
            .await;
        if degraded {
            return None;
        }
        tokio::task::spawn_blocking(move || merged(&bodies))
            .await
            .ok()
    }
}

fn merged(bodies: &[(i64, Arc<str>)]) -> BTreeMap<i64, Window> {
    let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
    for (at, body) in bodies {
        match Window::decode(body) {
            Ok(window) => windows.entry(*at).or_default().merge(&window),
            Err(error) => tracing::error!(%error, at, "a window is left out"),
        }
    }
    windows
}
