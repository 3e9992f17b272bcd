//! What a switch would move, and whether those who get it can bear it. Pure, over the state and what is
//! known of the traffic.

use std::collections::BTreeSet;

use cardea_registry_api::{
    Instance, Invalid, Name, Traffic, TrafficKey,
    invalid::Check,
    strict,
    switch::{
        Capacity, Move, NewSwitch, PlannedService, PlannedTarget, PlannedTraffic, Refusal,
        SwitchPlan, Weights, effective, interpolated,
    },
    traffic::MAX_CLUSTERS,
};

mod known;

pub(crate) use known::{Known, Seen, peak};

use crate::state::State;
use known::KNOWN_REQUESTS;

/// The most traffic objects that one switch moves.
const MOST_MOVES: usize = 500;
/// The most services that a plan names each by itself in a note.
const NAMED: usize = 5;

/// The instances of a service in a cluster that take requests.
pub(crate) fn able<'a>(
    state: &'a State,
    cluster: &'a Name,
    service: &'a Name,
) -> impl Iterator<Item = &'a Instance> {
    (state.instances_in(cluster, Some(service)))
        .map(|stored| &stored.object)
        .filter(|instance| instance.takes_requests())
}

/// The traffic object of one service that is in force for it in a cluster; what it would be without any.
fn in_force(state: &State, cluster: &Name, service: Option<&Name>) -> (Traffic, bool) {
    let key = |service: Option<&Name>| TrafficKey {
        cluster: cluster.clone(),
        service: service.cloned(),
    };
    if let Some(own) = state.traffic(&key(service)) {
        return (own.object.clone(), true);
    }
    let mut base = match state.traffic(&key(None)) {
        Some(whole) => whole.object.clone(),
        None => Traffic::of(key(service)),
    };
    base.service = service.cloned();
    (base, false)
}

/// What a switch moves: the traffic objects as they are.
pub(crate) fn moves(state: &State, asked: &NewSwitch) -> Result<Vec<Move>, Invalid> {
    let mut check = Check::default();
    let clusters = || {
        state
            .clusters(None)
            .map(|stored| stored.object.name.as_str())
    };
    for (field, cluster) in std::iter::once(("cluster".to_owned(), &asked.cluster))
        .chain(asked.to.keys().map(|to| (format!("to.{to}"), to)))
    {
        let known = state.cluster(cluster.as_str()).is_some();
        check.ensure(known, &field, unknown("cluster", cluster, clusters()));
    }
    if let Some(service) = &asked.service {
        let known = state.service(service.as_str()).is_some();
        let services = state
            .services(None)
            .map(|stored| stored.object.name.as_str());
        check.ensure(known, "service", unknown("service", service, services));
    }
    check.finish()?;
    let mut moves = Vec::new();
    let (base, existed) = in_force(state, &asked.cluster, asked.service.as_ref());
    moves.push(Move { base, existed });
    if asked.narrower {
        let narrower = state.traffic_of(&asked.cluster);
        moves.extend(
            narrower
                .filter(|stored| stored.object.service.is_some())
                .map(|stored| Move {
                    base: stored.object.clone(),
                    existed: true,
                }),
        );
    }
    let mut check = Check::default();
    check.ensure(
        moves.len() <= MOST_MOVES,
        "narrower",
        format!(
            "{} traffic objects would move, at most {MOST_MOVES} can: move services one by one",
            moves.len()
        ),
    );
    for moved in &moves {
        let named: BTreeSet<&Name> = moved.base.weights.keys().chain(asked.to.keys()).collect();
        check.ensure(
            named.len() <= MAX_CLUSTERS,
            "to",
            format!(
                "with those that traffic `{}` names already, at most {MAX_CLUSTERS} clusters",
                moved.key()
            ),
        );
    }
    check.finish()?;
    Ok(moves)
}

fn unknown<'a>(word: &str, name: &Name, known: impl Iterator<Item = &'a str>) -> String {
    let hint = strict::nearest(name.as_str(), known).map_or_else(
        || "create it first".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    format!("there is no {word} `{name}`: {hint}")
}

/// Services of the cluster that keep a traffic object of their own.
fn keeps(state: &State, asked: &NewSwitch) -> Vec<Name> {
    if asked.service.is_some() || asked.narrower {
        return Vec::new();
    }
    let narrower = state.traffic_of(&asked.cluster);
    narrower
        .filter_map(|stored| stored.object.service.clone())
        .collect()
}

/// Which services a switch moves.
pub(crate) fn moved<'a>(
    state: &'a State,
    asked: &'a NewSwitch,
    moves: &'a [Move],
) -> impl Fn(&Name) -> bool + 'a {
    let own: BTreeSet<&Name> = moves
        .iter()
        .filter_map(|m| m.base.service.as_ref())
        .collect();
    move |service| {
        if let Some(one) = &asked.service {
            return one == service;
        }
        let key = TrafficKey {
            cluster: asked.cluster.clone(),
            service: Some(service.clone()),
        };
        own.contains(service) || state.traffic(&key).is_none()
    }
}

/// The clusters whose traffic counts: the one that is moved, those that it goes to, and those that send
/// there, too.
pub(crate) fn concerned(state: &State, asked: &NewSwitch) -> BTreeSet<Name> {
    let mut clusters: BTreeSet<Name> = asked.to.keys().cloned().collect();
    for stored in state.traffics(None) {
        if stored
            .object
            .others()
            .any(|other| asked.to.contains_key(other))
        {
            clusters.insert(stored.object.cluster.clone());
        }
    }
    clusters.insert(asked.cluster.clone());
    clusters
}

fn share(weights: &Weights, cluster: &Name) -> f64 {
    let sum: u32 = weights.values().map(|weight| u32::from(*weight)).sum();
    let own = weights.get(cluster).copied().unwrap_or_default();
    f64::from(own) / f64::from(sum.max(1))
}

/// Each service that moves, the busiest first, with what its targets have for it.
pub(crate) fn services(
    state: &State,
    asked: &NewSwitch,
    moves: &[Move],
    known: &Known,
) -> Vec<PlannedService> {
    let moved = moved(state, asked, moves);
    let mut services: Vec<PlannedService> = (state.services(None))
        .map(|stored| &stored.object.name)
        .filter(|service| moved(service))
        .filter(|service| {
            asked.service.is_some()
                || state.population(&asked.cluster, service) > 0
                || known.rate(&asked.cluster, service) > 0.0
        })
        .map(|service| PlannedService {
            service: service.clone(),
            rate: known.own_rate(state, &asked.cluster, service),
            targets: (asked.to.iter())
                .filter(|(_, weight)| **weight > 0)
                .map(|(cluster, _)| target(state, asked, moves, known, (cluster, service)))
                .collect(),
        })
        .collect();
    services.sort_by(|a, b| {
        b.rate
            .total_cmp(&a.rate)
            .then_with(|| a.service.cmp(&b.service))
    });
    services
}

/// What a cluster has for a service, against what it will get.
pub(crate) fn target(
    state: &State,
    asked: &NewSwitch,
    moves: &[Move],
    known: &Known,
    (cluster, service): (&Name, &Name),
) -> PlannedTarget {
    let own = moves
        .iter()
        .find(|m| m.base.service.as_ref() == Some(service));
    let base = own.or_else(|| moves.first());
    let end = base.map_or_else(
        || asked.to.clone(),
        |m| interpolated(&effective(&m.base), &asked.to, 100),
    );
    let share_here = share(&end, cluster);
    let mut others = 0.0;
    for other in known.rates.keys().filter(|other| **other != asked.cluster) {
        let (traffic, _) = in_force(state, other, Some(service));
        let own = known.own_rate(state, other, service);
        others += own * share(&effective(&traffic), cluster);
    }
    let (mut instances, mut silent, mut declared) = (0u64, 0u64, 0.0);
    for instance in able(state, cluster, service) {
        instances += 1;
        match instance.capacity {
            Some(capacity) => declared += f64::from(capacity),
            None => silent += 1,
        }
    }
    let learnt = known.learnt.get(service);
    let mut rate = known.own_rate(state, &asked.cluster, service);
    let (capacity, how) = match (silent, learnt) {
        (0, _) if instances > 0 => (Some(declared), Capacity::Declared),
        (0, _) | (_, None) => (None, Capacity::Unknown),
        (silent, Some(learnt)) => {
            let how = if silent == instances {
                Capacity::Learnt
            } else {
                Capacity::Mixed
            };
            rate = rate.min(learnt.rate as f64);
            (Some(declared + learnt.each as f64 * silent as f64), how)
        }
    };
    let load = rate * share_here + others;
    let seen = known.healthy.get(&(cluster.clone(), service.clone()));
    let part = seen.map_or(1.0, |seen| seen.part);
    PlannedTarget {
        cluster: cluster.clone(),
        share: share_here * 100.0,
        load,
        instances,
        healthy: seen.map(|seen| healthy(instances, seen.part)),
        seen_by: seen.map(|seen| seen.by.clone()),
        capacity: capacity.map(|capacity| capacity * part),
        known: how,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a small number"
)]
fn healthy(instances: u64, part: f64) -> u64 {
    let healthy = (instances as f64 * part).round() as u64;
    // Of what is hardly healthy there is one.
    if part > 0.0 { healthy.max(1) } else { 0 }.min(instances)
}

/// Whether a cluster's instances are reached directly: what is behind gateways need not be known here.
pub(crate) fn direct(state: &State, cluster: &Name) -> bool {
    let stored = state.cluster(cluster.as_str());
    stored.is_some_and(|stored| stored.object.gateway.is_empty())
}

/// What speaks against it: targets that lack instances or capacity for what they would get.
pub(crate) fn refusals(state: &State, services: &[PlannedService]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for planned in services.iter().filter(|planned| planned.rate > 0.0) {
        let service = &planned.service;
        for target in &planned.targets {
            let (cluster, load) = (&target.cluster, number(target.load));
            let why = match target.capacity {
                _ if target.instances == 0 && !direct(state, cluster) => continue,
                _ if target.instances == 0 => format!(
                    "service `{service}`: cluster `{cluster}` has no instance that takes requests, and would get {load} a second"
                ),
                _ if target.instances > 0 && target.healthy == Some(0) => format!(
                    "service `{service}`: cluster `{cluster}` has {} instances, of which none is healthy{}, and would get {load}",
                    target.instances,
                    seen_by(target),
                ),
                Some(capacity) if capacity < target.load => format!(
                    "service `{service}`: cluster `{cluster}` can serve {} requests a second ({}, {} instances{}), and would get {load}",
                    number(capacity),
                    target.known.as_str(),
                    target.instances,
                    (target.healthy.filter(|healthy| *healthy < target.instances)).map_or_else(
                        String::new,
                        |healthy| format!(", {healthy} of them healthy{}", seen_by(target))
                    ),
                ),
                _ => continue,
            };
            refusals.push(Refusal {
                service: Some(service.clone()),
                why,
            });
        }
    }
    refusals
}

fn seen_by(target: &PlannedTarget) -> String {
    target.seen_by.as_ref().map_or_else(String::new, |by| {
        format!(" as the routers of `{by}` see it")
    })
}

fn number(n: f64) -> String {
    if n < 10.0 {
        format!("{n:.1}")
    } else {
        format!("{n:.0}")
    }
}

/// The whole plan. `live`: how many routers of the cluster are live.
pub(crate) fn plan(
    state: &State,
    asked: &NewSwitch,
    moves: &[Move],
    known: &Known,
    live: u64,
) -> SwitchPlan {
    let services = services(state, asked, moves, known);
    let mut refusals = refusals(state, &services);
    let mut notes = Vec::new();
    if live == 0 {
        refusals.insert(
            0,
            Refusal {
                service: None,
                why: format!(
                    "cluster `{}` has no live router: nobody would follow",
                    asked.cluster
                ),
            },
        );
    }
    let name = |names: Vec<&Name>| {
        let more = names.len().saturating_sub(NAMED);
        let shown: Vec<&str> = names.iter().take(NAMED).map(|name| name.as_str()).collect();
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{}{more}", shown.join(", "))
    };
    for cluster in asked.to.keys() {
        let of = |wanted: &dyn Fn(&PlannedService, &PlannedTarget) -> bool| {
            let has = |planned: &&PlannedService| {
                planned
                    .targets
                    .iter()
                    .any(|t| t.cluster == *cluster && wanted(planned, t))
            };
            let found = services.iter().filter(has).map(|planned| &planned.service);
            found.collect::<Vec<&Name>>()
        };
        let quiet = of(&|planned, target| target.instances == 0 && planned.rate == 0.0);
        if !quiet.is_empty() {
            notes.push(format!(
                "cluster `{cluster}` has no instance of {}, of which there are no requests now",
                name(quiet)
            ));
        }
        let unknown = of(&|planned, target| {
            target.known == Capacity::Unknown && target.instances > 0 && planned.rate > 0.0
        });
        if !unknown.is_empty() {
            notes.push(format!(
                "what cluster `{cluster}` can serve of {} is not known: its instances do not say, and too little was seen yet to learn it (a minute, and {KNOWN_REQUESTS} requests in 5 s)",
                name(unknown)
            ));
        }
        let unseen = of(&|planned, target| {
            target.healthy.is_none() && target.instances > 0 && planned.rate > 0.0
        });
        if !unseen.is_empty() {
            notes.push(format!(
                "no router has said lately which instances of {} in cluster `{cluster}` are healthy: all that are registered count",
                name(unseen)
            ));
        }
        if !direct(state, cluster) {
            notes.push(format!("cluster `{cluster}` is reached through its gateways: what is behind them is only judged as far as it is known here"));
        }
    }
    let keeps = keeps(state, asked);
    if !keeps.is_empty() {
        notes.push(format!(
            "{} keep traffic of their own; `narrower` moves them, too",
            name(keeps.iter().collect())
        ));
    }
    let traffic = moves.iter().map(|moved| PlannedTraffic {
        key: moved.key(),
        exists: moved.existed,
        from: effective(&moved.base),
        stages: (asked.stages.iter())
            .map(|percent| moved.at(&asked.to, *percent).weights)
            .collect(),
    });
    SwitchPlan {
        cluster: asked.cluster.clone(),
        traffic: traffic.collect(),
        keeps,
        services,
        refusals,
        notes,
    }
}

#[cfg(test)]
mod tests;
