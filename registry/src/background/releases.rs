//! Drives releases, as `operations.rs` drives switches: on the replica that holds that job, never while the
//! database is away.

use std::{collections::HashMap, sync::Arc};

use cardea_registry_api::{Name, figures::window_of, release::ReleaseState};

use super::operations::{REPORTED, take_step};
use crate::{
    clock::wall_ms,
    core::release_changes,
    release::{
        self, ITSELF,
        look::{Looked, Memo, look},
    },
    shared::Shared,
    state::Stored,
};

/// What was looked at last of each release: its revision, the window, and what was read.
#[derive(Debug, Default)]
pub(super) struct Watched(HashMap<Name, (u64, i64, Memo)>);

/// Steps every release that is running.
pub(super) async fn step(shared: &Shared, watched: &mut Watched) {
    let state = shared.state.load_full();
    let running = |stored: &&Arc<Stored<cardea_registry_api::Release>>| {
        stored.object.state == ReleaseState::Running
    };
    let running: Vec<_> = state.releases().filter(running).cloned().collect();
    watched
        .0
        .retain(|id, _| running.iter().any(|stored| stored.object.id == *id));
    for stored in running {
        let (release, now) = (&stored.object, wall_ms());
        let (revision, window, memo) = watched.0.entry(release.id.clone()).or_default();
        let current = window_of(now - REPORTED);
        // Figures change with each window; all else at any time.
        let looked = if (*revision, *window) == (stored.revision, current) {
            Looked::at(&state, release, now)
        } else {
            (*revision, *window) = (stored.revision, current);
            look(shared, &state, release, memo, now).await
        };
        let seen = looked.seen();
        let Some((action, why)) = release::next(release, &seen) else {
            continue;
        };
        let why_is = why.clone().unwrap_or_default();
        let done = release::act(release, seen.plugin, &action, (ITSELF, why, now));
        let (next, put) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(release = %release.id, %error, "a release cannot go on");
                continue;
            }
        };
        let what = release::worse(release, &seen);
        let percent = f64::from(next.percent.hundredths()) / 100.0;
        let line = (next.id.clone(), next.state);
        let changes = release_changes(next, Some(stored.revision), put, looked.plugin_revision);
        let cause = format!("release {}", release.id);
        match take_step(shared, changes, &release.author, cause).await {
            Ok(_) => {
                if let Some(what) = what {
                    metrics::counter!(crate::metrics::WORSE, "what" => what).increment(1);
                }
                tracing::info!(release = %line.0, state = %line.1, percent, why = why_is,
                    "a release made a step");
            }
            // Something was changed meanwhile: it is looked at again.
            Err(error) => {
                tracing::info!(release = %line.0, %error, "a release's step was not taken");
            }
        }
    }
}
