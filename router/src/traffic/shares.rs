//! Which share of the requests each cluster gets now: decided from what is wanted, how much of each
//! cluster is healthy, and what was decided before. No clock, no I/O.
//!
//! **How much a cluster keeps** follows Envoy's priority levels
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority>): a
//! level's score is its healthy part times the over-provisioning factor (1.4), at most all; so with half of
//! it healthy it keeps 70 %. There, requests leave as soon as the score is below 100 %; here a cluster is
//! *short* only from the threshold on, and stays so until the healthy part is well above it: a few instances
//! that come and go do not move callers between data centres. What it gets back it gets gradually.
//!
//! **What leaves** goes to the clusters of the failover order: each takes what it bears of what is left,
//! as Envoy's next levels do. What none of them bears is spread over all that can answer, in proportion, as
//! there when the levels' scores do not add up to all.
//!
//! **What is too much** for a cluster's instances (`load.rs`) leaves it the same way.

use super::split::{MOST, Rules, Split};

/// How a cluster stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    /// It has instances that are meant to take requests.
    pub(crate) populated: bool,
    /// How much of their capacity is healthy, 0 to 1.
    pub(crate) healthy: f64,
    /// How much of what they would get they bear, 0 to 1, as was learnt.
    pub(crate) bears: f64,
    /// How much of what is meant for them they can serve, 0 to 1, as they say themselves.
    pub(crate) serves: f64,
}

impl Standing {
    /// What the part keeps of what is meant for it, where its health lets it keep so much.
    pub(crate) fn keeps(&self, kept: f64) -> f64 {
        (kept * self.bears).min(self.serves)
    }
}

/// A share for each cluster; they add up to one, or all are nothing.
pub(crate) type Shares = [f64; MOST];

/// What is remembered of a part between two decisions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Keeping {
    /// It has had instances: from then on, having none means that it lost them.
    known: bool,
    short: bool,
    /// How much of what it is wanted to get it keeps.
    pub(crate) kept: f64,
    at: u64,
}

impl Keeping {
    /// What it keeps now.
    pub(crate) fn step(self, rules: Rules, standing: Standing, now: u64) -> Self {
        let healthy = standing.healthy;
        let short = if self.short {
            healthy < rules.above
        } else {
            healthy < rules.below
        };
        let target = if short {
            (healthy * rules.over).min(1.0)
        } else {
            1.0
        };
        // The first instances of a cluster are no recovery: it is to get its share when the operator says
        // so, not seconds later.
        let kept = if self.known && target > self.kept && rules.recovery > 0 {
            let back = now.saturating_sub(self.at) as f64 / rules.recovery as f64;
            target.min(self.kept + back)
        } else {
            target
        };
        Self {
            known: self.known || standing.populated,
            short,
            kept,
            at: now,
        }
    }

    /// Whether it is on its way back or still short: then it is looked at again soon.
    pub(crate) fn moves(&self) -> bool {
        self.kept < 1.0
    }
}

/// The shares, when each cluster keeps so much. What cannot answer gets nothing while something that may
/// be asked can; nothing is refused while anybody who is named can answer.
pub(crate) fn shares(split: &Split, standings: &[Standing], keeping: &[Keeping]) -> Shares {
    let mut shares = [0.0; MOST];
    let n = split.clusters.len();
    let answers = |at: usize| standings[at].healthy > 0.0;
    let mut left = 0.0;
    for at in 0..n {
        let kept = if answers(at) { keeping[at].kept } else { 0.0 };
        let own = split.wanted[at] * standings[at].keeps(kept);
        shares[at] += own;
        let leaves = split.wanted[at] - own;
        left += spill(split, standings, at, leaves, &mut shares);
    }
    let borne: f64 = shares[..n].iter().sum();
    if left > 0.0 && borne > 0.0 {
        shares[..n].iter_mut().for_each(|share| *share /= borne);
    }
    if borne > 0.0 {
        return shares;
    }
    // Nobody bears anything: whoever can answer, those first that may be asked.
    let allowed = (0..n).filter(|at| split.allows(*at));
    let others = (0..n).filter(|at| !split.allows(*at));
    if let Some(last) = allowed.chain(others).find(|at| answers(*at)) {
        shares[last] = 1.0;
        return shares;
    }
    // Nobody can: any instance is better than none.
    let there = |at: &usize| standings[*at].populated;
    let sum: f64 = (0..n).filter(there).map(|at| split.wanted[at]).sum();
    if sum > 0.0 {
        (0..n)
            .filter(there)
            .for_each(|at| shares[at] = split.wanted[at] / sum);
    } else if let Some(any) = (0..n).find(there) {
        shares[any] = 1.0;
    }
    shares
}

/// Gives what leaves a cluster to those of the order; what is left over.
fn spill(split: &Split, standings: &[Standing], from: usize, leaves: f64, to: &mut Shares) -> f64 {
    let mut left = leaves;
    for at in split.order.iter().copied().filter(|at| *at != from) {
        let able = (standings[at].healthy * split.rules.over).min(1.0);
        let bears = standings[at].keeps(able);
        to[at] += left * bears;
        left -= left * bears;
        if left <= 0.0 {
            break;
        }
    }
    left.max(0.0)
}
