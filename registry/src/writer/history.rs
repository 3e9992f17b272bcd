//! Whether the database's history is the one that this replica knows, and what happens when it is not.

use std::sync::Arc;

use cardea_registry_api::api::{Keep, Mode};

use super::{
    PAGE, WriteError, Writer,
    draft::{Decision, OtherHistory, follow},
    outage::unavailable,
};
use crate::{
    change::{Kind, SubmitError},
    clock::wall_ms,
    core::StoreError,
    record::{Point, Record},
    state::{Object, State},
    store::rows::{Current, Head, Loaded},
};

/// A name for a new history.
pub(crate) fn fresh_epoch() -> String {
    format!("{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff)
}

/// A state from the database's rows. A row that cannot be read is named and left out.
pub(crate) fn from_rows(loaded: &Loaded) -> State {
    let mut state = State::empty(loaded.head.point.clone());
    state.accepted_at = loaded.head.accepted_at;
    let objects = loaded
        .objects
        .iter()
        .map(|(kind, key, revision, body)| (Kind::parse(kind), key, *revision, body));
    let instances = loaded
        .instances
        .iter()
        .map(|(key, revision, body)| (Some(Kind::Instance), key, *revision, body));
    for (kind, key, revision, body) in objects.chain(instances) {
        let set = kind
            .ok_or_else(|| "its kind is not known".to_owned())
            .and_then(|kind| Object::parse(kind, body).map_err(|error| error.to_string()))
            .and_then(|object| {
                state
                    .set(object, revision)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = set {
            tracing::error!(key, revision, %error, "an object cannot be read; it is left out");
        }
    }
    state.loaded();
    state
}

impl Writer {
    /// The log may have moved: follow it.
    pub(crate) async fn catch_up(&mut self) {
        if self.shared.mode() != Mode::Ok || self.durable.is_none() {
            return;
        }
        let before = self.durable.as_ref().map(|state| state.revision);
        match self.follow_log().await {
            Ok(()) => {
                let after = self.durable.as_ref().filter(|s| Some(s.revision) != before);
                if let Some(state) = after {
                    self.shared.publish(state.clone());
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Follows the log to its end; another history that an operator put in place of ours is adopted.
    pub(super) async fn follow_log(&mut self) -> Result<(), WriteError> {
        let head = self.shared.store.head().await?;
        let Some(base) = self.durable.as_ref().map(|durable| durable.base.clone()) else {
            return Ok(());
        };
        if head.point == base {
            return Ok(());
        }
        if head.point.epoch != base.epoch && head.supersedes.contains(&base.epoch.to_string()) {
            let state = self.load().await?;
            tracing::warn!(epoch = %state.epoch, revision = state.revision,
                "took over the history that an operator has accepted");
            self.follow_leases(&state);
            self.durable = Some(state);
            return Ok(());
        }
        self.same_epoch(&head)?;
        loop {
            let Some(durable) = &self.durable else {
                return Ok(());
            };
            let rows = (self.shared.store)
                .changes_from(durable.base.revision, PAGE)
                .await?;
            let mut state = durable.clone();
            if let Err(other) = follow(&mut state, &rows) {
                if !self.shared.store.begins_after(&durable.base).await? {
                    return Err(other.into());
                }
                let state = self.load().await?;
                tracing::warn!(
                    revision = state.revision,
                    "the log begins behind what this replica knows: it has read everything anew"
                );
                self.follow_leases(&state);
                self.durable = Some(state);
                return Ok(());
            }
            self.heed_records(&rows);
            let done = (rows.len() as u64) < PAGE;
            self.durable = Some(state);
            if done {
                return Ok(());
            }
        }
    }

    pub(super) fn same_epoch(&self, head: &Head) -> Result<(), OtherHistory> {
        let known = self.known_point();
        if head.point.epoch == known.epoch {
            Ok(())
        } else {
            Err(OtherHistory(format!(
                "the database has the history `{}`, this registry knows `{}`",
                head.point.epoch, known.epoch
            )))
        }
    }

    /// The last point of the database's history that this replica knows.
    pub(super) fn known_point(&self) -> Point {
        match &self.durable {
            Some(durable) => durable.base.clone(),
            None => self.shared.state.load().base.clone(),
        }
    }

    /// Reads everything.
    async fn load(&self) -> Result<State, StoreError> {
        let loaded = self.shared.store.load().await?;
        run_blocking(move || from_rows(&loaded)).await
    }

    pub(super) fn follow_leases(&self, state: &State) {
        let grace = crate::clock::ms(self.shared.config.leases.grace);
        self.shared
            .leases
            .follow(state, self.shared.clock.now(), grace);
    }

    /// The state as the database has it now, if its history goes on from what this replica knows or
    /// was put in its place by an operator.
    pub(super) async fn agree(&mut self) -> Result<(), WriteError> {
        if self.durable.is_some() {
            return self.follow_log().await;
        }
        let known = self.known_point();
        let head = self.shared.store.head().await?;
        if !head.supersedes.contains(&known.epoch.to_string()) {
            self.same_epoch(&head)?;
            if known.revision > 0 {
                let rows = self.shared.store.changes_from(known.revision, 1).await?;
                if let Err(other) = follow(&mut State::empty(known.clone()), &rows)
                    && !self.shared.store.begins_after(&known).await?
                {
                    return Err(other.into());
                }
            }
        }
        let state = self.load().await?;
        self.follow_leases(&state);
        self.durable = Some(state);
        Ok(())
    }

    /// An operator has spoken.
    pub(super) async fn decide(&mut self, keep: Keep, actor: Arc<str>) -> Result<(), SubmitError> {
        let mode = self.shared.mode();
        if mode == Mode::DatabaseLost {
            return Err(unavailable("the database is away: decide when it is back"));
        }
        let done = match keep {
            Keep::Memory if mode == Mode::HistoryHeld => self.keep_memory(&actor).await,
            _ => self.keep_database(&actor, mode).await,
        };
        match done {
            Ok(()) => {
                tracing::warn!(?keep, %actor, epoch = %self.shared.state.load().epoch, "an operator decided which history holds");
                Ok(())
            }
            Err(error) => {
                self.fail(error);
                Err(unavailable(
                    "the database did not take the decision: try again",
                ))
            }
        }
    }

    /// The database's history holds. When nothing is held, the decision says to routers that they may
    /// let go of what this history does not have.
    async fn keep_database(&mut self, actor: &Arc<str>, mode: Mode) -> Result<(), WriteError> {
        let mut session = self.shared.store.session(true).await?;
        let head = session.lock().await?;
        let mut new = self.decided(&head);
        if mode == Mode::Ok {
            new.point.epoch = Arc::clone(&head.point.epoch);
            new.supersedes.clone_from(&head.supersedes);
        }
        new.point.revision = head.point.revision + 1;
        let record = decision(&head, &mut new, actor);
        session.write(&[record]).await?;
        session.set_head(&new).await?;
        session.commit(true).await?;
        if mode == Mode::Ok {
            self.follow_log().await?;
            if let Some(durable) = &self.durable {
                self.shared.publish(durable.clone());
            }
            return Ok(());
        }
        let state = self.load().await?;
        self.follow_leases(&state);
        self.durable = Some(state);
        self.replay().await
    }

    /// This registry's memory holds, and replaces what the database has.
    async fn keep_memory(&mut self, actor: &Arc<str>) -> Result<(), WriteError> {
        let mut state = State::clone(&self.shared.state.load());
        let mut session = self.shared.store.session(true).await?;
        let head = session.lock().await?;
        let mut new = self.decided(&head);
        new.point.revision = head.point.revision.max(state.revision) + 1;
        let record = decision(&head, &mut new, actor);
        let owned: Vec<(Kind, String, u64, String)> = state
            .all_rows()
            .map(|(kind, key, revision, body)| (kind, key, revision, body.to_owned()))
            .collect();
        let rows: Vec<Current<'_>> = owned
            .iter()
            .map(|(kind, key, revision, body)| Current {
                kind: *kind,
                key,
                revision: *revision,
                body: Some(body),
            })
            .collect();
        session.rewrite(&rows).await?;
        session.write(&[record]).await?;
        session.set_head(&new).await?;
        session.commit(true).await?;
        state.rebase(Arc::clone(&new.point.epoch), new.point.revision);
        state.base = new.point;
        state.accepted_at = new.accepted_at;
        state.degraded = false;
        self.durable = Some(state);
        self.pending.clear();
        self.returned().await;
        Ok(())
    }

    /// The head of a new history, in place of both that there are.
    fn decided(&self, head: &Head) -> Head {
        let mut supersedes = head.supersedes.clone();
        for old in [&head.point.epoch, &self.known_point().epoch] {
            if !supersedes.iter().any(|known| **known == **old) {
                supersedes.push(old.to_string());
            }
        }
        Head {
            point: Point {
                epoch: fresh_epoch().into(),
                ..head.point.clone()
            },
            supersedes,
            accepted_at: wall_ms(),
        }
    }
}

/// The decision's row in the log, chained to what the database has; `new` gets its digest.
fn decision(head: &Head, new: &mut Head, actor: &Arc<str>) -> Record {
    let text = serde_json::to_string(&Decision {
        epoch: new.point.epoch.to_string(),
        supersedes: new.supersedes.clone(),
        accepted_at: new.accepted_at,
    })
    .unwrap_or_default();
    let mut record = Record {
        revision: new.point.revision,
        at: new.accepted_at,
        actor: Arc::clone(actor),
        cause: "accepted".into(),
        kind: Kind::History,
        key: new.point.epoch.to_string(),
        before: None,
        after: Some(text.into()),
        unit: new.point.epoch.clone(),
        digest: head.point.digest.clone(),
    };
    record.digest = head.point.digest.then(&record);
    new.point.digest = record.digest.clone();
    record
}

pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Unreadable(error.to_string()))
}
