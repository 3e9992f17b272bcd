//! Every statement, one text for both engines, and the many-row forms.

use std::sync::{Arc, OnceLock};

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
pub(super) const PRUNE: &str = "DELETE FROM changes WHERE revision < $1";
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
/// What nobody has kept up for long: of routers and replicas that are no more.
pub(super) const SWEEP: [&str; 3] = [
    "DELETE FROM routers WHERE last_seen < $1",
    "DELETE FROM leases WHERE at < $1",
    "DELETE FROM jobs WHERE until < $1",
];

pub(super) const PUT_FIGURES: &str = "INSERT INTO figures (cluster, step, at, run, version, body) \
     VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (cluster, step, at, run) DO UPDATE SET version = $5, body = $6";
pub(super) const FIGURES_INDEX: &str = "SELECT at, run, version FROM figures \
     WHERE cluster = $1 AND step = $2 AND at >= $3 AND at < $4 ORDER BY at, run";
pub(super) const FIGURES: &str = "SELECT at, run, version, body FROM figures \
     WHERE cluster = $1 AND step = $2 AND at >= $3 AND at < $4 ORDER BY at, run";
pub(super) const FIGURES_OLDEST: &str =
    "SELECT cluster, MIN(at) FROM figures WHERE step = $1 GROUP BY cluster";
pub(super) const DROP_FIGURES: &str = "DELETE FROM figures WHERE step = $1 AND at < $2";
pub(super) const DROP_MARKS: &str = "DELETE FROM figure_reports WHERE at < $1";

/// A statement for many rows at once, kept for some numbers of rows so that each text is prepared
/// once a connection.
pub(super) struct Many {
    prefix: &'static str,
    columns: usize,
    suffix: &'static str,
    tuple: bool,
    texts: [OnceLock<Arc<str>>; SIZES.len()],
}

/// Numbers of rows, from the largest. Up to 128 rows take three statements at most; one for every
/// number would take the server's memory for hundreds of prepared statements.
const SIZES: [usize; 15] = [128, 64, 48, 32, 24, 16, 12, 8, 7, 6, 5, 4, 3, 2, 1];
/// How many statements a connection keeps prepared: all of the forms below, and the others.
pub(super) const PREPARED: usize = 6 * SIZES.len() + 50;

impl Many {
    const fn new(prefix: &'static str, columns: usize, suffix: &'static str, tuple: bool) -> Self {
        Self {
            prefix,
            columns,
            suffix,
            tuple,
            texts: [const { OnceLock::new() }; SIZES.len()],
        }
    }

    /// The text for `SIZES[size]` rows.
    fn text(&self, size: usize) -> Arc<str> {
        let make = || {
            let mut text = self.prefix.to_owned();
            let mut n = 0;
            for row in 0..SIZES[size] {
                text.push_str(if row > 0 { "," } else { "" });
                text.push_str(if self.tuple { "(" } else { "" });
                for column in 0..self.columns {
                    n += 1;
                    text.push_str(if column > 0 { ",$" } else { "$" });
                    text.push_str(&n.to_string());
                }
                text.push_str(if self.tuple { ")" } else { "" });
            }
            text.push_str(self.suffix);
            text.into()
        };
        Arc::clone(self.texts[size].get_or_init(make))
    }

    /// Cuts rows into pieces, each with its statement.
    pub(super) fn cut<'a, T>(
        &'static self,
        mut rows: &'a [T],
    ) -> impl Iterator<Item = (AssertSqlSafe<Arc<str>>, &'a [T])> {
        std::iter::from_fn(move || {
            let size = SIZES.iter().position(|size| *size <= rows.len())?;
            let (piece, rest) = rows.split_at(SIZES[size]);
            rows = rest;
            Some((AssertSqlSafe(self.text(size)), piece))
        })
    }
}

pub(super) static INSERT_CHANGES: Many = Many::new(
    "INSERT INTO changes (revision, at, actor, cause, kind, key, before_json, after_json, unit, digest) VALUES ",
    10,
    "",
    true,
);
pub(super) static PUT_OBJECTS: Many = Many::new(
    "INSERT INTO objects (kind, key, revision, body) VALUES ",
    4,
    " ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
    true,
);
pub(super) static PUT_INSTANCES: Many = Many::new(
    "INSERT INTO instances (key, revision, body) VALUES ",
    3,
    " ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body",
    true,
);
pub(super) static DROP_INSTANCES: Many =
    Many::new("DELETE FROM instances WHERE key IN (", 1, ")", false);
pub(super) const DROP_OBJECT: &str = "DELETE FROM objects WHERE kind = $1 AND key = $2";
pub(super) static PUT_ROUTERS: Many = Many::new(
    "INSERT INTO routers (cluster, id, version, epoch, revision, last_seen) VALUES ",
    6,
    " ON CONFLICT (cluster, id) DO UPDATE SET version = excluded.version, epoch = excluded.epoch, \
          revision = excluded.revision, last_seen = excluded.last_seen \
          WHERE excluded.last_seen >= routers.last_seen",
    true,
);
/// A row comes back for each report that is newer than what was counted of its process.
pub(super) static PUT_MARKS: Many = Many::new(
    "INSERT INTO figure_reports (cluster, router, process, at) VALUES ",
    4,
    " ON CONFLICT (cluster, router, process) DO UPDATE SET at = excluded.at \
          WHERE excluded.at > figure_reports.at RETURNING cluster, router, process",
    true,
);
