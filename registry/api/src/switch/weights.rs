//! Weights on the way from what was before to the target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Name, Traffic, TrafficKey};

/// Each cluster's share of what the others have.
pub type Weights = BTreeMap<Name, u8>;

/// A traffic object that a switch writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = SwitchMove))]
pub struct Move {
    /// The object as it was before; where there was none, as it then was in effect.
    pub base: Traffic,
    /// Whether it was there.
    pub existed: bool,
}

impl Move {
    /// Which object.
    pub fn key(&self) -> TrafficKey {
        self.base.key()
    }

    /// What was there before.
    pub fn before(&self) -> Option<&Traffic> {
        self.existed.then_some(&self.base)
    }

    /// The object when so many percent of the way to `to` have been gone.
    pub fn at(&self, to: &Weights, percent: u8) -> Traffic {
        let from = effective(&self.base);
        Traffic {
            weights: interpolated(&from, to, percent),
            ..self.base.clone()
        }
    }
}

/// The weights of an object; without any, all stays in its cluster.
pub fn effective(traffic: &Traffic) -> Weights {
    if traffic.weights.is_empty() {
        return Weights::from([(traffic.cluster.clone(), 100)]);
    }
    traffic.weights.clone()
}

/// Weights that are `percent` of the way from one to another. On the way they add up to 100, and each is
/// off by less than one; at the end they are those that were asked for. Clusters that get nothing stay
/// named: routers keep knowing them.
pub fn interpolated(from: &Weights, to: &Weights, percent: u8) -> Weights {
    let percent = u64::from(percent.min(100));
    let clusters: Weights = from
        .keys()
        .chain(to.keys())
        .map(|c| (c.clone(), 0))
        .collect();
    if percent == 100 {
        let mut end = clusters;
        end.extend(
            to.iter()
                .map(|(cluster, weight)| (cluster.clone(), *weight)),
        );
        return end;
    }
    let sum = |weights: &Weights| weights.values().map(|w| u64::from(*w)).sum::<u64>().max(1);
    let (all_from, all_to) = (sum(from), sum(to));
    let of = |weights: &Weights, cluster: &Name| weights.get(cluster).copied().map_or(0, u64::from);
    // In units of 1 / (all_from × all_to) percent, exactly; the largest remainders get what is left.
    let unit = all_from * all_to;
    let mut rests = Vec::new();
    let mut weights = Weights::new();
    let mut left = 100u64;
    for cluster in clusters.into_keys() {
        let exact =
            (100 - percent) * of(from, &cluster) * all_to + percent * of(to, &cluster) * all_from;
        let whole = exact / unit;
        left = left.saturating_sub(whole);
        rests.push((exact % unit, cluster.clone()));
        weights.insert(cluster, u8::try_from(whole).unwrap_or(100));
    }
    rests.sort_unstable_by(|a, b| b.cmp(a));
    for (_, cluster) in rests
        .into_iter()
        .take(usize::try_from(left).unwrap_or_default())
    {
        weights.entry(cluster).and_modify(|weight| *weight += 1);
    }
    weights
}
