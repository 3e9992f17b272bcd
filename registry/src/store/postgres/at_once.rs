//! A write of instances in one statement: the server's answer costs one round trip and one flush
//! instead of five round trips, which is what a lone registration mostly waits for.
//!
//! The statement is its own transaction. It does what `begin`, `write` and `commit` do, in the same
//! order (the head's row lock first), and writes nothing at all where the head stands elsewhere:
//! every part reads from the moved head.

use sqlx::{Error, Postgres, postgres::PgArguments, query, query::Query};

use super::{
    super::rows::{self, Current, signed},
    Connection,
};
use crate::{
    change::Kind,
    record::{Point, Record},
};

/// The most records: beyond, the round trips are no matter.
const MOST: usize = 256;

/// The first parameters are the same in each form. A row comes back if the head was moved.
macro_rules! statement {
    ($($rest:expr),*) => {
        concat!(
            "WITH h AS (
                UPDATE head SET revision = $1, digest = $2
                WHERE id = 1 AND epoch = $3 AND revision = $4 AND digest = $5 RETURNING id
            ), c AS (
                INSERT INTO changes
                    (revision, at, actor, cause, kind, key, before_json, after_json, unit, digest) ",
            $($rest,)*
            ") SELECT CASE WHEN $6 THEN pg_notify('cardea_changes', '')::text END FROM h"
        )
    };
}

macro_rules! many {
    ($gone:literal) => {
        statement!(
            "SELECT u.* FROM h CROSS JOIN unnest($7::bigint[], $8::bigint[], $9::text[], $10::text[],
                $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[]) AS u
            ), i AS (
                INSERT INTO instances (key, revision, body)
                SELECT u.* FROM h CROSS JOIN unnest($17::text[], $18::bigint[], $19::text[]) AS u
                ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
            $gone
        )
    };
}

const SET_MANY: &str = many!("");
const MANY: &str = many!(
    "), d AS (
        DELETE FROM instances USING h WHERE key = ANY($20::text[])"
);
/// One record costs a good tenth less without the arrays.
const SET: &str = statement!(
    "SELECT $1, $7, $8, $9, $10, $11, $12, $13, $14, $2 FROM h
    ), i AS (
        INSERT INTO instances (key, revision, body) SELECT $11, $1, $13 FROM h
        ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body"
);
const DROP: &str = statement!(
    "SELECT $1, $7, $8, $9, $10, $11, $12, $13, $14, $2 FROM h
    ), d AS (
        DELETE FROM instances USING h WHERE key = $11"
);

/// Whether these records can be written so: a few, of instances only.
pub(in super::super) fn fits(records: &[Record]) -> bool {
    records.len() <= MOST && records.iter().all(|record| record.kind == Kind::Instance)
}

/// Moves the head from one point to another, adds the records, makes the current rows what they say,
/// commits and, with `tell`, tells the other replicas. `false`: the head stands elsewhere, and nothing
/// was written. An error leaves open whether it was committed.
pub(in super::super) async fn write(
    connection: &mut Connection,
    from: &Point,
    to: &Point,
    records: &[Record],
    tell: bool,
) -> Result<bool, Error> {
    let text = match records {
        [one] if one.after.is_some() => SET,
        [_] => DROP,
        _ if records.iter().all(|record| record.after.is_some()) => SET_MANY,
        _ => MANY,
    };
    let statement = query(text)
        .bind(signed(to.revision))
        .bind(&*to.digest.0)
        .bind(&*from.epoch)
        .bind(signed(from.revision))
        .bind(&*from.digest.0)
        .bind(tell);
    let statement = match records {
        [record] => with_one(statement, record),
        _ => with_many(statement, records),
    };
    Ok(statement.fetch_optional(connection).await?.is_some())
}

type Statement<'a> = Query<'a, Postgres, PgArguments>;

fn with_one<'a>(statement: Statement<'a>, record: &'a Record) -> Statement<'a> {
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

fn with_many<'a>(statement: Statement<'a>, records: &'a [Record]) -> Statement<'a> {
    fn each<'a, T>(records: &'a [Record], field: impl Fn(&'a Record) -> T) -> Vec<T> {
        records.iter().map(field).collect()
    }
    let last = rows::last_forms(records);
    let (set, gone): (Vec<&Current<'_>>, Vec<_>) = last.iter().partition(|row| row.body.is_some());
    let statement = statement
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
        .bind(set.iter().map(|row| row.body).collect::<Vec<_>>());
    if records.iter().all(|record| record.after.is_some()) {
        return statement;
    }
    statement.bind(gone.iter().map(|row| row.key).collect::<Vec<_>>())
}
