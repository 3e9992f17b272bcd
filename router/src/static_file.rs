//! Static mode: a manifest on disk instead of a registry, reloaded when it changes. A bad edit keeps
//! the last good file in force and is logged and named on the admin port.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cardea_registry_api::{Invalid, Name, manifest::Manifest};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    shared::{Shared, count},
    table::{
        Origin,
        builder::{Builder, Stamp},
        objects::Objects,
    },
};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A file system's clock may be too coarse to tell two edits apart: a file this young is read even
/// if its looks have not changed.
const YOUNG: Duration = Duration::from_secs(3);
/// A larger file is no manifest.
const MAX_BYTES: u64 = 256 << 20;

/// Serves a file.
#[derive(Debug)]
pub(crate) struct StaticFile {
    path: PathBuf,
    cluster: Name,
    shared: Arc<Shared>,
    builder: Builder,
    objects: Objects,
    revision: u64,
    /// Of the file last looked into, good or bad.
    looks: Option<Looks>,
    digest: Option<u64>,
}

/// What tells an edited file from the same one without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

impl StaticFile {
    /// Reads the file for the first time; it must be good.
    pub(crate) fn new(path: PathBuf, cluster: Name, shared: Arc<Shared>) -> Result<Self, Invalid> {
        let mut file = Self {
            path,
            cluster,
            shared,
            builder: Builder::default(),
            objects: Objects::default(),
            revision: 0,
            looks: None,
            digest: None,
        };
        let bytes = read(&file.path).map_err(|e| file.unreadable(&e))?;
        file.looks = looks(&file.path).ok();
        file.digest = Some(xxh3_64(&bytes));
        let objects = parse(&file.path, &bytes, &file.cluster)?;
        file.put(objects);
        Ok(file)
    }

    fn unreadable(&self, error: &io::Error) -> Invalid {
        Invalid::field("", format!("cannot read {}: {error}", self.path.display()))
    }

    /// Looks for edits until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let now = match looks(&self.path) {
            Ok(looks) => looks,
            Err(error) => return self.complain(&self.unreadable(&error), None),
        };
        let young = now.modified.elapsed().is_ok_and(|age| age < YOUNG);
        if self.looks == Some(now) && !young {
            return;
        }
        let (path, cluster, seen) = (self.path.clone(), self.cluster.clone(), self.digest);
        let loading = tokio::task::spawn_blocking(move || {
            let bytes = read(&path)?;
            let digest = xxh3_64(&bytes);
            let parsed = (seen != Some(digest)).then(|| parse(&path, &bytes, &cluster));
            Ok((digest, parsed))
        });
        let loaded: io::Result<_> = match loading.await {
            Ok(loaded) => loaded,
            Err(error) => Err(io::Error::other(error)),
        };
        match loaded {
            Ok((digest, parsed)) => {
                self.looks = Some(now);
                match parsed {
                    None => {}
                    Some(Ok(objects)) => {
                        self.digest = Some(digest);
                        self.put(objects);
                        tracing::info!(file = %self.path.display(), revision = self.revision, "reloaded");
                    }
                    Some(Err(invalid)) => self.complain(&invalid, Some(digest)),
                }
            }
            Err(error) => self.complain(&self.unreadable(&error), None),
        }
    }

    fn complain(&mut self, invalid: &Invalid, digest: Option<u64>) {
        let file = self.path.display().to_string();
        let why = format!("keeping the last good one: {invalid}");
        let news = self
            .shared
            .set_degraded("static_file", Some(format!("{file}: {why}")));
        if news || digest != self.digest {
            count(&self.shared.counts.reloads_refused);
            tracing::error!(file, why, "the file is not usable");
        }
        self.digest = digest;
        self.looks = None;
    }

    fn put(&mut self, objects: Objects) {
        let began = Instant::now();
        self.revision += 1;
        let dirty = self.objects.difference(&objects);
        let stamp = Stamp {
            epoch: "static".into(),
            revision: self.revision,
            origin: Origin::Static,
        };
        self.builder
            .build(&objects, &dirty, stamp, began)
            .publish(&self.shared);
        self.shared.counts.builds.observe(began.elapsed());
        self.objects = objects;
        let refused = self.builder.refused().iter();
        self.shared.set_alarms(
            "skipped_object",
            refused.map(|(id, why)| (format!("route {id}"), why.clone())),
        );
        self.shared.set_degraded("static_file", None);
        self.shared.confirm();
    }
}

fn looks(path: &Path) -> io::Result<Looks> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path)?;
    Ok(Looks {
        modified: meta.modified()?,
        length: meta.len(),
        inode: meta.ino(),
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// TOML, or what the file's name says: `.yaml`, `.yml`, `.json`.
fn parse(path: &Path, bytes: &[u8], cluster: &Name) -> Result<Objects, Invalid> {
    let named = |invalid: Invalid| Invalid {
        errors: invalid
            .errors
            .into_iter()
            .map(|mut error| {
                error.message = format!("{} ({})", error.message, path.display());
                error
            })
            .collect(),
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| named(Invalid::field("", "the file is not UTF-8")))?;
    let syntax = |e: &dyn std::fmt::Display| Invalid::field("", e.to_string());
    let manifest = match path.extension().and_then(|e| e.to_str()) {
        Some("yaml" | "yml") => serde_norway::from_str(text)
            .map_err(|e| syntax(&e))
            .and_then(Manifest::from_value),
        Some("json") => serde_json::from_str(text)
            .map_err(|e| syntax(&e))
            .and_then(Manifest::from_value),
        _ => Manifest::from_toml(text),
    };
    let manifest = manifest.map_err(named)?;
    manifest.check_complete().map_err(named)?;
    Ok(Objects::from_manifest(&manifest, cluster))
}

#[cfg(test)]
mod tests;
