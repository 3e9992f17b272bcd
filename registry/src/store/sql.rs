//! Every statement, one text for both engines, and the many-row forms.

use std::sync::{Arc, LazyLock};

use sqlx::AssertSqlSafe;

pub(super) const ENSURE_HEAD: &str = "INSERT INTO head (id, epoch, revision, digest, supersedes, accepted_at) \
     VALUES (1, $1, 0, $2, '', 0) ON CONFLICT (id) DO NOTHING";
pub(super) const HEAD: &str =
    "SELECT epoch, revision, digest, supersedes, accepted_at FROM head WHERE id = 1";
/// Moves the head if it stands where the writer thinks; takes its row lock then, and only then.
pub(super) const MOVE_HEAD: &str = "UPDATE head SET revision = $1, digest = $2 \
     WHERE id = 1 AND epoch = $3 AND revision = $4 AND digest = $5";
/// Takes the head's row lock, wherever it stands.
pub(super) const LOCK_HEAD: &str = "UPDATE head SET id = id WHERE id = 1 \
     RETURNING epoch, revision, digest, supersedes, accepted_at";
/// Under the lock.
pub(super) const SET_HEAD: &str = "UPDATE head SET epoch = $1, revision = $2, digest = $3, \
     supersedes = $4, accepted_at = $5 WHERE id = 1";

pub(super) const CHANGES_FROM: &str = "SELECT revision, at, actor, cause, kind, key, before_json, after_json, unit, digest \
     FROM changes WHERE revision >= $1 ORDER BY revision LIMIT $2";
pub(super) const UNITS_AFTER: &str = "SELECT DISTINCT unit FROM changes WHERE revision > $1";
pub(super) const OBJECTS: &str = "SELECT kind, key, revision, body FROM objects";
pub(super) const INSTANCES: &str = "SELECT key, revision, body FROM instances";
pub(super) const CLEAR_OBJECTS: &str = "DELETE FROM objects";
pub(super) const CLEAR_INSTANCES: &str = "DELETE FROM instances";

pub(super) const TAKE_JOB: &str = "INSERT INTO jobs (name, holder, until) VALUES ($1, $2, $3) \
     ON CONFLICT (name) DO UPDATE SET holder = $2, until = $3 \
     WHERE jobs.holder = $2 OR jobs.until < $4 RETURNING holder";
pub(super) const DROP_JOBS: &str = "DELETE FROM jobs WHERE holder = $1";
pub(super) const JOBS: &str = "SELECT name, holder, until FROM jobs";

pub(super) const PUT_LEASES: &str = "INSERT INTO leases (replica, at, body) VALUES ($1, $2, $3) \
     ON CONFLICT (replica) DO UPDATE SET at = $2, body = $3";
pub(super) const LEASES: &str =
    "SELECT replica, at, body FROM leases WHERE replica <> $1 AND at > $2";

pub(super) const ROUTERS: &str =
    "SELECT cluster, id, version, epoch, revision, last_seen FROM routers";
pub(super) const DROP_ROUTER: &str = "DELETE FROM routers WHERE cluster = $1 AND id = $2";
pub(super) const SWEEP_ROUTERS: &str = "DELETE FROM routers WHERE last_seen < $1";

/// A statement for many rows at once, kept for a few sizes so that each is prepared once.
pub(super) struct Many {
    texts: [Arc<str>; SIZES.len()],
}

/// From the largest; each number of rows is a sum of these.
const SIZES: [usize; 4] = [64, 16, 4, 1];

impl Many {
    fn new(prefix: &str, columns: usize, suffix: &str, tuple: bool) -> Self {
        Self {
            texts: SIZES.map(|rows| {
                let mut text = prefix.to_owned();
                let mut n = 0;
                for row in 0..rows {
                    text.push_str(if row > 0 { "," } else { "" });
                    text.push_str(if tuple { "(" } else { "" });
                    for column in 0..columns {
                        n += 1;
                        text.push_str(if column > 0 { "," } else { "" });
                        text.push('$');
                        text.push_str(&n.to_string());
                    }
                    text.push_str(if tuple { ")" } else { "" });
                }
                text.push_str(suffix);
                text.into()
            }),
        }
    }

    /// Cuts rows into pieces, each with its statement.
    pub(super) fn cut<'a, T>(
        &'static self,
        mut rows: &'a [T],
    ) -> impl Iterator<Item = (AssertSqlSafe<Arc<str>>, &'a [T])> {
        std::iter::from_fn(move || {
            let at = SIZES.iter().position(|size| *size <= rows.len())?;
            let (piece, rest) = rows.split_at(SIZES[at]);
            rows = rest;
            Some((AssertSqlSafe(Arc::clone(&self.texts[at])), piece))
        })
    }
}

pub(super) static INSERT_CHANGES: LazyLock<Many> = LazyLock::new(|| {
    Many::new(
        "INSERT INTO changes (revision, at, actor, cause, kind, key, before_json, after_json, unit, digest) VALUES ",
        10,
        "",
        true,
    )
});
pub(super) static PUT_OBJECTS: LazyLock<Many> = LazyLock::new(|| {
    Many::new(
        "INSERT INTO objects (kind, key, revision, body) VALUES ",
        4,
        " ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
        true,
    )
});
pub(super) static PUT_INSTANCES: LazyLock<Many> = LazyLock::new(|| {
    Many::new(
        "INSERT INTO instances (key, revision, body) VALUES ",
        3,
        " ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
        true,
    )
});
pub(super) static DROP_INSTANCES: LazyLock<Many> =
    LazyLock::new(|| Many::new("DELETE FROM instances WHERE key IN (", 1, ")", false));
pub(super) const DROP_OBJECT: &str = "DELETE FROM objects WHERE kind = $1 AND key = $2";
pub(super) static PUT_ROUTERS: LazyLock<Many> = LazyLock::new(|| {
    Many::new(
        "INSERT INTO routers (cluster, id, version, epoch, revision, last_seen) VALUES ",
        6,
        " ON CONFLICT (cluster, id) DO UPDATE SET version = excluded.version, epoch = excluded.epoch, \
          revision = excluded.revision, last_seen = excluded.last_seen \
          WHERE excluded.last_seen >= routers.last_seen",
        true,
    )
});
