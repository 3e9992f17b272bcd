//! Everything the registry serves, as one value.
//!
//! A [`State`] is what holds at one revision. Its maps are persistent: a clone costs nothing and a
//! change among 100,000 instances touches a few nodes, so the writer drafts on a clone while readers
//! keep the old one. What a change does is decided in [`apply`]; followers of the log and the loaders
//! use the same two primitives (`set` and `unset` in `index`), which keep the indexes, the feed's
//! checksums and the recent changes (for deltas) in step. No clock, no I/O.

pub mod apply;
mod index;
pub(crate) mod object;
mod read;
mod references;

use std::sync::Arc;

use cardea_registry_api::{
    Certificate, Cluster, Fallback, Instance, InstanceKey, InstanceState, Name, Plugin, Release,
    Route, Service, Source, Switch, Traffic, TrafficKey,
    feed::{Line, SetChecksum},
    route::{HostPattern, PathPrefix},
};
use imbl::{OrdMap, OrdSet, Vector};

use crate::{
    change::{Kind, TokenRecord},
    record::Point,
};
pub(crate) use object::Object;

/// An object as it is stored: with the revision that wrote it and its feed line.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The object.
    pub object: T,
    /// The revision that last changed it: its ETag.
    pub revision: u64,
    /// Its line in the feed (and in disk snapshots), encoded once.
    pub line: Arc<Line>,
}

impl<T> Stored<T> {
    /// The object as JSON: the line's value.
    pub fn json(&self) -> &str {
        object::value_of(&self.line)
    }
}

/// A part of the feed: how much it is and when it last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// The sum of the lines' hashes.
    pub checksum: SetChecksum,
    /// How many objects.
    pub objects: u64,
    /// The lines' bytes.
    pub bytes: u64,
    /// The last revision that changed it.
    pub revision: u64,
}

impl Totals {
    fn add(&mut self, line: &Line) {
        self.checksum.add(line.hash);
        self.objects += 1;
        self.bytes += line.bytes.len() as u64 + 1;
    }

    fn remove(&mut self, line: &Line) {
        self.checksum.remove(line.hash);
        self.objects -= 1;
        self.bytes -= line.bytes.len() as u64 + 1;
    }
}

/// A recent change of the feed's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recent {
    pub(crate) revision: u64,
    /// None: what is in every cluster's feed, such as services.
    pub(crate) cluster: Option<Name>,
    pub(crate) kind: Kind,
    pub(crate) key: Arc<str>,
    /// None: it was removed.
    pub(crate) line: Option<Arc<Line>>,
}

/// Everything the registry serves, at one revision.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) epoch: Arc<str>,
    pub(crate) revision: u64,
    /// The last point of the database's history that this state holds. On a branch (the database
    /// is away) `epoch` and `revision` have gone on from it.
    pub(crate) base: Point,
    /// When an operator accepted this history, Unix ms; 0: nobody had to.
    pub(crate) accepted_at: i64,
    pub(crate) degraded: bool,
    clusters: OrdMap<Name, Arc<Stored<Cluster>>>,
    services: OrdMap<Name, Arc<Stored<Service>>>,
    routes: OrdMap<Name, Arc<Stored<Route>>>,
    routes_at: OrdMap<(HostPattern, PathPrefix), Name>,
    routes_of: OrdSet<(Name, Name)>,
    certificates: OrdMap<Name, Arc<Stored<Certificate>>>,
    fallbacks: OrdMap<Name, Arc<Stored<Fallback>>>,
    plugins: OrdMap<Name, Arc<Stored<Plugin>>>,
    traffic: OrdMap<TrafficKey, Arc<Stored<Traffic>>>,
    switches: OrdMap<Name, Arc<Stored<Switch>>>,
    releases: OrdMap<Name, Arc<Stored<Release>>>,
    /// The revision of the last change of an operation, such as a switch.
    operated: u64,
    instances: OrdMap<InstanceKey, Arc<Stored<Instance>>>,
    /// Service, cluster → how many instances.
    instances_of: OrdMap<(Name, Name), u64>,
    /// Effective state, source → how many instances.
    counts: OrdMap<(InstanceState, Source), u64>,
    tokens: OrdMap<Name, Arc<Stored<TokenRecord>>>,
    tokens_by_hash: OrdMap<Arc<str>, Name>,
    stale: u64,
    shared: Totals,
    per_cluster: OrdMap<Name, Totals>,
    pub(crate) recent: Vector<Recent>,
    /// Of the lines in `recent`.
    recent_bytes: usize,
    /// `recent` holds every change after this revision.
    pub(crate) recent_from: u64,
}

impl State {
    /// Nothing, at a point of a history.
    pub(crate) fn empty(base: Point) -> Self {
        Self {
            epoch: base.epoch.clone(),
            revision: base.revision,
            recent_from: base.revision,
            base,
            accepted_at: 0,
            degraded: false,
            clusters: OrdMap::new(),
            services: OrdMap::new(),
            routes: OrdMap::new(),
            routes_at: OrdMap::new(),
            routes_of: OrdSet::new(),
            certificates: OrdMap::new(),
            fallbacks: OrdMap::new(),
            plugins: OrdMap::new(),
            traffic: OrdMap::new(),
            switches: OrdMap::new(),
            releases: OrdMap::new(),
            operated: 0,
            instances: OrdMap::new(),
            instances_of: OrdMap::new(),
            counts: OrdMap::new(),
            tokens: OrdMap::new(),
            tokens_by_hash: OrdMap::new(),
            stale: 0,
            shared: Totals::default(),
            per_cluster: OrdMap::new(),
            recent: Vector::new(),
            recent_bytes: 0,
        }
    }

    /// The history's name.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// The last change's revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Every object's line: of a disk snapshot.
    pub(crate) fn all_lines(&self) -> impl Iterator<Item = &Arc<Line>> {
        (self.clusters.values().map(|s| &s.line))
            .chain(self.services.values().map(|s| &s.line))
            .chain(self.routes.values().map(|s| &s.line))
            .chain(self.certificates.values().map(|s| &s.line))
            .chain(self.fallbacks.values().map(|s| &s.line))
            .chain(self.plugins.values().map(|s| &s.line))
            .chain(self.traffic.values().map(|s| &s.line))
            .chain(self.switches.values().map(|s| &s.line))
            .chain(self.releases.values().map(|s| &s.line))
            .chain(self.tokens.values().map(|s| &s.line))
            .chain(self.instances.values().map(|s| &s.line))
    }

    /// Every object with its revision, in the order in which they can be set: what is written to
    /// an emptied database.
    pub(crate) fn all_rows(&self) -> impl Iterator<Item = (Kind, String, u64, &str)> {
        (self.clusters.iter())
            .map(|(k, s)| (Kind::Cluster, k.to_string(), s.revision, s.json()))
            .chain(
                (self.services.iter())
                    .map(|(k, s)| (Kind::Service, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.routes.iter())
                    .map(|(k, s)| (Kind::Route, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.certificates.iter())
                    .map(|(k, s)| (Kind::Certificate, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.fallbacks.iter())
                    .map(|(k, s)| (Kind::Fallback, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.plugins.iter())
                    .map(|(k, s)| (Kind::Plugin, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.traffic.iter())
                    .map(|(k, s)| (Kind::Traffic, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.switches.iter())
                    .map(|(k, s)| (Kind::Switch, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.releases.iter())
                    .map(|(k, s)| (Kind::Release, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.tokens.iter())
                    .map(|(k, s)| (Kind::Token, k.to_string(), s.revision, s.json())),
            )
            .chain(
                (self.instances.iter())
                    .map(|(k, s)| (Kind::Instance, k.to_string(), s.revision, s.json())),
            )
    }

    /// The lines of a cluster's full feed.
    pub(crate) fn feed_lines<'a>(
        &'a self,
        cluster: &'a Name,
    ) -> impl Iterator<Item = &'a Arc<Line>> {
        (self.clusters.values().map(|s| &s.line))
            .chain(self.services.values().map(|s| &s.line))
            .chain(self.routes.values().map(|s| &s.line))
            .chain(self.certificates.values().map(|s| &s.line))
            .chain(self.fallbacks.values().map(|s| &s.line))
            .chain(self.plugins.values().map(|s| &s.line))
            .chain(self.traffic_of(cluster).map(|s| &s.line))
            .chain(self.instances_in(cluster, None).map(|s| &s.line))
    }

    /// Goes on as another history: nothing that was handed out before can be continued by a delta.
    pub(crate) fn rebase(&mut self, epoch: Arc<str>, revision: u64) {
        self.epoch = epoch;
        self.revision = revision;
        self.recent = Vector::new();
        self.recent_bytes = 0;
        self.recent_from = revision;
        self.touch_all(revision);
    }

    /// Marks every cluster's feed as changed at `revision`.
    pub(crate) fn touch_all(&mut self, revision: u64) {
        self.shared.revision = revision;
    }

    /// After loading: deltas start here.
    pub(crate) fn loaded(&mut self) {
        self.recent = Vector::new();
        self.recent_bytes = 0;
        self.recent_from = self.revision;
        self.touch_all(self.revision);
    }
}

#[cfg(test)]
pub(crate) mod tests;
