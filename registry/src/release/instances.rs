//! A release's instances: who takes requests, and what follows from that before it is started. Pure.

use std::collections::BTreeMap;

use cardea_registry_api::{Name, Plugin, Release};

use super::{
    moves,
    start::{Refused, conflict},
};
use crate::state::State;

/// The most names in a warning.
const NAMED: usize = 5;

/// Instances that take requests, of the candidate or of the baseline, by cluster.
pub(crate) fn ready(
    release: &Release,
    plugin: Option<&Plugin>,
    state: &State,
    candidate: bool,
) -> BTreeMap<Name, u64> {
    let mut by_cluster = BTreeMap::new();
    let service = state.service(release.plan.service.as_str());
    let (Some(service), Some(groups)) = (service, moves::groups(release, plugin)) else {
        return by_cluster;
    };
    let service = &service.object;
    let wanted = |name: &str| {
        if candidate {
            groups.candidate.as_str() == name
        } else {
            groups.baseline.iter().any(|group| group.as_str() == name)
        }
    };
    let bits = service.group_names().enumerate();
    let bits = bits.fold(0u64, |bits, (at, name)| {
        bits | u64::from(wanted(name)) << at
    });
    for cluster in state.clusters(None) {
        let cluster = &cluster.object.name;
        let all = state.instances_in(cluster, Some(&service.name));
        let count = all
            .map(|stored| &stored.object)
            .filter(|one| one.takes_requests() && service.groups_of(one) & bits != 0)
            .count() as u64;
        if count > 0 {
            by_cluster.insert(cluster.clone(), count);
        }
    }
    by_cluster
}

/// What is to be known of the instances; refused where a release could not go on, or not back.
pub(super) fn look_at_instances(
    release: &Release,
    (candidate, baseline): (&BTreeMap<Name, u64>, &BTreeMap<Name, u64>),
    plugin: Option<&Plugin>,
    warnings: &mut Vec<String>,
) -> Result<(), Refused> {
    let plan = &release.plan;
    if moves::groups(release, plugin).is_none() {
        return Ok(());
    }
    let sum = |of: &BTreeMap<Name, u64>| of.values().sum::<u64>();
    let (own, others) = (sum(candidate), sum(baseline));
    let name = &plan.candidate;
    if own == 0 {
        return conflict(format!(
            "no instance of `{name}` takes requests: start some of service `{}` with the group's labels",
            plan.service
        ));
    }
    if others == 0 {
        let from = plan
            .baseline
            .as_ref()
            .map_or("the other variants", Name::as_str);
        return conflict(format!(
            "no instance of `{from}` takes requests: there is nothing to move from, or to go back to"
        ));
    }
    let without: Vec<&str> = (baseline.keys())
        .filter(|cluster| !candidate.contains_key(*cluster))
        .map(Name::as_str)
        .take(NAMED)
        .collect();
    if !without.is_empty() {
        warnings.push(format!(
            "nobody of `{name}` is in {}: requests stay with the baseline there",
            without.join(", ")
        ));
    }
    if own * 2 < others {
        warnings.push(format!(
            "at 100 % {own} instances of `{name}` do what {others} do now: see that they can"
        ));
    }
    if plugin.is_none() {
        warnings.push(format!(
            "until now nothing kept requests from `{name}`: its instances had their part like all others; from \
             here on plugin `{}` says who gets what, also after the release: keep it",
            release.plugin
        ));
    }
    Ok(())
}
