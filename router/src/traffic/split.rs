//! A traffic object as decisions use it: clusters by number, the router's own one first.

use cardea_registry_api::{
    Name, Traffic,
    policy::HashKey,
    traffic::{Failover, Zones},
};

/// The most clusters: those that weights and the failover order may name, and the own one.
pub(crate) const MOST: usize = 2 * cardea_registry_api::traffic::MAX_CLUSTERS + 1;

/// Where requests go, as configured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Split {
    /// What it is of: the object's key.
    pub(crate) of: String,
    /// The router's own first.
    pub(crate) clusters: Vec<Name>,
    /// What each is to get when all are well; they add up to one.
    pub(crate) wanted: Vec<f64>,
    /// Whereto requests go that leave a cluster, the first first.
    pub(crate) order: Vec<usize>,
    pub(crate) sticky: Option<HashKey>,
    /// Instances in the router's own zone come first.
    pub(crate) near: bool,
    pub(crate) rules: Rules,
}

/// When requests leave a part, and how they come back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    /// They leave when less than this is healthy.
    pub(crate) below: f64,
    /// They have all come back when this is.
    pub(crate) above: f64,
    /// How much more than its part a healthy instance may take on.
    pub(crate) over: f64,
    /// How long the way back from nothing to all takes, in milliseconds.
    pub(crate) recovery: u64,
}

impl Rules {
    fn of(failover: &Failover) -> Self {
        let percent = |of: u16| f64::from(of) / 100.0;
        let threshold = u16::from(failover.threshold);
        Self {
            below: percent(threshold),
            above: percent(threshold + u16::from(failover.hysteresis)),
            over: percent(failover.overprovision),
            recovery: failover.recovery.as_millis(),
        }
    }

    /// Where nobody says where to go, requests leave when there is nobody left to answer.
    fn last_straw() -> Self {
        Self {
            below: f64::MIN_POSITIVE,
            above: f64::MIN_POSITIVE,
            ..Self::default()
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(&Failover::to(Vec::new()))
    }
}

impl Split {
    /// Of an object that is about the routers of its cluster.
    pub(crate) fn new(traffic: &Traffic) -> Self {
        let own = &traffic.cluster;
        let mut clusters = vec![own.clone()];
        clusters.extend(traffic.others().cloned());
        let number = |name: &Name| clusters.iter().position(|known| known == name);
        let weight = |name: &Name| match traffic.weights.get(name) {
            None if traffic.weights.is_empty() && name == own => 1.0,
            weight => f64::from(weight.copied().unwrap_or(0)),
        };
        let weights: Vec<f64> = clusters.iter().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let order = traffic.failover.iter().flat_map(|failover| &failover.order);
        Self {
            of: traffic.key().to_string(),
            wanted: weights.into_iter().map(|weight| weight / sum).collect(),
            order: order.filter_map(number).collect(),
            sticky: traffic.sticky.clone(),
            near: traffic.zones == Zones::Near,
            rules: (traffic.failover.as_ref()).map_or_else(Rules::last_straw, Rules::of),
            clusters,
        }
    }

    /// Whether requests that are too much for a cluster have somewhere to go.
    pub(crate) fn spills(&self) -> bool {
        !self.order.is_empty()
    }

    /// Whether requests may go to a cluster: it has a weight, or others fail over to it.
    pub(crate) fn allows(&self, cluster: usize) -> bool {
        self.wanted[cluster] > 0.0 || self.order.contains(&cluster)
    }
}
