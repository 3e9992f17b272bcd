//! What changes of routes do to the table's index, one route at a time. Two routes may mean the same
//! requests: then the one with the lowest id stands and the others wait, named, until it goes. What
//! comes of a set of routes does not depend on how they came.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cardea_registry_api::{Name, Route};

use super::{Place, RouteEntry, Routes, routes::Key};

/// All routes that there are, and the index over those that stand.
#[derive(Debug, Default)]
pub(super) struct Index {
    routes: Routes,
    /// By id; none: no request can match it.
    known: HashMap<Name, Option<Arc<RouteEntry>>>,
    /// Why no request can match them.
    unmatched: BTreeMap<Name, String>,
    /// Routes that mean what another one means that stands, by that and their ids.
    waiting: BTreeMap<Key, BTreeMap<Name, Arc<RouteEntry>>>,
    /// How many of a host's keys have a bit.
    depths: HashMap<(u64, u32), usize>,
    /// How many keys a host has.
    hosts: HashMap<u64, usize>,
}

impl Index {
    /// The routes that stand.
    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Puts a route in, instead of the one that has its id.
    pub(super) fn set(&mut self, route: &Arc<Route>, place: Place) {
        self.remove(&route.id);
        let id = route.id.clone();
        let key = match Key::new(&route.host, route.prefix.as_str()) {
            Ok(key) => key,
            Err(bad) => {
                let why = format!("prefix: no request can match `{}`: {bad}", route.prefix);
                self.unmatched.insert(id.clone(), why);
                self.known.insert(id, None);
                return;
            }
        };
        let entry = Arc::new(RouteEntry::new(route, key, place));
        self.known.insert(id, Some(Arc::clone(&entry)));
        match self.routes.get(&entry.key).cloned() {
            None => {
                let (host, bit) = (entry.key.host_hash(), entry.key.bit());
                let count = self.depths.entry((host, bit)).or_default();
                *count += 1;
                if *count == 1 {
                    self.routes.mark(host, bit, true);
                }
                *self.hosts.entry(host).or_default() += 1;
                self.put(&entry);
            }
            Some(stands) if stands.id < entry.id => self.wait(entry),
            Some(stands) => {
                self.wait(stands);
                self.put(&entry);
            }
        }
    }

    /// Takes a route out, if it is there.
    pub(super) fn remove(&mut self, id: &Name) {
        let Some(entry) = self.known.remove(id) else {
            return;
        };
        let Some(entry) = entry else {
            self.unmatched.remove(id);
            return;
        };
        let key = &entry.key;
        let stands = self.routes.get(key).is_some_and(|stands| stands.id == *id);
        let next = match self.waiting.get_mut(key) {
            None => None,
            Some(waiting) => {
                let next = if stands {
                    waiting.pop_first().map(|(_, next)| next)
                } else {
                    waiting.remove(id);
                    None
                };
                if waiting.is_empty() {
                    self.waiting.remove(key);
                }
                next
            }
        };
        match next {
            Some(next) => self.put(&next),
            None if stands => {
                self.routes.remove(key);
                let at = (key.host_hash(), key.bit());
                if let Some(keys) = self.hosts.get_mut(&at.0) {
                    *keys -= 1;
                    if *keys == 0 {
                        self.hosts.remove(&at.0);
                    }
                }
                if let Some(count) = self.depths.get_mut(&at) {
                    *count -= 1;
                    if *count == 0 {
                        self.depths.remove(&at);
                        self.routes.mark(at.0, at.1, false);
                    }
                }
            }
            None => {}
        }
    }

    /// Routes that do not stand, by their ids, and why.
    pub(super) fn refused(&self) -> impl Iterator<Item = (Name, String)> {
        let doubled = self.waiting.iter().flat_map(|(key, waiting)| {
            let stands = self.routes.get(key);
            waiting.values().map(move |entry| {
                let by = stands.map_or("", |stands| stands.id.as_str());
                let Route { host, prefix, .. } = &*entry.route;
                let why = format!(
                    "prefix: route `{by}` takes host `{host}` and prefix `{prefix}` already"
                );
                (entry.id.clone(), why)
            })
        });
        let unmatched = self.unmatched.iter();
        unmatched
            .map(|(id, why)| (id.clone(), why.clone()))
            .chain(doubled)
            .collect::<BTreeMap<_, _>>()
            .into_iter()
    }

    /// Has a route stand, whose key has been counted.
    fn put(&mut self, entry: &Arc<RouteEntry>) {
        self.routes.set(entry);
        let host = entry.key.host_hash();
        match self.hosts.get(&host) {
            Some(1) => self.routes.is_only(host, Some(entry)),
            // From three on it has been said.
            Some(2) => self.routes.is_only(host, None),
            _ => {}
        }
    }

    fn wait(&mut self, entry: Arc<RouteEntry>) {
        let waiting = self.waiting.entry(entry.key.clone()).or_default();
        waiting.insert(entry.id.clone(), entry);
    }
}

#[cfg(test)]
mod tests;
