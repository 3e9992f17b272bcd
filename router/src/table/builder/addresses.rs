//! Addresses that are no instance's: whom plugins send copies to. Each is an upstream of one peer,
//! which no route leads to.

use std::{collections::HashMap, sync::Arc, time::Instant};

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
    slots: HashMap<Address, Place>,
}

#[derive(Debug)]
struct Place {
    slot: usize,
    /// How often routes' plugins name it.
    users: usize,
}

impl Addresses {
    /// Forgets who is named.
    pub(super) fn begin(&mut self) {
        self.slots.values_mut().for_each(|place| place.users = 0);
    }

    /// The slot of an address, which a route's plugin names.
    pub(super) fn slot(
        &mut self,
        address: &Address,
        cluster: &Name,
        upstreams: &mut Vec<Option<Arc<Upstream>>>,
        next_peer: &mut PeerNumber,
    ) -> usize {
        if let Some(place) = self.slots.get_mut(address) {
            place.users += 1;
            return place.slot;
        }
        let slot = upstreams.len();
        *next_peer += 1;
        upstreams.push(Some(Arc::new(upstream(address, cluster, slot, *next_peer))));
        let users = 1;
        self.slots.insert(address.clone(), Place { slot, users });
        slot
    }

    /// One name of it less.
    pub(super) fn release(&mut self, address: &Address, upstreams: &mut [Option<Arc<Upstream>>]) {
        if let Some(place) = self.slots.get_mut(address) {
            place.users -= 1;
            if place.users == 0 {
                upstreams[place.slot] = None;
                self.slots.remove(address);
            }
        }
    }

    /// Lets go of those that nobody names any more.
    pub(super) fn end(&mut self, upstreams: &mut [Option<Arc<Upstream>>]) {
        self.slots.retain(|_, place| {
            if place.users == 0 {
                upstreams[place.slot] = None;
            }
            place.users > 0
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
        group: None,
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
        gateway: false,
    });
    upstream.prepare();
    upstream
}
