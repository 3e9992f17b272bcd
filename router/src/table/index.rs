//! What changes of routes do to the table's index, one route at a time. Two routes may mean the same
//! requests: then the one with the lowest id stands and the others wait, named, until it goes. What
//! comes of a set of routes does not depend on how they came.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cardea_registry_api::{Name, Route};

use super::{
    Place, RouteEntry, Routes,
    routes::{Host, Key},
};

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
    hosts: HashMap<u64, Keys>,
}

/// The keys of the hosts with some hash.
#[derive(Debug, Default)]
struct Keys {
    count: usize,
    /// All their bits.
    depths: u64,
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
                *self.depths.entry((host, bit)).or_default() += 1;
                let keys = self.hosts.entry(host).or_default();
                keys.count += 1;
                keys.depths |= 1 << bit;
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
                self.forget(key.host_hash(), key.bit());
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
        if let Some(keys) = self.hosts.get(&host) {
            let known = match keys.count {
                1 => Host::Only(Arc::clone(entry), entry.index),
                _ => Host::Depths(keys.depths),
            };
            self.routes.know(host, Some(known));
        }
    }

    /// A key with this bit is gone. One that is left is not sought for, to be the only one again.
    fn forget(&mut self, host: u64, bit: u32) {
        let Some(keys) = self.hosts.get_mut(&host) else {
            return;
        };
        keys.count -= 1;
        if let Some(count) = self.depths.get_mut(&(host, bit)) {
            *count -= 1;
            if *count == 0 {
                self.depths.remove(&(host, bit));
                keys.depths &= !(1 << bit);
            }
        }
        let known = (keys.count > 0).then_some(Host::Depths(keys.depths));
        if known.is_none() {
            self.hosts.remove(&host);
        }
        self.routes.know(host, known);
    }

    fn wait(&mut self, entry: Arc<RouteEntry>) {
        let waiting = self.waiting.entry(entry.key.clone()).or_default();
        waiting.insert(entry.id.clone(), entry);
    }
}

#[cfg(test)]
mod tests;
