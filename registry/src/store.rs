//! The database: Postgres or SQLite, the same tables and the same statements.
//!
//! Connections are owned here and lent for one operation. An operation that fails or takes longer
//! than the time-out loses its connection, so that a database that is frozen is noticed in time
//! and never holds up the writer; whatever was open on it is rolled back by the server.

mod fault;
mod postgres;
pub(crate) mod rows;
mod sql;
mod sqlite;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cardea_registry_api::{Name, api::RouterInfo};
use sqlx::postgres::PgListener;

use crate::{
    core::{StoreError, config::StoreConfig},
    record::{Point, Record},
};
use rows::{Begun, Current, FigureRow, Head, Job, Loaded, Mark};

/// The most connections that are kept when nobody uses them.
const KEPT: usize = 4;
/// What reading or writing everything may take.
const LONG: Duration = Duration::from_mins(2);

/// The database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    engine: Engine,
    timeout: Duration,
}

#[derive(Debug, Clone)]
enum Engine {
    Postgres(postgres::Engine, Arc<Idle<postgres::Connection>>),
    Sqlite(sqlite::Engine, Arc<Idle<sqlite::Connection>>),
}

/// Connections that nobody uses.
#[derive(Debug)]
struct Idle<C>(Mutex<Vec<C>>);

impl<C> Idle<C> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Vec::new())))
    }

    fn take(&self) -> Option<C> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give(&self, connection: C) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }

    fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

async fn bounded<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, operation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(fault::map(&error)),
        Err(_) => Err(StoreError::Away(format!(
            "no answer within {} ms",
            limit.as_millis()
        ))),
    }
}

/// Runs one operation on a lent connection of whichever engine.
macro_rules! run {
    ($store:expr, $limit:expr, $function:ident ( $($arg:expr),* )) => {
        run!($store, $limit, operations::$function($($arg),*))
    };
    ($store:expr, $limit:expr, $module:ident :: $function:ident ( $($arg:expr),* )) => {
        match &$store.engine {
            Engine::Postgres(engine, idle) => {
                let mut connection = match idle.take() {
                    Some(connection) => connection,
                    None => bounded($store.timeout, engine.connect()).await?,
                };
                let result = bounded(
                    $limit,
                    postgres::$module::$function(&mut connection, $($arg),*),
                )
                .await;
                if result.is_ok() { idle.give(connection); } else { idle.clear(); }
                result
            }
            Engine::Sqlite(engine, idle) => {
                let mut connection = match idle.take() {
                    Some(connection) => connection,
                    None => bounded($store.timeout, engine.connect()).await?,
                };
                let result = bounded(
                    $limit,
                    sqlite::$module::$function(&mut connection, $($arg),*),
                )
                .await;
                if result.is_ok() { idle.give(connection); } else { idle.clear(); }
                result
            }
        }
    };
}

impl Store {
    /// Takes the configuration; nothing is connected yet.
    pub(crate) fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let refused = |error: sqlx::Error| StoreError::Refused(error.to_string());
        let engine = if config.url.starts_with("sqlite:") {
            let engine =
                sqlite::Engine::new(&config.url, config.sqlite_full_sync).map_err(refused)?;
            if let Some(kind) = engine.network_file_system() {
                return Err(StoreError::Refused(format!(
                    "the SQLite file is on a network file system ({kind}), where it would get damaged: \
                     put it on a local disk, or use Postgres"
                )));
            }
            Engine::Sqlite(engine, Idle::new())
        } else {
            let engine = postgres::Engine::new(&config.url, config.timeout).map_err(refused)?;
            Engine::Postgres(engine, Idle::new())
        };
        // SQLite waits for another process's lock up to 5 s before it gives up.
        let timeout = match engine {
            Engine::Postgres(..) => config.timeout,
            Engine::Sqlite(..) => config.timeout.max(Duration::from_secs(6)),
        };
        Ok(Self { engine, timeout })
    }

    /// The same database, through connections that this one does not use.
    pub(crate) fn apart(&self) -> Self {
        let engine = match &self.engine {
            Engine::Postgres(engine, _) => Engine::Postgres(engine.clone(), Idle::new()),
            Engine::Sqlite(engine, _) => Engine::Sqlite(engine.clone(), Idle::new()),
        };
        let timeout = self.timeout;
        Self { engine, timeout }
    }

    /// Brings the schema up to date; a history that is new here gets `epoch`.
    pub(crate) async fn prepare(&self, epoch: &str) -> Result<Head, StoreError> {
        let head: Result<Head, StoreError> = run!(self, self.timeout * 2, prepare(epoch));
        if let (Ok(_), Engine::Sqlite(engine, _)) = (&head, &self.engine)
            && let Err(error) = bounded(LONG, engine.lengthen_log()).await
        {
            // Writes take longer until it has grown by itself.
            tracing::warn!(%error, "SQLite's write-ahead log could not be made as long as it gets");
        }
        head
    }

    pub(crate) async fn head(&self) -> Result<Head, StoreError> {
        run!(self, self.timeout, head())
    }

    pub(crate) async fn load(&self) -> Result<Loaded, StoreError> {
        run!(self, LONG, load())
    }

    pub(crate) async fn changes_from(
        &self,
        revision: u64,
        limit: u64,
    ) -> Result<Vec<Record>, StoreError> {
        run!(self, self.timeout, changes_from(revision, limit))
    }

    /// As [`Store::changes_from`], up to so many bytes of objects, and whether there are more.
    pub(crate) async fn changes_within(
        &self,
        revision: u64,
        limit: u64,
        bytes: usize,
    ) -> Result<(Vec<Record>, bool), StoreError> {
        run!(self, self.timeout, changes_within(revision, limit, bytes))
    }

    /// Whether the log begins only behind a point, so that nobody can say from it whether the point
    /// was in this history: what is older was removed.
    pub(crate) async fn begins_after(&self, point: &Point) -> Result<bool, StoreError> {
        let oldest = self.changes_from(0, 1).await?;
        let first = point.revision.max(1);
        Ok(oldest.first().is_some_and(|row| row.revision > first))
    }

    /// Removes the changes before a revision.
    pub(crate) async fn prune(&self, revision: u64) -> Result<(), StoreError> {
        run!(self, self.timeout, prune(revision))
    }

    pub(crate) async fn units_after(&self, revision: u64) -> Result<Vec<String>, StoreError> {
        run!(self, LONG, units_after(revision))
    }

    pub(crate) async fn take_job(
        &self,
        name: &str,
        holder: &str,
        now: i64,
        until: i64,
    ) -> Result<bool, StoreError> {
        run!(self, self.timeout, take_job(name, holder, now, until))
    }

    pub(crate) async fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        run!(self, self.timeout, jobs())
    }

    pub(crate) async fn drop_jobs(&self, holder: &str) -> Result<(), StoreError> {
        run!(self, self.timeout, drop_jobs(holder))
    }

    pub(crate) async fn put_leases(
        &self,
        replica: &str,
        at: i64,
        body: &str,
    ) -> Result<(), StoreError> {
        run!(self, self.timeout, put_leases(replica, at, body))
    }

    pub(crate) async fn leases(
        &self,
        replica: &str,
        since: i64,
    ) -> Result<Vec<(String, i64, String)>, StoreError> {
        run!(self, self.timeout, leases(replica, since))
    }

    pub(crate) async fn put_routers(&self, routers: &[RouterInfo]) -> Result<(), StoreError> {
        run!(self, self.timeout, put_routers(routers))
    }

    pub(crate) async fn routers(&self) -> Result<Vec<RouterInfo>, StoreError> {
        run!(self, self.timeout, routers())
    }

    pub(crate) async fn drop_router(&self, cluster: &str, id: &str) -> Result<bool, StoreError> {
        run!(self, self.timeout, drop_router(cluster, id))
    }

    pub(crate) async fn sweep(&self, before: i64) -> Result<(), StoreError> {
        run!(self, self.timeout, sweep(before))
    }

    /// Counts reports of live figures, each once for ever, and writes their windows: `rows` if all are
    /// new, or what `others` makes of those that are. Which are new, in the order of `marks`, which have
    /// no key twice. An error leaves open whether it was committed.
    pub(crate) async fn count_figures(
        &self,
        marks: &[Mark],
        rows: Vec<FigureRow>,
        others: impl FnOnce(&[bool]) -> Vec<FigureRow> + Send,
    ) -> Result<Vec<bool>, StoreError> {
        run!(self, self.timeout, figures::count(marks, rows, others))
    }

    /// Writes one window of live figures.
    pub(crate) async fn put_figures(&self, row: &FigureRow) -> Result<(), StoreError> {
        run!(self, self.timeout, figures::put(row))
    }

    /// A cluster's windows of a length, from one moment to before another: when, whose, which version.
    pub(crate) async fn figures_index(
        &self,
        cluster: &Name,
        step: i64,
        (from, to): (i64, i64),
    ) -> Result<Vec<(i64, String, i64)>, StoreError> {
        run!(
            self,
            self.timeout,
            figures::index(cluster.as_str(), step, from, to)
        )
    }

    /// The same with their figures.
    pub(crate) async fn figures(
        &self,
        cluster: &Name,
        step: i64,
        (from, to): (i64, i64),
    ) -> Result<Vec<(i64, String, i64, String)>, StoreError> {
        run!(
            self,
            LONG,
            figures::windows(cluster.as_str(), step, from, to)
        )
    }

    /// The clusters that have windows of a length, each with its oldest.
    pub(crate) async fn oldest_figures(&self, step: i64) -> Result<Vec<(String, i64)>, StoreError> {
        run!(self, self.timeout, figures::oldest(step))
    }

    /// Removes windows of a length that began before a moment.
    pub(crate) async fn drop_figures(&self, step: i64, before: i64) -> Result<(), StoreError> {
        run!(self, self.timeout, figures::remove(step, before))
    }

    /// Forgets router processes whose last window began before a moment.
    pub(crate) async fn forget_reports(&self, before: i64) -> Result<(), StoreError> {
        run!(self, self.timeout, figures::forget(before))
    }

    /// Whether a notification came from one of this replica's own connections.
    pub(crate) fn is_own(&self, process: u32) -> bool {
        match &self.engine {
            Engine::Postgres(engine, _) => engine.is_own(process),
            Engine::Sqlite(..) => true,
        }
    }

    /// Tells the other replicas that there may be something to read.
    pub(crate) async fn tell(&self) -> Result<(), StoreError> {
        run!(self, self.timeout, tell())
    }

    /// Moves what is in SQLite's write-ahead log to its file, as far as nobody has to wait for it.
    pub(crate) async fn checkpoint(&self) -> Result<(), StoreError> {
        let Engine::Sqlite(engine, idle) = &self.engine else {
            return Ok(());
        };
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => bounded(self.timeout, engine.connect()).await?,
        };
        let done = bounded(LONG, sqlite::checkpoint(&mut connection)).await;
        if done.is_ok() {
            idle.give(connection);
        }
        done
    }

    /// A connection that is told of commits; none on SQLite.
    pub(crate) async fn listen(&self) -> Result<Option<PgListener>, StoreError> {
        match &self.engine {
            Engine::Postgres(engine, _) => bounded(self.timeout, engine.listen()).await.map(Some),
            Engine::Sqlite(..) => Ok(None),
        }
    }

    /// A connection for one write transaction. A kept one may be dead without anybody's knowing
    /// (the server was restarted): `fresh` asks for a new one.
    pub(crate) async fn session(&self, fresh: bool) -> Result<Session, StoreError> {
        let lane = match &self.engine {
            Engine::Postgres(engine, idle) => {
                if fresh {
                    idle.clear();
                }
                let connection = match idle.take() {
                    Some(connection) => connection,
                    None => bounded(self.timeout, engine.connect()).await?,
                };
                Lane::Postgres(connection, Arc::clone(idle))
            }
            Engine::Sqlite(engine, idle) => {
                if fresh {
                    idle.clear();
                }
                let connection = match idle.take() {
                    Some(connection) => connection,
                    None => bounded(self.timeout, engine.connect()).await?,
                };
                Lane::Sqlite(connection, Arc::clone(idle))
            }
        };
        Ok(Session {
            lane,
            timeout: self.timeout,
        })
    }
}

/// One write transaction. Dropped without [`Session::commit`], nothing was written.
#[derive(Debug)]
pub(crate) struct Session {
    lane: Lane,
    timeout: Duration,
}

#[derive(Debug)]
enum Lane {
    Postgres(postgres::Connection, Arc<Idle<postgres::Connection>>),
    Sqlite(sqlite::Connection, Arc<Idle<sqlite::Connection>>),
}

macro_rules! on_lane {
    ($session:expr, $limit:expr, $function:ident ( $($arg:expr),* )) => {
        match &mut $session.lane {
            Lane::Postgres(connection, _) => {
                bounded($limit, postgres::operations::$function(connection, $($arg),*)).await
            }
            Lane::Sqlite(connection, _) => {
                bounded($limit, sqlite::operations::$function(connection, $($arg),*)).await
            }
        }
    };
}

impl Session {
    /// Writes a few records of instances and commits, in one round trip where the engine can:
    /// `None` where it can't, `false` where the head stands elsewhere (nothing was written then).
    /// With `tell`, other replicas are told. An error leaves open whether it was committed.
    pub(crate) async fn write_at_once(
        &mut self,
        from: &Point,
        to: &Point,
        records: &[Record],
        tell: bool,
    ) -> Result<Option<bool>, StoreError> {
        match &mut self.lane {
            Lane::Postgres(connection, _) if postgres::at_once::fits(records) => {
                let written = postgres::at_once::write(connection, from, to, records, tell);
                bounded(self.timeout, written).await.map(Some)
            }
            Lane::Sqlite(connection, _) if sqlite::at_once::fits(records) => {
                let written = sqlite::at_once::write(connection, from, to, records);
                bounded(self.timeout, written).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Begins: moves the head, or says where it stands and locks it.
    pub(crate) async fn begin(&mut self, from: &Point, to: &Point) -> Result<Begun, StoreError> {
        on_lane!(self, self.timeout, begin(from, to))
    }

    /// Begins with the head locked, wherever it stands.
    pub(crate) async fn lock(&mut self) -> Result<Head, StoreError> {
        on_lane!(self, self.timeout, lock())
    }

    pub(crate) async fn set_head(&mut self, head: &Head) -> Result<(), StoreError> {
        on_lane!(self, self.timeout, set_head(head))
    }

    pub(crate) async fn write(&mut self, records: &[Record]) -> Result<(), StoreError> {
        on_lane!(self, self.timeout, write(records))
    }

    pub(crate) async fn rewrite(&mut self, rows: &[Current<'_>]) -> Result<(), StoreError> {
        on_lane!(self, LONG, rewrite(rows))
    }

    /// Commits; with `tell`, other replicas are told. An error here leaves open whether the
    /// transaction was committed.
    pub(crate) async fn commit(mut self, tell: bool) -> Result<(), StoreError> {
        on_lane!(self, self.timeout, commit(tell))?;
        self.keep();
        Ok(())
    }

    /// Keeps the connection, on which nothing is open, for the next one.
    pub(crate) fn keep(self) {
        match self.lane {
            Lane::Postgres(connection, idle) => idle.give(connection),
            Lane::Sqlite(connection, idle) => idle.give(connection),
        }
    }
}

#[cfg(test)]
mod conformance;
