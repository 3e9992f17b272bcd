//! From objects to tables, building anew only what changed.
//!
//! The builder is the registry of peers: an instance keeps its [`Peer`] as long as its key and
//! address stay. Peers are numbered as they come and upstreams keep them in that order, so a change
//! to one instance is a copy of the list with one difference, and workers can take over their state
//! in one pass.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use cardea_registry_api::{InstanceId, Name, Service, policy::UpstreamTls};

use crate::{
    budget::Budget,
    clock,
    health::guard::Guard,
    peer::{Peer, PeerNumber},
    shared::Shared,
    table::{
        Origin, Routes, Table,
        objects::{Dirty, Objects},
    },
    tls::{Certificates, Maker, Terms},
    upstream::{Member, Parts, Policy, Security, Upstream},
};

/// Makes tables and keeps what outlives them.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    route_indexes: HashMap<Name, u32>,
    slots: HashMap<Name, usize>,
    places: Vec<Place>,
    upstreams: Vec<Option<Arc<Upstream>>>,
    routes: Arc<Routes>,
    refused: Vec<(Name, String)>,
    maker: Maker,
    certificates: Option<Arc<Certificates>>,
    refused_certificates: Vec<(Name, String)>,
    /// Services that routes name.
    routed: BTreeSet<Name>,
    next_peer: PeerNumber,
    version: u64,
}

/// What of a service outlives its upstreams.
#[derive(Debug)]
struct Place {
    name: Name,
    guard: Arc<Guard>,
    budget: Arc<Budget>,
    policy: Arc<Policy>,
    /// What was asked for, and what came of it.
    tls: Option<UpstreamTls>,
    security: Security,
    broken: Option<String>,
    peers: HashMap<InstanceId, Arc<Peer>>,
}

/// What a table is of.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    pub(crate) epoch: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) origin: Origin,
}

/// A table that is not published yet.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) table: Arc<Table>,
    /// Peers that take no new requests from this table on.
    leavers: Vec<Arc<Peer>>,
}

impl Built {
    /// Swaps the table in. From here on no new request reaches a peer that left: the order matters,
    /// see `shared.rs`.
    pub(crate) fn publish(self, shared: &Shared) {
        shared.publish(self.table);
        for peer in self.leavers {
            peer.set_takes(false);
        }
    }
}

impl Builder {
    /// Makes the table of `objects`, which differ by `dirty` from those of the last call.
    pub(crate) fn build(
        &mut self,
        objects: &Objects,
        dirty: &Dirty,
        stamp: Stamp,
        now: Instant,
    ) -> Built {
        let mut touched: BTreeSet<Name> = dirty.policies.clone();
        touched.extend(dirty.instances.keys().cloned());
        if dirty.routes {
            touched.extend(self.index_routes(objects));
        }
        if dirty.certificates || self.certificates.is_none() {
            self.make_certificates(objects);
        }
        let mut leavers = Vec::new();
        self.version += 1;
        for service in &touched {
            let changed = dirty.instances.get(service);
            self.rebuild(service, changed, objects, now, &mut leavers);
        }
        let table = Table {
            epoch: stamp.epoch,
            revision: stamp.revision,
            origin: stamp.origin,
            built_at: clock::unix_millis(),
            routes: Arc::clone(&self.routes),
            slots: self.upstreams.as_slice().into(),
            certificates: self.certificates.clone(),
        };
        Built {
            table: Arc::new(table),
            leavers,
        }
    }

    /// Objects that cannot be served, and why.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, String)> {
        let named = |kind: &'static str| {
            move |(name, why): &(Name, String)| (format!("{kind} {name}"), why.clone())
        };
        let certificates = self.refused_certificates.iter().map(named("certificate"));
        let broken = self.places.iter().filter_map(|place| {
            let why = place.broken.as_ref()?;
            Some((format!("service {}", place.name), format!("tls: {why}")))
        });
        self.refused
            .iter()
            .map(named("route"))
            .chain(certificates)
            .chain(broken)
    }

    fn make_certificates(&mut self, objects: &Objects) {
        match self.maker.make(objects.certificates()) {
            Ok((certificates, refused)) => {
                self.certificates = Some(Arc::new(certificates));
                self.refused_certificates = refused;
            }
            Err(error) => tracing::error!(%error, "the certificates in use are kept"),
        }
    }

    /// Services that routes began or ceased to name.
    fn index_routes(&mut self, objects: &Objects) -> Vec<Name> {
        let routed: BTreeSet<Name> = objects.routes().map(|r| r.service.clone()).collect();
        for service in &routed {
            self.slot(service);
        }
        let indexes = &mut self.route_indexes;
        let slots = &self.slots;
        let (routes, refused) = Routes::build(objects.routes().map(Arc::as_ref), |route| {
            let next = u32::try_from(indexes.len()).unwrap_or(u32::MAX);
            let index = *indexes.entry(route.id.clone()).or_insert(next);
            (index, slots[&route.service])
        });
        self.routes = Arc::new(routes);
        self.refused = refused;
        let before = std::mem::replace(&mut self.routed, routed);
        before.symmetric_difference(&self.routed).cloned().collect()
    }

    fn slot(&mut self, service: &Name) -> usize {
        if let Some(slot) = self.slots.get(service) {
            return *slot;
        }
        let slot = self.places.len();
        self.slots.insert(service.clone(), slot);
        self.upstreams.push(None);
        self.places.push(Place {
            name: service.clone(),
            guard: Arc::default(),
            budget: Arc::default(),
            policy: Arc::new(Policy::from(&Service::named(service.clone()))),
            tls: None,
            security: Security::Plain,
            broken: None,
            peers: HashMap::new(),
        });
        slot
    }

    fn rebuild(
        &mut self,
        service: &Name,
        changed: Option<&BTreeSet<InstanceId>>,
        objects: &Objects,
        now: Instant,
        leavers: &mut Vec<Arc<Peer>>,
    ) {
        let slot = self.slot(service);
        let place = &mut self.places[slot];
        let policy = match objects.service(service) {
            Some(service) => Policy::from(&**service),
            None => Policy::from(&Service::named(service.clone())),
        };
        place.secure(objects.service(service).and_then(|s| s.tls.as_ref()));
        if *place.policy != policy {
            place.policy = Arc::new(policy);
        }
        let mut edits = Edits::default();
        for id in changed.into_iter().flatten() {
            place.change(id, objects, &mut self.next_peer, now, &mut edits);
        }
        let old = self.upstreams[slot]
            .as_deref()
            .map_or(&[][..], Upstream::members);
        let members = edits.apply(old);
        let wanted = self.routed.contains(service)
            || objects.service(service).is_some()
            || objects.has_instances(service);
        leavers.extend(edits.leavers);
        self.upstreams[slot] = wanted.then(|| {
            let upstream = Upstream::new(Parts {
                index: u32::try_from(slot).unwrap_or(u32::MAX),
                version: self.version,
                service: place.name.clone(),
                policy: Arc::clone(&place.policy),
                security: place.security.clone(),
                budget: Arc::clone(&place.budget),
                guard: Arc::clone(&place.guard),
                members,
            });
            upstream.prepare();
            Arc::new(upstream)
        });
    }
}

/// What becomes of an upstream's members.
#[derive(Debug, Default)]
struct Edits {
    /// Members that are other than before; none: gone.
    changed: HashMap<PeerNumber, Option<Member>>,
    joined: Vec<Member>,
    leavers: Vec<Arc<Peer>>,
}

impl Edits {
    fn apply(&mut self, old: &[Member]) -> Vec<Member> {
        let mut members = Vec::with_capacity(old.len() + self.joined.len());
        if self.changed.is_empty() {
            members.extend_from_slice(old);
        } else {
            members.extend(old.iter().filter_map(|member| {
                match self.changed.remove(&member.number()) {
                    None => Some(member.clone()),
                    Some(edited) => edited,
                }
            }));
        }
        // New peers have the highest numbers, in the order they came.
        members.append(&mut self.joined);
        members
    }
}

impl Place {
    /// Takes over how peers are to be spoken to. Terms that stay the same stay the same thing, with
    /// the sessions that can be taken up again.
    fn secure(&mut self, wanted: Option<&UpstreamTls>) {
        if self.tls.as_ref() == wanted {
            return;
        }
        self.tls = wanted.cloned();
        (self.security, self.broken) = match wanted.map(Terms::new) {
            None => (Security::Plain, None),
            Some(Ok(terms)) => (Security::Tls(Arc::new(terms)), None),
            Some(Err(why)) => (Security::Broken, Some(why)),
        };
    }

    fn change(
        &mut self,
        id: &InstanceId,
        objects: &Objects,
        next_peer: &mut PeerNumber,
        now: Instant,
        edits: &mut Edits,
    ) {
        let known = self.peers.get(id).cloned();
        let Some(instance) = objects.instance(&self.name, id) else {
            if let Some(peer) = known {
                self.peers.remove(id);
                edits.changed.insert(peer.number(), None);
                edits.leavers.push(peer);
            }
            return;
        };
        let (weight, state) = (instance.effective_weight(), instance.effective_state());
        let peer = match known {
            Some(peer) if *peer.address() == instance.address => {
                let member = Member::new(Arc::clone(&peer), weight, state);
                edits.changed.insert(peer.number(), Some(member));
                peer
            }
            moved => {
                if let Some(peer) = moved {
                    edits.changed.insert(peer.number(), None);
                    edits.leavers.push(peer);
                }
                *next_peer += 1;
                let guard = Arc::clone(&self.guard);
                let address = instance.address.clone();
                let peer = Peer::new(*next_peer, instance.key(), address, guard, now);
                let peer = Arc::new(peer);
                self.peers.insert(id.clone(), Arc::clone(&peer));
                edits
                    .joined
                    .push(Member::new(Arc::clone(&peer), weight, state));
                peer
            }
        };
        if instance.takes_requests() {
            // Before the swap: who finds it in the new table may use it.
            peer.set_takes(true);
        } else {
            edits.leavers.push(peer);
        }
    }
}
