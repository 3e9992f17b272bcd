//! Drives switches.

use std::sync::Arc;

use cardea_registry_api::{
    figures::window_of,
    switch::{Switch, SwitchState},
};

use super::{Driven, REPORTED, learn_routers};
use crate::{
    clock::wall_ms,
    core::operations::take_step,
    shared::Shared,
    state::{State, Stored},
    switch,
};

impl Driven for Switch {
    /// Which figures were looked at last: the switch's revision, and the window.
    type Memo = (u64, i64);

    fn running(state: &State) -> Vec<Arc<Stored<Self>>> {
        let running = |stored: &&Arc<Stored<Self>>| stored.object.state == SwitchState::Running;
        state.switches().filter(running).cloned().collect()
    }

    async fn step(
        shared: &Shared,
        state: &State,
        stored: &Arc<Stored<Self>>,
        looked: &mut (u64, i64),
    ) -> bool {
        learn_routers(shared).await;
        let id = &stored.object.id;
        let figures = (stored.revision, window_of(wall_ms() - REPORTED));
        let seen = switch::look::look(shared, state, stored, *looked != figures).await;
        let Some(next) = switch::step(&stored.object, &seen, wall_ms()) else {
            *looked = figures;
            return false;
        };
        if let Some(guard) = next.tripped {
            metrics::counter!(crate::metrics::TRIPS, "guard" => guard).increment(1);
        }
        let changes = next.changes(Some(stored.revision), &seen);
        let taken = take_step::<Self>(shared, id, changes, &stored.object.author).await;
        match &taken {
            Ok(_) => tracing::info!(switch = %id, state = %next.switch.state,
                percent = next.switch.percent(), "a switch made a step"),
            // Something was changed meanwhile: it is looked at again.
            Err(error) => tracing::info!(switch = %id, %error, "a switch's step was not taken"),
        }
        taken.is_ok()
    }
}
