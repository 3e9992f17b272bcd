//! Which cluster a request goes to, and why.

use std::{sync::Arc, time::Instant};

use serde::Serialize;

use super::Question;
use crate::{
    clock,
    traffic::{Way, Ways, flow::Decided, turns},
    upstream::Upstream,
};

/// Where an upstream's requests go.
#[derive(Debug, Serialize)]
pub struct ExplainedTraffic {
    /// The object that says so: `cluster` or `cluster/service`.
    pub object: String,
    /// The cluster that a request like this goes to: by a key, this very one; else the likeliest.
    pub chosen: Option<String>,
    /// Why it is that one.
    pub reason: String,
    /// Every cluster that the object names, the router's own first.
    pub clusters: Vec<ExplainedCluster>,
}

/// A cluster that requests can go to.
#[derive(Debug, Serialize)]
pub struct ExplainedCluster {
    /// Its name.
    pub cluster: String,
    /// The share that it gets when all are well, in percent.
    pub wanted: f64,
    /// The share that it gets now, in percent.
    pub share: f64,
    /// How much of its capacity is healthy, in percent.
    pub healthy: f64,
    /// How much it keeps of what it is wanted to get, in percent: by its health, and by what its instances
    /// bear.
    pub keeps: f64,
    /// How much its instances bear, in percent: less than all while more hurts them, or is more than they say
    /// that they can serve.
    pub bears: f64,
    /// Its place in the failover order, from 1; none: it is not in it.
    pub failover: Option<usize>,
    /// Requests go to its routers, not to its instances.
    pub gateway: bool,
}

/// Explains; also gives whom the request would ask.
pub(super) fn explain<'w>(
    upstream: &Upstream,
    ways: &'w Ways,
    question: &Question,
    now: Instant,
) -> (ExplainedTraffic, Option<&'w Arc<Upstream>>) {
    let split = &*ways.split;
    let decided = ways
        .flow
        .decide(ways, upstream.version(), clock::millis(now));
    let key = (split.sticky.as_ref()).and_then(|of| super::hash_key(of, question));
    let by_key = key.and_then(|key| turns::of_key(key, &ways.seeds, &decided.shares));
    let by_share = || {
        let shares = decided.shares.iter().enumerate();
        let most = shares.max_by(|one, two| one.1.total_cmp(two.1));
        most.filter(|(_, share)| **share > 0.0).map(|(at, _)| at)
    };
    let chosen = by_key.or_else(by_share);
    let keeping = ways.flow.keeping(ways);
    let standings = ways.flow.standings(ways, clock::millis(now));
    let clusters = ways
        .each
        .iter()
        .enumerate()
        .map(|(at, way)| ExplainedCluster {
            cluster: way.cluster.to_string(),
            wanted: percent(split.wanted[at]),
            share: percent(decided.shares[at]),
            healthy: percent(standings[at].healthy),
            keeps: percent(standings[at].keeps(keeping[at].kept)),
            bears: percent(standings[at].keeps(1.0)),
            failover: (split.order.iter().position(|one| *one == at)).map(|place| place + 1),
            gateway: way.gateway,
        });
    let explained = ExplainedTraffic {
        object: split.of.clone(),
        chosen: chosen.map(|at| ways.each[at].cluster.to_string()),
        reason: reason(ways, &decided, chosen, by_key.is_some()),
        clusters: clusters.collect(),
    };
    (explained, chosen.map(|at| &ways.each[at].all))
}

fn reason(ways: &Ways, decided: &Decided, chosen: Option<usize>, by_key: bool) -> String {
    let split = &*ways.split;
    let Some(at) = chosen else {
        return "no cluster has an instance that is meant to take requests".to_owned();
    };
    let name = |at: usize| -> &Way { &ways.each[at] };
    let (wanted, share) = (split.wanted[at], decided.shares[at]);
    let how = match (&split.sticky, by_key) {
        (Some(of), true) => format!("the hash of {of} chooses it"),
        (Some(of), false) => {
            format!(
                "it has the largest share; the request lacks {of}, so that it is any cluster's turn"
            )
        }
        (None, _) if share < 1.0 => "it has the largest share; clusters take turns".to_owned(),
        (None, _) => "it gets all requests".to_owned(),
    };
    let lost = (0..ways.each.len())
        .filter(|other| *other != at && decided.shares[*other] + 1e-9 < split.wanted[*other])
        .map(|other| name(other).cluster.to_string());
    let lost: Vec<String> = lost.collect();
    if share > wanted + 1e-9 && !lost.is_empty() {
        return format!("{how}: {} cannot bear all of its share", lost.join(", "));
    }
    how
}

/// In percent, to a tenth.
fn percent(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}
