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

use cardea_registry_api::{
    InstanceId, Name, Service,
    plugin::Override,
    policy::{Protocol, UpstreamTls},
};

use crate::{
    budget::Budget,
    clock,
    health::guard::Guard,
    peer::{Peer, PeerNumber},
    plugin::compile::Plugins,
    shared::Shared,
    table::{
        Origin, Routes, Table,
        objects::{Dirty, Objects},
        views::View,
    },
    tls::{self, Certificates, Maker, Terms},
    traffic::split::Split,
    upstream::{Lanes, Member, Parts, Policy, Security, Upstream},
};

mod addresses;
pub(super) mod away;
mod edits;
pub(super) mod fronts;
mod routing;
mod traffic;

use addresses::Addresses;
use away::{Away, Others};
use edits::{Edits, change};
use fronts::{Front, Wanted};
use routing::Routing;

/// Makes tables and keeps what outlives them.
#[derive(Debug)]
pub(crate) struct Builder {
    cluster: Name,
    plugins: Plugins,
    routing: Routing,
    /// Where services are among `places`.
    by_name: HashMap<Name, usize>,
    places: Vec<Place>,
    /// By slot.
    upstreams: Vec<Option<Arc<Upstream>>>,
    routes: Arc<Routes>,
    maker: Maker,
    certificates: Option<Arc<Certificates>>,
    refused_certificates: Vec<(Name, String)>,
    refused_plugins: Vec<(Name, String)>,
    next_peer: PeerNumber,
    addresses: Addresses,
    version: u64,
    /// Where the router stands.
    zone: Option<Name>,
    others: Others,
    splits: traffic::Splits,
}

#[cfg(feature = "bench")]
impl Default for Builder {
    fn default() -> Self {
        let cluster = "dc".parse();
        Self::new(
            cluster.unwrap_or_else(|_| unreachable!()),
            &Shared::default(),
            tls::Version::V12,
        )
    }
}

/// What of a service outlives its upstreams.
#[derive(Debug)]
pub(super) struct Place {
    name: Name,
    /// The slot of all its peers.
    slot: usize,
    guard: Arc<Guard>,
    budget: Arc<Budget>,
    policy: Arc<Policy>,
    /// What was asked for, and what came of it.
    tls: Option<(UpstreamTls, Protocol)>,
    security: Security,
    broken: Option<String>,
    peers: HashMap<InstanceId, Arc<Peer>>,
    /// The groups that its members were last sorted into.
    groups: Arc<Service>,
    /// Upstreams of some of its peers, or with another policy: for plugins.
    views: Vec<View>,
    /// Where its requests go, if somebody says so; and its peers in those other clusters, in the order
    /// of the split.
    split: Option<Arc<Split>>,
    away: Vec<Away>,
    /// Clusters that it no longer goes to, until the next table.
    gone: Vec<Away>,
    front: Front,
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
        shared.publish(&self.table);
        for peer in self.leavers {
            peer.set_takes(false);
        }
    }
}

impl Builder {
    /// Nothing yet. `cluster` is whose routers' plugins count; what of them outlives
    /// tables is in `shared`; clients that speak TLS speak `lowest` or later.
    pub(crate) fn new(cluster: Name, shared: &Shared, lowest: tls::Version) -> Self {
        Self {
            cluster,
            plugins: Plugins::new(Arc::clone(&shared.plugins)),
            routing: Routing::default(),
            by_name: HashMap::new(),
            places: Vec::new(),
            upstreams: Vec::new(),
            routes: Arc::default(),
            maker: Maker::new(lowest, Arc::clone(&shared.tickets)),
            certificates: None,
            refused_certificates: Vec::new(),
            refused_plugins: Vec::new(),
            next_peer: 0,
            addresses: Addresses::default(),
            version: 0,
            zone: None,
            others: Others::default(),
            splits: traffic::Splits::default(),
        }
    }

    /// Instances in this zone are near.
    pub(crate) fn stands_in(mut self, zone: Option<Name>) -> Self {
        self.zone = zone;
        self
    }

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
        touched.extend(self.others.touched().cloned());
        if dirty.traffic || dirty.clusters {
            touched.extend(self.led_otherwise(objects));
        }
        touched.extend(self.route(objects, dirty));
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

    /// Objects that cannot be served as they are, and why.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, String)> {
        let named =
            |kind: &'static str| move |(name, why): (Name, String)| (format!("{kind} {name}"), why);
        let certificates = self.refused_certificates.iter().cloned();
        let certificates = certificates.map(named("certificate"));
        let broken = self.places.iter().filter_map(|place| {
            let why = place.broken.as_ref()?;
            Some((format!("service {}", place.name), format!("tls: {why}")))
        });
        let gateways = self.places.iter().flat_map(|place| &place.away);
        let gateways = gateways.filter_map(|away| {
            let why = away.gateway.as_ref()?.broken.as_ref()?;
            let what = format!("cluster {}", away.cluster);
            Some((what, format!("gateway_tls: {why}")))
        });
        let plugins = self.refused_plugins.iter().cloned().map(named("plugin"));
        let routes = self.routing.index.refused();
        routes
            .map(named("route"))
            .chain(plugins)
            .chain(certificates)
            .chain(broken)
            .chain(gateways)
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

    /// Where a service is among the places.
    fn place(&mut self, service: &Name) -> usize {
        if let Some(at) = self.by_name.get(service) {
            return *at;
        }
        let at = self.places.len();
        self.by_name.insert(service.clone(), at);
        let plain = Service::named(service.clone());
        self.places.push(Place {
            name: service.clone(),
            slot: self.upstreams.len(),
            guard: Arc::default(),
            budget: Arc::default(),
            policy: Arc::new(Policy::from(&plain)),
            tls: None,
            security: Security::Plain,
            broken: None,
            peers: HashMap::new(),
            groups: Arc::new(plain),
            views: Vec::new(),
            split: None,
            away: Vec::new(),
            gone: Vec::new(),
            front: Front::default(),
        });
        self.upstreams.push(None);
        at
    }

    fn rebuild(
        &mut self,
        service: &Name,
        changed: Option<&BTreeSet<InstanceId>>,
        objects: &Objects,
        now: Instant,
        leavers: &mut Vec<Arc<Peer>>,
    ) {
        let wanted = self.is_wanted(service, objects);
        let at = self.place(service);
        self.lead(at, objects);
        let changed_away = self.others.take(service);
        let place = &mut self.places[at];
        let configured = match objects.service(service) {
            Some(service) => Arc::clone(service),
            None => Arc::new(Service::named(service.clone())),
        };
        place.secure(
            configured
                .tls
                .as_ref()
                .map(|tls| (tls, configured.protocol)),
        );
        let policy = Policy::from(&*configured);
        if *place.policy != policy {
            place.policy = Arc::new(policy);
        }
        let regroup = place.groups.groups != configured.groups;
        place.groups = configured;
        let mut edits = Edits::default();
        for id in changed.into_iter().flatten() {
            let instance = objects.instance(&place.name, id).map(|one| &**one);
            let groups = instance.map_or(0, |instance| place.groups.groups_of(instance));
            let (next_peer, guard) = (&mut self.next_peer, &place.guard);
            let one = (id, instance);
            change(
                &mut place.peers,
                one,
                groups,
                guard,
                next_peer,
                now,
                &mut edits,
            );
        }
        let old = self.upstreams[place.slot]
            .as_deref()
            .map_or(&[][..], Upstream::members);
        let mut members = edits.apply(old);
        if regroup {
            for member in &mut members {
                let id = &member.peer.key().id;
                member.groups = objects
                    .instance(&place.name, id)
                    .map_or(0, |instance| place.groups.groups_of(instance));
            }
        }
        leavers.extend(edits.leavers);
        if place.split.as_ref().is_some_and(|split| split.near) {
            for member in &mut members {
                let instance = objects.instance(&place.name, &member.peer.key().id);
                let zone = instance.and_then(|instance| instance.zone.as_ref());
                member.near = zone.is_some() && zone == self.zone.as_ref();
            }
        }
        let mut away = std::mem::take(&mut place.away);
        for one in &mut away {
            let there = (&self.others, objects.cluster(&one.cluster));
            let changed = changed_away.get(&one.cluster);
            one.follow(place, there, changed, &mut self.next_peer, now, leavers);
            if regroup {
                one.regroup(place, &self.others);
            }
        }
        place.away = away;
        for mut one in std::mem::take(&mut place.gone) {
            one.leave(leavers);
        }
        place.back(&members);
        let (others, upstreams) = (&self.others, &mut self.upstreams);
        let mut views = std::mem::take(&mut place.views);
        for view in &mut views {
            if wanted && view.users > 0 {
                view.build(place, &members, (objects, others), self.version, upstreams);
            } else {
                view.clear(upstreams);
            }
        }
        place.views = views;
        let mut front = std::mem::take(&mut place.front);
        upstreams[place.slot] = if wanted {
            let all = Wanted {
                slot: place.slot,
                version: self.version,
                of: View::WHOLE,
                lanes: Lanes::default(),
                members,
                takes: &|_, _| true,
            };
            Some(front.build(place, others, all, upstreams))
        } else {
            front.clear(upstreams);
            None
        };
        place.front = front;
    }
}

impl Place {
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Its peers in other clusters.
    pub(super) fn away(&self) -> &[Away] {
        &self.away
    }

    /// The service whose groups its members were last sorted into.
    pub(super) fn groups(&self) -> &Service {
        &self.groups
    }

    /// An upstream of the members; `overrides` and a slot of its own: a view.
    pub(super) fn upstream(
        &self,
        slot: usize,
        version: u64,
        members: Vec<Member>,
        (group, overrides): (Option<&str>, Option<&(Name, Arc<Override>)>),
        lanes: Lanes,
    ) -> Upstream {
        let upstream = Upstream::new(Parts {
            index: u32::try_from(slot).unwrap_or(u32::MAX),
            whole: slot == self.slot,
            version,
            service: self.name.clone(),
            group: group.and_then(|group| group.parse().ok()),
            policy: match overrides {
                None => Arc::clone(&self.policy),
                Some((_, overrides)) => Arc::new(self.policy.with(overrides)),
            },
            security: self.security.clone(),
            budget: Arc::clone(&self.budget),
            guard: Arc::clone(&self.guard),
            members,
            lanes,
            gateway: false,
        });
        upstream.prepare();
        upstream
    }

    /// One of the members in another cluster.
    pub(super) fn upstream_away(
        &self,
        slot: usize,
        version: u64,
        away: &Away,
        members: Vec<Member>,
        (group, overrides): (Option<&str>, Option<&(Name, Arc<Override>)>),
    ) -> Upstream {
        let policy = match overrides {
            None => Arc::clone(&self.policy),
            Some((_, overrides)) => Arc::new(self.policy.with(overrides)),
        };
        let (policy, security) = match &away.gateway {
            None => (policy, self.security.clone()),
            Some(gateway) => (Arc::new(gateway.policy(&policy)), gateway.security.clone()),
        };
        let upstream = Upstream::new(Parts {
            index: u32::try_from(slot).unwrap_or(u32::MAX),
            whole: false,
            version,
            service: self.name.clone(),
            group: group.and_then(|group| group.parse().ok()),
            policy,
            security,
            budget: Arc::clone(&self.budget),
            guard: Arc::clone(&away.guard),
            members,
            lanes: Lanes::default(),
            gateway: away.gateway.is_some(),
        });
        upstream.prepare();
        upstream
    }

    /// Whether peers of several clusters can answer: then none has to be spared for the sake of its own.
    fn back(&self, members: &[Member]) {
        let takes = |members: &[Member]| members.iter().any(Member::takes_requests);
        let mut able = self.away.iter().filter(|away| takes(&away.members)).count();
        able += usize::from(takes(members));
        self.guard.set_backed(self.split.is_some() && able > 1);
        for away in &self.away {
            away.guard.set_backed(able > 1);
        }
    }
}

impl Place {
    /// Takes over how peers are to be spoken to. Terms that stay the same stay the same thing, with
    /// the sessions that can be taken up again.
    fn secure(&mut self, wanted: Option<(&UpstreamTls, Protocol)>) {
        if self.tls.as_ref().map(|(tls, protocol)| (tls, *protocol)) == wanted {
            return;
        }
        self.tls = wanted.map(|(tls, protocol)| (tls.clone(), protocol));
        (self.security, self.broken) = match wanted.map(|(tls, of)| Terms::new(tls, of)) {
            None => (Security::Plain, None),
            Some(Ok(terms)) => (Security::Tls(Arc::new(terms)), None),
            Some(Err(why)) => (Security::Broken, Some(why)),
        };
    }
}

#[cfg(test)]
mod tests;
