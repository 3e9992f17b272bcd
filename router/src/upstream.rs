//! An upstream: a service's peers in this cluster, with the service's policy.
//!
//! Immutable, one value a version. What must outlive versions (guard, retry budget, peers) is shared
//! between them.

use std::sync::{Arc, OnceLock};

use cardea_registry_api::{
    InstanceState, Name, Service,
    plugin::Override,
    policy::{Balance, Health, Protocol, Retries, Timeouts},
};

use hashbrown::HashMap;

use crate::{
    balance::hash::Chooser,
    balance::least::Lots,
    budget::Budget,
    health::{Rules, guard::Guard},
    peer::{Peer, PeerNumber},
    tls::Terms,
    traffic::Ways,
};

/// A service's peers in this cluster and how to treat them.
#[derive(Debug)]
pub struct Upstream {
    index: u32,
    whole: bool,
    version: u64,
    service: Name,
    group: Option<Name>,
    policy: Arc<Policy>,
    security: Security,
    budget: Arc<Budget>,
    guard: Arc<Guard>,
    members: Box<[Member]>,
    takers: usize,
    chooser: OnceLock<Chooser>,
    lots: OnceLock<Lots>,
    /// Beside the peers of no lane.
    lanes: Lanes,
    /// Where requests go that may leave the cluster; none: they may not.
    ways: Option<Ways>,
    /// Its peers are another cluster's routers.
    gateway: bool,
    /// How long its answers take is counted, to learn what its peers bear.
    measured: bool,
}

/// The slots of a service's lanes.
pub(crate) type Lanes = HashMap<Box<[u8]>, usize>;

/// A peer's place in an upstream: what the table says about it.
#[derive(Debug, Clone)]
pub struct Member {
    /// The peer's, here to be read without following the pointer.
    number: PeerNumber,
    /// The peer.
    pub peer: Arc<Peer>,
    /// Its weight; 0 takes no new requests.
    pub weight: u16,
    /// Its state; only `up` takes new requests.
    pub state: InstanceState,
    /// The service's groups that it is in, a bit for each.
    pub(crate) groups: u64,
    /// What it can serve, in requests a second, if it says so.
    pub(crate) capacity: Option<u32>,
    /// It is in the router's own zone.
    pub(crate) near: bool,
}

impl Member {
    pub(crate) fn new(peer: Arc<Peer>, weight: u16, state: InstanceState, groups: u64) -> Self {
        Self {
            number: peer.number(),
            peer,
            weight,
            state,
            groups,
            capacity: None,
            near: false,
        }
    }

    /// The peer's number.
    pub fn number(&self) -> PeerNumber {
        self.number
    }

    /// Whether new requests may go to it, health aside.
    pub fn takes_requests(&self) -> bool {
        self.state == InstanceState::Up && self.weight > 0
    }

    /// Whether new requests can go to it.
    pub(crate) fn is_usable(&self) -> bool {
        self.takes_requests() && self.peer.takes_requests() && self.peer.word().usable()
    }
}

/// A service's policy.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    /// What its peers are asked in.
    pub protocol: Protocol,
    /// How a peer is picked.
    pub balance: Balance,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// When to try another peer.
    pub retries: Retries,
    /// When a peer counts as down.
    pub health: Health,
    pub(crate) rules: Rules,
}

impl Policy {
    /// Whether a response with this status counts against the peer.
    pub fn is_failure(&self, status: u16) -> bool {
        self.health.statuses.contains(&status)
    }

    /// Whether an answer with this gRPC status counts against the peer.
    pub fn is_grpc_failure(&self, status: u8) -> bool {
        self.health.grpc_statuses.contains(&status)
    }

    /// Whether an idempotent request answered so may be tried on another peer.
    pub fn retries_status(&self, status: u16) -> bool {
        self.retries.statuses.contains(&status)
    }
}

impl Policy {
    /// The same with a plugin's changes.
    pub(crate) fn with(&self, overrides: &Override) -> Self {
        let mut changed = Self {
            protocol: self.protocol,
            balance: self.balance.clone(),
            timeouts: self.timeouts.clone(),
            retries: self.retries.clone(),
            health: self.health.clone(),
            rules: self.rules,
        };
        let (timeouts, retries) = (&mut changed.timeouts, &mut changed.retries);
        timeouts.connect = overrides.connect.unwrap_or(timeouts.connect);
        timeouts.first_byte = overrides.first_byte.unwrap_or(timeouts.first_byte);
        timeouts.idle = overrides.idle.unwrap_or(timeouts.idle);
        retries.attempts = overrides.attempts.unwrap_or(retries.attempts);
        if let Some(statuses) = &overrides.retry_statuses {
            retries.statuses.clone_from(statuses);
        }
        changed
    }
}

impl From<&Service> for Policy {
    fn from(service: &Service) -> Self {
        Self {
            protocol: service.protocol,
            balance: service.balance.clone(),
            timeouts: service.timeouts.clone(),
            retries: service.retries.clone(),
            health: service.health.clone(),
            rules: Rules::from(&service.health),
        }
    }
}

/// How an upstream's peers are spoken to.
#[derive(Debug, Clone, Default)]
pub(crate) enum Security {
    /// In the clear.
    #[default]
    Plain,
    /// Through TLS, on these terms.
    Tls(Arc<Terms>),
    /// They should be asked through TLS, but on the terms that were given nobody can be.
    Broken,
}

impl Security {
    /// What tells connections of these terms from others.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Plain | Self::Broken => 0,
            Self::Tls(terms) => terms.number(),
        }
    }
}

/// What an upstream is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) index: u32,
    /// All peers of the service, with its own policy.
    pub(crate) whole: bool,
    pub(crate) version: u64,
    pub(crate) service: Name,
    /// Which group of its peers; none: all, or a lane's.
    pub(crate) group: Option<Name>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) security: Security,
    pub(crate) budget: Arc<Budget>,
    pub(crate) guard: Arc<Guard>,
    /// Ordered by the peers' numbers.
    pub(crate) members: Vec<Member>,
    pub(crate) lanes: Lanes,
    pub(crate) gateway: bool,
}

impl Upstream {
    pub(crate) fn new(parts: Parts) -> Self {
        debug_assert!(parts.members.is_sorted_by_key(Member::number));
        Self {
            index: parts.index,
            whole: parts.whole,
            version: parts.version,
            service: parts.service,
            group: parts.group,
            policy: parts.policy,
            security: parts.security,
            budget: parts.budget,
            guard: parts.guard,
            takers: parts
                .members
                .iter()
                .filter(|member| member.takes_requests())
                .count(),
            members: parts.members.into(),
            chooser: OnceLock::new(),
            lots: OnceLock::new(),
            lanes: parts.lanes,
            ways: None,
            gateway: parts.gateway,
            measured: false,
        }
    }

    /// The same, with requests that may leave the cluster.
    pub(crate) fn with_ways(mut self, ways: Ways) -> Self {
        self.ways = Some(ways);
        self
    }

    /// The same, with answers' times counted.
    pub(crate) fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    /// Whether its answers' times are counted.
    pub(crate) fn is_measured(&self) -> bool {
        self.measured
    }

    /// The slot of a lane's peers, where these are those of no lane.
    pub(crate) fn lane(&self, lane: &[u8]) -> Option<usize> {
        self.lanes.get(lane).copied()
    }

    /// A small number that is this service's for the process's life: for arrays of counters.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether it is the service's, and not a group of it or one with a plugin's policy.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Grows with every change to any upstream.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The service's name.
    pub fn service(&self) -> &Name {
        &self.service
    }

    /// The group of the service's peers that these are; none: all of them, or a lane's.
    pub(crate) fn group(&self) -> Option<&Name> {
        self.group.as_ref()
    }

    /// How to treat its requests.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How its peers are spoken to.
    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// What retries it may have.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Every peer that is known, also those that take no new requests; ordered by number.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many peers are meant to take new requests.
    pub fn takers(&self) -> usize {
        self.takers
    }

    /// Whether there is a peer that is not known to be down, here or wherever else requests may go.
    pub(crate) fn is_usable(&self) -> bool {
        match &self.ways {
            None => self.has_usable(),
            Some(ways) => ways.is_usable(),
        }
    }

    /// Whether there is one among its own.
    pub(crate) fn has_usable(&self) -> bool {
        self.members.iter().any(Member::is_usable)
    }

    /// Whether its peers are another cluster's routers.
    pub(crate) fn is_gateway(&self) -> bool {
        self.gateway
    }

    /// Where its requests go, if they may leave the cluster.
    pub(crate) fn ways(&self) -> Option<&Ways> {
        self.ways.as_ref()
    }

    /// The upstreams that peers are picked from: itself, or one for each cluster.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Self> {
        let away = self.ways.iter().flat_map(|ways| &ways.each[1..]);
        std::iter::once(self).chain(away.map(|way| &*way.all))
    }

    /// Every peer of every cluster that its requests may go to.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = &Member> {
        self.parts().flat_map(|part| part.members.iter())
    }

    /// The member with this peer.
    pub fn member(&self, number: PeerNumber) -> Option<&Member> {
        self.members
            .binary_search_by_key(&number, Member::number)
            .ok()
            .map(|at| &self.members[at])
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The consistent hash over the takers; made on the control thread before the table is swapped.
    pub(crate) fn chooser(&self) -> &Chooser {
        self.chooser.get_or_init(|| Chooser::new(&self.members))
    }

    /// The weighted draw over the takers.
    pub(crate) fn lots(&self) -> &Lots {
        self.lots.get_or_init(|| Lots::new(&self.members))
    }

    /// Makes what workers would otherwise make at their first request.
    pub(crate) fn prepare(&self) {
        match self.policy.balance {
            Balance::RoundRobin => {}
            Balance::LeastLoaded => {
                let _ = self.lots();
            }
            Balance::Hash(_) => {
                let _ = self.chooser();
            }
        }
    }

    /// How long a probe's verdict may take before another request may try, in milliseconds.
    pub(crate) fn probe_lease(&self) -> u64 {
        let timeouts = &self.policy.timeouts;
        timeouts.connect.as_millis() + timeouts.first_byte.as_millis()
    }
}
