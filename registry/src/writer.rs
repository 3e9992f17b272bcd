//! The writer: the only one who changes what the registry serves. Read here how a change flows.
//!
//! 1. A door submits a *unit* of changes ([`crate::core::Core::submit`]) and waits for the answer.
//! 2. The writer takes what has come and drafts it on the current state ([`Draft`], pure). It starts
//!    at once when idle; what arrives during a commit goes into the next: group commit without a timer.
//! 3. One transaction moves the head row (and so takes its lock), adds the records to the log and
//!    makes the current rows what the records say ([`Writer::write`]; a few records of instances on
//!    Postgres, and a lone one on SQLite, go in one step). If another replica has moved
//!    the head, its rows are read under the lock and the units are drafted again on top of them.
//! 4. The new state is published: readers see it, waiting routers are woken, the doors get their answers.
//!
//! When the database does not take it, [`outage`] takes over: runtime changes go to the journal and
//! are served from a branch; when the database is back, they are written like any other unit.
//! [`history`] decides whether the database still has the history that this replica knows.

pub(crate) mod draft;
mod history;
mod outage;

use std::sync::{Arc, atomic::Ordering};

use cardea_registry_api::api::{Keep, Mode, Status};
use tokio::sync::{mpsc, oneshot};

use crate::{
    background::CHECKPOINT_EVERY,
    change::{Kind, Outcome, SubmitError, Verb, Written},
    core::StoreError,
    journal::{Pending, PendingUnit},
    record::Record,
    shared::Shared,
    state::State,
    store::rows::{Begun, Head},
};
pub(crate) use draft::Unit;
use draft::{Accepted, OtherHistory, instance_after};
pub(crate) use draft::{Draft, follow};
pub(crate) use history::{fresh_epoch, from_rows, run_blocking};
pub(crate) use outage::branch;

/// The most changes that share a transaction.
const GROUP: usize = 2000;
/// How many rows are read at a time.
const PAGE: u64 = 2000;
/// How long after a write the database's kept connections are taken for alive.
const ALIVE: std::time::Duration = std::time::Duration::from_secs(1);
/// When a door should try again while the database is away, in seconds.
const RETRY_AFTER: u64 = 2;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Write a unit.
    Submit(Waiting),
    /// An operator's word on which history holds.
    Decide(Keep, Arc<str>, oneshot::Sender<Result<Status, SubmitError>>),
}

/// A unit whose submitter waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) unit: Unit,
    pub(crate) reply: oneshot::Sender<Result<Written, SubmitError>>,
}

/// Why the database did not take a draft.
#[derive(Debug)]
enum WriteError {
    Store(StoreError),
    History(OtherHistory),
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<OtherHistory> for WriteError {
    fn from(error: OtherHistory) -> Self {
        Self::History(error)
    }
}

/// The writer's own.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    /// The state as the database has it; none: started without it, from disk.
    durable: Option<State>,
    /// Accepted, and not known to be in the database.
    pending: Pending,
    /// When the database last took a write: for a moment, its kept connections are taken for alive.
    took: Option<std::time::Instant>,
    /// Changes since the database was last told to fold its write-ahead log.
    unfolded: u64,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        durable: Option<State>,
        pending: Vec<PendingUnit>,
    ) -> Self {
        let pending = Pending::new(pending, shared.config.max_pending);
        let writer = Self {
            shared,
            commands,
            durable,
            pending,
            took: None,
            unfolded: 0,
        };
        writer.tell_pending();
        writer
    }

    /// Runs until the registry stops; what was submitted before is still answered.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                biased;
                () = shared.stopping.cancelled() => break,
                () = shared.reached.notified() => self.come_back().await,
                () = shared.log_moved.notified() => self.catch_up().await,
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command).await,
                    None => return,
                },
            }
        }
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.take(command).await;
        }
    }

    /// Takes a command and, with a unit, all units that have come meanwhile.
    async fn take(&mut self, command: Command) {
        let mut group = Vec::new();
        let mut next = Some(command);
        let mut size = 0;
        while let Some(command) = next.take() {
            match command {
                Command::Submit(waiting) => {
                    size += waiting.unit.changes.len();
                    group.push(waiting);
                    if size < GROUP {
                        next = self.commands.try_recv().ok();
                    }
                }
                Command::Decide(keep, actor, reply) => {
                    self.commit(std::mem::take(&mut group)).await;
                    let result = self.decide(keep, actor).await;
                    let _ = reply.send(result.map(|()| self.shared.status()));
                }
            }
        }
        self.commit(group).await;
    }

    /// Writes a group of units, or keeps what may be kept while the database does not take them.
    async fn commit(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        if self.shared.mode() != Mode::Ok {
            return self.keep(group).await;
        }
        let Some(durable) = self.durable.clone() else {
            return self.keep(group).await;
        };
        let now = self.shared.clock.now();
        let mut draft = Draft::of(&durable, group.iter().map(|waiting| &waiting.unit), now);
        if draft.records.is_empty() && draft.results.iter().any(Result::is_err) {
            // Rejected by what this replica knows: make sure that it knows the newest.
            self.catch_up().await;
            let Some(durable) = self
                .durable
                .as_ref()
                .filter(|_| self.shared.mode() == Mode::Ok)
            else {
                return self.keep(group).await;
            };
            draft = Draft::of(durable, group.iter().map(|waiting| &waiting.unit), now);
        }
        if !draft.records.is_empty() {
            let started = std::time::Instant::now();
            let units: Vec<&Unit> = group.iter().map(|waiting| &waiting.unit).collect();
            match self.write(draft, &units, now).await {
                Ok(written) => draft = written,
                Err(error) => {
                    self.fail(error);
                    return self.keep(group).await;
                }
            }
            metrics::histogram!("cardea_registry_commit_duration_seconds")
                .record(started.elapsed().as_secs_f64());
            self.durable = Some(draft.state.clone());
            self.shared.publish(draft.state.clone());
        }
        let epoch = Arc::clone(&draft.state.epoch);
        for (waiting, result) in group.into_iter().zip(draft.results) {
            if let Ok(accepted) = &result {
                self.heed(&accepted.outcomes, &draft.state);
            }
            let result = result
                .map(|accepted| written(accepted, &epoch, true))
                .map_err(|(index, rejection)| SubmitError::Rejected { index, rejection });
            let _ = waiting.reply.send(result);
        }
    }

    /// Writes a draft, drafting again when other replicas were faster. What is returned is in the
    /// database.
    async fn write(
        &mut self,
        mut draft: Draft,
        units: &[&Unit],
        now: i64,
    ) -> Result<Draft, WriteError> {
        loop {
            let Some(durable) = &self.durable else {
                return Err(StoreError::Away("it was not read yet".to_owned()).into());
            };
            let from = durable.base.clone();
            let mut session = self.shared.store.session(false).await?;
            let started = std::time::Instant::now();
            // In one step only on a connection that is surely alive: whether a step that failed was
            // taken is not known, while a failed `begin` can be repeated.
            if self.took.take().is_some_and(|took| started - took < ALIVE) {
                let to = draft.point();
                let done = session.write_at_once(&from, &to, &draft.records, self.tells());
                if done.await? == Some(true) {
                    session.keep();
                    return Ok(self.taken(draft));
                }
            }
            let mut begun = session.begin(&from, &draft.point()).await;
            if begun.is_err() && started.elapsed() < self.shared.config.store.timeout / 2 {
                // The kept connection was dead; nothing was written on it.
                session = self.shared.store.session(true).await?;
                begun = session.begin(&from, &draft.point()).await;
            }
            if let Begun::Elsewhere(head, rows) = begun? {
                let mut state = durable.clone();
                let Some(rows) = rows else {
                    drop(session);
                    self.follow_log().await?;
                    let Some(durable) = &self.durable else {
                        continue;
                    };
                    draft = Draft::of(durable, units.iter().copied(), now);
                    continue;
                };
                self.same_epoch(&head)?;
                follow(&mut state, &rows)?;
                self.heed_records(&rows);
                draft = Draft::of(&state, units.iter().copied(), now);
                self.durable = Some(state);
                let head = Head {
                    point: draft.point(),
                    ..head
                };
                session.set_head(&head).await?;
            }
            session.write(&draft.records).await?;
            session.commit(self.tells()).await?;
            return Ok(self.taken(draft));
        }
    }

    /// Whether other replicas are to be told. A replica that nobody is beside saves the server and
    /// itself the work; one that comes says so ([`crate::background`]), and all reread on a timer.
    fn tells(&self) -> bool {
        self.shared.others.load(Ordering::Relaxed)
    }

    /// The database has a draft.
    fn taken(&mut self, mut draft: Draft) -> Draft {
        self.took = Some(std::time::Instant::now());
        self.unfolded += draft.records.len() as u64;
        if self.unfolded >= CHECKPOINT_EVERY {
            self.unfolded = 0;
            self.shared.grown.notify_one();
        }
        draft.state.base = draft.point();
        for record in &draft.records {
            // Behind the first word is what an operator called something: no label.
            let cause = record
                .cause
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned();
            metrics::counter!("cardea_registry_changes_total", "cause" => cause).increment(1);
        }
        draft
    }

    /// Lets the leases know what a unit did to instances, as `state` has them.
    fn heed(&self, outcomes: &[Outcome], state: &State) {
        let now = self.shared.clock.now();
        for outcome in outcomes {
            if outcome.kind != Kind::Instance || outcome.verb == Verb::Absent {
                continue;
            }
            let Ok(key) = outcome.key.parse() else {
                continue;
            };
            let there = (outcome.after.as_ref()).and_then(|_| state.instance(&key));
            // Gone by another outcome of the group, which is heeded in its turn.
            if outcome.after.is_some() && there.is_none() {
                continue;
            }
            let instance = there.map(|stored| &stored.object);
            let renews = outcome.cause == "registered";
            self.shared.leases.observe(&key, instance, renews, now);
        }
    }

    /// As [`Writer::heed`], of what other replicas wrote.
    fn heed_records(&self, records: &[Record]) {
        let now = self.shared.clock.now();
        for record in records {
            if record.kind == Kind::Instance {
                self.heed_one(&record.key, record.after.as_deref(), &record.cause, now);
            }
        }
    }

    fn heed_one(&self, key: &str, after: Option<&str>, cause: &str, now: i64) {
        let Ok(key) = key.parse() else { return };
        let instance = instance_after(after);
        self.shared
            .leases
            .observe(&key, instance.as_ref(), cause == "registered", now);
    }

    fn tell_pending(&self) {
        self.shared.standing().pending = self.pending.len() as u64;
    }
}

fn written(accepted: Accepted, epoch: &Arc<str>, durable: bool) -> Written {
    Written {
        epoch: Arc::clone(epoch),
        revision: accepted.revision,
        durable,
        outcomes: accepted.outcomes,
    }
}
