//! Views of a service: a group of its peers, or all of them with another policy, or those outside of
//! lanes with each lane beside them. Plugins ask for them.

use std::{collections::BTreeMap, sync::Arc};

use cardea_registry_api::{Address, Name, plugin::Override};

use super::{builder::Place, objects::Objects};
use crate::{
    plugin::is_lane,
    upstream::{Lanes, Member, Upstream},
};

/// The most lanes of a service; instances of further ones get no requests.
const MAX_LANES: usize = 256;

/// Which view of a service.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want<'a> {
    /// Of which service; none: of the route's.
    pub(crate) service: Option<&'a Name>,
    /// No part of a service at all, but who is at this address.
    pub(crate) address: Option<&'a Address>,
    /// Which group; none: all.
    pub(crate) group: Option<&'a str>,
    /// Without the instances that have this label, whose value is a lane. Beside a view of all, there
    /// is one of each lane.
    pub(crate) outside: Option<&'a str>,
    /// A plugin's changes to the policy.
    pub(crate) overrides: Option<&'a (Name, Arc<Override>)>,
}

impl Want<'_> {
    /// Whether it is all of the service's peers with its own policy.
    pub(crate) fn is_plain(&self) -> bool {
        self.group.is_none() && self.outside.is_none() && self.overrides.is_none()
    }
}

/// A part of a service's peers, or all of them with another policy.
#[derive(Debug)]
pub(super) struct View {
    slot: usize,
    group: Option<Box<str>>,
    outside: Option<Box<str>>,
    overrides: Option<(Name, Arc<Override>)>,
    /// How often routes name it.
    pub(super) users: usize,
    /// The slots of lanes. One is never another's: a worker may still ask for what it was.
    lanes: BTreeMap<Box<str>, usize>,
}

impl View {
    /// No group, nobody's overrides.
    pub(super) const WHOLE: (Option<&'static str>, Option<&'static (Name, Arc<Override>)>) =
        (None, None);

    fn is(&self, want: Want<'_>) -> bool {
        let name =
            |overrides: Option<&(Name, Arc<Override>)>| overrides.map(|(name, _)| name.clone());
        self.group.as_deref() == want.group
            && self.outside.as_deref() == want.outside
            && name(self.overrides.as_ref()) == name(want.overrides)
    }

    /// The one of a service's views that is wanted; a new one if there is none like it.
    pub(super) fn of<'v>(
        views: &'v mut Vec<Self>,
        want: Want<'_>,
        upstreams: &mut Vec<Option<Arc<Upstream>>>,
    ) -> &'v mut Self {
        let known = views.iter().position(|view| view.is(want));
        let at = known.unwrap_or(views.len());
        if known.is_none() {
            views.push(Self {
                slot: new_slot(upstreams),
                group: want.group.map(Into::into),
                outside: want.outside.map(Into::into),
                overrides: None,
                users: 0,
                lanes: BTreeMap::new(),
            });
        }
        let view = &mut views[at];
        view.overrides = want.overrides.cloned();
        view
    }

    /// The table's slot that it has.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// Nobody wants it.
    pub(super) fn clear(&self, upstreams: &mut [Option<Arc<Upstream>>]) {
        for slot in self.lanes.values().chain([&self.slot]) {
            upstreams[*slot] = None;
        }
    }

    /// Makes its upstream, and those of lanes, of a service's members.
    pub(super) fn build(
        &mut self,
        place: &Place,
        all: &[Member],
        objects: &Objects,
        version: u64,
        upstreams: &mut Vec<Option<Arc<Upstream>>>,
    ) {
        self.clear(upstreams);
        let overrides = self.overrides.as_ref();
        let mut members = self.members(place, all);
        let mut lanes = Lanes::default();
        if let Some(label) = &self.outside {
            let mut by_lane: BTreeMap<&str, Vec<Member>> = BTreeMap::new();
            members.retain(|member| {
                let instance = objects.instance(place.name(), &member.peer.key().id);
                let lane = instance.and_then(|instance| instance.labels.get(&**label));
                if let Some(lane) = lane {
                    by_lane.entry(lane).or_default().push(member.clone());
                }
                lane.is_none()
            });
            if self.group.is_none() {
                for (lane, members) in by_lane {
                    if !is_lane(lane.as_bytes()) || lanes.len() >= MAX_LANES {
                        continue;
                    }
                    let known = self.lanes.get(lane).copied();
                    let slot = known.unwrap_or_else(|| new_slot(upstreams));
                    self.lanes.insert(lane.into(), slot);
                    let none = Lanes::default();
                    upstreams[slot] =
                        Some(place.upstream(slot, version, members, (None, overrides), none));
                    lanes.insert(lane.as_bytes().into(), slot);
                }
            }
        }
        let of = (self.group.as_deref(), overrides);
        let own = place.upstream(self.slot, version, members, of, lanes);
        upstreams[self.slot] = Some(own);
    }

    fn members(&self, place: &Place, all: &[Member]) -> Vec<Member> {
        let Some(group) = &self.group else {
            return all.to_vec();
        };
        let mut names = place.groups().group_names();
        let bit = names.position(|name| *name == **group);
        let bit = bit.map_or(0, |at| 1u64 << at);
        let members = all.iter().filter(|member| member.groups & bit != 0);
        members.cloned().collect()
    }
}

fn new_slot(upstreams: &mut Vec<Option<Arc<Upstream>>>) -> usize {
    upstreams.push(None);
    upstreams.len() - 1
}
