//! What a change of instances makes of an upstream's members, in whichever cluster.

use std::{collections::HashMap, sync::Arc, time::Instant};

use cardea_registry_api::{Instance, InstanceId};

use crate::{
    health::guard::Guard,
    peer::{Peer, PeerNumber},
    upstream::Member,
};

/// What becomes of an upstream's members.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// Members that are other than before; none: gone.
    changed: HashMap<PeerNumber, Option<Member>>,
    joined: Vec<Member>,
    pub(super) leavers: Vec<Arc<Peer>>,
}

impl Edits {
    /// The members as they are now.
    pub(super) fn apply(&mut self, old: &[Member]) -> Vec<Member> {
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

/// Makes an instance's peer what the instance is now; none: it is gone.
pub(super) fn change(
    peers: &mut HashMap<InstanceId, Arc<Peer>>,
    (id, instance): (&InstanceId, Option<&Instance>),
    groups: u64,
    guard: &Arc<Guard>,
    next_peer: &mut PeerNumber,
    now: Instant,
    edits: &mut Edits,
) {
    let known = peers.get(id).cloned();
    let Some(instance) = instance else {
        if let Some(peer) = known {
            peers.remove(id);
            edits.changed.insert(peer.number(), None);
            edits.leavers.push(peer);
        }
        return;
    };
    let (weight, state) = (instance.effective_weight(), instance.effective_state());
    let member = |peer: &Arc<Peer>| {
        let mut member = Member::new(Arc::clone(peer), weight, state, groups);
        member.capacity = instance.capacity;
        member
    };
    let peer = match known {
        Some(peer) if *peer.address() == instance.address => {
            edits.changed.insert(peer.number(), Some(member(&peer)));
            peer
        }
        moved => {
            if let Some(peer) = moved {
                edits.changed.insert(peer.number(), None);
                edits.leavers.push(peer);
            }
            *next_peer += 1;
            let address = instance.address.clone();
            let peer = Peer::new(*next_peer, instance.key(), address, Arc::clone(guard), now);
            let peer = Arc::new(peer);
            peers.insert(id.clone(), Arc::clone(&peer));
            edits.joined.push(member(&peer));
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
