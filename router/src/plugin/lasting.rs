//! What of plugins outlives tables and changes, shared by the control thread and the workers: what
//! they said, what breakers know, and how many routers share a limit.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use cardea_registry_api::{Name, plugin::Kind};

use super::{
    Bound,
    breaker::{Breaking, Guarded, Report},
    mirror,
    said::Tally,
    share::Share,
};

/// What of plugins outlives tables and changes.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    tallies: Mutex<BTreeMap<TallyKey, Arc<AtomicU64>>>,
    /// What became of copies.
    copies: Mutex<BTreeMap<Name, Arc<mirror::Counts>>>,
    breakers: Mutex<BTreeMap<(Name, Name), Arc<Guarded>>>,
    /// This router's share of what is divided among routers.
    pub(crate) share: Arc<Share>,
}

/// Plugin, kind and verdict.
type TallyKey = (Name, Kind, Box<str>);

impl Lasting {
    pub(super) fn tally(&self, plugin: &Name, kind: Kind, verdict: &str) -> Tally {
        let key = (plugin.clone(), kind, verdict.into());
        Tally {
            verdict: verdict.into(),
            count: Arc::clone(lock(&self.tallies).entry(key).or_default()),
        }
    }

    /// Plugin, kind, verdict and how often.
    pub(crate) fn tallies(&self, mut see: impl FnMut(&Name, Kind, &str, u64)) {
        for ((plugin, kind, verdict), count) in lock(&self.tallies).iter() {
            see(plugin, *kind, verdict, count.load(Relaxed));
        }
    }

    pub(super) fn copies_of(&self, plugin: &Name) -> Arc<mirror::Counts> {
        Arc::clone(lock(&self.copies).entry(plugin.clone()).or_default())
    }

    /// Plugins that send copies, and what became of these.
    pub(crate) fn copies(&self) -> Vec<(Name, Arc<mirror::Counts>)> {
        let copies = lock(&self.copies);
        let each = copies.iter();
        each.map(|(name, counts)| (name.clone(), Arc::clone(counts)))
            .collect()
    }

    /// A plugin's breaker at a service, which knows what one before it knew.
    pub(super) fn breaker(
        &self,
        plugin: &Name,
        service: &Name,
        bound: &Arc<Bound<Breaking>>,
    ) -> Arc<Guarded> {
        let mut breakers = lock(&self.breakers);
        let key = (plugin.clone(), service.clone());
        let before = breakers.get(&key);
        if let Some(same) = before.filter(|guarded| Arc::ptr_eq(&guarded.bound, bound)) {
            return Arc::clone(same);
        }
        let guarded = Arc::new(Guarded {
            bound: Arc::clone(bound),
            standing: before.map_or_else(Arc::default, |before| Arc::clone(&before.standing)),
        });
        breakers.insert(key, Arc::clone(&guarded));
        guarded
    }

    /// Forgets what belongs to a plugin that is gone.
    pub(super) fn forget(&self, plugin: &Name) {
        lock(&self.breakers).retain(|(of, _), _| of != plugin);
    }

    /// Plugin, service and how it stands, where requests are under it.
    pub(crate) fn breakers(&self) -> Vec<(Name, Name, Report)> {
        let breakers = lock(&self.breakers);
        let in_use = breakers
            .iter()
            .filter(|(_, guarded)| Arc::strong_count(guarded) > 1);
        in_use
            .map(|((plugin, service), guarded)| (plugin.clone(), service.clone(), guarded.report()))
            .collect()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
