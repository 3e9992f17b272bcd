//! What those who follow registries for one router share: the builder that makes tables of all that they
//! have, and what another process that takes over asks of all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use cardea_registry_api::Name;
use tokio::sync::watch;

use super::{kept::Kept, replica::Replica};
use crate::{
    shared::Shared,
    table::{
        Origin,
        builder::{Builder, Stamp},
        objects::Dirty,
    },
};

/// All followers of one router, seen from each of them.
#[derive(Debug)]
pub(super) struct Company {
    pub(super) shared: Arc<Shared>,
    /// The own cluster's set.
    pub(super) home: Arc<Kept>,
    work: Mutex<Work>,
    /// The other clusters whose instances are needed.
    pub(super) needed: watch::Sender<BTreeSet<Name>>,
    others: Mutex<BTreeMap<Name, Arc<Member>>>,
    /// The own cluster's set is the newest.
    confirmed: AtomicBool,
    /// Whoever learns something next dies of it.
    #[cfg(test)]
    pub(super) deadly: AtomicBool,
}

#[derive(Debug)]
struct Work {
    builder: Builder,
    origin: Origin,
}

/// One who follows another cluster.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kept: Arc<Kept>,
    /// Under which name the router was last heard of for it.
    pub(super) heard: watch::Sender<Arc<str>>,
    /// A registry has answered, or none does.
    settled: AtomicBool,
}

impl Member {
    pub(super) fn new(replica: Replica) -> Self {
        Self {
            kept: Arc::new(Kept::new(replica)),
            heard: watch::Sender::new("".into()),
            settled: AtomicBool::new(false),
        }
    }
}

impl Company {
    pub(super) fn new(shared: Arc<Shared>, home: Arc<Kept>, builder: Builder) -> Self {
        Self {
            shared,
            home,
            work: Mutex::new(Work {
                builder,
                origin: Origin::Registry,
            }),
            needed: watch::Sender::new(BTreeSet::new()),
            others: Mutex::default(),
            confirmed: AtomicBool::new(false),
            #[cfg(test)]
            deadly: AtomicBool::new(false),
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Member>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who follows other clusters.
    pub(super) fn members(&self) -> Vec<(Name, Arc<Member>)> {
        let others = self.others();
        others
            .iter()
            .map(|(name, member)| (name.clone(), Arc::clone(member)))
            .collect()
    }

    pub(super) fn member(&self, cluster: &Name) -> Option<Arc<Member>> {
        self.others().get(cluster).cloned()
    }

    /// Somebody follows another cluster, of which so much is known already.
    pub(super) fn join(&self, cluster: &Name, replica: Replica) -> Arc<Member> {
        let member = Arc::new(Member::new(replica));
        self.others().insert(cluster.clone(), Arc::clone(&member));
        let replica = member.kept.lock();
        let everything = replica.everything();
        let mut work = self.work();
        work.builder.learn(cluster, replica.objects(), &everything);
        drop((work, replica));
        member
    }

    /// Nobody follows it any more.
    pub(super) fn leave(&self, cluster: &Name) {
        self.others().remove(cluster);
        self.work().builder.forget(cluster);
        self.publish(&Dirty::default(), None, Instant::now());
        self.confirm_if_all_have();
    }

    /// What the own cluster's objects need; whether that is news is seen by who follows the others.
    pub(super) fn needs(&self) -> BTreeSet<Name> {
        let replica = self.home.lock();
        self.work().builder.needs(replica.objects())
    }

    /// Another cluster's set has changed.
    pub(super) fn learn(&self, cluster: &Name, kept: &Kept, dirty: &Dirty, began: Instant) {
        #[cfg(test)]
        assert!(
            !self.deadly.swap(false, Ordering::AcqRel),
            "as the test asks"
        );
        let replica = kept.lock();
        self.work().builder.learn(cluster, replica.objects(), dirty);
        drop(replica);
        self.publish(&Dirty::default(), None, began);
    }

    /// Makes a table of what there is, and swaps it in. `origin`: the own cluster's set is from there now.
    pub(super) fn publish(&self, dirty: &Dirty, origin: Option<Origin>, began: Instant) {
        let replica = self.home.lock();
        let Some(position) = replica.position() else {
            return;
        };
        let mut work = self.work();
        work.origin = origin.unwrap_or(work.origin);
        let stamp = Stamp {
            epoch: Arc::clone(&position.epoch),
            revision: position.revision,
            origin: work.origin,
        };
        let start = Instant::now();
        let built = work.builder.build(replica.objects(), dirty, stamp, start);
        built.publish(&self.shared);
        let counts = &self.shared.counts;
        counts.builds.observe(start.elapsed());
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.apply_micros.store(micros, Ordering::Relaxed);
        let skipped = replica.skipped().chain(work.builder.refused());
        self.shared.set_alarms("skipped_object", skipped);
        let needs = work.builder.needs(replica.objects());
        drop((work, replica));
        self.needed.send_if_modified(|before| {
            let news = *before != needs;
            *before = needs;
            news
        });
    }

    /// The own cluster's set is the newest there is.
    pub(super) fn confirm(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
        if self.shared.confirmed_at() > 0 {
            self.shared.confirm();
        } else {
            self.confirm_if_all_have();
        }
    }

    /// A registry has answered for another cluster, or none does: nobody waits for it.
    pub(super) fn settle(&self, member: &Member) {
        if !member.settled.swap(true, Ordering::Relaxed) {
            self.confirm_if_all_have();
        }
    }

    /// The first time, the table is confirmed only with all clusters: whoever takes over from another
    /// process is waited for by the registry, from then on, wherever instances go.
    fn confirm_if_all_have(&self) {
        let needed = self.needed.borrow().clone();
        let others = self.others();
        let all = needed.iter().all(|name| {
            let member = others.get(name);
            member.is_some_and(|member| member.settled.load(Ordering::Relaxed))
        });
        drop(others);
        if all && self.confirmed.load(Ordering::Relaxed) && self.shared.confirmed_at() == 0 {
            self.shared.confirm();
        }
    }
}
