//! The journal of changes that were accepted while the database was away.
//!
//! One line an entry: its XXH3-64 as 16 hex digits, a space, its JSON. Appending returns when the
//! disk has it, so that killing the registry loses nothing that was answered. A line cut off by a
//! crash was never answered. Whatever cannot be read is set aside with the whole file; the sound
//! lines around it are kept.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::{set_aside, sync_dir};

/// The journal's file name in the data directory.
pub(crate) const FILE: &str = "pending.journal";

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// None: there is nothing in it, and no file.
    file: Option<File>,
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Opened<T> {
    pub(crate) journal: Journal,
    /// What waits for the database, in order.
    pub(crate) entries: Vec<T>,
    /// Where the damaged file was put, if it was damaged, and how many lines were lost.
    pub(crate) damage: Option<(PathBuf, usize)>,
}

impl Journal {
    /// Reads what an earlier process left. `now`: Unix ms, for the name of a damaged file.
    pub(crate) fn open<T: Serialize + DeserializeOwned>(
        dir: &Path,
        now: i64,
    ) -> io::Result<Opened<T>> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let lines: Vec<_> = bytes
            .split_inclusive(|b| *b == b'\n')
            .map(decode::<T>)
            .collect();
        let lost = lines.iter().filter(|line| line.is_none()).count();
        let entries: Vec<T> = lines.into_iter().flatten().collect();
        let mut journal = Self { path, file: None };
        let mut damage = None;
        if lost > 0 {
            // The sound lines first reach a new file, then the damaged one leaves its place: a crash
            // in between leaves one of the two complete.
            let sound = dir.join(format!("{FILE}.tmp"));
            let mut rewritten = Self {
                path: sound.clone(),
                file: None,
            };
            match fs::remove_file(&sound) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            rewritten.append(&entries)?;
            let aside = set_aside(&journal.path, now)?;
            if !entries.is_empty() {
                fs::rename(&sound, &journal.path)?;
            }
            sync_dir(dir)?;
            damage = Some((aside, lost));
        }
        if !entries.is_empty() {
            journal.file = Some(OpenOptions::new().append(true).open(&journal.path)?);
        }
        Ok(Opened {
            journal,
            entries,
            damage,
        })
    }

    /// Adds entries; returns when the disk has them. After an error the journal is as it was, or
    /// ends in a line that will be set aside.
    pub(crate) fn append<T: Serialize>(&mut self, entries: &[T]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for entry in entries {
            let json = serde_json::to_vec(entry)?;
            write!(text, "{:016x} ", xxh3_64(&json))?;
            text.extend_from_slice(&json);
            text.push(b'\n');
        }
        let fresh = self.file.is_none();
        if fresh {
            let opened = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            self.file = Some(opened);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
            // What is answered with an error must not come back after a restart.
            file.set_len(before)?;
            return Err(error);
        }
        if fresh && let Some(dir) = self.path.parent() {
            sync_dir(dir)?;
        }
        Ok(())
    }

    /// Everything in it is in the database: it is emptied.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if self.file.take().is_some() {
            fs::remove_file(&self.path)?;
            if let Some(dir) = self.path.parent() {
                sync_dir(dir)?;
            }
        }
        Ok(())
    }
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = line.strip_suffix(b"\n")?;
    let (hash, json) = (line.get(..16)?, line.get(17..)?);
    let hash = u64::from_str_radix(std::str::from_utf8(hash).ok()?, 16).ok()?;
    if line.get(16) != Some(&b' ') || hash != xxh3_64(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests;
