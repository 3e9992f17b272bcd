//! What was accepted while the database is away, on disk until the database has it.
//!
//! Lines, each `CHECKSUM JSON`, appended and synced before anybody is told that his change is
//! accepted: even `kill -9` of the registry loses nothing. A last line that was cut off was never
//! answered for; it is set aside, and so is any other line that is damaged, while the sound ones stay.
//! What it holds is bounded: see [`Pending`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

mod compact;
mod pending;

use crate::{change::Change, files, record::Point};
pub(crate) use pending::Pending;

/// The most changes of one instance that later ones do not make void: taken out, registered and
/// patched field by field.
#[cfg(test)]
pub(crate) const MOST_EACH: usize = 6;

/// A unit that was accepted and is not known to be in the database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PendingUnit {
    /// Under this name it is looked for in the log before it is written (again).
    pub(crate) unit: Arc<str>,
    pub(crate) at: i64,
    pub(crate) actor: Arc<str>,
    /// Why, where not each change says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<Arc<str>>,
    /// The database's history as it was known when the unit was accepted.
    pub(crate) base: Point,
    pub(crate) changes: Vec<Change>,
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    path: PathBuf,
}

/// What was found in the file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) units: Vec<PendingUnit>,
    /// How many lines could not be read, and where they are now.
    pub(crate) damaged: Option<(usize, PathBuf)>,
}

impl Journal {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self {
            path: dir.join("pending.journal"),
        }
    }

    /// Reads what is pending. Damaged lines are set aside in a copy, and the file is left with the
    /// sound ones.
    pub(crate) fn read(&self) -> io::Result<Found> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
            Err(error) => return Err(error),
        };
        let (units, damaged) = parse(&bytes);
        if damaged == 0 {
            return Ok(Found {
                units,
                damaged: None,
            });
        }
        let aside = files::aside_name(&self.path);
        files::write_atomically(&aside, &bytes)?;
        files::write_atomically(&self.path, &lines(&units)?)?;
        Ok(Found {
            units,
            damaged: Some((damaged, aside)),
        })
    }

    /// Adds units; returns when they are on disk.
    pub(crate) fn append(&self, units: &[PendingUnit]) -> io::Result<()> {
        let bytes = lines(units)?;
        let fresh = !self.path.exists();
        let mut file: File = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Half a line must not spoil the next one.
            let _ = file.set_len(before);
            return Err(error);
        }
        if fresh {
            files::sync_parent(&self.path)?;
        }
        Ok(())
    }

    /// Puts these units in place of all that is there, whole or not at all.
    pub(crate) fn replace(&self, units: &[PendingUnit]) -> io::Result<()> {
        files::write_atomically(&self.path, &lines(units)?)
    }

    /// Everything is in the database.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => files::sync_parent(&self.path),
        }
    }
}

fn lines(units: &[PendingUnit]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for unit in units {
        let json = serde_json::to_vec(unit)?;
        write!(out, "{:016x} ", xxh3_64(&json))?;
        out.extend_from_slice(&json);
        out.push(b'\n');
    }
    Ok(out)
}

/// The sound lines' units, and how many lines were damaged or cut off.
fn parse(bytes: &[u8]) -> (Vec<PendingUnit>, usize) {
    let mut units = Vec::new();
    let mut damaged = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, after) = match rest.iter().position(|b| *b == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            // Without its end a line is cut off, even if it happens to read well.
            None => (&b""[..], &b""[..]),
        };
        rest = after;
        match parse_line(line) {
            Some(unit) => units.push(unit),
            None => damaged += 1,
        }
    }
    (units, damaged)
}

fn parse_line(line: &[u8]) -> Option<PendingUnit> {
    let (checksum, json) = line.split_at_checked(16)?;
    let json = json.strip_prefix(b" ")?;
    let checksum = u64::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
    (checksum == xxh3_64(json)).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
pub(crate) mod tests;
