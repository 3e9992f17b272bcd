//! A write of instances in one go: each statement, whether it is executed by itself or with others,
//! costs a hand-over to the connection's thread or back, which is most of what a small group of
//! registrations waits for.
//!
//! It does what `begin`, `write` and `commit` do, in the same order, and writes nothing where the
//! head stands elsewhere. A lone record is one statement, with its transaction in it; the thread
//! answers once.

use std::{
    collections::HashSet,
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, Error, Executor, Sqlite, query, query::Query, sqlite::SqliteArguments};

use super::{super::rows::signed, Connection};
use crate::{
    change::Kind,
    record::{Point, Record},
};

/// What each connection has of its own, not in the file: a row put into `one_change` is a write of
/// one record. SQLite has no statement that writes to several tables, but triggers that do.
pub(super) const PREPARE: &str = "\
CREATE TEMP VIEW one_change AS SELECT \
  0 AS revision, 0 AS digest, 0 AS epoch, 0 AS from_revision, 0 AS from_digest, \
  0 AS at, 0 AS actor, 0 AS cause, 0 AS kind, 0 AS key, 0 AS before_json, 0 AS after_json, 0 AS unit; \
CREATE TEMP TRIGGER take_one_change INSTEAD OF INSERT ON one_change BEGIN \
  UPDATE head SET revision = NEW.revision, digest = NEW.digest \
    WHERE id = 1 AND epoch = NEW.epoch \
    AND revision = NEW.from_revision AND digest = NEW.from_digest; \
  SELECT RAISE(ABORT, 'the head stands elsewhere') WHERE changes() = 0; \
  INSERT INTO changes \
    (revision, at, actor, cause, kind, key, before_json, after_json, unit, digest) \
    VALUES (NEW.revision, NEW.at, NEW.actor, NEW.cause, NEW.kind, NEW.key, \
    NEW.before_json, NEW.after_json, NEW.unit, NEW.digest); \
  INSERT INTO instances (key, revision, body) \
    SELECT NEW.key, NEW.revision, NEW.after_json WHERE NEW.after_json IS NOT NULL \
    ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body; \
  DELETE FROM instances WHERE NEW.after_json IS NULL AND key = NEW.key; \
END";
const ONE: &str =
    "INSERT INTO one_change VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
/// SQLite's code for what a trigger's `RAISE` stops (`SQLITE_CONSTRAINT_TRIGGER`).
const RAISED: &str = "1811";

/// For how many records there are texts; fewer are filled up with rows of NULL, which are left out.
const SIZES: [usize; 14] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256];
/// The texts: one for each size, with and without instances that go.
pub(in super::super) const TEXTS: usize = 2 * SIZES.len() + 1;
/// Revision, time, actor, cause, key, before, after, unit, digest.
const COLUMNS: usize = 9;

/// The text for so many records.
///
/// The rows' values are nameless: they are bound one after another, each where it stands. To find a
/// name costs a walk through all names of the statement, which a thousand values would feel; so only
/// the points of the history have names, numbered behind the rows' values.
fn many(size: usize, gone: bool) -> String {
    let rows = |columns: usize| {
        let row = format!("({})", vec!["?"; columns].join(","));
        format!("(VALUES {})", vec![row; size].join(","))
    };
    let first = size * (COLUMNS + 3 + if gone { 2 } else { 0 }) + 1;
    let [to, to_digest, epoch, from, from_digest] = [0, 1, 2, 3, 4].map(|n| first + n);
    // The head stands where this text has just moved it.
    let moved = format!(
        "EXISTS (SELECT 1 FROM head \
         WHERE id = 1 AND epoch = ${epoch} AND revision = ${to} AND digest = ${to_digest})"
    );
    let instance = Kind::Instance.as_str();
    let mut text = format!(
        "BEGIN IMMEDIATE; \
         UPDATE head SET revision = ${to}, digest = ${to_digest} \
         WHERE id = 1 AND epoch = ${epoch} AND revision = ${from} AND digest = ${from_digest} \
         RETURNING id; \
         INSERT INTO changes \
         (revision, at, actor, cause, kind, key, before_json, after_json, unit, digest) \
         SELECT column1, column2, column3, column4, '{instance}', \
         column5, column6, column7, column8, column9 \
         FROM {} WHERE column1 IS NOT NULL AND {moved}; \
         INSERT INTO instances (key, revision, body) SELECT column1, column2, column3 \
         FROM {} WHERE column3 IS NOT NULL AND {moved} \
         ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body; ",
        rows(COLUMNS),
        rows(3),
    );
    if gone {
        let going = rows(2);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "DELETE FROM instances WHERE {moved} AND key IN \
             (SELECT column1 FROM {going} WHERE column1 IS NOT NULL AND column2 IS NULL); ",
        );
    }
    text.push_str("COMMIT");
    text
}

/// The text with room for so many records, and how many it has room for.
fn text(records: usize, gone: bool) -> Option<(Arc<str>, usize)> {
    static TEXTS: [[OnceLock<Arc<str>>; 2]; SIZES.len()] =
        [const { [const { OnceLock::new() }; 2] }; SIZES.len()];
    let at = SIZES.iter().position(|size| records <= *size)?;
    let text = TEXTS[at][usize::from(gone)].get_or_init(|| many(SIZES[at], gone).into());
    Some((Arc::clone(text), SIZES[at]))
}

/// Whether these records can be written so: a few, of instances only, none of which is both set and
/// removed.
pub(in super::super) fn fits(records: &[Record]) -> bool {
    if records.is_empty()
        || records.len() > SIZES[SIZES.len() - 1]
        || records.iter().any(|record| record.kind != Kind::Instance)
    {
        return false;
    }
    let gone: HashSet<&str> = (records.iter())
        .filter(|record| record.after.is_none())
        .map(|record| record.key.as_str())
        .collect();
    gone.is_empty()
        || (records.iter())
            .all(|record| record.after.is_none() || !gone.contains(record.key.as_str()))
}

/// Moves the head from one point to another, adds the records, makes the current rows what they say,
/// and commits. `false`: the head stands elsewhere, and nothing was written. An error leaves open
/// whether it was committed, and the connection must not be used again.
pub(in super::super) async fn write(
    connection: &mut Connection,
    from: &Point,
    to: &Point,
    records: &[Record],
) -> Result<bool, Error> {
    if let [record] = records {
        let statement = lone(shared(query(ONE), from, to), record);
        // The statement's end, which comes after its commit; not the thread's, which is told once more.
        return match connection.fetch_many(statement).next().await {
            Some(Ok(_)) => Ok(true),
            Some(Err(Error::Database(fault))) if fault.code().as_deref() == Some(RAISED) => {
                Ok(false)
            }
            Some(Err(error)) => Err(error),
            None => Err(Error::WorkerCrashed),
        };
    }
    let gone = records.iter().any(|record| record.after.is_none());
    let Some((text, room)) = text(records.len(), gone) else {
        return Err(Error::InvalidArgument("too many records".to_owned()));
    };
    let each = || (0..room).map(|n| records.get(n));
    let mut statement = each().fold(query(AssertSqlSafe(text)), logged);
    statement = each().fold(statement, current);
    if gone {
        statement = each().fold(statement, going);
    }
    statement = shared(statement, from, to);
    // All of it, not only up to the first row: the last statement commits.
    let moved = statement.fetch_all(connection).await?;
    Ok(!moved.is_empty())
}

type Statement<'a> = Query<'a, Sqlite, SqliteArguments>;

fn shared<'a>(statement: Statement<'a>, from: &'a Point, to: &'a Point) -> Statement<'a> {
    statement
        .bind(signed(to.revision))
        .bind(&*to.digest.0)
        .bind(&*from.epoch)
        .bind(signed(from.revision))
        .bind(&*from.digest.0)
}

fn lone<'a>(statement: Statement<'a>, record: &'a Record) -> Statement<'a> {
    statement
        .bind(record.at)
        .bind(&*record.actor)
        .bind(&*record.cause)
        .bind(record.kind.as_str())
        .bind(&*record.key)
        .bind(record.before.as_deref())
        .bind(record.after.as_deref())
        .bind(&*record.unit)
}

/// A row of the log; without a record, one that is left out.
fn logged<'a>(statement: Statement<'a>, record: Option<&'a Record>) -> Statement<'a> {
    statement
        .bind(record.map(|record| signed(record.revision)))
        .bind(record.map(|record| record.at))
        .bind(record.map(|record| &*record.actor))
        .bind(record.map(|record| &*record.cause))
        .bind(record.map(|record| &*record.key))
        .bind(record.and_then(|record| record.before.as_deref()))
        .bind(record.and_then(|record| record.after.as_deref()))
        .bind(record.map(|record| &*record.unit))
        .bind(record.map(|record| &*record.digest.0))
}

/// An instance's current form.
fn current<'a>(statement: Statement<'a>, record: Option<&'a Record>) -> Statement<'a> {
    statement
        .bind(record.map(|record| &*record.key))
        .bind(record.map(|record| signed(record.revision)))
        .bind(record.and_then(|record| record.after.as_deref()))
}

/// An instance, which goes if it has no form.
fn going<'a>(statement: Statement<'a>, record: Option<&'a Record>) -> Statement<'a> {
    statement
        .bind(record.map(|record| &*record.key))
        .bind(record.and_then(|record| record.after.as_deref()))
}
