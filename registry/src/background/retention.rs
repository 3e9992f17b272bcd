//! Removes old changes from the log; one replica at a time, the one that looks for lapsed leases.
//!
//! What goes is the log's oldest end, so that the chain of digests holds from the oldest change that
//! is kept. Replicas that live follow within seconds, and nothing younger than an hour goes: they
//! have what goes. One that was away for longer sees that the log begins behind what it remembers,
//! and reads everything anew.

use std::time::Duration;

use cardea_registry_api::api::Mode;

use crate::{clock::ms, core::StoreError, shared::Shared};

/// How many changes are looked at, and removed, at a time.
const BITE: u64 = 1000;
/// Between two bites: the writer is more urgent.
const BREATH: Duration = Duration::from_millis(50);

pub(super) async fn run(shared: &Shared) {
    while super::pause(shared, shared.config.history.every).await {
        if shared.mode() != Mode::Ok || !shared.holds_expiry() {
            continue;
        }
        match trim(shared).await {
            Ok(0) => {}
            Ok(removed) => {
                metrics::counter!("cardea_registry_changes_removed_total").increment(removed);
                tracing::info!(removed, "old changes were removed from the log");
            }
            Err(error) => {
                tracing::warn!(%error, "old changes cannot be removed from the log; trying again later");
            }
        }
    }
}

/// Removes what is too old; how many revisions.
async fn trim(shared: &Shared) -> Result<u64, StoreError> {
    let head = shared.store.head().await?.point.revision;
    let cutoff = shared.clock.now() - ms(shared.config.history.keep);
    let mut removed = 0;
    loop {
        let oldest: Vec<(u64, i64)> = (shared.store.changes_from(0, BITE).await?)
            .iter()
            .map(|row| (row.revision, row.at))
            .collect();
        let going = going(&oldest, head, cutoff, shared.config.history.at_least);
        let Some((last, _)) = going.last() else {
            return Ok(removed);
        };
        shared.store.prune(last + 1).await?;
        removed += going.len() as u64;
        if (going.len() as u64) < BITE || !super::pause(shared, BREATH).await {
            return Ok(removed);
        }
    }
}

/// Which of the log's oldest changes (revision and time) go.
fn going(oldest: &[(u64, i64)], head: u64, cutoff: i64, at_least: u64) -> &[(u64, i64)] {
    let stays = |(revision, at): &(u64, i64)| *revision + at_least > head || *at >= cutoff;
    let end = oldest.iter().position(stays).unwrap_or(oldest.len());
    &oldest[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_old_and_not_among_the_last_goes() {
        let log = [(3, 10), (4, 20), (5, 30), (6, 40)];
        assert_eq!(going(&log, 6, 35, 1), &log[..3]);
        assert_eq!(going(&log, 6, 35, 2), &log[..2]);
        assert_eq!(going(&log, 6, 20, 0), &log[..1]);
        assert!(going(&log, 6, 100, 4).is_empty());
        assert!(going(&[], 0, 100, 0).is_empty());
    }

    proptest! {
        /// However clocks went: no young change goes, and never one of the last.
        #[test]
        fn nothing_young_and_none_of_the_last_goes(
            times in prop::collection::vec(0i64..100, 0..50), first in 1u64..100,
            cutoff in 0i64..100, at_least in 0u64..60,
        ) {
            let log: Vec<(u64, i64)> = (first..).zip(times).collect();
            let head = log.last().map_or(0, |(revision, _)| *revision);
            let going = going(&log, head, cutoff, at_least);
            prop_assert!(going.iter().all(|(revision, at)| *at < cutoff && head - revision >= at_least));
            prop_assert!(log.len() as u64 - (going.len() as u64) >= at_least.min(log.len() as u64));
        }
    }
}
