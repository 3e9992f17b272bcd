//! Static mode: a manifest on disk instead of a registry, reloaded when it changes. A bad edit keeps
//! the last good file in force and is logged and named on the admin port. A certificate whose own
//! files do not fit keeps only itself back ([`keep`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cardea_registry_api::{
    Certificate, Invalid, Name,
    manifest::{self, Manifest},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    shared::{Shared, count},
    table::{
        Origin,
        builder::{Builder, Stamp},
        objects::Objects,
    },
    tls,
};

mod keep;

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
    /// The instances of other clusters.
    others: BTreeMap<Name, Objects>,
    revision: u64,
    /// Of the file last looked into, good or bad.
    looks: Option<Looks>,
    /// Files that it names.
    named: Vec<(PathBuf, Option<Looks>)>,
    digest: Option<u64>,
    /// Of the file alone, if it was good.
    own: Option<u64>,
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
    pub(crate) fn new(
        path: PathBuf,
        (cluster, zone): (Name, Option<Name>),
        lowest_tls: tls::Version,
        shared: Arc<Shared>,
    ) -> Result<Self, Invalid> {
        let mut file = Self {
            path,
            builder: Builder::new(cluster.clone(), &shared, lowest_tls).stands_in(zone),
            cluster,
            shared,
            objects: Objects::default(),
            others: BTreeMap::new(),
            revision: 0,
            looks: None,
            named: Vec::new(),
            digest: None,
            own: None,
        };
        let bytes = read(&file.path).map_err(|e| file.unreadable(&e))?;
        file.looks = looks(&file.path).ok();
        let parsed = parse(&file.path, &bytes, &file.cluster, &[])?;
        file.digest = Some(digest(&bytes, &parsed));
        file.own = Some(xxh3_64(&bytes));
        file.named = parsed.named;
        file.put(parsed.objects, parsed.others);
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
        let mut named = self.named.iter();
        let named_same = named.all(|(path, before)| *before == looks(path).ok())
            && !is_young(self.named.iter().map(|(_, looks)| *looks));
        if named_same && self.looks == Some(now) && !is_young([Some(now)]) {
            return;
        }
        let (path, cluster) = (self.path.clone(), self.cluster.clone());
        let seen = self.own.filter(|_| named_same);
        let before: Vec<_> = self.objects.certificates().cloned().collect();
        let loading = tokio::task::spawn_blocking(move || {
            let bytes = read(&path)?;
            let own = xxh3_64(&bytes);
            if seen == Some(own) {
                return Ok(None);
            }
            let parsed = parse(&path, &bytes, &cluster, &before);
            let digest = match &parsed {
                Ok(parsed) => digest(&bytes, parsed),
                Err(invalid) => xxh3_64(&bytes) ^ xxh3_64(invalid.to_string().as_bytes()),
            };
            Ok(Some((own, digest, parsed)))
        });
        let loaded: io::Result<_> = match loading.await {
            Ok(loaded) => loaded,
            Err(error) => Err(io::Error::other(error)),
        };
        match loaded {
            Ok(None) => self.looks = Some(now),
            Ok(Some((own, digest, Ok(parsed)))) => {
                // Files that do not fit are looked into until they do.
                let fits = parsed.kept.is_empty();
                self.looks = fits.then_some(now);
                self.own = fits.then_some(own);
                self.named = parsed.named;
                if self.digest != Some(digest) {
                    self.digest = Some(digest);
                    self.put(parsed.objects, parsed.others);
                    tracing::info!(file = %self.path.display(), revision = self.revision, "reloaded");
                    self.complain_of(&parsed.kept);
                }
            }
            Ok(Some((_, digest, Err(invalid)))) => self.complain(&invalid, Some(digest)),
            Err(error) => self.complain(&self.unreadable(&error), None),
        }
    }

    /// Says which certificates stay as they were, and why.
    fn complain_of(&self, kept: &[String]) {
        if kept.is_empty() {
            return;
        }
        let why = kept.join("; ");
        count(&self.shared.counts.reloads_refused);
        tracing::error!(file = %self.path.display(), why, "the certificates before are kept");
        let why = format!(
            "{}: keeping the certificates before: {why}",
            self.path.display()
        );
        self.shared.set_degraded("static_file", Some(why));
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
        self.own = None;
        self.looks = None;
    }

    fn put(&mut self, objects: Objects, others: BTreeMap<Name, Objects>) {
        let began = Instant::now();
        self.revision += 1;
        let dirty = self.objects.difference(&objects);
        let stamp = Stamp {
            epoch: "static".into(),
            revision: self.revision,
            origin: Origin::Static,
        };
        self.learn(&others);
        self.builder
            .build(&objects, &dirty, stamp, began)
            .publish(&self.shared);
        self.shared.counts.builds.observe(began.elapsed());
        self.objects = objects;
        self.others = others;
        self.shared
            .set_alarms("skipped_object", self.builder.refused());
        self.shared.set_degraded("static_file", None);
        self.shared.confirm();
    }
}

impl StaticFile {
    /// Takes over what has changed of the instances of other clusters.
    fn learn(&mut self, others: &BTreeMap<Name, Objects>) {
        let none = Objects::default();
        let names: BTreeSet<&Name> = self.others.keys().chain(others.keys()).collect();
        for name in names {
            let [before, now] = [&self.others, others].map(|all| all.get(name).unwrap_or(&none));
            self.builder.learn(name, now, &before.difference(now));
        }
    }
}

/// Whether one of the files was edited only just now.
fn is_young(files: impl IntoIterator<Item = Option<Looks>>) -> bool {
    let mut known = files.into_iter().flatten();
    known.any(|looks| looks.modified.elapsed().is_ok_and(|age| age < YOUNG))
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

/// What a file came to.
struct Parsed {
    objects: Objects,
    /// Those of other clusters.
    others: BTreeMap<Name, Objects>,
    /// Files that it names.
    named: Vec<(PathBuf, Option<Looks>)>,
    /// Of their content.
    digest: u64,
    /// Certificates that are those of before, and why.
    kept: Vec<String>,
}

/// Of everything that was read.
fn digest(bytes: &[u8], parsed: &Parsed) -> u64 {
    xxh3_64(bytes).rotate_left(1) ^ parsed.digest
}

/// TOML, or what the file's name says: `.yaml`, `.yml`, `.json`. `before`: certificates in force.
fn parse(
    path: &Path,
    bytes: &[u8],
    cluster: &Name,
    before: &[Arc<Certificate>],
) -> Result<Parsed, Invalid> {
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
    let value: Result<serde_json::Value, _> = match path.extension().and_then(|e| e.to_str()) {
        Some("yaml" | "yml") => serde_norway::from_str(text).map_err(|e| syntax(&e)),
        Some("json") => serde_json::from_str(text).map_err(|e| syntax(&e)),
        _ => manifest::toml_value(text),
    };
    let mut value = value.map_err(named)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let kept = keep::certificates(&mut value, dir, before);
    let files = manifest::files::inline(&mut value, dir).map_err(named)?;
    let digest = if files.is_empty() && kept.is_empty() {
        0
    } else {
        xxh3_64(value.to_string().as_bytes()) ^ xxh3_64(kept.concat().as_bytes())
    };
    let manifest = Manifest::from_value(value).map_err(named)?;
    manifest.check_complete().map_err(named)?;
    let looked = |path: PathBuf| {
        let looks = looks(&path).ok();
        (path, looks)
    };
    Ok(Parsed {
        objects: Objects::from_manifest(&manifest, cluster),
        others: Objects::others_in(&manifest, cluster),
        named: files.into_iter().map(looked).collect(),
        digest,
        kept,
    })
}

#[cfg(test)]
mod tests;
