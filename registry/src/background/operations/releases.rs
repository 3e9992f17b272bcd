//! Drives releases.

use std::sync::Arc;

use cardea_registry_api::{Release, figures::window_of, release::ReleaseState};

use super::{Driven, REPORTED};
use crate::{
    clock::wall_ms,
    core::{operations::take_step, release_changes},
    release::{
        self, ITSELF,
        look::{Looked, Memo, look},
    },
    shared::Shared,
    state::{State, Stored},
};

/// What was looked at last: the release's revision, the window, and what was read.
#[derive(Debug, Default)]
pub(super) struct Watched {
    revision: u64,
    window: i64,
    memo: Memo,
}

impl Driven for Release {
    type Memo = Watched;

    fn running(state: &State) -> Vec<Arc<Stored<Self>>> {
        let running = |stored: &&Arc<Stored<Self>>| stored.object.state == ReleaseState::Running;
        state.releases().filter(running).cloned().collect()
    }

    async fn step(
        shared: &Shared,
        state: &State,
        stored: &Arc<Stored<Self>>,
        watched: &mut Watched,
    ) -> bool {
        let (release, now) = (&stored.object, wall_ms());
        let current = window_of(now - REPORTED);
        // Figures change with each window; all else at any time.
        let looked = if (watched.revision, watched.window) == (stored.revision, current) {
            Looked::at(state, release, now)
        } else {
            (watched.revision, watched.window) = (stored.revision, current);
            look(shared, state, release, &mut watched.memo, now).await
        };
        let seen = looked.seen();
        let Some((action, why)) = release::next(release, &seen) else {
            return false;
        };
        let why_is = why.clone().unwrap_or_default();
        let done = release::act(release, seen.plugin, &action, (ITSELF, why, now));
        let (next, put) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(release = %release.id, %error, "a release cannot go on");
                return false;
            }
        };
        let what = release::worse(release, &seen);
        let percent = f64::from(next.percent.hundredths()) / 100.0;
        let (id, to) = (&release.id, next.state);
        let changes = release_changes(next, Some(stored.revision), put, looked.plugin_revision);
        let taken = take_step::<Self>(shared, id, changes, &release.author).await;
        match &taken {
            Ok(_) => {
                if let Some(what) = what {
                    metrics::counter!(crate::metrics::WORSE, "what" => what).increment(1);
                }
                tracing::info!(release = %id, state = %to, percent, why = why_is,
                    "a release made a step");
            }
            // Something was changed meanwhile: it is looked at again.
            Err(error) => {
                tracing::info!(release = %id, %error, "a release's step was not taken");
            }
        }
        taken.is_ok()
    }
}
