//! Putting objects in and taking them out, with everything that is derived from them: the indexes,
//! the counts, the feed's sums and the recent changes.

use std::sync::Arc;

use cardea_registry_api::{
    Instance, InstanceKey, Name, TrafficKey,
    feed::{FeedError, Line},
};
use imbl::OrdMap;

use super::{Object, Recent, State, Stored};
use crate::change::Kind;

/// How many recent changes are kept for deltas.
const RECENT: usize = 20_000;
/// And how many bytes of lines: the bodies of fallbacks are large.
const RECENT_BYTES: usize = 64 << 20;

impl State {
    /// Puts an object in its place; `None` when the object's text cannot be made.
    pub(crate) fn set(&mut self, object: Object, revision: u64) -> Result<Arc<Line>, FeedError> {
        let line = Arc::new(object.line()?);
        let key = object.key();
        let cluster = object.cluster();
        let kind = object.kind();
        // An instance takes the place of its former self: what is the same is not touched.
        if kind != Kind::Instance {
            self.unindex(kind, &key);
        }
        let stored = Arc::clone(&line);
        match object {
            Object::Cluster(object) => {
                let name = object.name.clone();
                self.clusters.insert(name, pack(object, revision, stored));
            }
            Object::Service(object) => {
                let name = object.name.clone();
                self.services.insert(name, pack(*object, revision, stored));
            }
            Object::Route(object) => {
                let at = (object.host.clone(), object.prefix.clone());
                self.routes_at.insert(at, object.id.clone());
                self.routes_of
                    .insert((object.service.clone(), object.id.clone()));
                let id = object.id.clone();
                self.routes.insert(id, pack(object, revision, stored));
            }
            Object::Certificate(object) => {
                let name = object.name.clone();
                self.certificates
                    .insert(name, pack(*object, revision, stored));
            }
            Object::Fallback(object) => {
                let name = object.name.clone();
                self.fallbacks.insert(name, pack(object, revision, stored));
            }
            Object::Plugin(object) => {
                let name = object.name.clone();
                self.plugins.insert(name, pack(*object, revision, stored));
            }
            Object::Traffic(object) => {
                let key = object.key();
                self.traffic.insert(key, pack(*object, revision, stored));
            }
            Object::Switch(object) => {
                let id = object.id.clone();
                self.switches.insert(id, pack(*object, revision, stored));
                self.operated = revision;
            }
            Object::Release(object) => {
                let id = object.id.clone();
                self.releases.insert(id, pack(*object, revision, stored));
                self.operated = revision;
            }
            Object::Token(object) => {
                self.tokens_by_hash
                    .insert(object.sha256.as_str().into(), object.name.clone());
                let name = object.name.clone();
                self.tokens.insert(name, pack(object, revision, stored));
            }
            Object::Instance(object) => self.place(pack(*object, revision, stored)),
        }
        self.tell(kind, &key, cluster, revision, Some(&line));
        Ok(line)
    }

    /// Puts an instance in its place, and counts it there instead of its former self.
    fn place(&mut self, new: Arc<Stored<Instance>>) {
        let instance = &new.object;
        let key = instance.key();
        let counted = (instance.effective_state(), instance.source);
        self.stale += u64::from(instance.stale_since.is_some());
        let Some(place) = self.instances.get_mut(&key) else {
            let service = (instance.service.clone(), instance.cluster.clone());
            self.instances.insert(key, new);
            count(&mut self.instances_of, service, 1);
            count(&mut self.counts, counted, 1);
            return;
        };
        let old = std::mem::replace(place, new);
        let before = (old.object.effective_state(), old.object.source);
        if before != counted {
            count(&mut self.counts, before, -1);
            count(&mut self.counts, counted, 1);
        }
        self.stale -= u64::from(old.object.stale_since.is_some());
        if let Some(totals) = self.per_cluster.get_mut(&key.cluster) {
            totals.remove(&old.line);
        }
    }

    /// Takes an object away; whether it was there.
    pub(crate) fn unset(&mut self, kind: Kind, key: &str, revision: u64) -> bool {
        let cluster = match kind {
            Kind::Instance => key.parse::<InstanceKey>().ok().map(|key| key.cluster),
            Kind::Traffic => key.parse::<TrafficKey>().ok().map(|key| key.cluster),
            _ => None,
        };
        if !self.unindex(kind, key) {
            return false;
        }
        self.tell(kind, key, cluster, revision, None);
        true
    }

    /// Takes an object out of the maps, the indexes and the sums.
    fn unindex(&mut self, kind: Kind, key: &str) -> bool {
        match kind {
            Kind::Cluster => match self.clusters.remove(key) {
                Some(old) => {
                    self.shared.remove(&old.line);
                    true
                }
                None => false,
            },
            Kind::Service => match self.services.remove(key) {
                Some(old) => {
                    self.shared.remove(&old.line);
                    true
                }
                None => false,
            },
            Kind::Route => match self.routes.remove(key) {
                Some(old) => {
                    let route = &old.object;
                    self.routes_at
                        .remove(&(route.host.clone(), route.prefix.clone()));
                    self.routes_of
                        .remove(&(route.service.clone(), route.id.clone()));
                    self.shared.remove(&old.line);
                    true
                }
                None => false,
            },
            Kind::Certificate => match self.certificates.remove(key) {
                Some(old) => {
                    self.shared.remove(&old.line);
                    true
                }
                None => false,
            },
            Kind::Fallback => match self.fallbacks.remove(key) {
                Some(old) => {
                    self.shared.remove(&old.line);
                    true
                }
                None => false,
            },
            Kind::Plugin => match self.plugins.remove(key) {
                Some(old) => {
                    self.shared.remove(&old.line);
                    true
                }
                None => false,
            },
            Kind::Traffic => {
                let Ok(parsed) = key.parse::<TrafficKey>() else {
                    return false;
                };
                let Some(old) = self.traffic.remove(&parsed) else {
                    return false;
                };
                if let Some(totals) = self.per_cluster.get_mut(&parsed.cluster) {
                    totals.remove(&old.line);
                }
                true
            }
            Kind::Switch => self.switches.remove(key).is_some(),
            Kind::Release => self.releases.remove(key).is_some(),
            Kind::Token => match self.tokens.remove(key) {
                Some(old) => {
                    self.tokens_by_hash.remove(old.object.sha256.as_str());
                    true
                }
                None => false,
            },
            Kind::Instance => {
                let Ok(parsed) = key.parse::<InstanceKey>() else {
                    return false;
                };
                let Some(old) = self.instances.remove(&parsed) else {
                    return false;
                };
                let instance = &old.object;
                count(
                    &mut self.instances_of,
                    (instance.service.clone(), instance.cluster.clone()),
                    -1,
                );
                count(
                    &mut self.counts,
                    (instance.effective_state(), instance.source),
                    -1,
                );
                self.stale -= u64::from(instance.stale_since.is_some());
                if let Some(totals) = self.per_cluster.get_mut(&parsed.cluster) {
                    totals.remove(&old.line);
                }
                true
            }
            Kind::History | Kind::Newer => false,
        }
    }

    /// Keeps the feed's sums and recent changes.
    fn tell(
        &mut self,
        kind: Kind,
        key: &str,
        cluster: Option<Name>,
        revision: u64,
        line: Option<&Arc<Line>>,
    ) {
        let totals = match (kind, &cluster) {
            (
                Kind::Cluster
                | Kind::Service
                | Kind::Route
                | Kind::Certificate
                | Kind::Fallback
                | Kind::Plugin,
                _,
            ) => &mut self.shared,
            (Kind::Instance | Kind::Traffic, Some(cluster)) => {
                self.per_cluster.entry(cluster.clone()).or_default()
            }
            _ => return,
        };
        if let Some(line) = line {
            totals.add(line);
        }
        totals.revision = totals.revision.max(revision);
        self.recent.push_back(Recent {
            revision,
            cluster,
            kind,
            key: key.into(),
            line: line.cloned(),
        });
        self.recent_bytes += line.map_or(0, |line| line.bytes.len());
        while self.recent.len() > RECENT || self.recent_bytes > RECENT_BYTES {
            let Some(gone) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= gone.line.map_or(0, |line| line.bytes.len());
            self.recent_from = gone.revision;
        }
    }
}

fn pack<T>(object: T, revision: u64, line: Arc<Line>) -> Arc<Stored<T>> {
    Arc::new(Stored {
        object,
        revision,
        line,
    })
}

fn count<K: Ord + Clone>(counts: &mut OrdMap<K, u64>, key: K, by: i64) {
    let now = counts
        .get(&key)
        .copied()
        .unwrap_or_default()
        .saturating_add_signed(by);
    if now == 0 {
        counts.remove(&key);
    } else {
        counts.insert(key, now);
    }
}
