//! The registry's metrics: one recorder a process, however many registries start in it.

use std::sync::OnceLock;

use cardea_registry_api::{
    InstanceState, Source, api::Mode, release::ReleaseState, switch::SwitchState,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{core::Core, time::now_ms};

/// 0.5 ms to 10 s.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Requests, by route template, method and status.
pub(crate) const REQUESTS: &str = "cardea_registry_api_requests_total";
/// How long they took.
pub(crate) const DURATION: &str = "cardea_registry_api_request_duration_seconds";

const INSTANCES: &str = "cardea_registry_instances";
const STALE: &str = "cardea_registry_instances_stale";
const REVISION: &str = "cardea_registry_revision";
const MODE: &str = "cardea_registry_mode";
const PENDING: &str = "cardea_registry_pending_changes";
const ALARMS: &str = "cardea_registry_alarms";
const ROUTERS: &str = "cardea_registry_routers_live";
const SWITCHES: &str = "cardea_registry_switches";
const RELEASES: &str = "cardea_registry_releases";
/// Candidates that releases called worse, by what they were.
pub(crate) const WORSE: &str = "cardea_registry_releases_worse_total";
/// Guards that sent operations back, by guard.
pub(crate) const TRIPS: &str = "cardea_registry_guard_trips_total";
const SNAPSHOT_AGE: &str = "cardea_registry_snapshot_age_seconds";

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// The process's recorder, installed by whoever comes first.
pub(crate) fn recorder() -> PrometheusHandle {
    HANDLE.get_or_init(install).clone()
}

fn install() -> PrometheusHandle {
    let matcher = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new();
    // Fails only for an empty list.
    let builder = builder
        .set_buckets_for_metric(matcher, &SECONDS)
        .unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another part of this process records metrics: /metrics will lack ours");
    }
    describe();
    handle
}

fn describe() {
    for (name, text) in [
        (REQUESTS, "Requests to the API, by route, method and status"),
        ("cardea_registry_changes_total", "Changes written, by cause"),
        (
            "cardea_registry_changes_removed_total",
            "Old changes removed from the log",
        ),
        (
            "cardea_registry_renewals_total",
            "Leases that were to be renewed",
        ),
        (
            "cardea_registry_expired_total",
            "Instances that left because their leases lapsed",
        ),
        (
            "cardea_registry_guarded_total",
            "Instances with lapsed leases that the collapse guard kept",
        ),
        (
            "cardea_registry_database_lost_total",
            "How often the database was lost",
        ),
        (
            "cardea_registry_pending_rejected_total",
            "Changes accepted without the database that it then refused",
        ),
        (TRIPS, "Switches that a guard sent back, by guard"),
        (
            WORSE,
            "Releases that stopped by themselves, by what was worse",
        ),
        (
            "cardea_registry_pending_refused_total",
            "Units refused because too many changes waited for the database",
        ),
    ] {
        metrics::describe_counter!(name, text);
    }
    for (name, text) in [
        (DURATION, "How long the API's requests took"),
        (
            "cardea_registry_commit_duration_seconds",
            "How long the database's commits took",
        ),
    ] {
        metrics::describe_histogram!(name, text);
    }
    for (name, text) in [
        (INSTANCES, "Instances, by effective state and source"),
        (
            STALE,
            "Instances with lapsed leases, kept by the collapse guard",
        ),
        (REVISION, "The revision served"),
        (MODE, "1 for the mode that holds"),
        (PENDING, "Accepted changes that wait for the database"),
        (ALARMS, "What needs somebody's attention"),
        (ROUTERS, "Routers that count for acknowledgements"),
        (SWITCHES, "Switches that are kept, by state"),
        (RELEASES, "Releases that are kept, by state"),
        (SNAPSHOT_AGE, "Age of the newest disk snapshot"),
        (
            "cardea_build_info",
            "1; version and commit are in the labels",
        ),
    ] {
        metrics::describe_gauge!(name, text);
    }
}

/// Brings what is read rather than counted up to date, and writes everything out.
pub(crate) async fn render(
    handle: &PrometheusHandle,
    core: Option<&Core>,
    commit: String,
) -> String {
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("cardea_build_info", "version" => version, "commit" => commit).set(1.0);
    if let Some(core) = core {
        read(core).await;
    }
    handle.render()
}

async fn read(core: &Core) {
    const STATES: [InstanceState; 4] = [
        InstanceState::Starting,
        InstanceState::Up,
        InstanceState::Draining,
        InstanceState::Disabled,
    ];
    const SOURCES: [Source; 6] = [
        Source::Agent,
        Source::Kubernetes,
        Source::Eureka,
        Source::Nacos,
        Source::Consul,
        Source::Manual,
    ];
    let state = core.state();
    let counts: Vec<_> = state.instance_counts().collect();
    // All of them each time, so that what has gone reads 0.
    for kind in STATES {
        for source in SOURCES {
            let count = counts.iter().find(|(key, _)| *key == (kind, source));
            metrics::gauge!(INSTANCES, "state" => kind.as_str(), "source" => source.as_str())
                .set(count.map_or(0, |(_, count)| *count) as f64);
        }
    }
    for kind in SwitchState::ALL {
        let count = state
            .switches()
            .filter(|stored| stored.object.state == kind)
            .count();
        metrics::gauge!(SWITCHES, "state" => kind.as_str()).set(count as f64);
    }
    for kind in ReleaseState::ALL {
        let of = |stored: &&std::sync::Arc<crate::state::Stored<cardea_registry_api::Release>>| {
            stored.object.state == kind
        };
        let count = state.releases().filter(of).count();
        metrics::gauge!(RELEASES, "state" => kind.as_str()).set(count as f64);
    }
    for what in crate::release::WORSE {
        metrics::counter!(WORSE, "what" => what).increment(0);
    }
    for guard in crate::switch::GUARDS {
        metrics::counter!(TRIPS, "guard" => guard).increment(0);
    }
    metrics::gauge!(STALE).set(state.stale() as f64);
    let status = core.status();
    metrics::gauge!(REVISION).set(status.revision as f64);
    for (mode, name) in [
        (Mode::Ok, "ok"),
        (Mode::DatabaseLost, "database_lost"),
        (Mode::HistoryHeld, "history_held"),
    ] {
        let on = if status.mode == mode { 1.0 } else { 0.0 };
        metrics::gauge!(MODE, "mode" => name).set(on);
    }
    metrics::gauge!(PENDING).set(status.pending_changes as f64);
    metrics::gauge!(ALARMS).set(status.alarms.len() as f64);
    let routers = core.routers(None).await;
    let live = routers.iter().filter(|router| router.live).count();
    metrics::gauge!(ROUTERS).set(live as f64);
    if let Some(newest) = core.snapshots(false).await.first() {
        let age = now_ms().saturating_sub(newest.written_at).max(0);
        metrics::gauge!(SNAPSHOT_AGE).set(age as f64 / 1000.0);
    }
}
