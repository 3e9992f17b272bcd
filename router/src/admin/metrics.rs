//! What the control thread has to tell Prometheus.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use cardea_registry_api::Name;

use crate::{
    admin::{Admin, age_seconds},
    clock,
    plugin::breaker,
    shared::Readiness,
    table::Origin,
};

/// Appends the control thread's metrics.
pub(super) fn render(admin: &Admin, out: &mut String) {
    let shared = &admin.shared;
    gauge(
        out,
        "cardea_build_info",
        "Which build this is.",
        [(
            format!(
                "{{version=\"{}\",commit=\"{}\"}}",
                env!("CARGO_PKG_VERSION"),
                admin.commit
            ),
            1.0,
        )],
    );
    let ready = matches!(shared.readiness(), Readiness::Ready(_));
    single(
        out,
        "cardea_router_ready",
        "Whether the router may be sent requests.",
        f64::from(u8::from(ready)),
    );
    single(
        out,
        "cardea_router_degraded",
        "How many reasons there are to call the router degraded.",
        shared.degraded().len() as f64,
    );
    single(
        out,
        "cardea_router_alarms",
        "Things that need attention, such as skipped objects; /v1/table names them.",
        shared.alarms().len() as f64,
    );
    if let Some(table) = shared.table_full() {
        single(
            out,
            "cardea_router_config_revision",
            "The revision in force.",
            table.revision as f64,
        );
        single(
            out,
            "cardea_router_config_age_seconds",
            "Since the source last said that this is the newest table; +Inf: never.",
            age_seconds(shared),
        );
        let sources = [
            Origin::Registry,
            Origin::Disk,
            Origin::Static,
            Origin::HandedOver,
        ];
        gauge(
            out,
            "cardea_router_config_source",
            "Where the table came from: 1 for the one in force.",
            sources.map(|source| {
                let labels = format!("{{source=\"{}\"}}", source.as_str());
                (labels, f64::from(u8::from(source == table.origin)))
            }),
        );
        single(
            out,
            "cardea_router_routes",
            "Routes in the table.",
            table.routes.len() as f64,
        );
        let now = clock::unix_millis();
        let certificates = table.certificates.iter().flat_map(|set| set.validities());
        gauge(
            out,
            "cardea_router_certificate_expiry_seconds",
            "Until a certificate expires; negative: since it has expired.",
            certificates.map(|validity| {
                let labels = format!("{{certificate=\"{}\"}}", validity.name);
                (labels, (validity.not_after - now) as f64 / 1000.0)
            }),
        );
        let peers = table.upstreams().flat_map(|upstream| {
            upstream.everybody().map(move |member| {
                let labels = format!(
                    "{{cluster=\"{}\",service=\"{}\",peer=\"{}\"}}",
                    member.peer.key().cluster,
                    upstream.service(),
                    member.peer.key().id
                );
                let usable = member.takes_requests() && member.peer.word().usable();
                (labels, f64::from(u8::from(usable)))
            })
        });
        gauge(
            out,
            "cardea_router_peer_healthy",
            "1: the peer takes new requests; 0: it is down or not meant to.",
            peers,
        );
    }
    plugins(admin, out);
    copies(admin, out);
    counters(admin, out);
}

/// What plugins said. Their names and verdicts are those of configured objects: a closed set.
fn plugins(admin: &Admin, out: &mut String) {
    let mut samples = Vec::new();
    admin
        .shared
        .plugins
        .tallies(|plugin, kind, verdict, count| {
            let labels = format!(
                "{{cluster=\"{}\",plugin=\"{plugin}\",kind=\"{kind}\",verdict=\"{verdict}\"}}",
                admin.cluster
            );
            samples.push((labels, count as f64));
        });
    family(
        out,
        "counter",
        "cardea_router_plugin_verdicts_total",
        "What plugins decided about requests; those in shadow only say so.",
        samples,
    );
    breakers(admin, out);
}

fn breakers(admin: &Admin, out: &mut String) {
    let breakers = admin.shared.plugins.breakers();
    let labels = |plugin: &Name, service: &Name, more: &str| {
        let cluster = &admin.cluster;
        format!("{{cluster=\"{cluster}\",plugin=\"{plugin}\",service=\"{service}\"{more}}}")
    };
    let states = breakers.iter().flat_map(|(plugin, service, report)| {
        breaker::STATES.map(|state| {
            let labels = labels(plugin, service, &format!(",state=\"{state}\""));
            (labels, f64::from(u8::from(report.state == state)))
        })
    });
    gauge(
        out,
        "cardea_router_breaker_state",
        "Where a breaker is: 1 for the state in force.",
        states,
    );
    let opened = breakers
        .iter()
        .map(|(plugin, service, report)| (labels(plugin, service, ""), report.opened as f64));
    family(
        out,
        "counter",
        "cardea_router_breaker_opened_total",
        "How often a breaker opened.",
        opened,
    );
    let bounded = breakers.iter().filter_map(|(plugin, service, report)| {
        Some((labels(plugin, service, ""), report.limit?, report.running))
    });
    let bounded: Vec<_> = bounded.collect();
    for (name, help, value) in [
        (
            "cardea_router_concurrency_limit",
            "Requests at a time that adaptive concurrency allows.",
            (|one| f64::from(one.1)) as fn(&(String, u32, u32)) -> f64,
        ),
        (
            "cardea_router_concurrency_running",
            "Requests that are under way where adaptive concurrency bounds them.",
            |one| f64::from(one.2),
        ),
    ] {
        let samples = bounded.iter().map(|one| (one.0.clone(), value(one)));
        gauge(out, name, help, samples);
    }
}

/// What became of copies of requests.
fn copies(admin: &Admin, out: &mut String) {
    let all = admin.shared.plugins.copies();
    let labels = |plugin: &cardea_registry_api::Name, label: &str, value: &str| {
        format!(
            "{{cluster=\"{}\",plugin=\"{plugin}\",{label}=\"{value}\"}}",
            admin.cluster
        )
    };
    let results = all.iter().flat_map(|(plugin, counts)| {
        counts
            .results()
            .map(|(result, n)| (labels(plugin, "result", result), n as f64))
            .collect::<Vec<_>>()
    });
    family(
        out,
        "counter",
        "cardea_router_mirror_total",
        "Copies of requests by what became of them.",
        results,
    );
    let compared = all.iter().flat_map(|(plugin, counts)| {
        counts
            .comparisons()
            .map(|(with, n)| (labels(plugin, "difference", with), n as f64))
            .collect::<Vec<_>>()
    });
    family(
        out,
        "counter",
        "cardea_router_mirror_compared_total",
        "Answers to copies compared with those to their originals, by how they differ.",
        compared,
    );
    let name = "cardea_router_mirror_duration_seconds";
    let help = "From sending to the answer's head, of copies and of their originals.";
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (plugin, counts) in &all {
        for (of, durations) in ["copy", "original"].iter().zip(&counts.durations) {
            let cluster = &admin.cluster;
            let labels = format!("cluster=\"{cluster}\",plugin=\"{plugin}\",of=\"{of}\"");
            durations.render(out, name, &labels);
        }
    }
}

fn counters(admin: &Admin, out: &mut String) {
    let counts = &admin.shared.counts;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    family(
        out,
        "counter",
        "cardea_router_config_pulls_total",
        "Pulls from the registry by what came of them.",
        [
            ("{result=\"full\"}", read(&counts.pulls_full)),
            ("{result=\"delta\"}", read(&counts.pulls_delta)),
            ("{result=\"unchanged\"}", read(&counts.pulls_unchanged)),
            ("{result=\"refused\"}", read(&counts.pulls_refused)),
            ("{result=\"failed\"}", read(&counts.pulls_failed)),
        ]
        .map(|(labels, value)| (labels.to_owned(), value)),
    );
    family(
        out,
        "counter",
        "cardea_router_upgrades_total",
        "Hand-overs from one process to the next; the number is handed over as well.",
        [
            ("{result=\"done\"}", read(&counts.upgrades_done)),
            ("{result=\"failed\"}", read(&counts.upgrades_failed)),
        ]
        .map(|(labels, value)| (labels.to_owned(), value)),
    );
    family(
        out,
        "counter",
        "cardea_router_figures_reports_total",
        "Reports of live figures to the registry: sent; refused; dropped, as none answered for long; and \
         tries that failed.",
        [
            ("{result=\"sent\"}", read(&counts.figures_sent)),
            ("{result=\"failed\"}", read(&counts.figures_failed)),
            ("{result=\"refused\"}", read(&counts.figures_refused)),
            ("{result=\"dropped\"}", read(&counts.figures_dropped)),
        ]
        .map(|(labels, value)| (labels.to_owned(), value)),
    );
    for (name, help, counter) in [
        (
            "cardea_router_config_reloads_refused_total",
            "Edits of the static file that were refused.",
            &counts.reloads_refused,
        ),
        (
            "cardea_router_disk_copies_total",
            "Copies of the table written to disk.",
            &counts.disk_written,
        ),
        (
            "cardea_router_disk_copy_failures_total",
            "Copies of the table that could not be written.",
            &counts.disk_failed,
        ),
    ] {
        family(out, "counter", name, help, [(String::new(), read(counter))]);
    }
    single(
        out,
        "cardea_router_config_apply_seconds",
        "From the last update's arrival to the table's swap.",
        read(&counts.apply_micros) / 1e6,
    );
    counts.builds.render(
        out,
        "cardea_router_config_build_seconds",
        "Building a table and swapping it in.",
    );
}

fn single(out: &mut String, name: &str, help: &str, value: f64) {
    gauge(out, name, help, [(String::new(), value)]);
}

fn gauge(
    out: &mut String,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) {
    family(out, "gauge", name, help, samples);
}

fn family(
    out: &mut String,
    kind: &str,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let value = if value == f64::INFINITY {
            "+Inf".to_owned()
        } else {
            value.to_string()
        };
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}
