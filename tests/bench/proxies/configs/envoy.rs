//! Envoy's configuration; JSON, which is YAML too.

use std::path::PathBuf;

use cardea_tests::binary;
use serde_json::{Value, json};

use super::{CommandLine, Work};

/// Where `tests/setup bench` has put it; `CARDEA_ENVOY` names another.
pub(crate) fn envoy_program() -> PathBuf {
    std::env::var_os("CARDEA_ENVOY").map_or_else(
        || binary::profile_dir().join("../envoy/envoy/_bin/envoy"),
        PathBuf::from,
    )
}

/// One worker; `use_remote_address` makes it append X-Forwarded-For.
pub(crate) fn envoy(work: &Work<'_>) -> CommandLine {
    let config = work.file(".json", &config(work).to_string());
    let args = ["-c", &config, "--concurrency", "1"];
    let more = ["--disable-hot-restart", "--log-level", "error"];
    CommandLine {
        program: envoy_program(),
        args: args.into_iter().chain(more).map(str::to_owned).collect(),
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn typed(name: &str, mut value: Value) -> Value {
    value["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{name}"));
    value
}

fn config(work: &Work<'_>) -> Value {
    let hosts: Vec<Value> = (0..work.routes)
        .map(|route| {
            json!({
                "name": format!("h{route}"),
                "domains": [format!("h{route}.svc.local")],
                "routes": [{
                    "match": {"prefix": "/api/v1/"},
                    "route": {"cluster": "search", "timeout": "60s"},
                }],
            })
        })
        .collect();
    let endpoints: Vec<Value> = work
        .peers()
        .map(|(port, weight)| {
            json!({"endpoint": {"address": address(port)}, "load_balancing_weight": weight})
        })
        .collect();
    let log = typed(
        "access_loggers.file.v3.FileAccessLog",
        json!({"path": work.path("-access.log")}),
    );
    let router = typed("filters.http.router.v3.Router", json!({}));
    let manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "in",
            "use_remote_address": true,
            "access_log": [{"name": "file", "typed_config": log}],
            "http_filters": [{"name": "router", "typed_config": router}],
            "route_config": {"virtual_hosts": hosts},
        }),
    );
    json!({
        "static_resources": {
            "listeners": [{
                "address": address(work.port),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }],
            "clusters": [{
                "name": "search",
                "type": "STATIC",
                "connect_timeout": "1s",
                "lb_policy": "ROUND_ROBIN",
                "load_assignment": {
                    "cluster_name": "search",
                    "endpoints": [{"lb_endpoints": endpoints}],
                },
            }],
        },
    })
}
