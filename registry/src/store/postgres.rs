//! Postgres: how it is connected to, and its few words of dialect.

use std::{
    collections::HashSet,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions},
};

#[allow(
    clippy::duplicate_mod,
    reason = "one text for both engines, each with its own connection type"
)]
#[path = "operations.rs"]
pub(super) mod operations;

#[allow(
    clippy::duplicate_mod,
    reason = "one text for both engines, each with its own connection type"
)]
#[path = "figures.rs"]
pub(super) mod figures;

pub(super) mod at_once;

pub(super) type Connection = PgConnection;

const BEGIN_WRITE: &str = "BEGIN";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The notification is a hint to the other replicas; it has no payload and may get lost.
const COMMIT_AND_TELL: &str = "NOTIFY cardea_changes; COMMIT";
const TELL: &str = "NOTIFY cardea_changes";
const CHANNEL: &str = "cardea_changes";

/// How to connect.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    options: PgConnectOptions,
    timeout: Duration,
    /// The server's processes behind our connections: their notifications tell us nothing new. One
    /// that ended stays listed; should another replica's get its number, the timer still wakes us.
    own: Arc<Mutex<HashSet<u32>>>,
}

impl Engine {
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, sqlx::Error> {
        // The server's own limits are for what our time-out leaves behind: a transaction whose
        // client has gone must not keep the head locked.
        let ms = (timeout.as_millis() * 5).to_string();
        let options = PgConnectOptions::from_str(url)?
            .application_name("cardea-registry")
            .options([("idle_in_transaction_session_timeout", ms.as_str())])
            // A plan that was made while a table was small, and is kept, would read all of it when it
            // is large. Every statement has an index to use; the few that read a whole table still do.
            // And what looks as expensive as that is not worth compiling.
            .options([("enable_seqscan", "off"), ("jit", "off")])
            .statement_cache_capacity(super::sql::PREPARED)
            .disable_statement_logging();
        Ok(Self {
            options,
            timeout,
            own: Arc::default(),
        })
    }

    pub(super) async fn connect(&self) -> Result<Connection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?;
        self.own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(process.unsigned_abs());
        Ok(connection)
    }

    pub(super) fn is_own(&self, process: u32) -> bool {
        self.own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&process)
    }

    /// A connection that is told of commits.
    pub(super) async fn listen(&self) -> Result<PgListener, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        // Lost: we say so at once, and reread the log, rather than wait for the next connection.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}
