//! Releases, as operators start them and order them about. What comes of it is decided in
//! [`crate::release`]; here it is looked at what there is, and written.

use std::sync::Arc;

use cardea_registry_api::{
    Invalid, Name, Plugin, Release, ReleasePlan,
    release::{Order, ReleaseInfo, ReleasePreview},
};

use super::{
    Core,
    operations::{Decided, outdated, take_step},
};
use crate::{
    change::{Change, Expected, SubmitError, Written},
    clock::wall_ms,
    release::{
        self, Refused,
        look::{Looked, Memo, look},
    },
    state::{State, Stored},
};

/// Why an operator's word on a release was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReleaseError {
    /// There is no such release.
    #[error("there is no release `{0}`")]
    NotFound(Name),
    /// It asks for what cannot be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Something is in the way.
    #[error("{0}")]
    Conflict(String),
    /// It could not be written.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl From<Refused> for ReleaseError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(invalid) => Self::Invalid(invalid),
            Refused::Conflict(why) => Self::Conflict(why),
        }
    }
}

/// One step's unit: the release's next form, on the revision that was seen, and its plugin.
pub(crate) fn release_changes(
    release: Release,
    revision: Option<u64>,
    plugin: Option<Plugin>,
    plugin_revision: Option<u64>,
) -> Vec<Change> {
    let expect = |revision: Option<u64>| revision.map_or(Expected::None, Expected::Exactly);
    let mut changes = vec![Change::PutRelease {
        release: Box::new(release),
        expected: expect(revision),
    }];
    changes.extend(plugin.map(|plugin| Change::PutPlugin {
        plugin: Box::new(plugin),
        expected: expect(plugin_revision),
    }));
    changes
}

impl Core {
    /// What a release would do.
    pub(crate) fn plan_release(
        &self,
        plan: &ReleasePlan,
        author: &str,
    ) -> Result<ReleasePreview, ReleaseError> {
        let state = self.state();
        let draft = release::draft(plan.clone(), &state, author, wall_ms())?;
        let changes = release_changes(
            draft.release.clone(),
            None,
            Some(draft.plugin),
            draft.plugin_revision,
        );
        let actions = self
            .preview(&changes)
            .map_err(|(index, rejection)| SubmitError::Rejected { index, rejection })?;
        Ok(ReleasePreview {
            release: draft.release,
            actions: actions
                .into_iter()
                .filter(|action| action.kind == "plugin")
                .collect(),
            at_the_end: draft.at_the_end,
            candidate_ready: draft.candidate_ready,
            baseline_ready: draft.baseline_ready,
            warnings: draft.warnings,
        })
    }

    /// Starts a release: with its first step.
    pub(crate) async fn begin_release(
        &self,
        plan: &ReleasePlan,
        author: &str,
    ) -> Result<(Name, Written, Vec<String>), ReleaseError> {
        let decide = || async { self.decide_release(plan, author) };
        self.write_word::<Release, _, _, _>(author, decide).await
    }

    fn decide_release(
        &self,
        plan: &ReleasePlan,
        author: &str,
    ) -> Result<Decided<Vec<String>>, ReleaseError> {
        let state = self.state();
        let draft = release::draft(plan.clone(), &state, author, wall_ms())?;
        let id = draft.release.id.clone();
        let put = (Some(draft.plugin), draft.plugin_revision);
        let mut changes = release_changes(draft.release, None, put.0, put.1);
        changes.extend(outdated(state.releases()));
        Ok(Decided {
            id,
            changes,
            told: draft.warnings,
        })
    }

    /// Does what somebody orders.
    pub(crate) async fn order_release(
        &self,
        id: &Name,
        order: Order,
        by: &str,
        why: Option<&str>,
    ) -> Result<Written, ReleaseError> {
        let decide = || async { self.decide_order(id, order, (by, why)) };
        let (_, written, ()) = self.write_word::<Release, _, _, _>(by, decide).await?;
        Ok(written)
    }

    /// Sends everybody back to the baseline although the database is away: at once, and in it when it is back.
    pub(crate) async fn roll_back_while_away(
        &self,
        id: &Name,
        by: &str,
        why: &str,
    ) -> Result<Written, ReleaseError> {
        self.heard_here()?;
        let change = Change::RollBackRelease {
            id: id.clone(),
            by: by.to_owned(),
            why: why.to_owned(),
            at: wall_ms(),
        };
        Ok(take_step::<Release>(&self.shared, id, vec![change], by).await?)
    }

    /// Some router asks this replica: nobody else would hear of it.
    fn heard_here(&self) -> Result<(), ReleaseError> {
        let state = self.state();
        let mut clusters = state.clusters(None);
        if clusters.any(|cluster| self.shared.routers.has_here(&cluster.object.name)) {
            return Ok(());
        }
        Err(ReleaseError::Conflict(
            "no router asks this registry: the database is away, and nobody else would hear of it. Say it to a \
             registry that they ask (`ctl routers`)"
                .to_owned(),
        ))
    }

    fn decide_order(
        &self,
        id: &Name,
        order: Order,
        (by, why): (&str, Option<&str>),
    ) -> Result<Decided<()>, ReleaseError> {
        let state = self.state();
        let stored = the_release(&state, id)?;
        let release = &stored.object;
        if order == Order::Rollback {
            release::nobody_else(&state, release).map_err(ReleaseError::Conflict)?;
        }
        let now = wall_ms();
        let looked = Looked::at(&state, release, now);
        let why = why.map(str::to_owned);
        let done = release::act(release, looked.seen().plugin, &order.into(), (by, why, now));
        let (next, put) = done.map_err(|no| ReleaseError::Conflict(no.0))?;
        Ok(Decided {
            id: id.clone(),
            changes: release_changes(next, Some(stored.revision), put, looked.plugin_revision),
            told: (),
        })
    }

    /// A release, and what the figures say of its step.
    pub(crate) async fn show_release(&self, id: &Name) -> Result<ReleaseInfo, ReleaseError> {
        let state = self.state();
        let stored = the_release(&state, id)?;
        let release = &stored.object;
        let mut analysis = None;
        if !release.state.is_over() {
            let mut memo = Memo::default();
            let looked = look(&self.shared, &state, release, &mut memo, wall_ms()).await;
            let seen = looked.seen();
            analysis = Some(release::judge(release, &seen).shown(release, &seen));
        }
        Ok(ReleaseInfo {
            release: release.clone(),
            revision: stored.revision,
            analysis,
        })
    }
}

fn the_release(state: &State, id: &Name) -> Result<Arc<Stored<Release>>, ReleaseError> {
    let stored = state.release(id.as_str()).cloned();
    stored.ok_or_else(|| ReleaseError::NotFound(id.clone()))
}
