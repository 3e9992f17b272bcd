//! The routers that ask for the feed, and what each of them has proved to have applied.
//!
//! Each replica knows the routers that poll it; the `routers` table is how replicas tell one another.
//! A router's open poll, or one that ended lately, makes it live: it counts for acknowledgements.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cardea_registry_api::{Name, api::RouterInfo};
use tokio::sync::watch;

use crate::clock::Clock;

type Key = (Name, String);

#[derive(Debug)]
pub(crate) struct Routers {
    inner: Mutex<Inner>,
    /// Counts what was proved: who waits for acknowledgements looks again.
    proofs: watch::Sender<u64>,
    clock: Clock,
    /// How long a router stays live after its last poll, ms.
    live: i64,
}

#[derive(Debug, Default)]
struct Inner {
    here: HashMap<Key, Router>,
    elsewhere: HashMap<Key, RouterInfo>,
}

#[derive(Debug)]
struct Router {
    version: String,
    kinds: Option<Arc<[String]>>,
    epoch: String,
    revision: u64,
    last_seen: i64,
    open: u32,
    /// Not yet in the table.
    untold: bool,
    /// Was in the table once.
    told: bool,
}

/// A router's poll, while it lasts.
#[derive(Debug)]
pub(crate) struct Poll {
    routers: Arc<Routers>,
    key: Key,
}

impl Drop for Poll {
    fn drop(&mut self) {
        let now = self.routers.clock.now();
        if let Some(router) = self.routers.inner().here.get_mut(&self.key) {
            router.open = router.open.saturating_sub(1);
            router.last_seen = now;
        }
    }
}

impl Routers {
    pub(crate) fn new(clock: Clock, live: i64) -> Self {
        Self {
            inner: Mutex::new(Inner::default()),
            proofs: watch::Sender::new(0),
            clock,
            live,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poll begins. `after` is the proof of what the router applied.
    pub(crate) fn poll(
        self: &Arc<Self>,
        cluster: &Name,
        id: &str,
        (version, kinds): (&str, Option<&Arc<[String]>>),
        after: Option<&(String, u64)>,
    ) -> Poll {
        let key = (cluster.clone(), id.to_owned());
        let now = self.clock.now();
        let mut inner = self.inner();
        let router = inner.here.entry(key.clone()).or_insert_with(|| Router {
            version: String::new(),
            kinds: None,
            epoch: String::new(),
            revision: 0,
            last_seen: now,
            open: 0,
            untold: true,
            told: false,
        });
        router.open += 1;
        router.last_seen = now;
        router.kinds = kinds.cloned();
        if router.version != version {
            version.clone_into(&mut router.version);
            router.untold = true;
        }
        // A router that lost its table starts over: then it has proved nothing.
        let (epoch, revision) = after.map_or(("", 0), |(epoch, revision)| (epoch, *revision));
        if router.epoch != epoch || router.revision != revision {
            epoch.clone_into(&mut router.epoch);
            router.revision = revision;
            router.untold = true;
            drop(inner);
            self.proofs.send_modify(|count| *count += 1);
        }
        Poll {
            routers: Arc::clone(self),
            key,
        }
    }

    /// Moves whenever a router proves something.
    pub(crate) fn proofs(&self) -> watch::Receiver<u64> {
        self.proofs.subscribe()
    }

    /// A router says goodbye; whether it was known.
    pub(crate) fn forget(&self, cluster: &Name, id: &str) -> bool {
        let key = (cluster.clone(), id.to_owned());
        let mut inner = self.inner();
        let here = inner.here.remove(&key).is_some();
        let known = inner.elsewhere.remove(&key).is_some() || here;
        drop(inner);
        self.proofs.send_modify(|count| *count += 1);
        known
    }

    /// All that are known, by cluster and id.
    pub(crate) fn list(&self, cluster: Option<&Name>) -> Vec<RouterInfo> {
        let now = self.clock.now();
        let inner = self.inner();
        let mut all: HashMap<&Key, RouterInfo> = inner
            .elsewhere
            .iter()
            .map(|(key, router)| (key, router.clone()))
            .collect();
        for (key, router) in &inner.here {
            let last_seen = if router.open > 0 {
                now
            } else {
                router.last_seen
            };
            if all
                .get(key)
                .is_some_and(|other| other.last_seen > last_seen)
            {
                continue; // It has moved to another replica.
            }
            all.insert(key, info(key, router, last_seen));
        }
        let mut list: Vec<RouterInfo> = all
            .into_values()
            .filter(|router| cluster.is_none_or(|cluster| router.cluster == *cluster))
            .collect();
        for router in &mut list {
            router.live = now - router.last_seen < self.live;
        }
        list.sort_by(|a, b| (&a.cluster, &a.id).cmp(&(&b.cluster, &b.id)));
        list
    }

    /// Whether a router of the cluster asks this very replica.
    pub(crate) fn has_here(&self, cluster: &Name) -> bool {
        let now = self.clock.now();
        (self.inner().here.iter()).any(|((of, id), router)| {
            of == cluster
                && !id.contains('/')
                && (router.open > 0 || now - router.last_seen < self.live)
        })
    }

    /// What the table does not have yet; all of this replica's if `all`.
    pub(crate) fn untold(&self, all: bool) -> Vec<RouterInfo> {
        let now = self.clock.now();
        let mut inner = self.inner();
        inner
            .here
            .iter_mut()
            .filter(|(_, router)| router.untold || (all && router.open > 0))
            .map(|(key, router)| {
                router.untold = false;
                router.told = true;
                let last_seen = if router.open > 0 {
                    now
                } else {
                    router.last_seen
                };
                info(key, router, last_seen)
            })
            .collect()
    }

    /// The table could not be written.
    pub(crate) fn still_untold(&self, routers: &[RouterInfo]) {
        let mut inner = self.inner();
        for router in routers {
            let key = (router.cluster.clone(), router.id.clone());
            if let Some(router) = inner.here.get_mut(&key) {
                router.untold = true;
            }
        }
    }

    /// What the table has. Who said goodbye to another replica is no longer in it.
    pub(crate) fn learn(&self, table: Vec<RouterInfo>) {
        let mut inner = self.inner();
        let old = std::mem::take(&mut inner.elsewhere);
        inner.elsewhere = table
            .into_iter()
            .map(|router| ((router.cluster.clone(), router.id.clone()), router))
            .collect();
        let Inner { here, elsewhere } = &mut *inner;
        here.retain(|key, router| {
            router.open > 0 || router.untold || !router.told || elsewhere.contains_key(key)
        });
        let moved = old.len() != elsewhere.len()
            || elsewhere.iter().any(|(key, router)| {
                old.get(key).is_none_or(|old| {
                    (&old.epoch, old.revision) != (&router.epoch, router.revision)
                })
            });
        drop(inner);
        if moved {
            self.proofs.send_modify(|count| *count += 1);
        }
    }

    /// Forgets who was last seen before `before`.
    pub(crate) fn sweep(&self, before: i64) {
        let mut inner = self.inner();
        inner
            .here
            .retain(|_, router| router.open > 0 || router.last_seen >= before);
        inner
            .elsewhere
            .retain(|_, router| router.last_seen >= before);
    }
}

fn info((cluster, id): &Key, router: &Router, last_seen: i64) -> RouterInfo {
    RouterInfo {
        id: id.clone(),
        cluster: cluster.clone(),
        version: router.version.clone(),
        epoch: router.epoch.clone(),
        revision: router.revision,
        last_seen,
        live: false,
        plugin_kinds: router.kinds.as_ref().map(|kinds| kinds.to_vec()),
        unknown_plugins: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::name;

    fn routers() -> Arc<Routers> {
        Arc::new(Routers::new(Clock::new(), 30_000))
    }

    #[test]
    fn asking_after_a_revision_is_the_proof() {
        let routers = routers();
        let mut proofs = routers.proofs();
        let first = routers.poll(&name("a"), "r1", ("0.1", None), None);
        assert_eq!(routers.list(None)[0].revision, 0);
        proofs.borrow_and_update();
        drop(first);
        let _second = routers.poll(&name("a"), "r1", ("0.1", None), Some(&("e".into(), 7)));
        assert!(proofs.has_changed().unwrap());
        let listed = routers.list(Some(&name("a")));
        assert_eq!((listed[0].revision, listed[0].live), (7, true));
        assert!(routers.list(Some(&name("b"))).is_empty());
        assert!(routers.forget(&name("a"), "r1"));
        assert!(!routers.forget(&name("a"), "r1"));
    }

    #[test]
    fn the_replica_that_saw_a_router_last_is_right_and_goodbyes_spread() {
        let routers = routers();
        drop(routers.poll(&name("a"), "r1", ("0.1", None), Some(&("e".into(), 7))));
        let told = routers.untold(false);
        assert_eq!(told.len(), 1);
        assert!(routers.untold(false).is_empty());
        let mut newer = told.clone();
        newer[0].revision = 9;
        newer[0].last_seen += 10;
        routers.learn(newer);
        assert_eq!(routers.list(None)[0].revision, 9);
        routers.learn(Vec::new());
        assert!(routers.list(None).is_empty());
    }
}
