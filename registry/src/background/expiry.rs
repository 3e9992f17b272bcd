//! Looks for lapsed leases and lets the collapse guard decide; one replica at a time.

use std::{sync::atomic::Ordering, time::Duration};

use cardea_registry_api::api::Mode;

use super::from_now;
use crate::{
    change::{Author, Change},
    clock::ms,
    core::submit,
    guard::Guard,
    shared::Shared,
};

/// Which row of the jobs is this one's.
pub(super) const JOB: &str = "expiry";
/// How long the job is held without renewing it.
pub(super) const HELD: Duration = Duration::from_secs(10);
/// How many changes are submitted at once.
const AT_ONCE: usize = 500;

pub(super) async fn run(shared: &Shared) {
    let mut guard = Guard::new(shared.config.guard.clone());
    let tick = shared.config.leases.tick;
    let mut last = shared.clock.now();
    while super::pause(shared, tick).await {
        let now = shared.clock.now();
        // This process was frozen, or starved: the agents could not renew meanwhile.
        let late = now - last > ms(tick) * 3 + 2000;
        last = now;
        if late {
            tracing::warn!("the registry stood still for a while: every lease gets grace");
            shared.leases.grace(now, ms(shared.config.leases.grace));
        }
        report_stale(shared);
        if shared.mode() != Mode::Ok {
            continue; // Nothing expires by an outage.
        }
        revive(shared).await;
        if shared.holds_expiry() {
            expire(shared, &mut guard, now).await;
        }
    }
}

/// Unmarks what was renewed after all.
async fn revive(shared: &Shared) {
    let revived = shared.leases.take_revived();
    for keys in revived.chunks(AT_ONCE) {
        let changes = keys
            .iter()
            .map(|key| Change::MarkFresh { key: key.clone() })
            .collect();
        if submit(shared, changes, Author::system(), None)
            .await
            .is_err()
        {
            shared.leases.put_back_revived(keys.to_vec());
        }
    }
}

async fn expire(shared: &Shared, guard: &mut Guard, now: i64) {
    let lapsed = shared.leases.lapsed(now);
    if lapsed.is_empty() {
        return;
    }
    let state = shared.state.load_full();
    let verdict = guard.decide(now, lapsed, |cluster, service| {
        state.population(cluster, service)
    });
    if !verdict.mark.is_empty() {
        metrics::counter!("cardea_registry_guarded_total").increment(verdict.mark.len() as u64);
        tracing::warn!(
            kept = verdict.mark.len(),
            first = %verdict.mark[0],
            "the collapse guard keeps instances whose leases have lapsed"
        );
    }
    for key in &verdict.expire {
        tracing::info!(instance = %key, "expired");
    }
    metrics::counter!("cardea_registry_expired_total").increment(verdict.expire.len() as u64);
    let changes: Vec<Change> = verdict
        .expire
        .into_iter()
        .map(|key| Change::Expire { key })
        .chain(
            verdict
                .mark
                .into_iter()
                .map(|key| Change::MarkStale { key }),
        )
        .collect();
    for changes in changes.chunks(AT_ONCE) {
        if let Err(error) = submit(shared, changes.to_vec(), Author::system(), None).await {
            tracing::warn!(%error, "lapsed instances could not be taken out");
        }
    }
}

fn report_stale(shared: &Shared) {
    let stale = shared.state.load().stale();
    if stale == 0 {
        shared.clear("collapse_guard");
    } else {
        shared.raise(
            "collapse_guard",
            format!(
                "{stale} instances are kept although their leases have lapsed: too many fell silent at once. Look whether they can reach the registry; deregister what is really gone."
            ),
        );
    }
}

/// Takes or keeps the job.
pub(super) async fn hold(shared: &Shared) {
    let now = shared.clock.now();
    let until = from_now(shared, HELD);
    let held_before = shared.holds_expiry();
    match shared
        .store
        .take_job(JOB, &shared.config.replica, now, until)
        .await
    {
        Ok(true) => {
            if !held_before {
                tracing::info!("this replica looks for lapsed leases now");
                shared.leases.grace(now, ms(shared.config.leases.grace));
            }
            // A margin for clocks that differ: let go before another may take over.
            let mine = until - ms(HELD) / 5;
            shared.expiry_until.store(mine, Ordering::Relaxed);
        }
        Ok(false) => shared.expiry_until.store(0, Ordering::Relaxed),
        Err(error) => tracing::debug!(%error, "cannot hold the expiry job"),
    }
}
