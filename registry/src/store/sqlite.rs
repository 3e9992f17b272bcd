//! SQLite: how its file is opened, and its few words of dialect.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous},
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

pub(super) type Connection = SqliteConnection;

const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";
const BEGIN_READ: &str = "BEGIN";
/// There is nobody to tell: other processes on the file reread the log on a timer.
const COMMIT_AND_TELL: &str = "COMMIT";
const TELL: &str = "SELECT 1";

/// After how many pages (of 4 KiB) in the write-ahead log a commit moves them to the file by itself.
/// What is done beside it (`checkpoint`) leaves it little; without that, the log stays within 64 MiB.
const AUTO_CHECKPOINT: &str = "16000";

/// Moves what is in the write-ahead log to the file, as far as nobody has to wait for it.
pub(super) async fn checkpoint(connection: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(connection)
        .await?;
    Ok(())
}

/// How long the write-ahead log gets before it is written over from its start, nearly: so many bytes
/// of a value are written, in a transaction that is taken back. What it leaves in the log belongs to no
/// transaction, and SQLite writes over it.
const LENGTHEN: &str = "BEGIN IMMEDIATE; CREATE TABLE filler (body); \
     INSERT INTO filler VALUES (zeroblob(65000000)); ROLLBACK";
/// The log's length from which on nothing is done.
const LONG_ENOUGH: u64 = 64_000_000;

/// How to open the file.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    options: SqliteConnectOptions,
    full_sync: bool,
}

impl Engine {
    pub(super) fn new(url: &str, full_sync: bool) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(if full_sync {
                SqliteSynchronous::Full
            } else {
                SqliteSynchronous::Normal
            })
            .busy_timeout(Duration::from_secs(5))
            .pragma("wal_autocheckpoint", AUTO_CHECKPOINT)
            .statement_cache_capacity(super::sql::PREPARED + at_once::TEXTS)
            .disable_statement_logging();
        Ok(Self { options, full_sync })
    }

    pub(super) async fn connect(&self) -> Result<Connection, sqlx::Error> {
        // A new file is its owner's alone, and so are SQLite's files beside it, which get its mode: it
        // holds private keys. What goes wrong here the library says, too.
        let new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.options.get_filename());
        drop(new);
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(at_once::PREPARE)
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    /// Makes the write-ahead log as long as it gets, where each commit waits for the disk: where the
    /// file grows, the disk has its new length to write down as well, and that takes half as long again.
    pub(super) async fn lengthen_log(&self) -> Result<(), sqlx::Error> {
        if !self.full_sync || self.log_length() >= LONG_ENOUGH {
            return Ok(());
        }
        let mut connection = self.connect().await?;
        let done = sqlx::raw_sql(LENGTHEN).execute(&mut connection).await;
        if done.is_err() {
            // No room: what has been taken is given back. The transaction may be over already.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut connection).await;
            sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                .execute(&mut connection)
                .await?;
        }
        done?;
        // Here and not in the first commit.
        let log = self.log();
        let flushed = tokio::task::spawn_blocking(move || File::open(log)?.sync_data()).await;
        flushed.map_err(io::Error::other).flatten()?;
        Ok(())
    }

    fn log(&self) -> PathBuf {
        let mut name = self.options.get_filename().as_os_str().to_owned();
        name.push("-wal");
        name.into()
    }

    fn log_length(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |log| log.len())
    }

    /// The network file system that the file is on, if it is on one: WAL needs shared memory
    /// between all who open the file, and locks that work.
    pub(super) fn network_file_system(&self) -> Option<String> {
        let file = self.options.get_filename();
        let file = file.canonicalize().or_else(|_| {
            let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).canonicalize()
        });
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        network_mount(&mounts, &file.ok()?)
    }
}

/// The type of the mount that holds `file`, if it is a network's.
fn network_mount(mounts: &str, file: &Path) -> Option<String> {
    const NETWORK: [&str; 11] = [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "fuse.sshfs",
        "fuse.glusterfs",
    ];
    let (_, kind) = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?.replace("\\040", " "), words.next()?))
        })
        .filter(|(mount, _)| file.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())?;
    NETWORK.contains(&kind).then(|| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_apart() {
        let mounts = "/dev/vda / ext4 rw 0 0\nsrv:/x /mnt/my\\040share nfs4 rw 0 0\n";
        let on = |file: &str| network_mount(mounts, Path::new(file));
        assert_eq!(on("/var/lib/cardea/registry.db"), None);
        assert_eq!(on("/mnt/my share/registry.db").as_deref(), Some("nfs4"));
        assert_eq!(on("/mnt/my sharewood/registry.db"), None);
    }
}
