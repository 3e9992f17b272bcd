//! Disk snapshots: the whole state in a file, so that a registry can serve without its database.
//!
//! A file is the feed's lines (of every kind, tokens too), zstd-compressed, under the revision and
//! the time in its name. Its first entry says which point of the database's history it derives
//! from. The newest sound one is used; a damaged one is set aside and the one before it is taken.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cardea_registry_api::{
    api::SnapshotInfo,
    feed::{Coding, Encoder, Entry, FORMAT, FeedError, Head, SetChecksum, Update, set_line},
};
use serde::{Deserialize, Serialize};

use crate::{
    change::Kind,
    files,
    record::Point,
    state::{Object, State},
};

const PREFIX: &str = "registry-";
const SUFFIX: &str = ".snapshot";
const META: &str = "meta";

/// The directory of the snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    dir: PathBuf,
    generations: usize,
}

/// What a snapshot holds beside the objects.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    base: Point,
    accepted_at: i64,
    /// Each object's revision, in the order of the lines.
    revisions: Vec<u64>,
}

/// Why a file is no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Feed(#[from] FeedError),
    #[error("{0}")]
    Content(String),
}

impl Disk {
    pub(crate) fn open(data_dir: &Path, generations: usize) -> io::Result<Self> {
        let dir = data_dir.join("snapshots");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, generations })
    }

    /// Writes a state at a time (Unix ms), and removes what is beyond the generations to keep.
    pub(crate) fn write(&self, state: &State, at: i64) -> Result<SnapshotInfo, Damage> {
        let bytes = encode(state)?;
        // Names sort by time: a clock that was set back must not make the newest state the oldest.
        let at = self
            .files()?
            .first()
            .map_or(at, |newest| at.max(written_at(&file_name(newest)) + 1));
        let name = format!("{PREFIX}{at:015}-r{}{SUFFIX}", state.revision);
        let path = self.dir.join(&name);
        files::write_atomically(&path, &bytes)?;
        for old in self.files()?.into_iter().skip(self.generations) {
            fs::remove_file(old)?;
        }
        Ok(SnapshotInfo {
            file: name,
            size: bytes.len() as u64,
            written_at: at,
            epoch: state.epoch.to_string(),
            revision: state.revision,
            objects: state.objects(),
            damage: None,
        })
    }

    /// The newest sound snapshot. Damaged ones before it are set aside, and told.
    pub(crate) fn newest(&self) -> io::Result<Option<State>> {
        for path in self.files()? {
            match read(&path) {
                Ok(state) => return Ok(Some(state)),
                Err(damage) => {
                    let aside = files::set_aside(&path)?;
                    tracing::error!(file = %path.display(), aside = %aside.display(), %damage,
                        "a disk snapshot is damaged; it is set aside and the one before it is used");
                }
            }
        }
        Ok(None)
    }

    /// What is kept, newest first.
    pub(crate) fn list(&self, verify: bool) -> io::Result<Vec<SnapshotInfo>> {
        let mut infos = Vec::new();
        for path in self.files()? {
            let Ok(metadata) = fs::metadata(&path) else {
                continue; // Removed meanwhile: it was the oldest.
            };
            let file = file_name(&path);
            let mut info = SnapshotInfo {
                written_at: written_at(&file),
                file,
                size: metadata.len(),
                epoch: String::new(),
                revision: 0,
                objects: 0,
                damage: None,
            };
            match head(&path) {
                Ok(head) => {
                    info.epoch = head.epoch;
                    info.revision = head.revision;
                    info.objects = head.objects;
                }
                Err(damage) => info.damage = Some(damage.to_string()),
            }
            if verify && info.damage.is_none() {
                info.damage = read(&path).err().map(|damage| damage.to_string());
            }
            infos.push(info);
        }
        Ok(infos)
    }

    /// The files, newest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = file_name(path);
                name.starts_with(PREFIX) && name.ends_with(SUFFIX)
            })
            .collect();
        paths.sort_unstable_by(|a, b| b.cmp(a));
        Ok(paths)
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn written_at(file: &str) -> i64 {
    file.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next())
        .and_then(|ms| ms.parse().ok())
        .unwrap_or_default()
}

fn encode(state: &State) -> Result<Vec<u8>, FeedError> {
    let mut checksum = SetChecksum::default();
    let meta = set_line(
        META,
        META,
        &Meta {
            base: state.base.clone(),
            accepted_at: state.accepted_at,
            revisions: state
                .all_rows()
                .map(|(_, _, revision, _)| revision)
                .collect(),
        },
    )?;
    for line in state.all_lines() {
        checksum.add(line.hash);
    }
    let mut encoder = Encoder::new(&Head {
        format: FORMAT,
        cluster: String::new(),
        epoch: state.epoch.to_string(),
        revision: state.revision,
        after: None,
        checksum,
        objects: state.objects(),
        accepted: false,
        degraded: state.degraded,
    })?;
    encoder.set(&meta);
    for line in state.all_lines() {
        encoder.set(line);
    }
    Coding::Zstd.encode(&encoder.finish())
}

fn read(path: &Path) -> Result<State, Damage> {
    decode(&fs::read(path)?)
}

fn decode(bytes: &[u8]) -> Result<State, Damage> {
    let update = Update::decode(&Coding::Zstd.decode(bytes)?)?;
    let content = |error: &dyn std::fmt::Display| Damage::Content(error.to_string());
    let mut entries = update.entries.into_iter();
    let meta: Meta = match entries.next() {
        Some(Entry::Set { kind, value, .. }) if kind == META => {
            serde_json::from_str(value.get()).map_err(|error| content(&error))?
        }
        _ => return Err(Damage::Content("it does not say where it is from".into())),
    };
    let mut state = State::empty(meta.base);
    state.accepted_at = meta.accepted_at;
    state.epoch = Arc::from(update.head.epoch);
    state.revision = update.head.revision;
    for (entry, revision) in entries.zip(meta.revisions) {
        let Entry::Set {
            kind, value, key, ..
        } = entry
        else {
            return Err(Damage::Content("it drops an object".to_owned()));
        };
        let Some(kind) = Kind::parse(&kind) else {
            continue; // Of a newer program; the database has it.
        };
        let object = Object::parse(kind, value.get())
            .map_err(|error| Damage::Content(format!("{kind} `{key}`: {error}")))?;
        state.set(object, revision)?;
    }
    state.loaded();
    Ok(state)
}

/// Only the first line, for lists.
fn head(path: &Path) -> Result<Head, Damage> {
    use io::{BufRead, BufReader, Read};
    let decoder = zstd::stream::read::Decoder::new(fs::File::open(path)?)?;
    let mut line = String::new();
    BufReader::new(decoder.take(1 << 20)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|error| Damage::Content(error.to_string()))
}

#[cfg(test)]
mod tests;
