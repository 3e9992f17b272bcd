//! Live figures over HTTP: reported, told, watched, and what is refused by which field.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::{Cardea, SOON, secret};

const REPORT: &str = "/v1/clusters/c/routers/r/figures";
const FIGURES: &str = "/v1/clusters/c/figures";

/// A window that has ended, and is told of.
fn window() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    now - now.rem_euclid(5000) - 10_000
}

/// A report of some requests of one route, and one error.
pub(crate) fn report(process: &str, requests: u64) -> Value {
    json!({
        "process": process, "at": window(),
        "series": [{"route": "r", "service": "s", "group": "gray", "figures": {
            "classes": [0, requests, 0, 0, 1], "in_flight": 2, "limited": 1,
            "latency": {"first": 40, "counts": [requests, 1], "sum_us": 5000},
        }}],
        "peers": [{"service": "s", "healthy": 1, "total": 2}],
    })
}

#[tokio::test]
async fn what_routers_report_is_told() {
    let cardea = Cardea::start().await;
    let first = report("p1", 10);
    let taken = cardea
        .send("router", "POST", REPORT, first.clone())
        .await
        .ok();
    assert_eq!(taken.body, json!({"counted": true, "stored": true}));
    let again = cardea.send("router", "POST", REPORT, first).await.ok();
    assert_eq!(again.body, json!({"counted": false, "stored": true}));
    let other = cardea
        .send("router", "POST", REPORT, report("p2", 20))
        .await;
    other.ok();

    let told = cardea.call("viewer", "GET", FIGURES).await.ok().body;
    assert_eq!(told["cluster"], "c");
    assert_eq!(told["step"], "1m");
    assert_eq!(
        told["to"].as_i64().unwrap() - told["from"].as_i64().unwrap(),
        60_000
    );
    let point = &told["points"][0];
    assert_eq!(
        (&point["reports"], &point["left_out"]),
        (&json!(2), &json!(0))
    );
    let series = &point["series"][0];
    assert_eq!(series["service"], "s");
    assert_eq!(series["requests"], 32);
    assert_eq!(series["classes"], json!([0, 30, 0, 0, 2]));
    assert_eq!(series["limited"], 2);
    assert_eq!(series["peers_healthy"], 1);
    assert_eq!(series["peers_total"], 2);
    assert!(series["p99_us"].as_u64() >= series["p50_us"].as_u64());
    let by_group = format!("{FIGURES}?by=group&service=s&window=30s&step=5s");
    let groups = cardea.call("viewer", "GET", &by_group).await.ok().body;
    assert_eq!(groups["points"][0]["series"][0]["group"], "gray");
    let none = cardea
        .call("viewer", "GET", &format!("{FIGURES}?service=other"))
        .await;
    assert_eq!(none.ok().body["points"][0]["series"], json!([]));
    let elsewhere = cardea.call("viewer", "GET", "/v1/clusters/d/figures").await;
    assert_eq!(elsewhere.ok().body["points"], json!([]));
    // None of it is in the change log.
    let changes = cardea.call("viewer", "GET", "/v1/changes").await.ok().body;
    let of_figures = changes["items"].to_string().contains("figures");
    assert!(!of_figures, "{changes}");
    cardea.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let cardea = Cardea::start().await;
    let send = |change: fn(&mut Value)| {
        let mut body = report("p", 1);
        change(&mut body);
        cardea.send("router", "POST", REPORT, body)
    };
    send(|b| b["at"] = json!(1)).await.invalid(&["at", "at"]);
    send(|b| b["at"] = json!(b["at"].as_i64().unwrap() + 60_000))
        .await
        .invalid(&["at"]);
    send(|b| b["proces"] = json!("p"))
        .await
        .invalid(&["proces"]);
    send(|b| b["series"][0]["figures"]["retries"] = json!(-1))
        .await
        .invalid(&["series[0].figures.retries"]);
    send(|b| b["series"][0]["figures"]["latency"]["first"] = json!(160))
        .await
        .invalid(&["series[0].figures.latency.counts"]);
    send(|b| b["series"][0]["route"] = json!("UPPER"))
        .await
        .invalid(&["series[0].route"]);
    let get = |query: &str| {
        let path = format!("{FIGURES}?{query}");
        let cardea = &cardea;
        async move { cardea.call("viewer", "GET", &path).await }
    };
    get("window=25h").await.invalid(&["window"]);
    get("window=1m&step=7s").await.invalid(&["step", "window"]);
    get("window=2h&step=5s").await.invalid(&["step"]);
    get("by=router").await.invalid(&["by"]);
    get("servce=s").await.invalid(&["servce"]);
    get("service=A").await.invalid(&["service"]);
    let live = format!("{FIGURES}/live?window=5s");
    cardea
        .call("viewer", "GET", &live)
        .await
        .invalid(&["window"]);
    let nobody = cardea
        .call("viewer", "GET", &format!("{FIGURES}?window=1m"))
        .await;
    assert_eq!(
        nobody.ok().body["points"],
        json!([]),
        "what was refused changed nothing"
    );
    cardea.stop().await;
}

#[tokio::test]
async fn whoever_watches_is_told_each_window_until_the_registry_stops() {
    let cardea = Cardea::start().await;
    cardea
        .send("router", "POST", REPORT, report("p1", 7))
        .await
        .ok();
    let watch = cardea
        .http
        .get(cardea.url(&format!("{FIGURES}/live?by=group")));
    let answer = watch.bearer_auth(secret("viewer")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.bytes_stream();
    let mut text = String::new();
    let two = async {
        while text.matches("\n\n").count() < 2 {
            let piece = body.next().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    tokio::time::timeout(SOON, two).await.unwrap();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(text.matches("event: figures").count(), 2, "{text}");
    assert_eq!(events[0]["step"], "5s");
    let gap = events[1]["to"].as_i64().unwrap() - events[0]["to"].as_i64().unwrap();
    assert!(gap > 0 && gap % 5000 == 0, "{text}");
    let stopped = tokio::time::timeout(Duration::from_secs(10), cardea.registry.stop());
    let (stopped, ended) = tokio::join!(stopped, async {
        while let Some(Ok(_)) = body.next().await {}
    });
    stopped.unwrap();
    let () = ended;
}

#[tokio::test]
async fn so_many_may_watch_and_no_more() {
    let cardea = Cardea::start().await;
    let watch = || {
        let call = cardea.http.get(cardea.url(&format!("{FIGURES}/live")));
        call.bearer_auth(secret("viewer")).send()
    };
    let mut watching = Vec::new();
    for _ in 0..64 {
        let answer = watch().await.unwrap();
        assert_eq!(answer.status(), 200);
        watching.push(answer);
    }
    let refused = cardea
        .call("viewer", "GET", &format!("{FIGURES}/live"))
        .await;
    refused.problem(429, "too_many_requests");
    // One that goes makes room.
    drop(watching.pop());
    let again = async { while watch().await.unwrap().status() != 200 {} };
    tokio::time::timeout(SOON, again).await.unwrap();
    drop(watching);
    cardea.stop().await;
}
