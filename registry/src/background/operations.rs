//! Drives operations – [`switches`] and [`releases`] – from step to step: one replica at a time, which holds
//! the job's row.
//!
//! What is next is decided purely (`switch::step`, `release::next`) over what is read here. A step is one
//! unit of changes: the operation's next form, on the revision that was seen, and what it moves. So a replica
//! that lost the job meanwhile, or stood still, writes nothing, and one that takes over goes on from what is
//! written. No step is made while the database is away: everything stays as it was decided last.
//!
//! Each operation is looked at by itself: one whose figures do not come holds up no other ([`turns`]).

mod releases;
mod switches;
mod turns;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cardea_registry_api::{Release, Switch, api::Mode};
use tokio::time::MissedTickBehavior;

use super::{expiry::HELD, from_now};
use crate::{
    clock::ms,
    core::operations::Operation,
    shared::Shared,
    state::{State, Stored},
};
use turns::Turns;

/// Which row of the jobs is this one's.
const JOB: &str = "operations";
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// How long after its end a window of figures is looked at, ms.
const REPORTED: i64 = 2_500;

/// An operation that goes on by itself.
trait Driven: Operation + Clone + Send + Sync + 'static {
    /// What a look leaves for the next one.
    type Memo: Default + Send;

    /// Those that are under way.
    fn running(state: &State) -> Vec<Arc<Stored<Self>>>;

    /// Looks at one, and makes the step that is due; whether it made one.
    fn step(
        shared: &Shared,
        state: &State,
        stored: &Arc<Stored<Self>>,
        memo: &mut Self::Memo,
    ) -> impl Future<Output = bool> + Send;
}

pub(super) async fn run(shared: &Shared) {
    let mut switches = Turns::<Switch>::of(shared);
    let mut releases = Turns::<Release>::of(shared);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.operated.notified() => {}
            // What comes next may be due at once.
            () = switches.stepped() => {}
            () = releases.stepped() => {}
            () = shared.stopping.cancelled() => return,
        }
        if shared.mode() != Mode::Ok || !shared.drives_operations() {
            continue;
        }
        let state = shared.state.load_full();
        switches.look(&state);
        releases.look(&state);
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
