//! Views of a service: a group of its peers, or all of them with another policy, or those outside of
//! lanes with each lane beside them. Plugins ask for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cardea_registry_api::{Address, Instance, Name, plugin::Override};

use super::{
    builder::{
        Place,
        away::Others,
        fronts::{Front, Wanted},
    },
    objects::Objects,
};
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
    lanes: BTreeMap<Box<str>, (usize, Front)>,
    front: Front,
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
                front: Front::default(),
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
    pub(super) fn clear(&mut self, upstreams: &mut [Option<Arc<Upstream>>]) {
        for (slot, front) in self.lanes.values_mut() {
            upstreams[*slot] = None;
            front.clear(upstreams);
        }
        upstreams[self.slot] = None;
        self.front.clear(upstreams);
    }

    /// Makes its upstream, and those of lanes, of a service's members.
    pub(super) fn build(
        &mut self,
        place: &Place,
        all: &[Member],
        (objects, others): (&Objects, &Others),
        version: u64,
        upstreams: &mut Vec<Option<Arc<Upstream>>>,
    ) {
        self.clear(upstreams);
        let bit = self.bit(place);
        let in_group = |member: &Member| bit.is_none_or(|bit| member.groups & bit != 0);
        let mut members: Vec<Member> = all.iter().filter(|m| in_group(m)).cloned().collect();
        let mut lanes = Lanes::default();
        let label = self.outside.as_deref();
        if let Some(label) = label {
            let mut by_lane: BTreeMap<&str, Vec<Member>> = BTreeMap::new();
            members.retain(|member| {
                let instance = objects.instance(place.name(), &member.peer.key().id);
                let lane = instance.and_then(|instance| instance.labels.get(label));
                if let Some(lane) = lane {
                    by_lane.entry(lane).or_default().push(member.clone());
                }
                lane.is_none()
            });
            for lane in lanes_away(place, others, label) {
                by_lane.entry(lane).or_default();
            }
            if self.group.is_none() {
                for (lane, members) in by_lane {
                    if !is_lane(lane.as_bytes()) || lanes.len() >= MAX_LANES {
                        continue;
                    }
                    let (slot, front) = self
                        .lanes
                        .entry(lane.into())
                        .or_insert_with(|| (new_slot(upstreams), Front::default()));
                    let wanted = Wanted {
                        slot: *slot,
                        version,
                        of: (None, self.overrides.as_ref()),
                        lanes: Lanes::default(),
                        members,
                        takes: &|_, instance| {
                            instance.is_none_or(|one| lane_of(one, label) == Some(lane))
                        },
                    };
                    upstreams[*slot] = Some(front.build(place, others, wanted, upstreams));
                    lanes.insert(lane.as_bytes().into(), *slot);
                }
            }
        }
        let wanted = Wanted {
            slot: self.slot,
            version,
            of: (self.group.as_deref(), self.overrides.as_ref()),
            lanes,
            members,
            takes: &|member, instance| {
                let laneless = |label| instance.is_none_or(|one| lane_of(one, label).is_none());
                in_group(member) && label.is_none_or(laneless)
            },
        };
        upstreams[self.slot] = Some(self.front.build(place, others, wanted, upstreams));
    }

    /// The bit of its group's members; none: all are in it.
    fn bit(&self, place: &Place) -> Option<u64> {
        let group = self.group.as_ref()?;
        let mut names = place.groups().group_names();
        let bit = names.position(|name| *name == **group);
        Some(bit.map_or(0, |at| 1 << at))
    }
}

fn lane_of<'i>(instance: &'i Instance, label: &str) -> Option<&'i str> {
    instance.labels.get(label).map(String::as_str)
}

/// The lanes that a service has in other clusters.
fn lanes_away<'o>(place: &Place, others: &'o Others, label: &str) -> BTreeSet<&'o str> {
    let away = place.away().iter();
    let instances = away.flat_map(|away| {
        let known =
            |member: &Member| others.instance(&away.cluster, place.name(), &member.peer.key().id);
        away.members.iter().filter_map(known)
    });
    instances.filter_map(|one| lane_of(one, label)).collect()
}

fn new_slot(upstreams: &mut Vec<Option<Arc<Upstream>>>) -> usize {
    upstreams.push(None);
    upstreams.len() - 1
}
