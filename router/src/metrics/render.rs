//! The counters of all workers, added up, as Prometheus text.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::Ordering};

use cardea_registry_api::Name;

use super::{
    BOUNDS_US, Counter, Histogram, Http2Refusal, IdleClosed, Metrics, NONE, Protocol,
    RequestLabels, Slow, lock,
};
use crate::{
    arrival::Reason,
    plugin::mirror::Durations,
    tls::{self, Version},
};

/// Durations in buckets, of whoever counted them.
#[derive(Debug, Default, Clone)]
pub(super) struct Summed {
    pub(super) buckets: [u64; BOUNDS_US.len() + 1],
    pub(super) sum_us: u64,
}

impl Summed {
    fn add(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += bucket;
        }
        self.sum_us += other.sum_us;
    }

    fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[derive(Debug, Default)]
struct Merged {
    requests: BTreeMap<RequestLabels, u64>,
    duration: Summed,
    upstream_duration: Summed,
    retries: u64,
    errors: BTreeMap<&'static str, u64>,
    fallbacks: BTreeMap<[&'static str; 2], u64>,
    clusters: BTreeMap<Name, u64>,
}

impl Metrics {
    /// Appends the metrics in Prometheus' text format.
    pub(crate) fn render(&self, out: &mut String) {
        let mut routes: BTreeMap<(Box<str>, Box<str>), Merged> = BTreeMap::new();
        for worker in &self.workers {
            for (of, series) in lock(&worker.series).iter() {
                let [route, service] = of
                    .as_ref()
                    .map_or([NONE; 2], |of| of.each_ref().map(Name::as_str));
                let key = (route.into(), service.into());
                let merged = routes.entry(key).or_default();
                for (labels, count) in series.requests() {
                    *merged.requests.entry(labels).or_default() += count;
                }
                for (kind, counter) in lock(&series.errors).iter() {
                    *merged.errors.entry(kind).or_default() += counter.get();
                }
                for (to, counter) in lock(&series.clusters).iter() {
                    *merged.clusters.entry(to.clone()).or_default() += counter.get();
                }
                for (of, counter) in lock(&series.fallbacks).iter() {
                    *merged.fallbacks.entry(*of).or_default() += counter.get();
                }
                merged.duration.add(&series.duration());
                merged.upstream_duration.add(&series.upstream_duration());
                merged.retries += series.retries.get();
            }
        }
        self.render_routes(out, &routes);
        self.render_fallbacks(out, &routes);
        self.render_clusters(out, &routes);
        self.render_workers(out);
        self.render_tls(out);
    }

    fn render_tls(&self, out: &mut String) {
        let name = "cardea_router_tls_handshakes_total";
        head(out, name, "counter", "TLS handshakes with clients.");
        for (v, version) in Version::ALL.iter().enumerate() {
            for (r, resumed) in ["false", "true"].iter().enumerate() {
                let counts = self.workers.iter().map(|w| w.tls.handshakes[v][r].get());
                let count: u64 = counts.sum();
                let version = version.as_str();
                let _ = writeln!(
                    out,
                    "{name}{{version=\"{version}\",resumed=\"{resumed}\"}} {count}"
                );
            }
        }
        let name = "cardea_router_tls_handshake_failures_total";
        head(
            out,
            name,
            "counter",
            "Failed TLS handshakes with clients, by reason.",
        );
        for (r, reason) in tls::Reason::ALL.iter().enumerate() {
            let count: u64 = self.workers.iter().map(|w| w.tls.failed[r].get()).sum();
            let _ = writeln!(out, "{name}{{reason=\"{}\"}} {count}", reason.as_str());
        }
    }

    fn render_routes(&self, out: &mut String, routes: &BTreeMap<(Box<str>, Box<str>), Merged>) {
        let common = |(route, service): &(Box<str>, Box<str>)| {
            format!(
                "cluster=\"{}\",route=\"{route}\",service=\"{service}\"",
                self.cluster
            )
        };
        head(
            out,
            "cardea_router_requests_total",
            "counter",
            "Requests answered.",
        );
        for (key, merged) in routes {
            let common = common(key);
            for (labels, count) in &merged.requests {
                let _ = writeln!(
                    out,
                    "cardea_router_requests_total{{{common},code=\"{}\",method=\"{}\",protocol=\"{}\"}} {count}",
                    labels.code,
                    labels.method.as_str(),
                    labels.protocol.as_str(),
                );
            }
        }
        for (name, help, of) in [
            (
                "cardea_router_request_duration_seconds",
                "From a request's head to the last byte of its answer.",
                (|merged: &Merged| merged.duration.clone()) as fn(&Merged) -> Summed,
            ),
            (
                "cardea_router_upstream_duration_seconds",
                "From sending a request to a peer to the head of its answer.",
                |merged: &Merged| merged.upstream_duration.clone(),
            ),
        ] {
            head(out, name, "histogram", help);
            for (key, merged) in routes {
                histogram(out, name, &common(key), &of(merged));
            }
        }
        head(
            out,
            "cardea_router_retries_total",
            "counter",
            "Further tries on other peers.",
        );
        for (key, merged) in routes {
            let _ = writeln!(
                out,
                "cardea_router_retries_total{{{}}} {}",
                common(key),
                merged.retries
            );
        }
        head(
            out,
            "cardea_router_upstream_errors_total",
            "counter",
            "Failed tries, by kind.",
        );
        for (key, merged) in routes {
            for (kind, count) in &merged.errors {
                let _ = writeln!(
                    out,
                    "cardea_router_upstream_errors_total{{{},kind=\"{kind}\"}} {count}",
                    common(key)
                );
            }
        }
    }

    fn render_fallbacks(&self, out: &mut String, routes: &BTreeMap<(Box<str>, Box<str>), Merged>) {
        let name = "cardea_router_fallback_total";
        head(
            out,
            name,
            "counter",
            "Failures that a fallback answered for, by what went wrong and where the answer came from.",
        );
        for ((route, service), merged) in routes {
            for ([cause, answer], count) in &merged.fallbacks {
                let _ = writeln!(
                    out,
                    "{name}{{cluster=\"{}\",route=\"{route}\",service=\"{service}\",\
                     cause=\"{cause}\",answer=\"{answer}\"}} {count}",
                    self.cluster
                );
            }
        }
    }

    fn render_clusters(&self, out: &mut String, routes: &BTreeMap<(Box<str>, Box<str>), Merged>) {
        let name = "cardea_router_cluster_requests_total";
        head(
            out,
            name,
            "counter",
            "Requests of services whose traffic may leave the cluster, by the cluster they went to.",
        );
        for ((route, service), merged) in routes {
            for (to, count) in &merged.clusters {
                let _ = writeln!(
                    out,
                    "{name}{{cluster=\"{}\",route=\"{route}\",service=\"{service}\",\
                     to=\"{to}\"}} {count}",
                    self.cluster
                );
            }
        }
    }

    fn render_greedy(&self, out: &mut String) {
        let name = "cardea_router_connections_limit";
        head(out, name, "gauge", "Client connections that there may be.");
        let _ = writeln!(out, "{name} {}", self.connections);
        let name = "cardea_router_idle_connections_closed_total";
        head(
            out,
            name,
            "counter",
            "Idle client connections that were closed to make room, by what was short.",
        );
        for (why, reason) in IdleClosed::ALL {
            let closed: u64 = self.workers.iter().map(|w| w.idle_closed(why).get()).sum();
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {closed}");
        }
        let name = "cardea_router_slow_clients_total";
        head(
            out,
            name,
            "counter",
            "Clients that were given up because they were too slow, by what with.",
        );
        for (what, part) in Slow::ALL {
            let slow: u64 = self.workers.iter().map(|w| w.slow(what).get()).sum();
            let _ = writeln!(out, "{name}{{part=\"{part}\"}} {slow}");
        }
        let name = "cardea_router_accept_pauses_total";
        head(
            out,
            name,
            "counter",
            "How often accepting paused because the system had no descriptors or memory left.",
        );
        let pauses: u64 = self.workers.iter().map(|w| w.accept_pauses.get()).sum();
        let _ = writeln!(out, "{name} {pauses}");
    }

    fn render_workers(&self, out: &mut String) {
        let sum = |of: fn(&super::WorkerShare) -> u64| -> u64 {
            self.workers.iter().map(|worker| of(worker)).sum()
        };
        let name = "cardea_router_active_connections";
        head(out, name, "gauge", "Client connections that are open.");
        for (protocol, count) in [
            (Protocol::Http1, sum(|w| w.connections.get())),
            (Protocol::Http2, sum(|w| w.http2_connections.get())),
            (Protocol::Upgrade, sum(|w| w.tunnels.get())),
        ] {
            let _ = writeln!(out, "{name}{{protocol=\"{}\"}} {count}", protocol.as_str());
        }
        let name = "cardea_router_connections_refused_total";
        head(
            out,
            name,
            "counter",
            "Client connections that were closed before they were served, by reason.",
        );
        for reason in Reason::ALL {
            let refused: u64 = self.workers.iter().map(|w| w.refused(reason).get()).sum();
            let _ = writeln!(out, "{name}{{reason=\"{}\"}} {refused}", reason.as_str());
        }
        self.render_greedy(out);
        let name = "cardea_router_http2_refused_total";
        head(
            out,
            name,
            "counter",
            "HTTP/2 connections and streams that were ended for their own behaviour.",
        );
        for (refusal, reason) in Http2Refusal::ALL {
            let refused = self
                .workers
                .iter()
                .map(|w| &w.http2_refused[refusal as usize]);
            let refused: u64 = refused.map(Counter::get).sum();
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {refused}");
        }
        let name = "cardea_router_access_log_dropped_total";
        head(out, name, "counter", "Access-log lines that were dropped.");
        let dropped = sum(|w| w.log_dropped.get()) + self.log_failed.load(Ordering::Relaxed);
        let _ = writeln!(out, "{name} {dropped}");
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

impl Histogram {
    /// Appends it as a family of its own, without labels.
    pub(crate) fn render(&self, out: &mut String, name: &str, help: &str) {
        let summed = Summed {
            buckets: self.buckets.each_ref().map(Counter::get),
            sum_us: self.sum_us.get(),
        };
        head(out, name, "histogram", help);
        histogram(out, name, "", &summed);
    }
}

impl Durations {
    /// Appends it to a family.
    pub(crate) fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut summed = Summed::default();
        for (sum, bucket) in summed.buckets.iter_mut().zip(&self.buckets) {
            *sum = bucket.load(Ordering::Relaxed);
        }
        summed.sum_us = self.sum_us.load(Ordering::Relaxed);
        histogram(out, name, labels, &summed);
    }
}

fn histogram(out: &mut String, name: &str, labels: &str, summed: &Summed) {
    let (comma, braced) = if labels.is_empty() {
        ("", String::new())
    } else {
        (",", format!("{{{labels}}}"))
    };
    let mut so_far = 0;
    for (bound, bucket) in BOUNDS_US.iter().zip(&summed.buckets) {
        so_far += bucket;
        let bound = *bound as f64 / 1e6;
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {so_far}"
        );
    }
    let count = summed.count();
    let sum = summed.sum_us as f64 / 1e6;
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let _ = writeln!(
        out,
        "{name}_sum{braced} {sum}\n{name}_count{braced} {count}"
    );
}
