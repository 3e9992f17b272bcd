//! The copy on disk: the last table's objects in the feed's form, for a start without a registry.
//!
//! Two generations, `table.ndjson` and `table.1.ndjson`. Writing goes to a temporary file, is synced
//! and renamed; reading checks the digest and every object. A damaged file is set aside, never
//! deleted, and the generation before it is used.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cardea_registry_api::{
    Name,
    feed::{Encoder, Entry, FORMAT, FeedError, Head, Line, SetChecksum, Update, set_line},
};
use serde_json::value::RawValue;

use crate::{
    breather::Breather,
    clock,
    sync::replica::{Position, Replica},
    table::objects::{Dirty, Key, Object, Objects},
};

const NEWEST: &str = "table.ndjson";
const BEFORE: &str = "table.1.ndjson";
/// The kind of the line that says how many routers were live: a start without a registry has to know,
/// or this router alone would let through what all of them together may.
const ROUTERS: &str = "routers";
/// Put before the kind of objects that are retained from an earlier history.
const RETAINED: &str = "retained-";

/// Everything that is written, taken at one moment.
#[derive(Debug)]
pub(crate) struct Image {
    cluster: Name,
    position: Position,
    objects: Vec<Object>,
    retained: BTreeSet<Key>,
    routers: Option<u64>,
}

/// Why a copy could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Feed { path: PathBuf, source: FeedError },
    #[error("{path}: it is of cluster `{found}`")]
    OtherCluster { path: PathBuf, found: String },
    #[error("{path}: {object}: {reason}")]
    Object {
        path: PathBuf,
        object: String,
        reason: String,
    },
}

impl Image {
    pub(crate) fn of(replica: &Replica, cluster: &Name) -> Option<Self> {
        Some(Self {
            cluster: cluster.clone(),
            position: replica.position()?.clone(),
            objects: replica.objects().iter().collect(),
            retained: replica.retained().clone(),
            routers: replica.routers(),
        })
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, FeedError> {
        let mut checksum = SetChecksum::default();
        let mut lines = Vec::with_capacity(self.objects.len());
        // Of a large set this takes many milliseconds, as often as once a second.
        let mut breather = Breather::default();
        for object in &self.objects {
            breather.step();
            let retained = self.retained.contains(&object.key());
            let prefix = if retained { RETAINED } else { "" };
            let kind = format!("{prefix}{}", object.kind());
            let key = object.feed_key();
            let line = match object {
                Object::Service(service) => set_line(&kind, &key, service)?,
                Object::Route(route) => set_line(&kind, &key, route)?,
                Object::Certificate(certificate) => set_line(&kind, &key, certificate)?,
                Object::Fallback(fallback) => set_line(&kind, &key, fallback)?,
                Object::Plugin(plugin, None) => set_line(&kind, &key, plugin)?,
                Object::Plugin(_, Some(json)) | Object::Other(_, json) => {
                    whole_line(&kind, &key, json)?
                }
                Object::Cluster(cluster) => set_line(&kind, &key, cluster)?,
                Object::Traffic(traffic) => set_line(&kind, &key, traffic)?,
                Object::Instance(instance) => set_line(&kind, &key, instance)?,
            };
            checksum.add(line.hash);
            lines.push(line);
        }
        if let Some(routers) = &self.routers {
            let line = set_line(ROUTERS, self.cluster.as_str(), routers)?;
            checksum.add(line.hash);
            lines.push(line);
        }
        let mut encoder = Encoder::new(&Head {
            format: FORMAT,
            cluster: self.cluster.to_string(),
            epoch: self.position.epoch.to_string(),
            revision: self.position.revision,
            after: None,
            checksum,
            objects: lines.len() as u64,
            accepted: false,
            degraded: false,
        })?;
        for line in &lines {
            breather.step();
            encoder.set(line);
        }
        Ok(encoder.finish())
    }

    /// Writes the copy; the one before becomes the second generation. Blocks. It takes the place of
    /// what is there only if it still `may` by then: the disk may have hung meanwhile.
    pub(crate) fn write(&self, dir: &Path, may: &dyn Fn() -> bool) -> Result<(), DiskError> {
        let newest = dir.join(NEWEST);
        let bytes = self.encode().map_err(|source| DiskError::Feed {
            path: newest.clone(),
            source,
        })?;
        let replace = || -> io::Result<()> {
            fs::create_dir_all(dir)?;
            let before = dir.join(BEFORE);
            if newest.exists() {
                // A link and not a rename: at no moment is there no newest copy.
                let link = dir.join(format!("{BEFORE}.tmp"));
                drop(fs::remove_file(&link));
                fs::hard_link(&newest, &link).or_else(|_| fs::copy(&newest, &link).map(drop))?;
                fs::rename(link, &before)?;
            } else if !before.exists() {
                // The first copy is written twice, so that there is always one to fall back on.
                put(dir, BEFORE, &bytes, may)?;
            }
            put(dir, NEWEST, &bytes, may)?;
            File::open(dir)?.sync_all()
        };
        replace().map_err(|source| DiskError::Io {
            path: newest.clone(),
            source,
        })
    }
}

/// The line of an object as it came.
fn whole_line(kind: &str, key: &str, json: &str) -> Result<Line, FeedError> {
    let value: &RawValue =
        serde_json::from_str(json).map_err(|error| FeedError::Encode(error.to_string()))?;
    set_line(kind, key, &value)
}

fn put(dir: &Path, name: &str, bytes: &[u8], may: &dyn Fn() -> bool) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    // It holds private keys of certificates.
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if !may() {
        return Err(io::Error::other("another process writes the copy now"));
    }
    fs::rename(&temporary, dir.join(name))
}

/// What was found on disk.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) replica: Option<Replica>,
    /// What was wrong with generations that were not used.
    pub(crate) problems: Vec<String>,
}

/// Reads the newest sound copy. Blocks.
pub(crate) fn read(dir: &Path, cluster: &Name) -> Restored {
    let mut problems = Vec::new();
    for name in [NEWEST, BEFORE] {
        let path = dir.join(name);
        match read_one(&path, cluster) {
            Ok(None) => {}
            Ok(Some(replica)) => {
                return Restored {
                    replica: Some(replica),
                    problems,
                };
            }
            Err(error) => {
                problems.push(error.to_string());
                if !matches!(error, DiskError::Io { .. }) {
                    set_aside(&path, &mut problems);
                }
            }
        }
    }
    Restored {
        replica: None,
        problems,
    }
}

fn set_aside(path: &Path, problems: &mut Vec<String>) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".damaged-{}", clock::unix_millis()));
    match fs::rename(path, &aside) {
        Ok(()) => problems.push(format!("set aside as {}", PathBuf::from(aside).display())),
        Err(error) => problems.push(format!("cannot set {} aside: {error}", path.display())),
    }
}

fn read_one(path: &Path, cluster: &Name) -> Result<Option<Replica>, DiskError> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes, cluster, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DiskError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Reads a copy; `path` says in errors where it is from.
pub(crate) fn decode(bytes: &[u8], cluster: &Name, path: &Path) -> Result<Replica, DiskError> {
    let update = Update::decode(bytes).map_err(|source| DiskError::Feed {
        path: path.to_owned(),
        source,
    })?;
    if update.head.cluster != cluster.as_str() {
        return Err(DiskError::OtherCluster {
            path: path.to_owned(),
            found: update.head.cluster,
        });
    }
    let mut objects = Objects::default();
    let mut retained = BTreeSet::new();
    let mut routers = None;
    let mut dirty = Dirty::default();
    let wrong = |kind: &str, key: &str, reason| DiskError::Object {
        path: path.to_owned(),
        object: format!("{kind} {key}"),
        reason,
    };
    for entry in &update.entries {
        let Entry::Set {
            kind, key, value, ..
        } = entry
        else {
            continue;
        };
        if **kind == *ROUTERS {
            let count = serde_json::from_str(value.get());
            routers = Some(count.map_err(|error| wrong(kind, key, error.to_string()))?);
            continue;
        }
        let plain = kind.strip_prefix(RETAINED);
        let kind = plain.unwrap_or(kind);
        match Object::read(kind, key, value.get(), cluster.as_str()) {
            Ok(object) => {
                if plain.is_some() {
                    retained.insert(object.key());
                }
                objects.set(object, &mut dirty);
            }
            Err(reason) => return Err(wrong(kind, key, reason)),
        }
    }
    let position = Position {
        epoch: update.head.epoch.as_str().into(),
        revision: update.head.revision,
    };
    Ok(Replica::restored(
        cluster.clone(),
        position,
        objects,
        retained,
        routers,
    ))
}

/// Reads the set of whichever cluster it is of.
pub(crate) fn decode_any(bytes: &[u8], path: &Path) -> Result<(Name, Replica), DiskError> {
    let update = Update::decode(bytes).map_err(|source| DiskError::Feed {
        path: path.to_owned(),
        source,
    })?;
    let found = update.head.cluster;
    let Ok(cluster) = found.parse::<Name>() else {
        let path = path.to_owned();
        return Err(DiskError::OtherCluster { path, found });
    };
    decode(bytes, &cluster, path).map(|replica| (cluster, replica))
}

#[cfg(test)]
mod tests;
