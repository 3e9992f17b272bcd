//! Live figures: counts what routers report, and puts old windows together.

use std::time::Duration;

use cardea_registry_api::api::Mode;

use crate::{clock::wall_ms, figures::Taker, shared::Shared};

/// How often old windows are put together and removed.
const SETTLE: Duration = Duration::from_secs(30);

pub(super) async fn take(shared: &Shared) {
    let mut taker = Taker::default();
    loop {
        tokio::select! {
            () = taker.wait(&shared.figures) => {}
            () = shared.stopping.cancelled() => break,
        }
        count(shared, &mut taker).await;
    }
    // The API has ended before: nothing comes any more.
    loop {
        count(shared, &mut taker).await;
        if taker.is_idle() {
            return;
        }
    }
}

async fn count(shared: &Shared, taker: &mut Taker) {
    let away = shared.mode() != Mode::Ok;
    if !taker.count(&shared.figures, away).await {
        // The writer finds out whether the database is lost.
        shared.log_moved.notify_one();
    }
}

pub(super) async fn settle(shared: &Shared) {
    while super::pause(shared, SETTLE).await {
        if shared.mode() == Mode::Ok
            && shared.holds_expiry()
            && let Err(error) = shared.figures.settle(wall_ms()).await
        {
            tracing::debug!(%error, "old figures are not put together; trying again later");
        }
    }
}
