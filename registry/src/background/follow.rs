//! Keeps up with the log, and with the database's coming back.

use std::time::Duration;

use cardea_registry_api::api::Mode;
use sqlx::postgres::PgListener;
use tokio::time::MissedTickBehavior;

use super::pause;
use crate::{shared::Shared, writer::fresh_epoch};

/// How often a lost database is tried.
const PROBE: Duration = Duration::from_millis(500);

/// Wakes the writer when the log may have moved: on a notification of another replica, on having
/// reconnected (notifications of meanwhile are lost), and on a timer whatever was notified.
pub(super) async fn follow(shared: &Shared) {
    let mut listener: Option<PgListener> = None;
    let mut listens = true;
    // Not a new sleep each time: notifications must not keep the timer from ever ending.
    let mut poll = tokio::time::interval(shared.config.store.poll);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if listener.is_none() && listens && shared.mode() == Mode::Ok {
            match shared.store.listen().await {
                Ok(Some(new)) => {
                    listener = Some(new);
                    shared.log_moved.notify_one();
                    // Whoever has been alone so far tells nobody of changes: say that we are here.
                    say_hello(shared).await;
                }
                Ok(None) => listens = false,
                Err(error) => tracing::debug!(%error, "cannot listen for notifications"),
            }
        }
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            _ = poll.tick() => shared.log_moved.notify_one(),
            told = next(&mut listener) => {
                if told.is_none() {
                    listener = None;
                }
                match told {
                    Some(process) if shared.store.is_own(process) => {}
                    Some(_) => {
                        if shared.heard_another() {
                            // It does not know yet what was written while we thought to be alone.
                            say_hello(shared).await;
                        }
                        shared.log_moved.notify_one();
                    }
                    None => shared.log_moved.notify_one(),
                }
            }
        }
    }
}

async fn say_hello(shared: &Shared) {
    if let Err(error) = shared.store.tell().await {
        tracing::debug!(%error, "cannot tell other replicas");
    }
}

/// The process that notified; none: the connection is lost.
async fn next(listener: &mut Option<PgListener>) -> Option<u32> {
    match listener {
        Some(listener) => match listener.try_recv().await {
            Ok(Some(told)) => Some(told.process_id()),
            Ok(None) | Err(_) => None,
        },
        None => std::future::pending().await,
    }
}

/// While there is trouble: tries to reach the database, and tells the writer.
pub(super) async fn probe(shared: &Shared) {
    loop {
        let mode = shared.mode();
        if mode == Mode::Ok {
            tokio::select! {
                () = shared.trouble.notified() => {}
                () = shared.stopping.cancelled() => return,
            }
        }
        // An emptied database gets its tables again, with a new history: that is then held.
        match shared.store.prepare(&fresh_epoch()).await {
            Ok(_) => shared.reached.notify_one(),
            Err(error) => {
                shared.reword(
                    Mode::DatabaseLost,
                    "database_lost",
                    format!(
                        "{error}. Memory serves; registrations are kept on disk and written when the database is back; configuration is read-only."
                    ),
                );
            }
        }
        let time = if mode == Mode::HistoryHeld {
            shared.config.store.poll
        } else {
            PROBE
        };
        if !pause(shared, time).await {
            return;
        }
    }
}
