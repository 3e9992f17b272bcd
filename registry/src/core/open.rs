//! How a registry starts: from its database, or from its disk when the database is away.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::Arc,
};

use cardea_registry_api::api::Mode;
use tokio::sync::mpsc;

use super::{Background, CoreConfig, OpenError, StoreError};
use crate::{
    clock::{Clock, ms},
    disk::Disk,
    journal::{Journal, PendingUnit},
    lost::LostWrites,
    record::Record,
    shared::{Parts, Shared},
    state::State,
    store::Store,
    writer::{Draft, Unit, Writer, branch, follow, fresh_epoch, from_rows, run_blocking},
};

/// How many submissions may wait for the writer before the doors wait too.
const QUEUE: usize = 4096;

/// What a registry starts with.
struct Start {
    /// What is served at first.
    state: State,
    /// The database's state, if it was read and agrees with what the disk remembers.
    durable: Option<State>,
    mode: Mode,
    from: &'static str,
    alarm: Option<(&'static str, String)>,
}

pub(super) async fn open(config: CoreConfig) -> Result<(Arc<Shared>, Background), OpenError> {
    check(&config)?;
    let data_dir = |source| OpenError::DataDir {
        path: config.data_dir.clone(),
        source,
    };
    fs::create_dir_all(&config.data_dir).map_err(data_dir)?;
    let lock = lock(&config.data_dir).map_err(data_dir)?;
    let disk = Disk::open(&config.data_dir, config.snapshots.generations).map_err(data_dir)?;
    let journal = Journal::in_dir(&config.data_dir);
    let lost = LostWrites::open(&config.data_dir).map_err(data_dir)?;
    let (remembered, found) = {
        let (disk, journal) = (disk.clone(), journal.clone());
        let read = move || Ok((disk.newest()?, journal.read()?));
        run_blocking(read)
            .await
            .map_err(io::Error::other)
            .and_then(|result| result)
            .map_err(data_dir)?
    };
    if let Some((lines, aside)) = &found.damaged {
        tracing::error!(lines, aside = %aside.display(),
            "the journal of pending changes was damaged or cut off; the sound lines are kept");
    }
    let pending = found.units;
    let store = Store::new(&config.store).map_err(|error| OpenError::Config {
        field: "store.url",
        reason: error.to_string(),
    })?;
    let start = match read(&store).await {
        Ok(durable) => compare(&store, durable, remembered, &config.replica)
            .await
            .map_err(OpenError::NothingToServe)?,
        Err(error) => match remembered {
            Some(state) => alone(&config.replica, state, &error),
            None => return Err(OpenError::NothingToServe(error)),
        },
    };
    Ok(Box::pin(assemble(
        config,
        lock,
        (disk, journal, lost),
        store,
        start,
        pending,
    ))
    .await)
}

async fn assemble(
    config: CoreConfig,
    lock: File,
    (disk, journal, lost): (Disk, Journal, LostWrites),
    store: Store,
    start: Start,
    pending: Vec<PendingUnit>,
) -> (Arc<Shared>, Background) {
    let clock = Clock::new();
    let (commands, inbox) = mpsc::channel(QUEUE);
    let mut state = start.state;
    let mut mode = start.mode;
    if !pending.is_empty() {
        tracing::info!(
            units = pending.len(),
            "changes of the last run are still to be written"
        );
        let units: Vec<Unit> = pending.iter().map(unit).collect();
        if mode == Mode::Ok {
            // Not in agreement until they are written.
            mode = Mode::DatabaseLost;
            state = on_branch(state, &config.replica);
        }
        state = Draft::of(&state, &units, clock.now()).state;
    }
    tracing::info!(epoch = %state.epoch, revision = state.revision, objects = state.objects(),
        from = start.from, ?mode, "the registry's core starts");
    let grace = ms(config.leases.grace);
    let shared = Arc::new(Shared::new(Parts {
        config,
        clock,
        store,
        disk,
        journal,
        lost,
        state,
        mode,
        started_from: start.from,
        commands,
        lock,
    }));
    if let Some((code, message)) = start.alarm {
        shared.raise(code, message);
    }
    shared
        .leases
        .follow(&shared.state.load(), clock.now(), grace);
    let mut writer = Writer::new(Arc::clone(&shared), inbox, start.durable, pending);
    if start.mode == Mode::Ok && mode != Mode::Ok {
        writer.come_back().await;
    }
    if shared.mode() != Mode::Ok {
        shared.trouble.notify_one();
    }
    let background = Background::start(Arc::clone(&shared), writer);
    (shared, background)
}

fn check(config: &CoreConfig) -> Result<(), OpenError> {
    let wrong = |field, reason: &str| {
        Err(OpenError::Config {
            field,
            reason: reason.to_owned(),
        })
    };
    let replica = &config.replica;
    let grammar = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !(1..=63).contains(&replica.len()) || !replica.bytes().all(grammar) {
        return wrong(
            "replica",
            "use 1 to 63 characters of a-z, A-Z, 0-9, `-`, `_`, `.`",
        );
    }
    if config.snapshots.generations == 0 {
        return wrong("snapshots.generations", "keep at least 1");
    }
    if config.snapshots.interval.is_zero() || config.leases.tick.is_zero() {
        return wrong("snapshots.interval, leases.tick", "longer than nothing");
    }
    Ok(())
}

/// One registry a directory: two would spoil each other's journal.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::create(dir.join("registry.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other(
            "another registry uses it: give this one its own",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

async fn read(store: &Store) -> Result<State, StoreError> {
    store.prepare(&fresh_epoch()).await?;
    let loaded = store.load().await?;
    run_blocking(move || from_rows(&loaded)).await
}

/// Whether the database's history is the one that the disk remembers.
async fn compare(
    store: &Store,
    durable: State,
    remembered: Option<State>,
    replica: &str,
) -> Result<Start, StoreError> {
    let agreed = |durable: State| Start {
        state: durable.clone(),
        durable: Some(durable),
        mode: Mode::Ok,
        from: "database",
        alarm: None,
    };
    let Some(remembered) = remembered else {
        return Ok(agreed(durable));
    };
    let known = remembered.base.clone();
    let head = store.head().await?;
    let differs = if head.supersedes.contains(&known.epoch.to_string()) {
        None
    } else if head.point.epoch != known.epoch {
        Some(format!(
            "the database has the history `{}`, the disk snapshot is of `{}`",
            head.point.epoch, known.epoch
        ))
    } else if known.revision > 0 {
        let rows: Vec<Record> = store.changes_from(known.revision, 1).await?;
        match follow(&mut State::empty(known.clone()), &rows) {
            // Away for so long that the log no longer tells.
            Err(_) if store.begins_after(&known).await? => None,
            followed => followed.err().map(|other| other.0),
        }
    } else {
        None
    };
    let Some(reason) = differs else {
        return Ok(agreed(durable));
    };
    tracing::error!(
        reason,
        "the database's history is not the one that the disk snapshot is of: it is held until an operator decides"
    );
    Ok(Start {
        state: on_branch(remembered, replica),
        durable: None,
        mode: Mode::HistoryHeld,
        from: "snapshot",
        alarm: Some((
            "history_held",
            format!(
                "{reason}. The disk snapshot is served. Decide which one holds: POST /v1/history with keep=memory or keep=database."
            ),
        )),
    })
}

/// The database is away: the disk's copy is served.
fn alone(replica: &str, state: State, error: &StoreError) -> Start {
    tracing::error!(%error, revision = state.revision, "started without the database, from the disk snapshot");
    Start {
        state: on_branch(state, replica),
        durable: None,
        mode: Mode::DatabaseLost,
        from: "snapshot",
        alarm: Some((
            "database_lost",
            format!(
                "{error}. The disk snapshot is served; registrations are kept on disk and written when the database is back; configuration is read-only."
            ),
        )),
    }
}

fn on_branch(mut state: State, replica: &str) -> State {
    let epoch = branch(&state.base.epoch, replica);
    state.degraded = true;
    state.rebase(epoch, state.revision);
    state
}

fn unit(pending: &PendingUnit) -> Unit {
    Unit {
        id: Arc::clone(&pending.unit),
        actor: Arc::clone(&pending.actor),
        cause: pending.cause.clone(),
        changes: pending.changes.clone(),
    }
}
