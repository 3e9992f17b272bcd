//! What tables leave behind. A worker lets go of an old table when a request finds a newer one. Were
//! it the last who had it, it would free ten thousand routes, or an upstream of as many peers, in the
//! middle of that request. So the control thread keeps what is replaced until nobody else has it, and
//! frees it itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{shared::Shared, table::Table, upstream::Upstream};

/// How soon it looks whether the workers have let go, and how seldom at most: a worker without
/// requests lets go of nothing.
const SOON: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_secs(10);

/// Tables and upstreams that were replaced.
#[derive(Debug, Default)]
pub(crate) struct Retired(Mutex<Vec<Thing>>);

#[derive(Debug)]
enum Thing {
    Table(Arc<Table>),
    Upstream(Arc<Upstream>),
}

impl Thing {
    /// Nobody can get hold of it again who does not have it.
    fn is_free(&self) -> bool {
        match self {
            Self::Table(table) => Arc::strong_count(table) == 1,
            Self::Upstream(upstream) => Arc::strong_count(upstream) == 1,
        }
    }
}

impl Retired {
    /// Keeps a table that `new` has replaced, with those of its upstreams that `new` lacks.
    pub(crate) fn keep(&self, old: Arc<Table>, new: &Table) {
        let mut things = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, upstream) in old.slots.iter().enumerate() {
            let Some(upstream) = upstream else { continue };
            let now = new.upstream_at(slot);
            if now.is_none_or(|now| !Arc::ptr_eq(now, upstream)) {
                things.push(Thing::Upstream(Arc::clone(upstream)));
            }
        }
        things.push(Thing::Table(old));
    }

    /// Frees what nobody has any more; tells how much is left.
    pub(crate) fn sweep(&self) -> usize {
        let mut things = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Tables first: they have upstreams.
        things.retain(|thing| !matches!(thing, Thing::Table(_)) || !thing.is_free());
        things.retain(|thing| !thing.is_free());
        things.len()
    }
}

/// Sweeps until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut tables = shared.watch();
    while tables.changed().await.is_ok() {
        let mut pause = SOON;
        loop {
            tokio::time::sleep(pause).await;
            if shared.retired.sweep() == 0 {
                break;
            }
            pause = (pause * 2).min(SELDOM);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use cardea_registry_api::Service;

    use super::*;
    use crate::fixtures::{World, instance, name};

    #[test]
    fn what_is_replaced_is_kept_until_nobody_else_has_it() {
        let mut world = World::with(Service::named(name("s")), &[100]);
        let held = world.shared.table_full().unwrap();
        let upstream = Arc::downgrade(&world.upstream("s"));
        let table = Arc::downgrade(&held);
        world.instance(instance("s", 1, 100));
        world.publish(Instant::now());
        assert_eq!(world.shared.retired.sweep(), 2, "a table and an upstream");
        drop(held);
        assert!(
            table.upgrade().is_some(),
            "not whoever lets go last frees it"
        );
        assert!(upstream.upgrade().is_some());
        assert_eq!(world.shared.retired.sweep(), 0);
        assert!(table.upgrade().is_none() && upstream.upgrade().is_none());
    }

    #[test]
    fn an_upstream_is_kept_for_who_has_nothing_else_of_its_table() {
        let mut world = World::with(Service::named(name("s")), &[100]);
        let held = world.upstream("s");
        world.instance(instance("s", 1, 100));
        world.publish(Instant::now());
        assert_eq!(world.shared.retired.sweep(), 1);
        let weak = Arc::downgrade(&held);
        drop(held);
        assert!(weak.upgrade().is_some());
        assert_eq!(world.shared.retired.sweep(), 0);
        assert!(weak.upgrade().is_none());
    }
}
