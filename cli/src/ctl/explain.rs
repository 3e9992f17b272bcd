//! `ctl explain`.

use std::time::Duration;

use cardea_registry_api::Problem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{describe, print};
use crate::{
    exit::{Exit, Outcome},
    http, table,
};

/// What a router would do with a request, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Explanation {
    revision: u64,
    route: Option<Place>,
    refusal: Option<Refusal>,
    lost: Vec<Place>,
    plugins: Vec<Said>,
    rewritten: Option<String>,
    upstream: Option<Upstream>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    plugin: String,
    kind: String,
    verdict: String,
    shadow: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Place {
    id: String,
    host: String,
    prefix: String,
    service: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    status: u16,
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Upstream {
    balance: String,
    traffic: Option<Traffic>,
    peers: Vec<Peer>,
    would_pick: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Traffic {
    object: String,
    chosen: Option<String>,
    reason: String,
    clusters: Vec<Way>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Way {
    cluster: String,
    wanted: f64,
    share: f64,
    healthy: f64,
    keeps: f64,
    failover: Option<usize>,
    gateway: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Peer {
    key: String,
    address: String,
    state: String,
    weight: u16,
    health: String,
    reason: Option<String>,
    in_flight: u32,
    latency_ms: Option<f32>,
    requests: u64,
    failures: u64,
}

/// An answer with its text: printed as it came for programs.
#[derive(Serialize)]
#[serde(transparent)]
struct Raw(Value);

/// Asks a router where a request would go, and why.
pub(super) async fn run(
    router: &str,
    method: &str,
    url: &str,
    headers: &[String],
    json: bool,
) -> Outcome {
    for header in headers {
        if !header.contains(':') {
            return Err(Exit::Usage(format!("-H `{header}`: write `Name: value`")));
        }
    }
    let pairs = [("method", method), ("url", url)].into_iter();
    let pairs = pairs.chain(headers.iter().map(|header| ("header", header.as_str())));
    let query: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    let base = router.trim_end_matches('/');
    let base = if base.contains("://") {
        base.to_owned()
    } else {
        format!("http://{base}")
    };
    let asked = format!("{base}/v1/explain?{}", query.join("&"));
    let answer = http::get(&asked, Duration::from_secs(5)).await;
    let answer = answer.map_err(|_| {
        Exit::failed(format!(
            "no router answers at {base}; --router names its admin address"
        ))
    })?;
    if answer.status != 200 {
        let text = match serde_json::from_slice::<Problem>(&answer.body) {
            Ok(problem) => describe(&problem),
            Err(_) => String::from_utf8_lossy(&answer.body).trim().to_owned(),
        };
        return Err(Exit::failed(format!(
            "{base} answered {}: {text}",
            answer.status
        )));
    }
    let wrong = |e| Exit::failed(format!("the answer of {base} is not understood: {e}"));
    let raw: Value = serde_json::from_slice(&answer.body).map_err(wrong)?;
    let explanation = Explanation::deserialize(&raw).map_err(wrong)?;
    print(json, &Raw(raw), |_| render(method, url, &explanation))
}

fn render(method: &str, url: &str, explanation: &Explanation) -> String {
    let mut lines = vec![format!(
        "{method} {url}, by the table of revision {}",
        explanation.revision
    )];
    if let Some(route) = &explanation.route {
        lines.push(format!(
            "  route    {}: host {}, prefix {} → service {}",
            route.id, route.host, route.prefix, route.service
        ));
        lines.push(format!("           {}", route.reason));
    }
    for (i, said) in explanation.plugins.iter().enumerate() {
        let word = if i == 0 { "plugins" } else { "" };
        let shadow = if said.shadow { ", in shadow" } else { "" };
        let Said {
            plugin,
            kind,
            verdict,
            ..
        } = said;
        lines.push(format!("  {word:8} {plugin} ({kind}): {verdict}{shadow}"));
    }
    if let Some(path) = &explanation.rewritten {
        lines.push(format!("  path     {path}"));
    }
    if let Some(upstream) = &explanation.upstream {
        if let Some(traffic) = &upstream.traffic {
            let chosen = traffic.chosen.as_deref().unwrap_or("none");
            lines.push(format!(
                "  cluster  {chosen}, by traffic {}",
                traffic.object
            ));
            lines.push(format!("           {}", traffic.reason));
        }
        lines.push(format!("  balance  {}", upstream.balance));
        if let Some(peer) = &upstream.would_pick {
            lines.push(format!("  peer     {peer}"));
        }
    }
    if let Some(refusal) = &explanation.refusal {
        lines.push(format!("  answer   {}: {}", refusal.status, refusal.reason));
    }
    if let Some(upstream) = explanation
        .upstream
        .as_ref()
        .filter(|u| !u.peers.is_empty())
    {
        if let Some(traffic) = &upstream.traffic {
            lines.push(String::new());
            lines.push(clusters(&traffic.clusters));
        }
        lines.push(String::new());
        lines.push(peers(&upstream.peers));
    }
    if !explanation.lost.is_empty() {
        lines.push("\nroutes that lost".to_owned());
        lines.push(lost(&explanation.lost));
    }
    lines.join("\n")
}

fn clusters(clusters: &[Way]) -> String {
    let row = |cluster: &Way| {
        let failover = cluster.failover.map(|place| place.to_string());
        vec![
            cluster.cluster.clone(),
            format!("{} %", cluster.wanted),
            format!("{} %", cluster.healthy),
            format!("{} %", cluster.keeps),
            format!("{} %", cluster.share),
            failover.unwrap_or_else(|| "–".to_owned()),
            if cluster.gateway { "gateway" } else { "direct" }.to_owned(),
        ]
    };
    let headings = [
        "cluster", "wanted", "healthy", "keeps", "gets", "failover", "reached",
    ];
    let right = ["wanted", "healthy", "keeps", "gets", "failover"];
    table::render(&headings, clusters.iter().map(row).collect(), &right)
}

fn peers(peers: &[Peer]) -> String {
    let row = |peer: &Peer| {
        let latency = peer.latency_ms;
        vec![
            peer.key.clone(),
            peer.address.clone(),
            peer.state.clone(),
            peer.weight.to_string(),
            peer.health.replace('_', " "),
            peer.in_flight.to_string(),
            latency.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1} ms")),
            peer.requests.to_string(),
            peer.failures.to_string(),
            peer.reason.clone().unwrap_or_default(),
        ]
    };
    let headings = [
        "peer",
        "address",
        "state",
        "weight",
        "health",
        "in flight",
        "latency",
        "requests",
        "failures",
        "reason",
    ];
    let right = ["weight", "in flight", "latency", "requests", "failures"];
    table::render(&headings, peers.iter().map(row).collect(), &right)
}

fn lost(routes: &[Place]) -> String {
    let row = |route: &Place| {
        vec![
            route.id.clone(),
            route.host.clone(),
            route.prefix.clone(),
            route.service.clone(),
            route.reason.clone(),
        ]
    };
    let headings = ["route", "host", "prefix", "service", "because"];
    table::render(&headings, routes.iter().map(row).collect(), &[])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_winner_the_losers_and_the_peers() {
        let answer = json!({
            "revision": 7,
            "route": {"id": "shop", "host": "shop.local", "prefix": "/api", "service": "shop",
                      "reason": "its host is the request's"},
            "lost": [{"id": "any", "host": "*", "prefix": "/", "service": "web",
                      "reason": "`shop` has a more specific host"}],
            "plugins": [
                {"plugin": "house", "kind": "restrict", "verdict": "passed", "shadow": false},
                {"plugin": "g", "kind": "gray", "verdict": "new", "shadow": true},
            ],
            "rewritten": "/v2",
            "upstream": {
                "service": "shop", "balance": "round-robin", "would_pick": "default/shop/s-1",
                "peers": [
                    {"key": "default/shop/s-1", "address": "127.0.0.1:1", "state": "up",
                     "weight": 100, "health": "up", "in_flight": 2, "latency_ms": 1.25,
                     "requests": 10, "failures": 0},
                    {"key": "default/shop/s-2", "address": "127.0.0.1:2", "state": "up",
                     "weight": 100, "health": "checks_down", "reason": "no connection",
                     "in_flight": 0, "requests": 3, "failures": 3},
                ],
            },
        });
        let explanation = Explanation::deserialize(&answer).unwrap();
        insta::assert_snapshot!(render("GET", "http://shop.local/api", &explanation));
        let refused = json!({"revision": 7, "route": null, "lost": [],
                             "refusal": {"status": 404, "reason": "no route fits"}});
        let explanation = Explanation::deserialize(&refused).unwrap();
        insta::assert_snapshot!(render("GET", "http://x/", &explanation));
        let mut led = answer.clone();
        led["upstream"]["traffic"] = json!({
            "object": "dc-a", "chosen": "dc-b",
            "reason": "it has the largest share; clusters take turns: dc-a cannot bear all of its share",
            "clusters": [
                {"cluster": "dc-a", "wanted": 100.0, "share": 28.0, "healthy": 20.0, "keeps": 28.0,
                 "failover": null, "gateway": false},
                {"cluster": "dc-b", "wanted": 0.0, "share": 72.0, "healthy": 100.0, "keeps": 100.0,
                 "failover": 1, "gateway": true},
            ],
        });
        let explanation = Explanation::deserialize(&led).unwrap();
        insta::assert_snapshot!(render("GET", "http://shop.local/api", &explanation));
    }
}
