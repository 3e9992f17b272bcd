//! Drives operations – switches, and releases (`releases.rs`) – from step to step: one replica at a time, which holds the job's row.
//!
//! What is next is decided purely (`switch::step`) over what is read here. A step is one unit of changes:
//! the operation's next form, on the revision that was seen, and what it moves. So a replica that lost the
//! job meanwhile, or stood still, writes nothing, and one that takes over goes on from what is written. No
//! step is made while the database is away: everything stays as it was decided last.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cardea_registry_api::{
    Name,
    api::Mode,
    figures::window_of,
    switch::{Switch, SwitchState},
};

use super::{expiry::HELD, from_now};
use crate::{
    change::{Author, Change, SubmitError, Written},
    clock::{ms, wall_ms},
    core::submit,
    shared::Shared,
    state::Stored,
    switch,
};

/// Which row of the jobs is this one's.
const JOB: &str = "operations";
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// How long after its end a window of figures is looked at, ms.
pub(super) const REPORTED: i64 = 2_500;

/// Which figures of an operation were looked at last: its revision, and the window.
type Looked = HashMap<Name, (u64, i64)>;

pub(super) async fn run(shared: &Shared) {
    let mut looked = Looked::new();
    let mut watched = super::releases::Watched::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = shared.operated.notified() => {}
            () = shared.stopping.cancelled() => return,
        }
        if shared.mode() != Mode::Ok || !shared.drives_operations() {
            continue;
        }
        switches(shared, &mut looked).await;
        super::releases::step(shared, &mut watched).await;
    }
}

/// One unit of an operation, and why: `WORD NAME`, for the log.
pub(crate) async fn take_step(
    shared: &Shared,
    changes: Vec<Change>,
    author: &str,
    cause: String,
) -> Result<Written, SubmitError> {
    submit(shared, changes, Author::named(author), Some(cause.into())).await
}

/// Steps every switch that is under way.
async fn switches(shared: &Shared, looked: &mut Looked) {
    let state = shared.state.load_full();
    let running = |stored: &&Arc<Stored<Switch>>| stored.object.state == SwitchState::Running;
    let running: Vec<_> = state.switches().filter(running).cloned().collect();
    looked.retain(|id, _| running.iter().any(|stored| stored.object.id == *id));
    if running.is_empty() {
        return;
    }
    learn_routers(shared).await;
    for stored in running {
        let id = &stored.object.id;
        let figures = (stored.revision, window_of(wall_ms() - REPORTED));
        let new = looked.get(id) != Some(&figures);
        let seen = switch::look::look(shared, &state, &stored, new).await;
        let Some(next) = switch::step(&stored.object, &seen, wall_ms()) else {
            looked.insert(id.clone(), figures);
            continue;
        };
        if let Some(guard) = next.tripped {
            metrics::counter!(crate::metrics::TRIPS, "guard" => guard).increment(1);
        }
        let changes = next.changes(Some(stored.revision), &seen);
        let cause = format!("switch {id}");
        match take_step(shared, changes, &stored.object.author, cause).await {
            Ok(_) => tracing::info!(switch = %id, state = %next.switch.state,
                percent = next.switch.percent(), "a switch made a step"),
            // Something was changed meanwhile: it is looked at again.
            Err(error) => tracing::info!(switch = %id, %error, "a switch's step was not taken"),
        }
    }
}

/// Other replicas tell through the database what their routers have applied.
pub(crate) async fn learn_routers(shared: &Shared) {
    if shared.others.load(Ordering::Relaxed)
        && let Ok(table) = shared.store.routers().await
    {
        shared.routers.learn(table);
    }
}

/// Takes or keeps the job.
pub(super) async fn hold(shared: &Shared) {
    let now = shared.clock.now();
    let until = from_now(shared, HELD);
    let drove = shared.drives_operations();
    match shared
        .store
        .take_job(JOB, &shared.config.replica, now, until)
        .await
    {
        Ok(true) => {
            if !drove {
                tracing::info!("this replica drives operations now");
            }
            // A margin for clocks that differ: let go before another may take over.
            let mine = until - ms(HELD) / 5;
            shared.operations_until.store(mine, Ordering::Relaxed);
        }
        Ok(false) => shared.operations_until.store(0, Ordering::Relaxed),
        Err(error) => tracing::debug!(%error, "cannot hold the operations job"),
    }
}
