//! What is done on a connection, written once: each engine's module includes this file with its own
//! `Connection` and its few words of dialect (`BEGIN_WRITE`, `BEGIN_READ`, `COMMIT_AND_TELL`, `TELL`).

use cardea_registry_api::api::RouterInfo;
use futures_util::TryStreamExt;
use sqlx::{
    Error, Row,
    migrate::{Migration, MigrationType, Migrator},
    query, query_as, raw_sql,
};

use super::{
    super::{
        rows::{self, Begun, Current, Head, HeadRow, Job, Loaded, signed, unsigned},
        sql,
    },
    BEGIN_READ, BEGIN_WRITE, COMMIT_AND_TELL, Connection, TELL,
};
use crate::{
    change::Kind,
    record::{Digest, Point, Record},
};

/// The most rows that are read under the head's lock.
const UNDER_LOCK: u64 = 5000;

/// Brings the schema up to date and makes sure that there is a head; a new one gets `epoch`.
pub(crate) async fn prepare(connection: &mut Connection, epoch: &str) -> Result<Head, Error> {
    let step = |number, name: &'static str, text: &'static str| {
        let text = sqlx::SqlSafeStr::into_sql_str(text);
        Migration::new(number, name.into(), MigrationType::Simple, text, false)
    };
    let initial = include_str!("../../../migrations/0001_initial.sql");
    let figures = include_str!("../../../migrations/0002_figures.sql");
    let steps = vec![step(1, "initial", initial), step(2, "figures", figures)];
    Migrator::with_migrations(steps)
        // `run` is generic over too much for a future that is to be Send.
        .run_direct(None, &mut *connection, false)
        .await?;
    query(sql::ENSURE_HEAD)
        .bind(epoch)
        .bind(&*Digest::root(epoch).0)
        .execute(&mut *connection)
        .await?;
    head(connection).await
}

/// Where the history stands.
pub(crate) async fn head(connection: &mut Connection) -> Result<Head, Error> {
    let row: HeadRow = query_as(sql::HEAD).fetch_one(connection).await?;
    Ok(rows::head(row))
}

/// Everything, at one point.
pub(crate) async fn load(connection: &mut Connection) -> Result<Loaded, Error> {
    raw_sql(BEGIN_READ).execute(&mut *connection).await?;
    let head = head(connection).await?;
    let objects: Vec<(String, String, i64, String)> =
        query_as(sql::OBJECTS).fetch_all(&mut *connection).await?;
    let instances: Vec<(String, i64, String)> =
        query_as(sql::INSTANCES).fetch_all(&mut *connection).await?;
    raw_sql("COMMIT").execute(&mut *connection).await?;
    Ok(Loaded {
        head,
        objects: objects
            .into_iter()
            .map(|(kind, key, revision, body)| (kind, key, unsigned(revision), body))
            .collect(),
        instances: instances
            .into_iter()
            .map(|(key, revision, body)| (key, unsigned(revision), body))
            .collect(),
    })
}

/// Changes from a revision on, oldest first.
pub(crate) async fn changes_from(
    connection: &mut Connection,
    revision: u64,
    limit: u64,
) -> Result<Vec<Record>, Error> {
    let rows: Vec<rows::ChangeRow> = query_as(sql::CHANGES_FROM)
        .bind(signed(revision))
        .bind(signed(limit))
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(rows::record).collect())
}

/// As [`changes_from`], up to so many bytes of objects, and whether there are more; one at least.
pub(crate) async fn changes_within(
    connection: &mut Connection,
    revision: u64,
    limit: u64,
    bytes: usize,
) -> Result<(Vec<Record>, bool), Error> {
    let mut rows = query_as::<_, rows::ChangeRow>(sql::CHANGES_FROM)
        .bind(signed(revision))
        .bind(signed(limit.saturating_add(1)))
        .fetch(connection);
    let (mut records, mut read) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let record = rows::record(row);
        let sides = [&record.before, &record.after];
        read += sides
            .iter()
            .map(|side| side.as_ref().map_or(0, |s| s.len()))
            .sum::<usize>();
        let full = records.len() as u64 == limit || read > bytes && !records.is_empty();
        if full {
            return Ok((records, true));
        }
        records.push(record);
    }
    Ok((records, false))
}

/// Removes the changes before a revision.
pub(crate) async fn prune(connection: &mut Connection, revision: u64) -> Result<(), Error> {
    query(sql::PRUNE)
        .bind(signed(revision))
        .execute(connection)
        .await?;
    Ok(())
}

/// The units that were written after a revision.
pub(crate) async fn units_after(
    connection: &mut Connection,
    revision: u64,
) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = query_as(sql::UNITS_AFTER)
        .bind(signed(revision))
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(|(unit,)| unit).collect())
}

/// Begins a write: moves the head from one point to another, or says where it stands.
pub(crate) async fn begin(
    connection: &mut Connection,
    from: &Point,
    to: &Point,
) -> Result<Begun, Error> {
    raw_sql(BEGIN_WRITE).execute(&mut *connection).await?;
    let moved = query(sql::MOVE_HEAD)
        .bind(signed(to.revision))
        .bind(&*to.digest.0)
        .bind(&*from.epoch)
        .bind(signed(from.revision))
        .bind(&*from.digest.0)
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() == 1 {
        return Ok(Begun::Moved);
    }
    let row: HeadRow = query_as(sql::LOCK_HEAD).fetch_one(&mut *connection).await?;
    let head = rows::head(row);
    let near = head.point.revision.saturating_sub(from.revision) <= UNDER_LOCK;
    let records = if near {
        Some(changes_from(connection, from.revision, UNDER_LOCK + 1).await?)
    } else {
        None
    };
    Ok(Begun::Elsewhere(head, records))
}

/// Begins a write with the head locked, wherever it stands.
pub(crate) async fn lock(connection: &mut Connection) -> Result<Head, Error> {
    raw_sql(BEGIN_WRITE).execute(&mut *connection).await?;
    let row: HeadRow = query_as(sql::LOCK_HEAD).fetch_one(&mut *connection).await?;
    Ok(rows::head(row))
}

/// Sets the head, under its lock.
pub(crate) async fn set_head(connection: &mut Connection, head: &Head) -> Result<(), Error> {
    query(sql::SET_HEAD)
        .bind(&*head.point.epoch)
        .bind(signed(head.point.revision))
        .bind(&*head.point.digest.0)
        .bind(head.supersedes.join(" "))
        .bind(head.accepted_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Adds records to the log, and makes the current rows what the records say.
pub(crate) async fn write(connection: &mut Connection, records: &[Record]) -> Result<(), Error> {
    for (text, piece) in sql::INSERT_CHANGES.cut(records) {
        let mut statement = query(text);
        for record in piece {
            statement = statement
                .bind(signed(record.revision))
                .bind(record.at)
                .bind(&*record.actor)
                .bind(&*record.cause)
                .bind(record.kind.as_str())
                .bind(&*record.key)
                .bind(record.before.as_deref())
                .bind(record.after.as_deref())
                .bind(&*record.unit)
                .bind(&*record.digest.0);
        }
        statement.execute(&mut *connection).await?;
    }
    put_current(connection, &rows::last_forms(records)).await
}

/// Writes current rows.
async fn put_current(connection: &mut Connection, rows: &[Current<'_>]) -> Result<(), Error> {
    let (instances, objects): (Vec<Current<'_>>, Vec<Current<'_>>) = rows
        .iter()
        .filter(|row| row.kind != Kind::History)
        .partition(|row| row.kind == Kind::Instance);
    let (set, gone): (Vec<_>, Vec<_>) = instances.into_iter().partition(|row| row.body.is_some());
    for (text, piece) in sql::PUT_INSTANCES.cut(&set) {
        let mut statement = query(text);
        for row in piece {
            statement = statement
                .bind(row.key)
                .bind(signed(row.revision))
                .bind(row.body);
        }
        statement.execute(&mut *connection).await?;
    }
    for (text, piece) in sql::DROP_INSTANCES.cut(&gone) {
        let mut statement = query(text);
        for row in piece {
            statement = statement.bind(row.key);
        }
        statement.execute(&mut *connection).await?;
    }
    let (set, gone): (Vec<_>, Vec<_>) = objects.into_iter().partition(|row| row.body.is_some());
    for (text, piece) in sql::PUT_OBJECTS.cut(&set) {
        let mut statement = query(text);
        for row in piece {
            statement = statement
                .bind(row.kind.as_str())
                .bind(row.key)
                .bind(signed(row.revision))
                .bind(row.body);
        }
        statement.execute(&mut *connection).await?;
    }
    for row in gone {
        query(sql::DROP_OBJECT)
            .bind(row.kind.as_str())
            .bind(row.key)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Makes the current rows exactly these, under the head's lock.
pub(crate) async fn rewrite(
    connection: &mut Connection,
    rows: &[Current<'_>],
) -> Result<(), Error> {
    query(sql::CLEAR_OBJECTS).execute(&mut *connection).await?;
    query(sql::CLEAR_INSTANCES)
        .execute(&mut *connection)
        .await?;
    put_current(connection, rows).await
}

/// Commits, and tells the other replicas if there are any.
pub(crate) async fn commit(connection: &mut Connection, tell: bool) -> Result<(), Error> {
    let text = if tell { COMMIT_AND_TELL } else { "COMMIT" };
    raw_sql(text).execute(connection).await?;
    Ok(())
}

/// Tells the other replicas that there may be something to read.
pub(crate) async fn tell(connection: &mut Connection) -> Result<(), Error> {
    raw_sql(TELL).execute(connection).await?;
    Ok(())
}

/// Takes, or keeps, a job; whether `holder` has it now.
pub(crate) async fn take_job(
    connection: &mut Connection,
    name: &str,
    holder: &str,
    now: i64,
    until: i64,
) -> Result<bool, Error> {
    let row = query(sql::TAKE_JOB)
        .bind(name)
        .bind(holder)
        .bind(until)
        .bind(now)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Who holds which job.
pub(crate) async fn jobs(connection: &mut Connection) -> Result<Vec<Job>, Error> {
    let rows: Vec<(String, String, i64)> = query_as(sql::JOBS).fetch_all(connection).await?;
    Ok(rows
        .into_iter()
        .map(|(name, holder, until)| Job {
            name,
            holder,
            until,
        })
        .collect())
}

/// Lets go of every job of a holder.
pub(crate) async fn drop_jobs(connection: &mut Connection, holder: &str) -> Result<(), Error> {
    query(sql::DROP_JOBS)
        .bind(holder)
        .execute(connection)
        .await?;
    Ok(())
}

/// Leaves a replica's renewals for the one that looks for lapsed leases.
pub(crate) async fn put_leases(
    connection: &mut Connection,
    replica: &str,
    at: i64,
    body: &str,
) -> Result<(), Error> {
    query(sql::PUT_LEASES)
        .bind(replica)
        .bind(at)
        .bind(body)
        .execute(connection)
        .await?;
    Ok(())
}

/// The renewals that other replicas left since `since`: when, and what.
pub(crate) async fn leases(
    connection: &mut Connection,
    replica: &str,
    since: i64,
) -> Result<Vec<(String, i64, String)>, Error> {
    query_as(sql::LEASES)
        .bind(replica)
        .bind(since)
        .fetch_all(connection)
        .await
}

/// Leaves what routers have applied for the other replicas.
pub(crate) async fn put_routers(
    connection: &mut Connection,
    routers: &[RouterInfo],
) -> Result<(), Error> {
    for (text, piece) in sql::PUT_ROUTERS.cut(routers) {
        let mut statement = query(text);
        for router in piece {
            statement = statement
                .bind(router.cluster.as_str())
                .bind(&*router.id)
                .bind(&*router.version)
                .bind(&*router.epoch)
                .bind(signed(router.revision))
                .bind(router.last_seen);
        }
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

/// What routers have applied, as any replica saw it.
pub(crate) async fn routers(connection: &mut Connection) -> Result<Vec<RouterInfo>, Error> {
    let rows = query(sql::ROUTERS).fetch_all(connection).await?;
    let mut routers = Vec::with_capacity(rows.len());
    for row in rows {
        let Ok(cluster) = row.try_get::<String, _>(0)?.parse() else {
            continue;
        };
        routers.push(RouterInfo {
            cluster,
            id: row.try_get(1)?,
            version: row.try_get(2)?,
            epoch: row.try_get(3)?,
            revision: unsigned(row.try_get(4)?),
            last_seen: row.try_get(5)?,
            live: false,
            plugin_kinds: None,
            unknown_plugins: Vec::new(),
        });
    }
    Ok(routers)
}

/// Forgets a router.
pub(crate) async fn drop_router(
    connection: &mut Connection,
    cluster: &str,
    id: &str,
) -> Result<bool, Error> {
    let done = query(sql::DROP_ROUTER)
        .bind(cluster)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets routers and replicas that were not heard of since `before`.
pub(crate) async fn sweep(connection: &mut Connection, before: i64) -> Result<(), Error> {
    for text in sql::SWEEP {
        query(text).bind(before).execute(&mut *connection).await?;
    }
    Ok(())
}
