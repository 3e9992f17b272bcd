//! Status, health, metrics, snapshots, the change log and tokens.

use std::str::FromStr;

use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{Cardea, send};

const ONE: &str = "/v1/clusters/dc-a/services/search/instances/one";

#[tokio::test]
async fn status_and_health_say_how_it_stands() {
    let cardea = Cardea::start().await;
    let revision = cardea.register(ONE, "10.0.0.1:80").await;
    let status = cardea.call("viewer", "GET", "/v1/status").await.ok().body;
    assert_eq!(status["mode"], "ok");
    assert_eq!(status["replica"], "one");
    assert_eq!(status["revision"], revision);
    assert_eq!(status["started_from"], "database");
    assert_eq!(status["pending_changes"], 0);
    assert_eq!(status["alarms"], json!([]));
    for url in [cardea.url("/healthz"), cardea.admin_url("/healthz")] {
        let answer = send(cardea.http.get(url)).await.ok();
        assert_eq!(answer.body, "ok\n");
    }
    for url in [cardea.url("/readyz"), cardea.admin_url("/readyz")] {
        let ready = send(cardea.http.get(url)).await.ok().body;
        assert_eq!(ready["status"], "ok");
        assert_eq!(ready["revision"], revision);
        assert_eq!(ready["epoch"], status["epoch"]);
    }
    cardea.stop().await;
}

#[tokio::test]
async fn metrics_count_requests_and_instances() {
    let cardea = Cardea::start().await;
    cardea.register(ONE, "10.0.0.1:80").await;
    cardea.call("viewer", "GET", "/nothing/here").await;
    cardea.call("viewer", "PROPFIND", "/v1/clusters").await;
    let answer = send(cardea.http.get(cardea.admin_url("/metrics")))
        .await
        .ok();
    let Value::String(text) = answer.body else {
        panic!("no text")
    };
    for line in [
        r#"cardea_registry_api_requests_total{route="/v1/clusters/{cluster}/services/{service}/instances/{id}",method="PUT",code="200"}"#,
        r#"cardea_registry_api_requests_total{route="none",method="GET",code="404"}"#,
        r#"cardea_registry_api_requests_total{route="/v1/clusters",method="other",code="405"}"#,
        r#"cardea_registry_api_request_duration_seconds_bucket{route="none",method="GET",le="0.0005"}"#,
        r#"cardea_registry_instances{state="up",source="agent"}"#,
        r#"cardea_registry_instances{state="draining",source="manual"} 0"#,
        "cardea_registry_revision ",
        r#"cardea_registry_mode{mode="database_lost"} 0"#,
        r#"cardea_build_info{version="0.1.0",commit=""#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    cardea.stop().await;
}

#[tokio::test]
async fn snapshots_are_written_listed_and_verified() {
    let cardea = Cardea::start().await;
    let revision = cardea.register(ONE, "10.0.0.1:80").await;
    let written = cardea
        .call("operator", "POST", "/v1/snapshots")
        .await
        .ok()
        .body;
    assert_eq!(written["revision"], revision);
    let listed = cardea
        .call("viewer", "GET", "/v1/snapshots")
        .await
        .ok()
        .body;
    assert_eq!(listed[0]["file"], written["file"]);
    let verified = cardea
        .call("viewer", "POST", "/v1/snapshots/verify")
        .await
        .ok()
        .body;
    assert_eq!(verified[0]["damage"], Value::Null);
    assert_eq!(verified[0]["objects"], written["objects"]);
    cardea.stop().await;
}

#[tokio::test]
async fn the_change_log_says_who_what_and_why() {
    let cardea = Cardea::start().await;
    let before = cardea.call("viewer", "GET", "/v1/status").await.ok().body["revision"]
        .as_u64()
        .unwrap();
    cardea.register(ONE, "10.0.0.1:80").await;
    cardea.register(ONE, "10.0.0.1:81").await;
    cardea.call("agent", "DELETE", ONE).await.ok();
    let path = format!("/v1/changes?after={before}");
    let page = cardea.call("viewer", "GET", &path).await.ok().body;
    let items = page["items"].as_array().unwrap();
    let seen: Vec<(&str, &str, &str)> = items
        .iter()
        .map(|item| {
            let text = |name: &str| item[name].as_str().unwrap();
            (text("actor"), text("cause"), text("kind"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("agent", "implied", "cluster"),
            ("agent", "implied", "service"),
            ("agent", "registered", "instance"),
            ("agent", "registered", "instance"),
            ("agent", "deregistered", "instance"),
        ]
    );
    assert_eq!(items[3]["before"]["address"], "10.0.0.1:80");
    assert_eq!(items[3]["after"]["address"], "10.0.0.1:81");
    assert_eq!(items[4]["after"], Value::Null);

    let mut seen = Vec::new();
    let mut next = format!("after={before}");
    loop {
        let path = format!("/v1/changes?limit=2&{next}");
        let page = cardea.call("viewer", "GET", &path).await.ok().body;
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["revision"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(cursor) => next = format!("cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, (before + 1..=before + 5).collect::<Vec<_>>());
    cardea
        .call("viewer", "GET", "/v1/changes?limit=0")
        .await
        .invalid(&["limit"]);
    cardea.stop().await;
}

#[tokio::test]
async fn changes_that_are_no_longer_kept_are_gone_and_the_oldest_is_named() {
    let cardea = Cardea::start().await;
    for n in 0..5 {
        cardea.register(ONE, &format!("10.0.0.1:{}", 80 + n)).await;
    }
    // As the retention does it, without waiting for an hour.
    let path = cardea.dir.path().join("registry.db");
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{}", path.display())).unwrap();
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let prune = "DELETE FROM changes WHERE revision < 5";
    connection.execute(prune).await.unwrap();
    for query in ["after=0", "after=3", "cursor=3", "after=2&limit=1"] {
        let answer = cardea
            .call("viewer", "GET", &format!("/v1/changes?{query}"))
            .await;
        let detail = answer.problem(410, "gone").detail();
        assert!(
            detail.contains("from revision 5") && detail.contains("after=4"),
            "{detail}"
        );
    }
    for query in ["", "?after=4"] {
        let page = cardea
            .call("viewer", "GET", &format!("/v1/changes{query}"))
            .await
            .ok()
            .body;
        assert_eq!(page["items"][0]["revision"], 5, "{query}");
    }
    let page = cardea
        .call("viewer", "GET", "/v1/changes?after=1000000")
        .await
        .ok();
    assert_eq!(page.body["items"], json!([]));
    cardea.stop().await;
}

#[tokio::test]
async fn tokens_are_made_used_and_deleted() {
    let cardea = Cardea::start().await;
    let new = json!({"name": "ci", "role": "agent", "services": ["search"]});
    let made = cardea
        .send("admin", "POST", "/v1/tokens", new.clone())
        .await;
    assert_eq!(made.status, 201);
    assert_eq!(made.header("cache-control"), "no-store");
    let secret = made.body["token"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("cardea_agent_"));
    cardea
        .send("admin", "POST", "/v1/tokens", new)
        .await
        .problem(409, "conflict");
    let url = cardea.url("/v1/instances?service=search");
    let list = || send(cardea.http.get(&url).bearer_auth(&secret));
    list().await.ok();
    let page = cardea.call("admin", "GET", "/v1/tokens").await.ok().body;
    let text = page.to_string();
    assert!(
        !text.contains(&secret) && !text.contains("sha256"),
        "{text}"
    );
    let names: Vec<&str> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "admin", "agent", "bound", "ci", "operator", "router", "viewer"
        ]
    );
    let first = cardea
        .call("admin", "GET", "/v1/tokens?limit=6")
        .await
        .ok()
        .body;
    let path = format!(
        "/v1/tokens?limit=6&cursor={}",
        first["next"].as_str().unwrap()
    );
    let last = cardea.call("admin", "GET", &path).await.ok().body;
    assert_eq!(
        (&last["items"][0]["name"], &last["next"]),
        (&json!("viewer"), &Value::Null)
    );

    cardea.call("admin", "DELETE", "/v1/tokens/ci").await.ok();
    list().await.problem(401, "unauthenticated");
    cardea
        .call("admin", "DELETE", "/v1/tokens/ci")
        .await
        .problem(404, "not_found");
    cardea
        .call("admin", "DELETE", "/v1/tokens/admin")
        .await
        .problem(409, "conflict");
    let bad = json!({"name": "x", "role": "viewer", "services": ["search"]});
    cardea
        .send("admin", "POST", "/v1/tokens", bad)
        .await
        .invalid(&["services"]);
    let bad = json!({"name": "system", "role": "viewer"});
    cardea
        .send("admin", "POST", "/v1/tokens", bad)
        .await
        .invalid(&["name"]);

    // The log shows that there was a token; not to everybody what it was, and its hash to nobody.
    for (role, shown) in [("viewer", false), ("admin", true)] {
        let page = cardea.call(role, "GET", "/v1/changes").await.ok().body;
        let items = page["items"].as_array().unwrap();
        let token = items.iter().find(|item| item["key"] == "ci").unwrap();
        assert_eq!(token["after"].is_object(), shown);
        assert!(!page.to_string().contains("sha256"));
    }
    cardea.stop().await;
}

#[tokio::test]
async fn a_history_is_decided_only_while_one_is_held() {
    let cardea = Cardea::start().await;
    let bad = cardea
        .send("operator", "POST", "/v1/history", json!({"keep": "both"}))
        .await;
    bad.invalid(&["keep"]);
    let answer = cardea
        .send("operator", "POST", "/v1/history", json!({"keep": "memory"}))
        .await;
    assert!(matches!(answer.status, 200 | 409), "{answer:?}");
    cardea.stop().await;
}
