//! Disk snapshots: what a registry serves from when its database is away at its start.
//!
//! A file is a generation: zstd over lines – a [`Header`], then one line an object (its revision, a
//! space, its feed line), then the count and the XXH3-128 of everything before. It is written beside
//! its place, synced and renamed, so there is never half a one. A damaged file is set aside and the
//! generation before it is used.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use cardea_registry_api::{
    api::SnapshotInfo,
    feed::{Coding, Entry, Line},
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::record::Point;

const FORMAT: u32 = 1;
const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".ndjson.zst";
const TEMPORARY: &str = ".tmp";

/// The first line: what the set belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    format: u32,
    /// Unix ms.
    pub(crate) written_at: i64,
    /// The epoch that was served.
    pub(crate) epoch: Arc<str>,
    /// The revision that was served.
    pub(crate) revision: u64,
    /// The last point of the database's history that is in it.
    pub(crate) base: Point,
    /// When an operator accepted the history; 0: nobody had to.
    pub(crate) accepted_at: i64,
    pub(crate) objects: u64,
}

#[derive(Serialize, Deserialize)]
struct End {
    end: u64,
    digest: String,
}

/// A snapshot as it was read: sound, its objects not yet parsed.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) header: Header,
    /// Each object with its revision.
    pub(crate) objects: Vec<(u64, Entry)>,
}

/// The directory of snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    dir: PathBuf,
    generations: usize,
}

/// What [`Disk::load`] found.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The newest sound snapshot.
    pub(crate) snapshot: Option<Snapshot>,
    /// Damaged files: where they were put, and what was wrong.
    pub(crate) damaged: Vec<(PathBuf, String)>,
}

/// What is served, as it goes into a file.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) epoch: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) base: Point,
    pub(crate) accepted_at: i64,
}

impl Disk {
    /// Opens (and makes) the directory; leftovers of unfinished writes go.
    pub(crate) fn open(dir: &Path, generations: usize) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with(PREFIX) && name.ends_with(TEMPORARY) {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            generations: generations.max(1),
        })
    }

    /// Writes a generation and lets the oldest go. `now`: Unix ms.
    pub(crate) fn write<'a>(
        &self,
        meta: &Meta,
        objects: impl Iterator<Item = (u64, &'a Line)>,
        now: i64,
    ) -> io::Result<SnapshotInfo> {
        let mut body = Vec::new();
        let mut count = 0;
        for (revision, line) in objects {
            write!(body, "{revision} ")?;
            body.extend_from_slice(&line.bytes);
            body.push(b'\n');
            count += 1;
        }
        let header = Header {
            format: FORMAT,
            written_at: now,
            epoch: meta.epoch.clone(),
            revision: meta.revision,
            base: meta.base.clone(),
            accepted_at: meta.accepted_at,
            objects: count,
        };
        let mut text = serde_json::to_vec(&header)?;
        text.push(b'\n');
        text.append(&mut body);
        let end = End {
            end: count,
            digest: format!("{:032x}", xxh3_128(&text)),
        };
        serde_json::to_writer(&mut text, &end)?;
        text.push(b'\n');
        let bytes = Coding::Zstd.encode(&text).map_err(io::Error::other)?;
        let name = format!("{PREFIX}{now:015}-{:020}{SUFFIX}", meta.revision);
        write_whole(&self.dir, &name, &bytes)?;
        for (path, _) in self.files()?.into_iter().skip(self.generations) {
            fs::remove_file(path)?;
        }
        Ok(info(&name, bytes.len() as u64, &header))
    }

    /// Reads the newest sound generation; damaged ones on the way are set aside.
    pub(crate) fn load(&self, now: i64) -> io::Result<Loaded> {
        let mut loaded = Loaded {
            snapshot: None,
            damaged: Vec::new(),
        };
        for (path, _) in self.files()? {
            match read(&fs::read(&path)?) {
                Ok(snapshot) => {
                    loaded.snapshot = Some(snapshot);
                    break;
                }
                Err(reason) => loaded.damaged.push((set_aside(&path, now)?, reason)),
            }
        }
        Ok(loaded)
    }

    /// The generations, newest first; each is read whole, so `damage` is always told.
    pub(crate) fn list(&self) -> io::Result<Vec<SnapshotInfo>> {
        let mut list = Vec::new();
        for (path, name) in self.files()? {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // The timer let it go meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let size = bytes.len() as u64;
            list.push(match read(&bytes) {
                Ok(snapshot) => info(&name, size, &snapshot.header),
                Err(reason) => SnapshotInfo {
                    file: name,
                    size,
                    written_at: 0,
                    epoch: String::new(),
                    revision: 0,
                    objects: 0,
                    damage: Some(reason),
                },
            });
        }
        Ok(list)
    }

    /// Newest first: the names hold the time and sort by it.
    fn files(&self) -> io::Result<Vec<(PathBuf, String)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                files.push((entry.path(), name));
            }
        }
        files.sort_by(|a, b| b.1.cmp(&a.1));
        Ok(files)
    }
}

fn info(name: &str, size: u64, header: &Header) -> SnapshotInfo {
    SnapshotInfo {
        file: name.to_owned(),
        size,
        written_at: header.written_at,
        epoch: header.epoch.to_string(),
        revision: header.revision,
        objects: header.objects,
        damage: None,
    }
}

fn read(bytes: &[u8]) -> Result<Snapshot, String> {
    let text = Coding::Zstd
        .decode(bytes)
        .map_err(|error| error.to_string())?;
    let body = text.strip_suffix(b"\n").ok_or("it is cut off")?;
    let last = body
        .iter()
        .rposition(|b| *b == b'\n')
        .ok_or("it is cut off")?;
    let end: End = serde_json::from_slice(&body[last + 1..]).map_err(|_| "it is cut off")?;
    if end.digest != format!("{:032x}", xxh3_128(&text[..=last])) {
        return Err("its digest does not fit its bytes".to_owned());
    }
    let mut lines = body[..last].split(|b| *b == b'\n');
    let header: Header = serde_json::from_slice(lines.next().unwrap_or_default())
        .map_err(|error| format!("its header cannot be read: {error}"))?;
    if header.format != FORMAT {
        return Err(format!(
            "format {} is not understood (format {FORMAT} is)",
            header.format
        ));
    }
    let objects = lines
        .enumerate()
        .map(|(i, line)| object(line).map_err(|reason| format!("line {}: {reason}", i + 2)))
        .collect::<Result<Vec<_>, _>>()?;
    if objects.len() as u64 != end.end || end.end != header.objects {
        return Err(format!(
            "it has {} objects instead of {}",
            objects.len(),
            header.objects
        ));
    }
    Ok(Snapshot { header, objects })
}

fn object(line: &[u8]) -> Result<(u64, Entry), String> {
    let space = line.iter().position(|b| *b == b' ').ok_or("no revision")?;
    let revision = std::str::from_utf8(&line[..space])
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or("no revision")?;
    let entry = Entry::parse(&line[space + 1..])?;
    Ok((revision, entry))
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}{TEMPORARY}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, dir.join(name))) {
        // A full disk must not stay full of halves.
        fs::remove_file(&temporary)?;
        return Err(error);
    }
    sync_dir(dir)
}

/// Renames a damaged file to `….damaged-<now>`; where it is now.
pub(crate) fn set_aside(path: &Path, now: i64) -> io::Result<PathBuf> {
    let mut n = 0;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{}", now + n));
        let aside = PathBuf::from(name);
        if !aside.exists() {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
        n += 1;
    }
}

/// Makes renames and removals in a directory last.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
