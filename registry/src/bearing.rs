//! What clusters' instances can serve, by what they declare, of what is meant for them: told to routers with
//! the answer to their figures, so that what is too much goes along the failover order.
//!
//! Reckoned over what callers ask for, and not over what was served: what leaves a cluster changes nothing
//! about it, so that nothing swings.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cardea_registry_api::{
    Name, Traffic,
    figures::{Bears, window_of},
    switch::{Capacity, NewSwitch, effective},
};

use crate::{
    clock::wall_ms,
    shared::Shared,
    state::State,
    switch::{
        look,
        plan::{Known, target},
    },
};

/// Over what the traffic of now is taken, ms: two or three windows.
const NOW_MS: i64 = 15_000;
/// The most that is told.
const MOST: usize = 1000;

/// What was last found, by cluster, and in which window: it is the same for all of its routers.
#[derive(Debug, Default)]
pub(crate) struct Bearing(Mutex<Found>);

/// By cluster: when, and what.
type Found = HashMap<Name, (i64, Arc<[Bears]>)>;

impl Bearing {
    fn known(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What routers of a cluster are told.
    pub(crate) async fn of(&self, shared: &Shared, cluster: &Name) -> Arc<[Bears]> {
        let state = shared.state.load_full();
        let spilling: Vec<&Traffic> = spilling(&state, cluster).collect();
        if spilling.is_empty() {
            self.known().remove(cluster);
            return Arc::default();
        }
        let window = window_of(wall_ms());
        {
            let mut known = self.known();
            let entry = known.entry(cluster.clone()).or_default();
            if entry.0 == window {
                return Arc::clone(&entry.1);
            }
            // Others are told what was found before, until this is.
            entry.0 = window;
        }
        let asked = everywhere(cluster, &spilling);
        let found = look::known(shared, &state, (&asked, NOW_MS), BTreeMap::new()).await;
        let bears: Arc<[Bears]> = match found {
            Some(found) => bearing(&state, cluster, &found).into(),
            None => Arc::default(),
        };
        self.known()
            .insert(cluster.clone(), (window, Arc::clone(&bears)));
        bears
    }
}

/// A cluster's traffic that has somewhere to go.
fn spilling<'a>(state: &'a State, cluster: &'a Name) -> impl Iterator<Item = &'a Traffic> {
    let all = state.traffic_of(cluster).map(|stored| &stored.object);
    all.filter(|traffic| traffic.failover.is_some())
}

/// Every cluster whose traffic counts.
fn everywhere(cluster: &Name, spilling: &[&Traffic]) -> NewSwitch {
    let others = spilling.iter().flat_map(|traffic| traffic.others());
    let named = others.chain([cluster]);
    NewSwitch::new(
        cluster.clone(),
        None,
        named.map(|name| (name.clone(), 1)).collect(),
    )
}

/// Which services' instances can serve less than is meant for them, and where. Only what all instances of a
/// service in a cluster declare: what was learnt is only what they had to serve, and routers notice by
/// themselves when more hurts.
fn bearing(state: &State, cluster: &Name, known: &Known) -> Vec<Bears> {
    let mut all = Vec::new();
    let narrower: Vec<&Name> = (state.traffic_of(cluster))
        .filter_map(|stored| stored.object.service.as_ref())
        .collect();
    for traffic in spilling(state, cluster) {
        let services: Vec<&Name> = match &traffic.service {
            Some(service) => vec![service],
            None => (known.rates.get(cluster).into_iter())
                .flat_map(|rates| rates.keys())
                .filter(|service| !narrower.contains(service))
                .collect(),
        };
        for service in services {
            let asked = NewSwitch::new(cluster.clone(), Some(service.clone()), effective(traffic));
            for there in traffic.others().chain([cluster]) {
                let target = target(state, &asked, &[], known, (there, service));
                let Some(capacity) = target.capacity else {
                    continue;
                };
                if target.known == Capacity::Declared && capacity < target.load {
                    all.push(Bears {
                        service: service.clone(),
                        cluster: there.clone(),
                        part: thousandths(capacity / target.load),
                    });
                }
            }
        }
    }
    all.truncate(MOST);
    all
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a thousand"
)]
fn thousandths(part: f64) -> u16 {
    (part.clamp(0.0, 1.0) * 1000.0).round() as u16
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::{Cluster, traffic::Failover};

    use super::*;
    use crate::{
        change::{Change, Expected},
        state::tests::{fresh, key, name, put_service, registration},
    };

    /// `a` has an instance of `s` that can serve 100, `b` two of them; requests of `a` go there first, and
    /// then to `b`.
    fn site(declared: bool, failover: bool) -> State {
        let cluster = |one: &str| Change::PutCluster {
            cluster: Cluster::named(name(one)),
            expected: Expected::Any,
        };
        let mut changes = vec![
            cluster("a"),
            cluster("b"),
            put_service("s"),
            put_service("t"),
        ];
        for (cluster, n) in [("a", 0), ("b", 1), ("b", 2)] {
            let mut one = registration(n);
            one.capacity = declared.then_some(100);
            changes.push(Change::Register {
                key: key(cluster, "s", n),
                registration: Box::new(one),
            });
        }
        let mut traffic = Traffic::of("a".parse().unwrap());
        traffic.weights = [(name("a"), 100), (name("b"), 0)].into();
        traffic.failover = failover.then(|| Failover::to(vec![name("b")]));
        changes.push(Change::PutTraffic {
            traffic: Box::new(traffic),
            expected: Expected::Any,
        });
        let mut state = fresh();
        state.apply_all(&changes, 1).unwrap();
        state
    }

    fn known(a: f64, b: f64) -> Known {
        let rates = |rate: f64| [(name("s"), rate)].into();
        Known {
            rates: [(name("a"), rates(a)), (name("b"), rates(b))].into(),
            ..Known::default()
        }
    }

    fn told(state: &State, known: &Known) -> Vec<(String, u16)> {
        let all = bearing(state, &name("a"), known).into_iter();
        all.map(|one| (format!("{}/{}", one.cluster, one.service), one.part))
            .collect()
    }

    #[test]
    fn what_all_declare_is_compared_with_what_is_meant_for_them() {
        let state = site(true, true);
        assert_eq!(told(&state, &known(99.0, 150.0)), []);
        assert_eq!(
            told(&state, &known(400.0, 150.0)),
            [("a/s".to_owned(), 250)]
        );
        let both = told(&state, &known(125.0, 400.0));
        assert_eq!(both, [("b/s".to_owned(), 500), ("a/s".to_owned(), 800)]);
        assert_eq!(told(&site(false, true), &known(400.0, 150.0)), []);
        assert_eq!(
            told(&site(true, false), &known(400.0, 150.0)),
            [],
            "nowhere to go"
        );
        // A service with an object of its own is asked of that.
        let mut own = Traffic::of("a/s".parse().unwrap());
        own.failover = Some(Failover::to(vec![name("b")]));
        own.weights = [(name("a"), 50), (name("b"), 50)].into();
        let mut state = state;
        let own = Change::PutTraffic {
            traffic: Box::new(own),
            expected: Expected::Any,
        };
        state.apply_all(&[own], 1).unwrap();
        assert_eq!(told(&state, &known(400.0, 0.0)), [("a/s".to_owned(), 500)]);
    }
}
