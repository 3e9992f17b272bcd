//! The registry's metrics: one recorder a process, however many registries start in it.

use std::sync::OnceLock;

use cardea_registry_api::{InstanceState, Source, api::Mode};
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
const DEGRADED: &str = "cardea_registry_degraded";
const PENDING: &str = "cardea_registry_pending_changes";
const ALARMS: &str = "cardea_registry_alarms";
const ROUTERS: &str = "cardea_registry_routers_live";
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
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(REQUESTS, "Requests to the API, by route, method and status");
    describe_histogram!(
        DURATION,
        "How long the API's requests took, by route and method"
    );
    describe_gauge!(INSTANCES, "Instances, by effective state and source");
    describe_gauge!(
        STALE,
        "Instances whose lease lapsed, kept by the collapse guard"
    );
    describe_gauge!(REVISION, "The revision served");
    describe_gauge!(
        DEGRADED,
        "1 while the registry serves without its database, by mode"
    );
    describe_gauge!(PENDING, "Accepted changes that wait for the database");
    describe_gauge!(ALARMS, "What needs somebody's attention");
    describe_gauge!(ROUTERS, "Routers that count for acknowledgements");
    describe_gauge!(SNAPSHOT_AGE, "Age of the newest disk snapshot");
    describe_gauge!("cardea_build_info", "1; the version is in the label");
}

/// Brings what is read rather than counted up to date, and writes everything out.
pub(crate) async fn render(handle: &PrometheusHandle, core: Option<&Core>) -> String {
    metrics::gauge!("cardea_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
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
    metrics::gauge!(STALE).set(state.stale() as f64);
    let status = core.status();
    metrics::gauge!(REVISION).set(status.revision as f64);
    for (mode, name) in [
        (Mode::DatabaseLost, "database_lost"),
        (Mode::HistoryHeld, "history_held"),
    ] {
        let on = if status.mode == mode { 1.0 } else { 0.0 };
        metrics::gauge!(DEGRADED, "mode" => name).set(on);
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
