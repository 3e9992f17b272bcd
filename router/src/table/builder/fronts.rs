//! Upstreams whose requests may leave the cluster: behind each stands one for every cluster, with a slot
//! of its own, so that workers keep turns for it.

use std::{collections::BTreeMap, sync::Arc};

use cardea_registry_api::{Instance, Name, plugin::Override};

use super::{Place, away::Others};
use crate::{
    traffic::{Way, Ways, flow::Flow},
    upstream::{Lanes, Member, Upstream},
};

/// What outlives versions of such an upstream.
#[derive(Debug, Default)]
pub(in crate::table) struct Front {
    flow: Arc<Flow>,
    home: Option<usize>,
    near: Option<usize>,
    away: BTreeMap<Name, usize>,
}

/// Which peers an upstream is made of, and how they are treated.
pub(in crate::table) struct Wanted<'a> {
    pub(in crate::table) slot: usize,
    pub(in crate::table) version: u64,
    /// Its group, if it is one, and a plugin's changes to the policy.
    pub(in crate::table) of: (Option<&'a str>, Option<&'a (Name, Arc<Override>)>),
    pub(in crate::table) lanes: Lanes,
    /// Its peers in the router's own cluster.
    pub(in crate::table) members: Vec<Member>,
    /// Which of those in other clusters are in it; none of their instances is known of a router.
    pub(in crate::table) takes: &'a dyn Fn(&Member, Option<&Instance>) -> bool,
}

impl Front {
    /// None of its slots is used any more.
    pub(in crate::table) fn clear(&mut self, upstreams: &mut [Option<Arc<Upstream>>]) {
        for slot in (self.home.iter().chain(&self.near)).chain(self.away.values()) {
            upstreams[*slot] = None;
        }
    }

    /// Makes the upstream, and those behind it.
    pub(in crate::table) fn build(
        &mut self,
        place: &Place,
        others: &Others,
        wanted: Wanted<'_>,
        upstreams: &mut Vec<Option<Arc<Upstream>>>,
    ) -> Arc<Upstream> {
        self.clear(upstreams);
        let Wanted {
            slot,
            version,
            of,
            lanes,
            members,
            takes,
        } = wanted;
        let Some(split) = &place.split else {
            return Arc::new(place.upstream(slot, version, members, of, lanes));
        };
        let mut put = |slot: &mut Option<usize>, make: &dyn Fn(usize) -> Upstream| {
            let slot = *slot.get_or_insert_with(|| {
                upstreams.push(None);
                upstreams.len() - 1
            });
            let mut upstream = make(slot);
            if split.spills() || split.near {
                upstream = upstream.measured();
            }
            let upstream = Arc::new(upstream);
            upstreams[slot] = Some(Arc::clone(&upstream));
            upstream
        };
        let own = |members: &[Member]| {
            let members = members.to_vec();
            move |slot| place.upstream(slot, version, members.clone(), of, Lanes::default())
        };
        let mut ways = Vec::with_capacity(split.clusters.len());
        let near: Vec<Member> = members.iter().filter(|m| m.near).cloned().collect();
        let near = (split.near && !near.is_empty()).then(|| put(&mut self.near, &own(&near)));
        ways.push(Way {
            cluster: split.clusters[0].clone(),
            all: put(&mut self.home, &own(&members)),
            near,
            gateway: false,
        });
        for away in &place.away {
            let members = away.members.iter().filter(|member| {
                let id = &member.peer.key().id;
                let instance = others.instance(&away.cluster, place.name(), id);
                takes(member, instance.map(|instance| &**instance))
            });
            let members: Vec<Member> = members.cloned().collect();
            let mut slot = self.away.get(&away.cluster).copied();
            let make = |slot| place.upstream_away(slot, version, away, members.clone(), of);
            let all = put(&mut slot, &make);
            self.away
                .extend(slot.map(|slot| (away.cluster.clone(), slot)));
            ways.push(Way {
                cluster: away.cluster.clone(),
                all,
                near: None,
                gateway: away.gateway.is_some(),
            });
        }
        let ways = Ways::new(Arc::clone(split), ways, Arc::clone(&self.flow));
        let front = place.upstream(slot, version, members, of, lanes);
        Arc::new(front.with_ways(ways))
    }
}
