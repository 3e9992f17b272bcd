//! What a switch is decided over: traffic, routers, figures. Reads only.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use cardea_registry_api::{
    Name, TrafficKey,
    figures::{Figures as Sums, WINDOW_MS},
    switch::{Learnt, NewSwitch, Sample, Switch},
};

use super::{
    Counted, MOST_WINDOWS, Seen,
    plan::{self, Known},
};
use crate::{
    clock::wall_ms,
    core,
    figures::Window,
    shared::Shared,
    state::{State, Stored},
};

/// From how far back the figures before a switch are, ms.
const BEFORE_MS: i64 = 300_000;
/// Over what the traffic of now is taken, ms.
pub(crate) const NOW_MS: i64 = 60_000;
/// How old a window may be that says who is healthy, ms.
const FRESH_MS: i64 = 30_000;
/// How many windows are looked at for that.
const HEALTH_WINDOWS: usize = 3;
/// How far back the most is looked for that an instance served, ms.
const PEAK_MS: i64 = 3_600_000;
/// How much more than it ever served an instance is taken for, in percent: as `failover` has it.
const BEYOND_PERCENT: u64 = 140;
/// The most services that are looked at each by itself.
const MOST_SERVICES: usize = 100;

/// Everything that a switch's next step depends on. `figures`: whether to look at them.
pub(crate) async fn look(
    shared: &Shared,
    state: &State,
    stored: &Arc<Stored<Switch>>,
    figures: bool,
) -> Seen {
    let switch = &stored.object;
    let mut seen = Seen {
        traffic: traffic(state, switch.moves.iter().map(super::Move::key)),
        ..Seen::default()
    };
    (seen.live, seen.behind) = routers(shared, state, switch);
    seen.since = shared.agreed_at();
    if !figures || switch.moves.is_empty() {
        return seen;
    }
    let now = wall_ms();
    let moved = plan::moved(state, &switch.asked, &switch.moves);
    let from = switch.stage_at.max(now - MOST_WINDOWS * WINDOW_MS - 10_000);
    let windows = shared
        .figures
        .windows(&switch.asked.cluster, (from, now), now);
    if let Some(windows) = windows.await {
        let samples = samples(windows.values(), &|service| moved(service));
        seen.figures = Some(Counted {
            windows: windows.into_keys().collect(),
            samples,
        });
    }
    if switch.asked.guards.capacity && !switch.asked.force {
        let known = known(
            shared,
            state,
            (&switch.asked, NOW_MS),
            switch.learnt.clone(),
        )
        .await;
        if let Some(known) = known {
            let services = plan::services(state, &switch.asked, &switch.moves, &known);
            seen.short = plan::refusals(state, &services);
        }
    }
    seen
}

/// The traffic objects that are there, of some.
pub(crate) fn traffic(
    state: &State,
    keys: impl Iterator<Item = TrafficKey>,
) -> BTreeMap<TrafficKey, (cardea_registry_api::Traffic, u64)> {
    keys.filter_map(|key| {
        let stored = state.traffic(&key)?;
        Some((key, (stored.object.clone(), stored.revision)))
    })
    .collect()
}

/// How many routers of the switch's cluster are live, and which of them lack what of its last stage: the
/// traffic itself, or the instances of a cluster that it leads to.
fn routers(shared: &Shared, state: &State, switch: &Switch) -> (usize, Vec<String>) {
    let cluster = &switch.asked.cluster;
    let keys = switch.moves.iter().map(super::Move::key);
    let revision = keys
        .filter_map(|key| state.traffic(&key).map(|stored| stored.revision))
        .max()
        .unwrap_or_default();
    let told = core::acknowledgements(shared, cluster, (state.epoch(), revision));
    let own = |id: &&String| !id.contains('/');
    let pending: Vec<&String> = told.pending.iter().filter(own).collect();
    let acknowledged: Vec<&String> = told.acknowledged.iter().filter(own).collect();
    let live = pending.len() + acknowledged.len();
    let mut behind: Vec<String> = pending.iter().map(|id| (*id).clone()).collect();
    let percent = switch.percent();
    let mut others: Vec<Name> = Vec::new();
    for moved in &switch.moves {
        let weights = moved.at(&switch.asked.to, percent).weights;
        others.extend(weights.into_iter().filter(|(_, w)| *w > 0).map(|(c, _)| c));
    }
    others.sort_unstable();
    others.dedup();
    for other in others.iter().filter(|other| *other != cluster) {
        if !plan::direct(state, other) {
            continue;
        }
        let followers = shared.routers.list(Some(other));
        for id in &acknowledged {
            let visitor = format!("{cluster}/{id}");
            let follows = followers
                .iter()
                .any(|router| router.live && router.revision > 0 && router.id == visitor);
            if !follows {
                behind.push(format!(
                    "{id} (does not know the instances of `{other}` yet)"
                ));
            }
        }
    }
    (live, behind)
}

/// Sums by service, the busiest first, and of all.
fn samples<'a>(
    windows: impl Iterator<Item = &'a Window>,
    moved: &(dyn Fn(&Name) -> bool + Sync),
) -> Vec<Sample> {
    let mut sums: BTreeMap<&Name, Sums> = BTreeMap::new();
    let mut all = Sums::default();
    for window in windows {
        for ((service, ..), figures) in &window.series {
            if let Some(service) = service.as_ref().filter(|service| moved(service)) {
                sums.entry(service).or_default().merge(figures);
                all.merge(figures);
            }
        }
    }
    let sample = |service: Option<Name>, sums: &Sums| Sample {
        service,
        requests: sums.requests(),
        errors: sums.errors(),
        p99_us: sums.latency.quantile(0.99),
    };
    let mut samples: Vec<Sample> = (sums.into_iter())
        .map(|(service, sums)| sample(Some(service.clone()), &sums))
        .collect();
    samples.sort_by(|a, b| {
        b.requests
            .cmp(&a.requests)
            .then_with(|| a.service.cmp(&b.service))
    });
    samples.truncate(MOST_SERVICES);
    samples.push(sample(None, &all));
    samples
}

/// What the guards of a switch compare with.
pub(crate) async fn before(
    shared: &Shared,
    cluster: &Name,
    moved: &(dyn Fn(&Name) -> bool + Sync),
) -> Vec<Sample> {
    let now = wall_ms();
    let windows = shared.figures.windows(cluster, (now - BEFORE_MS, now), now);
    let windows = windows.await.unwrap_or_default();
    samples(windows.values(), moved)
}

/// What is known of the traffic of now, over so many ms; none: no figures can be had.
pub(crate) async fn known(
    shared: &Shared,
    state: &State,
    (asked, over): (&NewSwitch, i64),
    learnt: BTreeMap<Name, Learnt>,
) -> Option<Known> {
    let mut known = Known {
        learnt,
        ..Known::default()
    };
    let now = wall_ms();
    for cluster in plan::concerned(state, asked) {
        let windows = shared
            .figures
            .windows(&cluster, (now - over, now), now)
            .await?;
        let seconds = windows.len() as f64 * WINDOW_MS as f64 / 1000.0;
        let mut rates: BTreeMap<Name, f64> = BTreeMap::new();
        for window in windows.values() {
            for ((service, ..), figures) in &window.series {
                if let Some(service) = service {
                    *rates.entry(service.clone()).or_default() +=
                        figures.requests() as f64 / seconds;
                }
            }
        }
        for ((of, service), part) in health(&windows, now) {
            let of = of.unwrap_or_else(|| cluster.clone());
            let by = cluster.clone();
            let seen = known.healthy.entry((of, service));
            // Who sees fewer has a reason.
            match seen {
                Entry::Vacant(empty) => drop(empty.insert(plan::Seen { part, by })),
                Entry::Occupied(mut other) if other.get().part > part => {
                    other.insert(plan::Seen { part, by });
                }
                Entry::Occupied(_) => {}
            }
        }
        known.rates.insert(cluster, rates);
    }
    Some(known)
}

/// How much of each service is healthy in each cluster (none: the routers' own), as the routers of one see
/// it: the most of the last windows, so that a moment does not count. Nothing of what is too old.
fn health(windows: &BTreeMap<i64, Window>, now: i64) -> BTreeMap<(Option<Name>, Name), f64> {
    let mut parts: BTreeMap<(Option<Name>, Name), f64> = BTreeMap::new();
    let fresh = windows.range(now - FRESH_MS..).rev().take(HEALTH_WINDOWS);
    for (_, window) in fresh {
        for (of, health) in &window.seen {
            if let Some(part) = health.part() {
                let most = parts.entry(of.clone()).or_insert(part);
                *most = most.max(part);
            }
        }
    }
    parts
}

/// The most that an instance of each service served a second within the last hour, by the routers of its
/// own cluster, and what is taken for possible beyond: what an instance is taken for that does not say.
/// Nothing is learnt from little ([`plan::peak`]).
pub(crate) async fn learnt(
    shared: &Shared,
    state: &State,
    asked: &NewSwitch,
) -> BTreeMap<Name, Learnt> {
    let now = wall_ms();
    let mut learnt: BTreeMap<Name, Learnt> = BTreeMap::new();
    for cluster in std::iter::once(&asked.cluster).chain(asked.to.keys()) {
        let windows = shared.figures.windows(cluster, (now - PEAK_MS, now), now);
        let mut seen: BTreeMap<Name, Vec<u64>> = BTreeMap::new();
        for window in windows.await.unwrap_or_default().values() {
            let mut sums: BTreeMap<&Name, u64> = BTreeMap::new();
            for ((service, ..), figures) in &window.series {
                if let Some(service) = service {
                    *sums.entry(service).or_default() += figures.requests();
                }
            }
            for (service, sum) in sums {
                seen.entry(service.clone()).or_default().push(sum);
            }
        }
        for (service, sums) in seen {
            let Some(peak) = plan::peak(&sums) else {
                continue;
            };
            let instances = plan::able(state, cluster, &service).count() as u64;
            let most = peak * 1000 * BEYOND_PERCENT / (WINDOW_MS.unsigned_abs() * 100);
            let learnt = learnt.entry(service).or_default();
            learnt.each = learnt.each.max(most / instances.max(1));
            learnt.rate = u64::MAX;
        }
    }
    learnt.retain(|_, learnt| learnt.each > 0);
    learnt
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::figures::{Peers, Report};

    use super::*;
    use crate::{figures::window::tests::report, state::tests::name};

    fn said(at: i64, healthy: u32) -> Report {
        let mut report = report("p", at, &[]);
        let away = Peers {
            service: name("s"),
            cluster: Some(name("b")),
            healthy,
            total: 4,
        };
        report.peers.push(away);
        report
    }

    #[test]
    fn who_is_healthy_is_said_by_the_last_windows_of_all_routers() {
        let now = 100_000;
        let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
        for (at, healthy) in [
            (60_000, 4),
            (80_000, 4),
            (85_000, 1),
            (90_000, 2),
            (95_000, 1),
        ] {
            let window = windows.entry(at).or_default();
            // Another router sees none of them: it is one of two.
            window.add(&said(at, healthy));
            window.add(&said(at, 0));
        }
        let seen = health(&windows, now);
        let away = (Some(name("b")), name("s"));
        assert!((seen[&away] - 0.25).abs() < 1e-9, "{seen:?}");
        assert!((seen[&(None, name("s"))] - 0.5).abs() < 1e-9, "{seen:?}");
        assert!(health(&windows, now + FRESH_MS + 1).is_empty(), "too old");
        let packed = Window::decode(&windows[&90_000].encode()).unwrap();
        assert_eq!(packed, windows[&90_000]);
        // What the routers' own cluster has is told as ever.
        assert_eq!(packed.peers[&name("s")].total, 2);
    }
}
