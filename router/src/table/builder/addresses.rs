//! Addresses that are no instance's: whom plugins send copies to. Each is an upstream of one peer,
//! which no route leads to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use cardea_registry_api::{Address, InstanceKey, InstanceState, Name, Service};

use crate::{
    budget::Budget,
    health::guard::Guard,
    peer::{Peer, PeerNumber},
    upstream::{Lanes, Member, Parts, Policy, Security, Upstream},
};

/// The slots of addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    slots: HashMap<Address, usize>,
    wanted: HashSet<Address>,
}

impl Addresses {
    /// Forgets who is wanted.
    pub(super) fn begin(&mut self) {
        self.wanted.clear();
    }

    /// The slot of an address, which some route's plugin wants.
    pub(super) fn slot(
        &mut self,
        address: &Address,
        cluster: &Name,
        upstreams: &mut Vec<Option<Arc<Upstream>>>,
        next_peer: &mut PeerNumber,
    ) -> usize {
        self.wanted.insert(address.clone());
        if let Some(slot) = self.slots.get(address) {
            return *slot;
        }
        let slot = upstreams.len();
        *next_peer += 1;
        upstreams.push(Some(Arc::new(upstream(address, cluster, slot, *next_peer))));
        self.slots.insert(address.clone(), slot);
        slot
    }

    /// Lets go of those that nobody wants any more.
    pub(super) fn end(&mut self, upstreams: &mut [Option<Arc<Upstream>>]) {
        let wanted = &self.wanted;
        self.slots.retain(|address, slot| {
            let stays = wanted.contains(address);
            if !stays {
                upstreams[*slot] = None;
            }
            stays
        });
    }
}

fn upstream(address: &Address, cluster: &Name, slot: usize, number: PeerNumber) -> Upstream {
    let service: Name = "mirror"
        .parse()
        .unwrap_or_else(|_| unreachable!("`mirror` is a name"));
    let key = InstanceKey {
        cluster: cluster.clone(),
        service: service.clone(),
        id: address.to_id(),
    };
    let guard = Arc::<Guard>::default();
    let peer = Peer::new(
        number,
        key,
        address.clone(),
        Arc::clone(&guard),
        Instant::now(),
    );
    peer.set_takes(true);
    let upstream = Upstream::new(Parts {
        index: u32::try_from(slot).unwrap_or(u32::MAX),
        whole: false,
        version: 1,
        policy: Arc::new(Policy::from(&Service::named(service.clone()))),
        service,
        security: Security::Plain,
        budget: Arc::<Budget>::default(),
        guard,
        members: vec![Member::new(Arc::new(peer), 100, InstanceState::Up, 0)],
        lanes: Lanes::default(),
    });
    upstream.prepare();
    upstream
}
