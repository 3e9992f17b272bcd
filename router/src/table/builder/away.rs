//! Peers of a service in other clusters: its instances there, or the routers that lead to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use cardea_registry_api::{
    Address, Cluster, Instance, InstanceId, InstanceKey, InstanceState, Name,
    plugin::Override,
    policy::{Protocol, UpstreamTls},
};

use super::{
    Place,
    edits::{Edits, change},
};
use crate::{
    health::guard::Guard,
    peer::{Peer, PeerNumber},
    table::objects::{Dirty, Objects},
    tls::Terms,
    upstream::{Member, Policy, Security},
};

/// The instances of other clusters, as far as they are followed.
#[derive(Debug, Default)]
pub(in crate::table) struct Others {
    /// By cluster, service and id.
    known: BTreeMap<Name, HashMap<Name, BTreeMap<InstanceId, Arc<Instance>>>>,
    /// What is not in the table yet: by service and cluster.
    changed: BTreeMap<Name, BTreeMap<Name, BTreeSet<InstanceId>>>,
}

impl Others {
    /// Takes over what changed of a cluster.
    pub(super) fn learn(&mut self, cluster: &Name, objects: &Objects, dirty: &Dirty) {
        let services = self.known.entry(cluster.clone()).or_default();
        for (service, ids) in &dirty.instances {
            let instances = services.entry(service.clone()).or_default();
            for id in ids {
                match objects.instance(service, id) {
                    Some(instance) => drop(instances.insert(id.clone(), Arc::clone(instance))),
                    None => drop(instances.remove(id)),
                }
            }
            if instances.is_empty() {
                services.remove(service);
            }
            let changed = self.changed.entry(service.clone()).or_default();
            let changed = changed.entry(cluster.clone()).or_default();
            changed.extend(ids.iter().cloned());
        }
    }

    /// A cluster is no longer followed.
    pub(super) fn forget(&mut self, cluster: &Name) {
        for (service, instances) in self.known.remove(cluster).unwrap_or_default() {
            let changed = self.changed.entry(service).or_default();
            let changed = changed.entry(cluster.clone()).or_default();
            changed.extend(instances.into_keys());
        }
    }

    /// The services that have other instances somewhere than in the table.
    pub(super) fn touched(&self) -> impl Iterator<Item = &Name> {
        self.changed.keys()
    }

    /// Which of a service's instances are other than in the table, by cluster.
    pub(super) fn take(&mut self, service: &Name) -> BTreeMap<Name, BTreeSet<InstanceId>> {
        self.changed.remove(service).unwrap_or_default()
    }

    fn of(&self, cluster: &Name, service: &Name) -> Option<&BTreeMap<InstanceId, Arc<Instance>>> {
        self.known.get(cluster)?.get(service)
    }

    /// An instance.
    pub(in crate::table) fn instance(
        &self,
        cluster: &Name,
        service: &Name,
        id: &InstanceId,
    ) -> Option<&Arc<Instance>> {
        self.of(cluster, service)?.get(id)
    }
}

/// A service in another cluster.
#[derive(Debug)]
pub(in crate::table) struct Away {
    pub(in crate::table) cluster: Name,
    pub(super) guard: Arc<Guard>,
    peers: HashMap<InstanceId, Arc<Peer>>,
    /// Its members are those of the last table, but for what has changed since.
    settled: bool,
    /// In the order of the peers' numbers.
    pub(in crate::table) members: Vec<Member>,
    /// Its routers are asked, and not its instances.
    pub(in crate::table) gateway: Option<Gateway>,
}

/// How a cluster's routers are asked.
#[derive(Debug, Clone)]
pub(in crate::table) struct Gateway {
    addresses: Vec<Address>,
    tls: Option<UpstreamTls>,
    protocol: Protocol,
    pub(super) security: Security,
    /// Why nobody can be asked on its terms.
    pub(super) broken: Option<String>,
}

impl Gateway {
    fn of(cluster: Option<&Arc<Cluster>>, protocol: Protocol) -> Option<Self> {
        let cluster = cluster.filter(|cluster| !cluster.gateway.is_empty())?;
        let (security, broken) = match &cluster.gateway_tls {
            None => (Security::Plain, None),
            Some(tls) => match Terms::new(tls, asked_in(protocol, true)) {
                Ok(terms) => (Security::Tls(Arc::new(terms)), None),
                Err(why) => (Security::Broken, Some(why)),
            },
        };
        Some(Self {
            addresses: cluster.gateway.clone(),
            tls: cluster.gateway_tls.clone(),
            protocol,
            security,
            broken,
        })
    }

    fn is(&self, cluster: &Cluster, protocol: Protocol) -> bool {
        self.addresses == cluster.gateway
            && self.tls == cluster.gateway_tls
            && self.protocol == protocol
    }

    /// How a service is treated through it: as ever, but nobody checks routers as if they were its
    /// instances, and they speak HTTP/2 with TLS only where the gateway has it.
    pub(super) fn policy(&self, of: &Policy) -> Policy {
        let mut policy = of.with(&Override::default());
        policy.health.active = None;
        policy.protocol = asked_in(policy.protocol, self.tls.is_some());
        policy
    }
}

const fn asked_in(protocol: Protocol, tls: bool) -> Protocol {
    match (protocol, tls) {
        (Protocol::Http1, _) => Protocol::Http1,
        (_, true) => Protocol::H2,
        (_, false) => Protocol::H2c,
    }
}

impl Away {
    pub(super) fn new(cluster: Name) -> Self {
        Self {
            cluster,
            guard: Arc::default(),
            peers: HashMap::new(),
            settled: false,
            members: Vec::new(),
            gateway: None,
        }
    }

    /// Whether it is reached as objects say.
    pub(super) fn is_reached_as(&self, cluster: Option<&Arc<Cluster>>, protocol: Protocol) -> bool {
        match (&self.gateway, cluster) {
            (Some(gateway), Some(cluster)) => gateway.is(cluster, protocol),
            (None, cluster) => cluster.is_none_or(|cluster| cluster.gateway.is_empty()),
            (Some(_), None) => false,
        }
    }

    /// Takes over what there is now of the service; `changed`: these are other than in the last table.
    pub(super) fn follow(
        &mut self,
        place: &Place,
        (others, cluster): (&Others, Option<&Arc<Cluster>>),
        changed: Option<&BTreeSet<InstanceId>>,
        next_peer: &mut PeerNumber,
        now: Instant,
        leavers: &mut Vec<Arc<Peer>>,
    ) {
        let protocol = place.policy.protocol;
        if !self.is_reached_as(cluster, protocol) {
            self.leave(leavers);
            self.gateway = Gateway::of(cluster, protocol);
        }
        if let Some(gateway) = &self.gateway {
            if self.members.is_empty() {
                let addresses = gateway.addresses.clone();
                self.members = self.gateways(&addresses, place, next_peer, now);
            }
            return;
        }
        let service = &place.name;
        let known = others.of(&self.cluster, service);
        let mut edits = Edits::default();
        let all: BTreeSet<InstanceId>;
        let changed = if self.settled {
            changed
        } else {
            self.settled = true;
            let there = known.into_iter().flat_map(BTreeMap::keys);
            all = there.chain(self.peers.keys()).cloned().collect();
            Some(&all)
        };
        for id in changed.into_iter().flatten() {
            let instance = known.and_then(|known| known.get(id));
            let groups = instance.map_or(0, |instance| place.groups.groups_of(instance));
            change(
                &mut self.peers,
                (id, instance.map(|instance| &**instance)),
                groups,
                &self.guard,
                next_peer,
                now,
                &mut edits,
            );
        }
        self.members = edits.apply(&self.members);
        leavers.extend(edits.leavers);
    }

    /// Sorts the members into the groups that the service has now.
    pub(super) fn regroup(&mut self, place: &Place, others: &Others) {
        if self.gateway.is_some() {
            return;
        }
        for member in &mut self.members {
            let id = &member.peer.key().id;
            let instance = others.instance(&self.cluster, &place.name, id);
            member.groups = instance.map_or(0, |instance| place.groups.groups_of(instance));
        }
    }

    /// Its peers get no new requests from the next table on.
    pub(super) fn leave(&mut self, leavers: &mut Vec<Arc<Peer>>) {
        self.settled = false;
        self.peers.clear();
        leavers.extend(self.members.drain(..).map(|member| member.peer));
    }

    fn gateways(
        &self,
        addresses: &[Address],
        place: &Place,
        next_peer: &mut PeerNumber,
        now: Instant,
    ) -> Vec<Member> {
        let member = |address: &Address| {
            *next_peer += 1;
            let key = InstanceKey {
                cluster: self.cluster.clone(),
                service: place.name.clone(),
                id: address.to_id(),
            };
            let guard = Arc::clone(&self.guard);
            let peer = Arc::new(Peer::new(*next_peer, key, address.clone(), guard, now));
            peer.set_takes(true);
            // Which of the service's instances answers is decided there.
            Member::new(peer, 100, InstanceState::Up, u64::MAX)
        };
        addresses.iter().map(member).collect()
    }
}
