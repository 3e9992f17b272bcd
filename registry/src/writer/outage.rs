//! While the database is away (or its history is held), and how everything agrees again afterwards.
//!
//! Memory goes on serving, as a *branch*: the epoch says whose, the revisions grow on. What agents
//! and operators do to instances is accepted: journaled on disk, then served. So is what operators say of
//! traffic and of releases expressly for this time. Other configuration waits.
//! When the database is back, the journal's units are written to it like any others, except those
//! that are there already: a commit whose answer got lost is found again by its unit's name.

use std::{collections::HashSet, sync::Arc};

use cardea_registry_api::api::Mode;

use super::{
    RETRY_AFTER, Unit, Waiting, WriteError, Writer,
    draft::{Draft, OtherHistory},
    history::run_blocking,
    written,
};
use crate::{
    change::{Change, Rejection, SubmitError},
    clock::wall_ms,
    core::StoreError,
    journal::PendingUnit,
    lost::{Lost, Meant},
};

/// How many units are written in one transaction when the database is back.
const REPLAY: usize = 256;
/// When an unknown instance should try again while the journal is full, in seconds.
const FULL_RETRY_AFTER: u64 = 30;

/// The epoch of a branch of `base`, unlike any other of any replica.
pub(crate) fn branch(base: &str, replica: &str) -> Arc<str> {
    format!("{base}~{replica}-{:x}", wall_ms()).into()
}

impl Writer {
    /// The database did not do what was asked of it.
    pub(super) fn fail(&mut self, error: WriteError) {
        match error {
            WriteError::Store(error) => self.lose(&error),
            WriteError::History(error) => self.hold(&error),
        }
    }

    /// The database is away.
    fn lose(&mut self, error: &StoreError) {
        let mode = self.shared.mode();
        if mode == Mode::HistoryHeld {
            return; // It was held before, and stays so until it can be read again.
        }
        if mode == Mode::Ok {
            tracing::error!(%error, "the database is lost: serving from memory, registrations are kept");
            metrics::counter!("cardea_registry_database_lost_total").increment(1);
        }
        self.leave(Mode::DatabaseLost);
        self.shared.raise(
            "database_lost",
            format!(
                "{error}. Memory serves; registrations are kept on disk and written when the database is back; configuration is read-only."
            ),
        );
    }

    /// The database has another history than the one this replica knows.
    fn hold(&mut self, error: &OtherHistory) {
        if self.shared.mode() != Mode::HistoryHeld {
            tracing::error!(
                reason = error.0,
                "the database's history is not the known one: it is held until an operator decides"
            );
        }
        self.leave(Mode::HistoryHeld);
        self.shared.clear("database_lost");
        self.shared.raise(
            "history_held",
            format!(
                "{}. Memory goes on serving. Decide which one holds: POST /v1/history with keep=memory or keep=database.",
                error.0
            ),
        );
    }

    /// From the database's line onto a branch, unless that was done before.
    fn leave(&mut self, mode: Mode) {
        let before = std::mem::replace(&mut self.shared.standing().mode, mode);
        if before == Mode::Ok
            && let Some(durable) = &self.durable
        {
            let mut state = durable.clone();
            state.degraded = true;
            let epoch = branch(&state.base.epoch, &self.shared.config.replica);
            state.rebase(epoch, state.revision);
            self.shared.publish(state);
        }
        self.shared.trouble.notify_one();
    }

    /// Accepts what may be accepted without the database.
    pub(super) async fn keep(&mut self, group: Vec<Waiting>) {
        let (runtime, other): (Vec<Waiting>, Vec<Waiting>) = group
            .into_iter()
            .partition(|waiting| waiting.unit.changes.iter().all(Change::is_runtime));
        for waiting in other {
            let reason = match self.shared.mode() {
                Mode::HistoryHeld => {
                    "the database's history is held: configuration is read-only until POST /v1/history decides"
                }
                _ => {
                    "the database is away: configuration is read-only (if this was being written just now, read back whether it was)"
                }
            };
            let _ = waiting.reply.send(Err(unavailable(reason)));
        }
        let runtime = self.admit(runtime).await;
        if runtime.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        let base = self.known_point();
        let served = self.shared.state.load_full();
        let draft = Draft::of(&served, runtime.iter().map(|waiting| &waiting.unit), now);
        let units: Vec<PendingUnit> = runtime
            .iter()
            .zip(&draft.results)
            .filter(|(_, result)| result.is_ok())
            .map(|(waiting, _)| PendingUnit {
                unit: Arc::clone(&waiting.unit.id),
                at: wall_ms(),
                actor: Arc::clone(&waiting.unit.actor),
                cause: waiting.unit.cause.clone(),
                base: base.clone(),
                changes: waiting.unit.changes.clone(),
            })
            .collect();
        if let Err(error) = self.append(&units).await {
            tracing::error!(%error, "the journal cannot be written");
            self.shared.raise(
                "journal_failed",
                format!("{error}: nothing can be accepted while the database is away. Free or mend the disk."),
            );
            for waiting in runtime {
                let _ = (waiting.reply).send(Err(unavailable(
                    "neither the database nor the disk takes it",
                )));
            }
            return;
        }
        self.shared.clear("journal_failed");
        self.pending.extend(units);
        self.tell_pending();
        self.shared.publish(draft.state.clone());
        let epoch = Arc::clone(&served.epoch);
        for (waiting, result) in runtime.into_iter().zip(draft.results) {
            if let Ok(accepted) = &result {
                self.heed(&accepted.outcomes, &draft.state);
            }
            let result = result
                .map(|accepted| written(accepted, &epoch, false))
                .map_err(|(index, rejection)| SubmitError::Rejected { index, rejection });
            let _ = waiting.reply.send(result);
        }
    }

    /// Answers those that the journal has no room for: what an instance says that is not known.
    async fn admit(&mut self, group: Vec<Waiting>) -> Vec<Waiting> {
        let more = group.iter().map(|waiting| waiting.unit.changes.len()).sum();
        if self.pending.is_long(more) {
            self.compact().await;
        }
        if !self.pending.is_full(more) {
            self.shared.clear("journal_full");
            return group;
        }
        let served = self.shared.state.load_full();
        let mut known = |change: &Change| {
            let key = change.instance();
            key.is_some_and(|key| served.instance(key).is_some() || self.pending.has(key))
        };
        let (known, new): (Vec<Waiting>, Vec<Waiting>) = group
            .into_iter()
            .partition(|waiting| waiting.unit.changes.iter().all(&mut known));
        if new.is_empty() {
            return known;
        }
        let most = self.shared.config.max_pending;
        self.shared.raise(
            "journal_full",
            format!(
                "{most} changes wait for the database, as many as may: instances that are not known are refused until it is back. Bring it back; `max_pending_changes` is the bound."
            ),
        );
        metrics::counter!("cardea_registry_pending_refused_total").increment(new.len() as u64);
        for waiting in new {
            let reason = format!(
                "the database is away and {most} changes wait for it, as many as may: known instances go on, new ones have to wait until it is back"
            );
            let _ = waiting.reply.send(Err(SubmitError::Full {
                reason,
                retry_after: FULL_RETRY_AFTER,
            }));
        }
        known
    }

    /// Leaves out of memory and journal what later changes have made void.
    async fn compact(&mut self) {
        let (journal, compacted) = (self.shared.journal.clone(), self.pending.compacted());
        let done = run_blocking(move || {
            let units = compacted();
            journal.replace(&units).map(|()| units)
        });
        match done.await.map_err(std::io::Error::other).flatten() {
            Ok(units) => {
                let before = self.pending.len();
                self.pending.replace(units);
                tracing::info!(
                    before,
                    after = self.pending.len(),
                    "left out of the journal what later changes have made void"
                );
                self.tell_pending();
            }
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be made shorter");
                self.pending.rest();
            }
        }
    }

    async fn append(&self, units: &[PendingUnit]) -> std::io::Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let (journal, units) = (self.shared.journal.clone(), units.to_vec());
        run_blocking(move || journal.append(&units))
            .await
            .map_err(std::io::Error::other)?
    }

    /// The database answers again: agree with it, and write what is pending.
    pub(crate) async fn come_back(&mut self) {
        if self.shared.mode() == Mode::Ok {
            return;
        }
        let result = match self.agree().await {
            Ok(()) => self.replay().await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::debug!(?error, "not yet in agreement with the database");
            self.fail(error);
        }
    }

    /// Writes what is pending on top of the database's history, and is back.
    pub(super) async fn replay(&mut self) -> Result<(), WriteError> {
        self.drop_written().await?;
        let mut replayed = 0;
        while !self.pending.is_empty() {
            let Some(durable) = &self.durable else {
                return Ok(());
            };
            let units: Vec<Unit> = self.pending.iter().take(REPLAY).map(unit).collect();
            let now = self.shared.clock.now();
            let mut draft = Draft::of(durable, &units, now);
            if !draft.records.is_empty() {
                let units: Vec<&Unit> = units.iter().collect();
                draft = self.write(draft, &units, now).await?;
            }
            let mut lost = Vec::new();
            for ((unit, result), pending) in
                units.iter().zip(&draft.results).zip(self.pending.iter())
            {
                match result {
                    Ok(accepted) => self.heed(&accepted.outcomes, &draft.state),
                    Err((_, rejection)) => {
                        metrics::counter!("cardea_registry_pending_rejected_total").increment(1);
                        tracing::warn!(unit = %unit.id, actor = %unit.actor, %rejection,
                            "a change that was accepted without the database no longer applies");
                        lost.extend(lost_of(pending, rejection, draft.state.revision));
                    }
                }
            }
            self.tell_lost(lost).await;
            self.durable = Some(draft.state);
            self.pending.drop_first(units.len());
            replayed += units.len();
            self.tell_pending();
        }
        if replayed > 0 {
            tracing::info!(
                units = replayed,
                "wrote what was accepted without the database"
            );
        }
        self.returned().await;
        Ok(())
    }

    /// What operators said and does not hold is an alarm until somebody takes note.
    async fn tell_lost(&self, lost: Vec<Lost>) {
        if lost.is_empty() {
            return;
        }
        let known = Arc::clone(&self.shared.lost);
        let kept = run_blocking(move || known.add(lost)).await;
        if let Err(error) = kept.map_err(std::io::Error::other).flatten() {
            tracing::error!(%error, "lost writes are not on disk: a restart forgets their alarm");
        }
    }

    /// Drops pending units that are in the database already: their commit's answer got lost.
    async fn drop_written(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // Under the lock: a commit that was on its way when the connection was cut is through by
        // now, or never will be.
        let mut session = self.shared.store.session(true).await?;
        let head = session.lock().await?;
        drop(session);
        let from = self
            .pending
            .iter()
            .map(|unit| {
                if unit.base.epoch == head.point.epoch {
                    unit.base.revision
                } else {
                    0
                }
            })
            .min()
            .unwrap_or_default();
        let there: HashSet<String> = (self.shared.store.units_after(from).await?)
            .into_iter()
            .collect();
        self.pending.retain(|unit| !there.contains(&*unit.unit));
        // What was read before the lock may lack what the late commit wrote.
        self.follow_log().await
    }

    /// In agreement with the database again.
    pub(super) async fn returned(&mut self) {
        let journal = self.shared.journal.clone();
        let cleared = run_blocking(move || journal.clear()).await;
        if let Ok(Err(error)) = cleared {
            // Its units are found in the log when they are read again.
            tracing::warn!(%error, "the journal cannot be removed");
        }
        let grace = crate::clock::ms(self.shared.config.leases.grace);
        if let Some(durable) = &self.durable {
            self.shared.publish(durable.clone());
        }
        self.shared.leases.grace(self.shared.clock.now(), grace);
        self.tell_pending();
        self.shared.clear("journal_full");
        if self.shared.agree() != Mode::Ok {
            tracing::info!("in agreement with the database");
        }
    }
}

/// What an operator said in a unit that was rejected.
fn lost_of(
    pending: &PendingUnit,
    rejection: &Rejection,
    revision: u64,
) -> impl Iterator<Item = Lost> {
    let cause = pending.cause.as_deref().unwrap_or_default();
    pending.changes.iter().filter_map(move |change| {
        let (meant, reason) = match change {
            Change::MoveTraffic { key, .. } => (
                Meant::Traffic(key.clone()),
                cause.strip_prefix("away ").unwrap_or(cause),
            ),
            Change::RollBackRelease { id, why, .. } => (Meant::Rollback(id.clone()), &**why),
            _ => return None,
        };
        Some(Lost {
            meant,
            actor: pending.actor.to_string(),
            reason: reason.to_owned(),
            refused: rejection.to_string(),
            said_at: pending.at,
            noticed_at: wall_ms(),
            revision,
        })
    })
}

fn unit(pending: &PendingUnit) -> Unit {
    Unit {
        id: Arc::clone(&pending.unit),
        actor: Arc::clone(&pending.actor),
        cause: pending.cause.clone(),
        changes: pending.changes.clone(),
    }
}

pub(super) fn unavailable(reason: &str) -> SubmitError {
    SubmitError::Unavailable {
        reason: reason.to_owned(),
        retry_after: RETRY_AFTER,
    }
}
