//! Whose requests may leave the cluster, and whereto.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cardea_registry_api::{Name, Traffic, TrafficKey};

use super::{Builder, Place, away::Away};
use crate::{
    table::objects::{Dirty, Key, Objects},
    traffic::split::Split,
};

/// The objects' splits, each made once.
#[derive(Debug, Default)]
pub(super) struct Splits(BTreeMap<TrafficKey, (Arc<Traffic>, Arc<Split>)>);

impl Splits {
    fn of(&mut self, traffic: &Arc<Traffic>) -> Arc<Split> {
        let key = traffic.key();
        if let Some((known, split)) = self.0.get(&key)
            && known == traffic
        {
            return Arc::clone(split);
        }
        let split = Arc::new(Split::new(traffic));
        self.0
            .insert(key, (Arc::clone(traffic), Arc::clone(&split)));
        split
    }
}

impl Builder {
    /// Takes over what changed of another cluster's instances; the next table has it.
    pub(crate) fn learn(&mut self, cluster: &Name, objects: &Objects, dirty: &Dirty) {
        self.others.learn(cluster, objects, dirty);
    }

    /// Another cluster is no longer followed; the next table has none of its instances.
    pub(crate) fn forget(&mut self, cluster: &Name) {
        self.others.forget(cluster);
    }

    /// The other clusters whose instances are needed.
    pub(crate) fn needs(&self, objects: &Objects) -> BTreeSet<Name> {
        let named = objects.traffic_of(&self.cluster);
        let named = named.flat_map(|traffic| traffic.others());
        let direct = |name: &&Name| {
            objects
                .cluster(name)
                .is_none_or(|cluster| cluster.gateway.is_empty())
        };
        named.filter(direct).cloned().collect()
    }

    /// The services whose requests go otherwise than in the last table.
    pub(super) fn led_otherwise(&mut self, objects: &Objects) -> BTreeSet<Name> {
        let Self {
            places,
            splits,
            cluster,
            ..
        } = self;
        let mut found = BTreeSet::new();
        for place in &*places {
            let split = objects.traffic(cluster, &place.name);
            let split = split.map(|traffic| splits.of(traffic));
            let as_said = || {
                let protocol = place.policy.protocol;
                let mut away = place.away.iter();
                away.all(|one| one.is_reached_as(objects.cluster(&one.cluster), protocol))
            };
            if split != place.split || !as_said() {
                found.insert(place.name.clone());
            }
        }
        splits
            .0
            .retain(|key, _| objects.has(&Key::Traffic(key.clone())));
        found
    }

    /// Takes over where a service's requests go.
    pub(super) fn lead(&mut self, at: usize, objects: &Objects) {
        let place = &mut self.places[at];
        let traffic = objects.traffic(&self.cluster, &place.name);
        place.lead(traffic.map(|traffic| self.splits.of(traffic)));
    }
}

impl Place {
    fn lead(&mut self, split: Option<Arc<Split>>) {
        if self.split == split {
            return;
        }
        let wanted: &[Name] = split.as_ref().map_or(&[], |split| &split.clusters[1..]);
        let mut before = std::mem::take(&mut self.away);
        for cluster in wanted {
            let known = before.iter().position(|away| away.cluster == *cluster);
            self.away.push(match known {
                Some(at) => before.swap_remove(at),
                None => Away::new(cluster.clone()),
            });
        }
        self.gone.append(&mut before);
        self.split = split;
    }
}
