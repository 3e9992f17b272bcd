//! A write of instances in one statement: the server's answer costs one round trip and one flush
//! instead of five round trips, which is what a lone registration mostly waits for.
//!
//! The statement is its own transaction. It does what `begin`, `write` and `commit` do, in the same
//! order (the head's row lock first), and writes nothing at all where the head stands elsewhere:
//! every part reads from the moved head.

use sqlx::{Error, query_scalar};

use super::{
    super::rows::{self, signed},
    Connection,
};
use crate::{
    change::Kind,
    record::{Point, Record},
};

/// The most records: beyond, the round trips are no matter.
const MOST: usize = 256;

const WRITE: &str = "WITH h AS (
    UPDATE head SET revision = $1, digest = $2
    WHERE id = 1 AND epoch = $3 AND revision = $4 AND digest = $5 RETURNING id
), c AS (
    INSERT INTO changes
        (revision, at, actor, cause, kind, key, before_json, after_json, unit, digest)
    SELECT u.* FROM h CROSS JOIN unnest($6::bigint[], $7::bigint[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[]) AS u
), i AS (
    INSERT INTO instances (key, revision, body)
    SELECT u.* FROM h CROSS JOIN unnest($16::text[], $17::bigint[], $18::text[]) AS u
    ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body
), d AS (
    DELETE FROM instances USING h WHERE key = ANY($19::text[])
), n AS (
    SELECT pg_notify('cardea_changes', '') FROM h
)
SELECT count(*) FROM n";

/// Whether these records can be written so: a few, of instances only.
pub(in super::super) fn fits(records: &[Record]) -> bool {
    records.len() <= MOST && records.iter().all(|record| record.kind == Kind::Instance)
}

/// Moves the head from one point to another, adds the records, makes the current rows what they say,
/// commits and tells the other replicas. `false`: the head stands elsewhere, and nothing was written.
/// An error leaves open whether it was committed.
pub(in super::super) async fn write(
    connection: &mut Connection,
    from: &Point,
    to: &Point,
    records: &[Record],
) -> Result<bool, Error> {
    fn each<'a, T>(records: &'a [Record], field: impl Fn(&'a Record) -> T) -> Vec<T> {
        records.iter().map(field).collect()
    }
    let last = rows::last_forms(records);
    let set: Vec<_> = last.iter().filter(|row| row.body.is_some()).collect();
    let gone: Vec<_> = last
        .iter()
        .filter(|row| row.body.is_none())
        .map(|row| row.key)
        .collect();
    let moved: i64 = query_scalar(WRITE)
        .bind(signed(to.revision))
        .bind(&*to.digest.0)
        .bind(&*from.epoch)
        .bind(signed(from.revision))
        .bind(&*from.digest.0)
        .bind(each(records, |record| signed(record.revision)))
        .bind(each(records, |record| record.at))
        .bind(each(records, |record| &*record.actor))
        .bind(each(records, |record| &*record.cause))
        .bind(each(records, |record| record.kind.as_str()))
        .bind(each(records, |record| record.key.as_str()))
        .bind(each(records, |record| record.before.as_deref()))
        .bind(each(records, |record| record.after.as_deref()))
        .bind(each(records, |record| &*record.unit))
        .bind(each(records, |record| &*record.digest.0))
        .bind(set.iter().map(|row| row.key).collect::<Vec<_>>())
        .bind(
            set.iter()
                .map(|row| signed(row.revision))
                .collect::<Vec<_>>(),
        )
        .bind(set.iter().map(|row| row.body).collect::<Vec<_>>())
        .bind(gone)
        .fetch_one(connection)
        .await?;
    Ok(moved == 1)
}
