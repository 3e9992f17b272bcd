//! What is known of the traffic of now, and what is learnt from it.

use std::collections::BTreeMap;

use cardea_registry_api::{
    Name,
    switch::{Learnt, effective},
};

use super::{direct, in_force, share};
use crate::state::State;

/// Windows that must have been seen of a service before anything is learnt from them: a minute's.
pub(crate) const KNOWN_WINDOWS: usize = 12;
/// Requests that the busiest of them must have had: of fewer nobody can say what an instance bears.
pub(crate) const KNOWN_REQUESTS: u64 = 100;

/// The most requests of a window, of those of a service; none: too little was seen to learn from.
pub(crate) fn peak(windows: &[u64]) -> Option<u64> {
    let seen = windows.iter().filter(|requests| **requests > 0).count();
    let peak = windows.iter().max().copied()?;
    (seen >= KNOWN_WINDOWS && peak >= KNOWN_REQUESTS).then_some(peak)
}

/// What is known of the traffic of now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Requests a second, by the cluster whose routers get them and by service.
    pub(crate) rates: BTreeMap<Name, BTreeMap<Name, f64>>,
    /// Of instances that do not say what they can serve, by service.
    pub(crate) learnt: BTreeMap<Name, Learnt>,
    /// How much of a service in a cluster is healthy, as routers see it; left out: nobody has said so
    /// lately.
    pub(crate) healthy: BTreeMap<(Name, Name), Seen>,
}

/// How much is healthy, 0 to 1, as routers of some cluster see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) part: f64,
    pub(crate) by: Name,
}

impl Known {
    pub(super) fn rate(&self, cluster: &Name, service: &Name) -> f64 {
        let rates = self.rates.get(cluster);
        rates
            .and_then(|rates| rates.get(service))
            .copied()
            .unwrap_or_default()
    }

    /// The same without what other clusters' routers have sent there: of a cluster that is reached through
    /// its routers these count it, too, but it is not theirs to move.
    pub(super) fn own_rate(&self, state: &State, cluster: &Name, service: &Name) -> f64 {
        let rate = self.rate(cluster, service);
        if direct(state, cluster) {
            return rate;
        }
        let senders = self.rates.keys().filter(|sender| *sender != cluster);
        let hops = senders.map(|sender| {
            let (traffic, _) = in_force(state, sender, Some(service));
            self.rate(sender, service) * share(&effective(&traffic), cluster)
        });
        (rate - hops.sum::<f64>()).max(0.0)
    }
}
