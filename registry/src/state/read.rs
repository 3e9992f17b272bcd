//! What is read of a state: objects one by one, by kind in order, and how many there are.

use std::sync::Arc;

use cardea_registry_api::{
    Certificate, Cluster, Fallback, Instance, InstanceKey, InstanceState, Name, Plugin, Release,
    Route, Service, Source, Switch, Traffic, TrafficKey,
};
use imbl::OrdMap;

use super::{State, Stored, Totals, object};
use crate::change::TokenRecord;

impl State {
    /// A cluster.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Stored<Cluster>>> {
        self.clusters.get(name)
    }

    /// A service.
    pub fn service(&self, name: &str) -> Option<&Arc<Stored<Service>>> {
        self.services.get(name)
    }

    /// A route.
    pub fn route(&self, id: &str) -> Option<&Arc<Stored<Route>>> {
        self.routes.get(id)
    }

    /// A certificate.
    pub fn certificate(&self, name: &str) -> Option<&Arc<Stored<Certificate>>> {
        self.certificates.get(name)
    }

    /// A stored body.
    pub fn fallback(&self, name: &str) -> Option<&Arc<Stored<Fallback>>> {
        self.fallbacks.get(name)
    }

    /// A plugin.
    pub fn plugin(&self, name: &str) -> Option<&Arc<Stored<Plugin>>> {
        self.plugins.get(name)
    }

    /// Where a cluster's requests go.
    pub fn traffic(&self, key: &TrafficKey) -> Option<&Arc<Stored<Traffic>>> {
        self.traffic.get(key)
    }

    /// Where clusters' requests go, behind `after`.
    pub fn traffics(
        &self,
        after: Option<&TrafficKey>,
    ) -> impl Iterator<Item = &Arc<Stored<Traffic>>> + use<'_> {
        behind(&self.traffic, after)
    }

    /// Where a cluster's requests go: for all services, then for one after the other.
    pub fn traffic_of<'a>(
        &'a self,
        cluster: &'a Name,
    ) -> impl Iterator<Item = &'a Arc<Stored<Traffic>>> {
        let first = TrafficKey {
            cluster: cluster.clone(),
            service: None,
        };
        (self.traffic.range(first..))
            .take_while(move |(key, _)| key.cluster == *cluster)
            .map(|(_, stored)| stored)
    }

    /// A switch.
    pub fn switch(&self, id: &str) -> Option<&Arc<Stored<Switch>>> {
        self.switches.get(id)
    }

    /// All switches that are kept, by id.
    pub fn switches(&self) -> impl Iterator<Item = &Arc<Stored<Switch>>> + use<'_> {
        self.switches.values()
    }

    /// A release.
    pub fn release(&self, id: &str) -> Option<&Arc<Stored<Release>>> {
        self.releases.get(id)
    }

    /// All releases that are kept, by id.
    pub fn releases(&self) -> impl Iterator<Item = &Arc<Stored<Release>>> + use<'_> {
        self.releases.values()
    }

    /// The revision of the last change of an operation, such as a switch.
    pub(crate) fn operated(&self) -> u64 {
        self.operated
    }

    /// An instance.
    pub fn instance(&self, key: &InstanceKey) -> Option<&Arc<Stored<Instance>>> {
        self.instances.get(key)
    }

    /// A token, by name.
    pub fn token(&self, name: &str) -> Option<&Arc<Stored<TokenRecord>>> {
        self.tokens.get(name)
    }

    /// The token whose text has this SHA-256 (64 lower-case hex digits).
    pub fn token_by_hash(&self, sha256: &str) -> Option<&Arc<Stored<TokenRecord>>> {
        self.tokens.get(self.tokens_by_hash.get(sha256)?)
    }

    /// Clusters behind `after`, by name.
    pub fn clusters(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Stored<Cluster>>> + use<'_> {
        behind(&self.clusters, after)
    }

    /// Services behind `after`, by name.
    pub fn services(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Stored<Service>>> + use<'_> {
        behind(&self.services, after)
    }

    /// Routes behind `after`, by id.
    pub fn routes(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Stored<Route>>> + use<'_> {
        behind(&self.routes, after)
    }

    /// Certificates behind `after`, by name.
    pub fn certificates(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Stored<Certificate>>> + use<'_> {
        behind(&self.certificates, after)
    }

    /// Stored bodies behind `after`, by name.
    pub fn fallbacks(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Stored<Fallback>>> + use<'_> {
        behind(&self.fallbacks, after)
    }

    /// Plugins behind `after`, by name.
    pub fn plugins(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Stored<Plugin>>> + use<'_> {
        behind(&self.plugins, after)
    }

    /// Tokens behind `after`, by name.
    pub fn tokens(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Stored<TokenRecord>>> + use<'_> {
        behind(&self.tokens, after)
    }

    /// Instances behind `after`, by cluster, service and id.
    pub fn instances(
        &self,
        after: Option<&InstanceKey>,
    ) -> impl Iterator<Item = &Arc<Stored<Instance>>> + use<'_> {
        behind(&self.instances, after)
    }

    /// The instances of a cluster, or of a service in it.
    pub fn instances_in<'a>(
        &'a self,
        cluster: &'a Name,
        service: Option<&'a Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Instance>>> {
        let first = InstanceKey {
            cluster: cluster.clone(),
            service: service.cloned().unwrap_or_else(object::first_name),
            id: object::first_id(),
        };
        self.instances
            .range(first..)
            .take_while(move |(key, _)| {
                key.cluster == *cluster && service.is_none_or(|service| key.service == *service)
            })
            .map(|(_, stored)| stored)
    }

    /// How many instances a service has in a cluster.
    pub fn population(&self, cluster: &Name, service: &Name) -> u64 {
        self.instances_of
            .get(&(service.clone(), cluster.clone()))
            .copied()
            .unwrap_or_default()
    }

    /// How many instances there are, by effective state and source.
    pub fn instance_counts(
        &self,
    ) -> impl Iterator<Item = ((InstanceState, Source), u64)> + use<'_> {
        self.counts.iter().map(|(key, count)| (*key, *count))
    }

    /// How many instances the collapse guard keeps.
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// How many objects of all kinds there are.
    pub fn objects(&self) -> u64 {
        (self.clusters.len()
            + self.services.len()
            + self.routes.len()
            + self.certificates.len()
            + self.fallbacks.len()
            + self.plugins.len()
            + self.traffic.len()
            + self.switches.len()
            + self.releases.len()
            + self.instances.len()
            + self.tokens.len()) as u64
    }

    /// What a cluster's feed holds: what all feeds do, its instances, and where its requests go.
    pub fn totals(&self, cluster: &Name) -> Totals {
        let mut totals = self.shared;
        if let Some(own) = self.per_cluster.get(cluster) {
            totals.checksum.merge(own.checksum);
            totals.objects += own.objects;
            totals.bytes += own.bytes;
            totals.revision = totals.revision.max(own.revision);
        }
        totals
    }
}

fn behind<'a, K: Ord + Clone, T>(
    map: &'a OrdMap<K, Arc<Stored<T>>>,
    after: Option<&K>,
) -> impl Iterator<Item = &'a Arc<Stored<T>>> + use<'a, K, T> {
    let start = match after {
        Some(key) => std::ops::Bound::Excluded(key.clone()),
        None => std::ops::Bound::Unbounded,
    };
    map.range((start, std::ops::Bound::Unbounded))
        .map(|(_, stored)| stored)
}
