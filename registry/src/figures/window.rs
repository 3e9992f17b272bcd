//! One window of a cluster's figures: reports added up, by route, service and group.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use cardea_registry_api::{
    Name,
    figures::{Figures, MAX_SERIES, Peers, Report, Series},
};
use serde::{Deserialize, Serialize};

/// Service, route and group; none: no route took it, no group was chosen.
type Key = (Option<Name>, Option<Name>, Option<Name>);

/// The most that a window takes when it is unpacked, in bytes: a damaged row must not take all memory.
const MOST_BYTES: usize = 64 << 20;

/// Reports added up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Window {
    pub(crate) reports: u64,
    /// Requests of series beyond the most that are kept.
    pub(crate) left_out: u64,
    /// Reports that routers could not send.
    pub(crate) dropped: u64,
    pub(crate) series: BTreeMap<Key, Figures>,
    pub(crate) peers: BTreeMap<Name, Peers>,
    /// The same of every cluster (none: the routers' own), as all routers see it together.
    pub(crate) seen: BTreeMap<(Option<Name>, Name), Health>,
}

/// How many of a service's peers are healthy, added up over routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Health {
    pub(crate) healthy: u64,
    pub(crate) total: u64,
}

impl Health {
    /// The part that is, 0 to 1; none: nobody knows any peer.
    pub(crate) fn part(&self) -> Option<f64> {
        (self.total > 0).then(|| self.healthy as f64 / self.total as f64)
    }
}

/// As it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    reports: u64,
    #[serde(default)]
    left_out: u64,
    #[serde(default)]
    dropped: u64,
    series: Vec<Series>,
    peers: Vec<Peers>,
    #[serde(default)]
    seen: Vec<KeptHealth>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptHealth {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<Name>,
    service: Name,
    healthy: u64,
    total: u64,
}

/// A row that is none of ours, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("figures that cannot be read: {0}")]
pub(crate) struct Unreadable(String);

impl Window {
    /// Adds a router's report.
    pub(crate) fn add(&mut self, report: &Report) {
        self.reports += 1;
        self.left_out = self.left_out.saturating_add(report.left_out);
        self.dropped = self.dropped.saturating_add(report.dropped);
        for series in &report.series {
            self.add_series(series);
        }
        for peers in &report.peers {
            if peers.cluster.is_none() {
                self.add_peers(peers);
            }
            let health = Health {
                healthy: peers.healthy.into(),
                total: peers.total.into(),
            };
            self.add_health((peers.cluster.clone(), peers.service.clone()), health);
        }
    }

    /// Adds another window.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.reports += other.reports;
        self.left_out = self.left_out.saturating_add(other.left_out);
        self.dropped = self.dropped.saturating_add(other.dropped);
        for ((service, route, group), figures) in &other.series {
            self.add_figures((service, route, group), figures);
        }
        for peers in other.peers.values() {
            self.add_peers(peers);
        }
        for (of, health) in &other.seen {
            self.add_health(of.clone(), *health);
        }
    }

    fn add_series(&mut self, series: &Series) {
        let key = (&series.service, &series.route, &series.group);
        self.add_figures(key, &series.figures);
    }

    fn add_figures(
        &mut self,
        (service, route, group): (&Option<Name>, &Option<Name>, &Option<Name>),
        figures: &Figures,
    ) {
        let key = (service.clone(), route.clone(), group.clone());
        if let Some(sum) = self.series.get_mut(&key) {
            sum.merge(figures);
        } else if self.series.len() < MAX_SERIES {
            self.series.insert(key, figures.clone());
        } else {
            self.left_out = self.left_out.saturating_add(figures.requests());
        }
    }

    fn add_peers(&mut self, peers: &Peers) {
        if let Some(sum) = self.peers.get_mut(&peers.service) {
            sum.merge(peers);
        } else if self.peers.len() < MAX_SERIES {
            self.peers.insert(peers.service.clone(), peers.clone());
        }
    }

    fn add_health(&mut self, of: (Option<Name>, Name), health: Health) {
        if self.seen.len() >= MAX_SERIES && !self.seen.contains_key(&of) {
            return;
        }
        let sum = self.seen.entry(of).or_default();
        sum.healthy = sum.healthy.saturating_add(health.healthy);
        sum.total = sum.total.saturating_add(health.total);
    }

    /// As a row keeps it.
    pub(crate) fn encode(&self) -> String {
        let series = self
            .series
            .iter()
            .map(|((service, route, group), figures)| Series {
                route: route.clone(),
                service: service.clone(),
                group: group.clone(),
                figures: figures.clone(),
            });
        let kept = Kept {
            reports: self.reports,
            left_out: self.left_out,
            dropped: self.dropped,
            series: series.collect(),
            peers: self.peers.values().cloned().collect(),
            seen: (self.seen.iter())
                .map(|((cluster, service), health)| KeptHealth {
                    cluster: cluster.clone(),
                    service: service.clone(),
                    healthy: health.healthy,
                    total: health.total,
                })
                .collect(),
        };
        // Plain data: neither step can fail. An empty row is one that cannot be read.
        let json = serde_json::to_vec(&kept).unwrap_or_default();
        STANDARD_NO_PAD.encode(zstd::bulk::compress(&json, 1).unwrap_or_default())
    }

    /// Out of a row.
    pub(crate) fn decode(body: &str) -> Result<Self, Unreadable> {
        let unreadable = |error: &dyn std::fmt::Display| Unreadable(error.to_string());
        let packed = STANDARD_NO_PAD.decode(body).map_err(|e| unreadable(&e))?;
        let json = zstd::bulk::decompress(&packed, MOST_BYTES).map_err(|e| unreadable(&e))?;
        let kept: Kept = serde_json::from_slice(&json).map_err(|e| unreadable(&e))?;
        let mut window = Self {
            reports: kept.reports,
            left_out: kept.left_out,
            dropped: kept.dropped,
            ..Self::default()
        };
        for series in &kept.series {
            window.add_series(series);
        }
        for peers in &kept.peers {
            window.add_peers(peers);
        }
        for seen in kept.seen {
            let health = Health {
                healthy: seen.healthy,
                total: seen.total,
            };
            window.add_health((seen.cluster, seen.service), health);
        }
        Ok(window)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::tests::name;

    /// A report of some requests, all of one duration, of some routes.
    pub(crate) fn report(process: &str, at: i64, routes: &[(&str, u64)]) -> Report {
        let series = routes.iter().map(|(route, requests)| {
            let mut figures = Figures::default();
            figures.classes[1] = *requests;
            (0..*requests).for_each(|_| figures.latency.observe(1000));
            Series {
                route: Some(name(route)),
                service: Some(name("s")),
                group: None,
                figures,
            }
        });
        Report {
            process: name(process),
            at,
            series: series.collect(),
            peers: vec![Peers {
                service: name("s"),
                cluster: None,
                healthy: 1,
                total: 2,
            }],
            left_out: 0,
            dropped: 0,
        }
    }

    pub(crate) fn requests(window: &Window) -> u64 {
        window.series.values().map(Figures::requests).sum()
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in ["", "x", "AAAA", "é", "e30"] {
            assert!(Window::decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_window_has_so_many_series_and_counts_the_rest() {
        let mut window = Window::default();
        let names: Vec<String> = (0..MAX_SERIES + 10).map(|n| format!("r{n}")).collect();
        for names in names.chunks(1000) {
            let routes: Vec<_> = names.iter().map(|n| (n.as_str(), 2)).collect();
            window.add(&report("p", 0, &routes));
        }
        assert_eq!(window.series.len(), MAX_SERIES);
        assert_eq!(window.left_out, 20);
        // Known ones are counted on.
        window.add(&report("p", 0, &[("r0", 3)]));
        assert_eq!(window.left_out, 20);
        assert_eq!(Window::decode(&window.encode()).unwrap(), window);
    }

    proptest! {
        #[test]
        fn whoever_hears_of_what_the_sum_is_the_same(
            reports in prop::collection::vec((0usize..3, prop::collection::vec((0u8..5, 0u64..20), 0..4)), 0..12),
        ) {
            let mut all = Window::default();
            let mut replicas = vec![Window::default(); 3];
            for (replica, routes) in &reports {
                let routes: Vec<_> = routes.iter().map(|(r, n)| (format!("r{r}"), *n)).collect();
                let mut routes: Vec<_> = routes.iter().map(|(r, n)| (r.as_str(), *n)).collect();
                routes.dedup_by_key(|(r, _)| r.to_owned());
                let report = report("p", 0, &routes);
                all.add(&report);
                replicas[*replica].add(&report);
            }
            let mut merged = Window::default();
            for replica in &replicas {
                merged.merge(&Window::decode(&replica.encode()).unwrap());
            }
            prop_assert_eq!(requests(&merged), requests(&all));
            prop_assert_eq!(merged, all);
        }
    }
}
