//! What replicas of one database tell one another: that they live, what was renewed, what routers
//! have applied. None of it is in the log.

use std::{sync::atomic::Ordering, time::Duration};

use cardea_registry_api::api::Mode;

use super::{expiry, operations};
use crate::{
    clock::{ms, wall_ms},
    core::StoreError,
    shared::Shared,
};

/// How often the routers' proofs are told while other replicas live.
const PROOFS: Duration = Duration::from_millis(50);
/// How often the replica says that it lives, and looks who else does.
const ALIVE: Duration = Duration::from_secs(3);
/// A router or replica that was not heard of for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_hours(24);

pub(super) async fn run(shared: &Shared) {
    let mut alive = 0;
    let mut flushed = shared.clock.now();
    loop {
        let now = shared.clock.now();
        if shared.mode() == Mode::Ok {
            let result = async {
                if now.saturating_sub(alive) >= ms(ALIVE) {
                    alive = now;
                    live(shared).await?;
                    routers(shared, true).await?;
                } else if shared.others.load(Ordering::Relaxed) {
                    routers(shared, false).await?;
                }
                if now - flushed >= ms(shared.config.leases.flush) {
                    leases(shared, flushed).await?;
                    flushed = now;
                }
                Ok::<(), StoreError>(())
            };
            if let Err(error) = result.await {
                tracing::debug!(%error, "cannot share with other replicas");
                // The writer finds out whether the database is lost.
                shared.log_moved.notify_one();
                if !super::pause(shared, Duration::from_secs(1)).await {
                    return;
                }
            }
        }
        let others = shared.others.load(Ordering::Relaxed);
        let time = if others {
            PROOFS
        } else {
            Duration::from_millis(500)
        };
        if !super::pause(shared, time).await {
            return;
        }
    }
}

/// Says that this replica lives, sees who else does, and holds the jobs that are free.
async fn live(shared: &Shared) -> Result<(), StoreError> {
    let replica = &shared.config.replica;
    let name = format!("replica/{replica}");
    let now = shared.clock.now();
    shared
        .store
        .take_job(&name, replica, now, now + ms(expiry::HELD))
        .await?;
    expiry::hold(shared).await;
    operations::hold(shared).await;
    let jobs = shared.store.jobs().await?;
    let others = shared.heard_lately()
        || jobs.iter().any(|job| {
            job.name.starts_with("replica/") && job.holder != *replica && job.until > now
        });
    if shared.others.swap(others, Ordering::Relaxed) != others {
        tracing::info!(others, "other replicas on this database");
    }
    let before = now - ms(FORGOTTEN);
    shared.routers.sweep(before);
    shared.store.sweep(before).await
}

/// Tells what routers proved here, and learns what they proved elsewhere.
pub(crate) async fn routers(shared: &Shared, all: bool) -> Result<(), StoreError> {
    let untold = shared.routers.untold(all);
    if !untold.is_empty()
        && let Err(error) = shared.store.put_routers(&untold).await
    {
        shared.routers.still_untold(&untold);
        return Err(error);
    }
    if all {
        shared.routers.learn(shared.store.routers().await?);
    }
    Ok(())
}

/// Hands renewals to the replica that looks for lapsed leases, or takes them.
async fn leases(shared: &Shared, since: i64) -> Result<(), StoreError> {
    if !shared.others.load(Ordering::Relaxed) {
        return Ok(());
    }
    let now = shared.clock.now();
    let replica = &shared.config.replica;
    if shared.holds_expiry() {
        let from = wall_ms() - 3 * ms(shared.config.leases.flush) - 1000;
        for (_, at, body) in shared.store.leases(replica, from).await? {
            shared.leases.take_report(&body, wall_ms() - at, now);
        }
        return Ok(());
    }
    // A second more than since the last time: renewals that were under way then.
    let body = shared.leases.report(since - 1000, now);
    shared.store.put_leases(replica, wall_ms(), &body).await
}
