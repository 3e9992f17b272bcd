//! A write of one instance in one go: each statement that is executed by itself costs a hand-over to
//! the connection's thread and back, which is most of what a lone registration waits for.
//!
//! It does what `begin`, `write` and `commit` do, in the same order, and writes nothing where the
//! head stands elsewhere: each part goes on only if the one before changed its row.

use sqlx::{Error, query};

use super::{super::rows::signed, Connection};
use crate::{
    change::Kind,
    record::{Point, Record},
};

/// `$1` and so on mean the same in each statement. A row comes back if the head was moved.
macro_rules! one {
    ($current:literal) => {
        concat!(
            "BEGIN IMMEDIATE; \
             UPDATE head SET revision = $1, digest = $2 \
             WHERE id = 1 AND epoch = $3 AND revision = $4 AND digest = $5 RETURNING id; \
             INSERT INTO changes \
             (revision, at, actor, cause, kind, key, before_json, after_json, unit, digest) \
             SELECT $1, $6, $7, $8, $9, $10, $11, $12, $13, $2 WHERE changes() = 1; ",
            $current,
            "; COMMIT"
        )
    };
}

const SET: &str = one!(
    "INSERT INTO instances (key, revision, body) SELECT $10, $1, $12 WHERE changes() = 1 \
     ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body"
);
const DROP: &str = one!("DELETE FROM instances WHERE changes() = 1 AND key = $10");

/// Whether these records can be written so: one, of an instance.
pub(in super::super) fn fits(records: &[Record]) -> bool {
    matches!(records, [record] if record.kind == Kind::Instance)
}

/// Moves the head from one point to another, adds the record, makes the current row what it says,
/// and commits. `false`: the head stands elsewhere, and nothing was written. An error leaves open
/// whether it was committed, and the connection must not be used again.
pub(in super::super) async fn write(
    connection: &mut Connection,
    from: &Point,
    to: &Point,
    record: &Record,
) -> Result<bool, Error> {
    let text = if record.after.is_some() { SET } else { DROP };
    let moved = query(text)
        .bind(signed(to.revision))
        .bind(&*to.digest.0)
        .bind(&*from.epoch)
        .bind(signed(from.revision))
        .bind(&*from.digest.0)
        .bind(record.at)
        .bind(&*record.actor)
        .bind(&*record.cause)
        .bind(record.kind.as_str())
        .bind(&*record.key)
        .bind(record.before.as_deref())
        .bind(record.after.as_deref())
        .bind(&*record.unit)
        // All of it, not only up to the first row: the last statement commits.
        .fetch_all(connection)
        .await?;
    Ok(!moved.is_empty())
}
