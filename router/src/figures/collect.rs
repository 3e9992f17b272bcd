//! From the workers' counters to reports: what grew since the last window.

use std::collections::HashMap;

use cardea_registry_api::{
    Name,
    figures::{Figures, Histogram, MAX_SERIES, MOST, Peers, Series},
};

use crate::{
    breather::Breather,
    metrics::{Metrics, Sum, Tally},
    table::Table,
    upstream::Upstream,
};

/// Route, service and group.
type Key = (Option<Name>, Option<Name>, Option<Name>);

/// Takes the differences.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// By worker: its tallies, and where each is among the series.
    workers: Vec<Vec<(&'static Tally, usize)>>,
    places: HashMap<Key, usize>,
    series: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    key: Key,
    /// What the workers said last time.
    before: Box<Sum>,
    now: Box<Sum>,
}

impl Collector {
    /// What was counted since the last call; and the requests of series that there is no room for.
    pub(super) fn collect(&mut self, metrics: &Metrics) -> (Vec<Series>, u64) {
        self.find_new(metrics);
        let mut breather = Breather::default();
        for known in &mut self.series {
            *known.now = Sum::default();
            breather.step();
        }
        for (tally, place) in self.workers.iter().flatten() {
            tally.add_to(&mut self.series[*place].now);
            breather.step();
        }
        let mut series = Vec::new();
        for known in &mut self.series {
            let figures = difference(&known.before, &known.now);
            std::mem::swap(&mut known.before, &mut known.now);
            if !figures.is_empty() || figures.latency.count() > 0 {
                let (route, service, group) = known.key.clone();
                series.push(Series {
                    route,
                    service,
                    group,
                    figures,
                });
            }
            breather.step();
        }
        let left_out = bound(&mut series);
        (series, left_out)
    }

    fn find_new(&mut self, metrics: &Metrics) {
        self.workers.resize_with(metrics.workers().len(), Vec::new);
        for (known, share) in self.workers.iter_mut().zip(metrics.workers()) {
            for told in share.tallies(known.len()) {
                let key = (told.route, told.service, told.group);
                let series = &mut self.series;
                let place = *self.places.entry(key.clone()).or_insert_with(|| {
                    series.push(Known {
                        key,
                        before: Box::default(),
                        now: Box::default(),
                    });
                    series.len() - 1
                });
                known.push((told.tally, place));
            }
        }
    }
}

/// What lies between two sums.
fn difference(before: &Sum, now: &Sum) -> Figures {
    let since = |before: u64, now: u64| now.saturating_sub(before).min(MOST);
    let mut classes = [0; 5];
    for (at, class) in classes.iter_mut().enumerate() {
        *class = now.classes[at].wrapping_sub(before.classes[at]).into();
    }
    let sum_us = now.took_us.wrapping_sub(before.took_us);
    let latency = if before.buckets == now.buckets {
        Histogram::default()
    } else {
        let grown = now.buckets.iter().zip(&before.buckets);
        let buckets: Vec<u64> = grown
            .map(|(now, before)| now.wrapping_sub(*before).into())
            .collect();
        Histogram::from_buckets(&buckets, sum_us)
    };
    Figures {
        classes,
        latency,
        // Read while requests come and go, it may be one less than none.
        in_flight: if now.in_flight > MOST {
            0
        } else {
            now.in_flight
        },
        retries: since(before.retries, now.retries),
        fallbacks: since(before.fallbacks, now.fallbacks),
        limited: since(before.limited, now.limited),
    }
}

/// Keeps the series with the most requests; how many requests the others had.
fn bound(series: &mut Vec<Series>) -> u64 {
    if series.len() <= MAX_SERIES {
        return 0;
    }
    series.sort_by_key(|one| std::cmp::Reverse(one.figures.requests()));
    let left: u64 = series[MAX_SERIES..]
        .iter()
        .map(|one| one.figures.requests())
        .sum();
    series.truncate(MAX_SERIES);
    left.min(MOST)
}

/// How the services' peers are.
pub(super) fn peers(table: Option<&Table>) -> Vec<Peers> {
    let upstreams = table.into_iter().flat_map(Table::upstreams);
    let mut breather = Breather::default();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut peers = |upstream: &Upstream, cluster: Option<&Name>| {
        let members = upstream.members();
        let takers = || members.iter().filter(|member| member.takes_requests());
        for _ in members {
            breather.step();
        }
        Peers {
            service: upstream.service().clone(),
            cluster: cluster.cloned(),
            healthy: count(takers().filter(|member| member.is_usable()).count()),
            total: count(takers().count()),
        }
    };
    let mut all = Vec::new();
    for upstream in upstreams.take(MAX_SERIES) {
        all.push(peers(upstream, None));
        // Who is behind other clusters' routers is not known here.
        let away = upstream.ways().into_iter().flat_map(|ways| &ways.each[1..]);
        for way in away.filter(|way| !way.gateway) {
            all.push(peers(&way.all, Some(&way.cluster)));
        }
    }
    all.truncate(MAX_SERIES);
    all
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use cardea_registry_api::{Cluster, Service, Traffic};

    use super::*;
    use crate::{
        fixtures::{World, instance, name, route},
        metrics::{Counted, LocalMetrics, Protocol, RequestLabels, RouteLabels},
    };

    fn counted(code: u16, took_us: u64) -> Counted {
        Counted {
            labels: RequestLabels {
                code,
                method: crate::http1::request::Method::Get,
                protocol: Protocol::Http1,
            },
            took: Some(Duration::from_micros(took_us)),
            upstream_took: None,
            retries: u64::from(code == 502),
        }
    }

    #[test]
    fn what_grew_is_reported_once_over_all_workers() {
        let metrics = Metrics::new("dc", 2, 10);
        let locals = [0, 1].map(|at| LocalMetrics::new(metrics.of_worker(at)));
        let [id, service, gray] = ["r", "s", "gray"].map(name);
        let labels = RouteLabels {
            index: 0,
            route: &id,
            service: &service,
        };
        let mut collector = Collector::default();
        assert_eq!(collector.collect(&metrics), (Vec::new(), 0));
        for local in &locals {
            let plain = local.begin(labels, None);
            local.request(Some(labels), Some(&plain), counted(200, 1000));
            local.request(None, None, counted(404, 10));
        }
        let under_way = locals[1].begin(labels, Some(&gray));
        under_way.is_limited();
        under_way.falls_back();
        locals[1].request(Some(labels), Some(&under_way), counted(502, 70_000));
        let (mut series, _) = collector.collect(&metrics);
        series.sort_by_key(|one| (one.route.clone(), one.group.clone()));
        let [none, plain, grouped] = &series[..] else {
            panic!("{series:?}");
        };
        assert_eq!((&none.route, &none.service), (&None, &None));
        assert_eq!(none.figures.classes, [0, 0, 0, 2, 0]);
        assert_eq!(none.figures.in_flight, 0);
        assert_eq!(plain.figures.classes, [0, 2, 0, 0, 0]);
        assert_eq!(plain.figures.latency.count(), 2);
        assert_eq!(plain.figures.latency.sum_us(), 2000);
        assert_eq!(plain.figures.in_flight, 0, "what ended is not under way");
        assert_eq!(grouped.group, Some(gray.clone()));
        assert_eq!(grouped.figures.classes, [0, 0, 0, 0, 1]);
        let rest = [
            grouped.figures.in_flight,
            grouped.figures.retries,
            grouped.figures.fallbacks,
            grouped.figures.limited,
        ];
        assert_eq!(rest, [1; 4]);
        // What is still under way is told again; what was counted is not.
        let (series, _) = collector.collect(&metrics);
        let [grouped] = &series[..] else {
            panic!("{series:?}");
        };
        assert_eq!(grouped.figures.requests(), 0);
        assert_eq!(grouped.figures.in_flight, 1);
        drop(under_way);
        assert_eq!(collector.collect(&metrics), (Vec::new(), 0));
    }

    #[test]
    fn differences_hold_when_a_bucket_begins_anew() {
        let (mut before, mut now) = (Sum::default(), Sum::default());
        before.buckets[7] = u32::MAX;
        now.buckets[7] = 1;
        before.classes[1] = u32::MAX;
        now.classes[1] = 1;
        let figures = difference(&before, &now);
        assert_eq!(figures.latency.filled().collect::<Vec<_>>(), [(7, 2)]);
        assert_eq!(figures.classes, [0, 2, 0, 0, 0]);
    }

    #[test]
    fn the_series_with_the_most_requests_have_room() {
        let one = |n: u64| Series {
            route: None,
            service: None,
            group: None,
            figures: Figures {
                classes: [0, n, 0, 0, 0],
                ..Figures::default()
            },
        };
        let mut series: Vec<_> = (1..=MAX_SERIES as u64 + 2).map(one).collect();
        assert_eq!(bound(&mut series), 1 + 2);
        assert_eq!(series.len(), MAX_SERIES);
    }

    #[test]
    fn peers_are_counted_by_service() {
        let mut world = World::default();
        world.service(Service::named(name("s")));
        world.route(route("r", "*", "/", "s"));
        for (number, weight) in [(0, 100), (1, 100), (2, 0)] {
            world.instance(instance("s", number, weight));
        }
        let table = world.publish(Instant::now());
        let told = |table: &Table| {
            let all = peers(Some(table));
            (all[0].service.to_string(), all[0].healthy, all[0].total)
        };
        assert_eq!(told(&table), ("s".to_owned(), 2, 2));
        let upstream = table.upstreams().next().unwrap();
        upstream.members()[0]
            .peer
            .set_checks(Some("down".to_owned()));
        assert_eq!(told(&table), ("s".to_owned(), 1, 2));
        assert!(peers(None).is_empty());
    }

    #[test]
    fn those_in_other_clusters_are_told_of_too() {
        let mut world = World::default();
        world.service(Service::named(name("s")));
        let mut traffic = Traffic::of("dc".parse().unwrap());
        traffic.weights = [(name("b"), 1)].into();
        world.traffic(traffic);
        world.instance(instance("s", 0, 100));
        for number in 1..4 {
            let mut away = instance("s", number, 100);
            away.cluster = name("b");
            world.other("b", away);
        }
        let table = world.publish(Instant::now());
        let upstream = world.upstream("s");
        let away = upstream.ways().unwrap().each[1].all.members();
        away[0].peer.set_checks(Some("down".to_owned()));
        let told: Vec<_> = peers(Some(&table))
            .into_iter()
            .map(|one| (one.cluster, one.healthy, one.total))
            .collect();
        assert_eq!(told, [(None, 1, 1), (Some(name("b")), 2, 3)]);
        let mut b = Cluster::named(name("b"));
        b.gateway = vec!["10.9.9.9:80".parse().unwrap()];
        world.cluster(b);
        assert_eq!(peers(Some(&world.publish(Instant::now()))).len(), 1);
    }
}
