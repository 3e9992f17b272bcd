//! The database is away: what goes on and what is refused, seen through the API.

use std::{str::FromStr, time::Instant};

use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{Cardea, SOON, send};

const ONE: &str = "/v1/clusters/dc-a/services/search/instances/one";
const TWO: &str = "/v1/clusters/dc-a/services/search/instances/two";

/// Takes the database's write lock, so that the registry's own writes time out.
async fn lock(cardea: &Cardea) -> SqliteConnection {
    let path = cardea.dir.path().join("registry.db");
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{}", path.display())).unwrap();
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute("BEGIN IMMEDIATE").await.unwrap();
    connection
}

async fn mode_becomes(cardea: &Cardea, mode: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let status = cardea.call("viewer", "GET", "/v1/status").await.ok().body;
        if status["mode"] == mode {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn registrations_go_on_and_configuration_waits() {
    let cardea = Cardea::with(|config| {
        config.database_timeout = cardea_registry_api::Span::millis(200);
    })
    .await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let mut held = lock(&cardea).await;
    // Whichever write comes first finds out; it is accepted all the same.
    let body = json!({"address": "10.0.0.1:81"});
    let written = cardea.send("agent", "PUT", ONE, body).await.ok();
    assert_eq!(written.body["durable"], false);
    mode_becomes(&cardea, "database_lost").await;

    let written = cardea
        .send("agent", "PUT", TWO, json!({"address": "10.0.0.2:80"}))
        .await
        .ok();
    assert_eq!(written.body["durable"], false);
    let epoch = written.body["epoch"].as_str().unwrap().to_owned();
    assert!(epoch.contains('~'), "{epoch}");
    cardea
        .call("agent", "POST", &format!("{TWO}/renew"))
        .await
        .ok();
    cardea.call("viewer", "GET", TWO).await.ok();
    cardea
        .send("operator", "PATCH", TWO, json!({"forced": {"weight": 0}}))
        .await
        .ok();

    let refused = [
        cardea
            .send(
                "operator",
                "PUT",
                "/v1/clusters/dc-b",
                json!({"name": "dc-b"}),
            )
            .await,
        cardea
            .send(
                "operator",
                "POST",
                "/v1/apply",
                json!({"clusters": [{"name": "dc-b"}]}),
            )
            .await,
        cardea
            .send(
                "admin",
                "POST",
                "/v1/tokens",
                json!({"name": "x", "role": "viewer"}),
            )
            .await,
    ];
    for answer in refused {
        answer.problem(503, "unavailable");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    }
    let ready = send(cardea.http.get(cardea.admin_url("/readyz")))
        .await
        .ok()
        .body;
    assert_eq!(
        (&ready["status"], &ready["mode"]),
        (&json!("degraded"), &json!("database_lost"))
    );
    send(cardea.http.get(cardea.admin_url("/healthz")))
        .await
        .ok();

    held.execute("ROLLBACK").await.unwrap();
    mode_becomes(&cardea, "ok").await;
    let status = cardea.call("viewer", "GET", "/v1/status").await.ok().body;
    assert_eq!(status["pending_changes"], 0);
    for (path, address) in [(ONE, "10.0.0.1:81"), (TWO, "10.0.0.2:80")] {
        let read = cardea.call("viewer", "GET", path).await.ok().body;
        assert_eq!(read["address"], address);
    }
    let put = cardea
        .send(
            "operator",
            "PUT",
            "/v1/clusters/dc-b",
            json!({"name": "dc-b"}),
        )
        .await;
    assert_eq!(put.ok().body["durable"], true);
    cardea.stop().await;
}

#[tokio::test]
async fn traffic_is_moved_and_deleted_on_a_reason_and_alarms_are_taken_note_of() {
    const TRAFFIC: &str = "/v1/clusters/dc-a/traffic";
    let cardea = Cardea::with(|config| {
        config.database_timeout = cardea_registry_api::Span::millis(200);
    })
    .await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let put = cardea.send("operator", "PUT", TRAFFIC, json!({"cluster": "dc-a"}));
    put.await.ok();
    // A router asks here.
    let asked = cardea.call("router", "GET", "/v1/clusters/dc-a/snapshot?router=r1");
    asked.await.ok();
    let mut held = lock(&cardea).await;
    let body = json!({"address": "10.0.0.1:81"});
    cardea.send("agent", "PUT", ONE, body).await.ok();
    mode_becomes(&cardea, "database_lost").await;

    let delete = async |query: &str, tag: Option<&str>| {
        let request = cardea.request("operator", "DELETE", &format!("{TRAFFIC}{query}"));
        let request = match tag {
            Some(tag) => request.header("if-match", tag),
            None => request,
        };
        send(request).await
    };
    let away = "?while_away=cut%20off";
    delete("", Some("*")).await.problem(503, "unavailable");
    delete(away, None)
        .await
        .problem(428, "precondition_required");
    delete(away, Some("\"0\""))
        .await
        .problem(412, "precondition_failed");
    delete("?while_away=%20", Some("*"))
        .await
        .invalid(&["while_away"]);
    cardea.call("viewer", "GET", TRAFFIC).await.ok();
    let gone = delete(away, Some("*")).await.ok();
    assert_eq!(gone.body["durable"], false);
    let warned = gone.body["warnings"][0].as_str().unwrap();
    assert!(
        warned.contains("written when the database is back"),
        "{warned}"
    );
    let read = cardea.call("viewer", "GET", TRAFFIC).await;
    read.problem(404, "not_found");
    assert!(matches!(delete(away, Some("*")).await.status, 404 | 412));

    let note = async |code: &str| {
        let body = json!({ "code": code });
        cardea
            .send("operator", "POST", "/v1/alarms/acknowledge", body)
            .await
    };
    let refused = note("database_lost").await;
    refused.problem(409, "conflict");
    assert!(refused.detail().contains("ends by itself"), "{refused:?}");
    note("away_write_lost").await.problem(409, "conflict");

    held.execute("ROLLBACK").await.unwrap();
    mode_becomes(&cardea, "ok").await;
    let read = cardea.call("viewer", "GET", TRAFFIC).await;
    read.problem(404, "not_found");
    let log = cardea.call("viewer", "GET", "/v1/changes").await.ok().body;
    let rows = log["items"].as_array().unwrap().iter();
    let causes: Vec<&str> = rows
        .filter(|row| row["kind"] == "traffic")
        .map(|row| row["cause"].as_str().unwrap())
        .collect();
    assert_eq!(causes.last(), Some(&"away cut off"), "{causes:?}");
    // Where the database is there, it is a write as any other.
    let written = cardea
        .send(
            "operator",
            "PUT",
            &format!("{TRAFFIC}{away}"),
            json!({"cluster": "dc-a"}),
        )
        .await
        .ok();
    assert_eq!(written.body["durable"], true);
    cardea.stop().await;
}

#[tokio::test]
async fn a_full_journal_refuses_the_new_and_takes_the_known() {
    let cardea = Cardea::with(|config| {
        config.database_timeout = cardea_registry_api::Span::millis(200);
        config.max_pending_changes = 1000;
    })
    .await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let mut held = lock(&cardea).await;
    let many: Vec<serde_json::Value> = (0..1000)
        .map(|i| {
            let key = json!({"cluster": "dc-a", "service": "search", "id": format!("i{i}")});
            json!({"key": key, "registration": {"address": "10.0.0.9:80"}})
        })
        .collect();
    let many = json!({"instances": many});
    cardea
        .send("agent", "POST", "/v1/registrations", many)
        .await
        .ok();

    let body = json!({"address": "10.0.0.2:80"});
    let refused = cardea.send("agent", "PUT", TWO, body).await;
    refused.problem(503, "journal_full");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    let status = cardea.call("viewer", "GET", "/v1/status").await.ok().body;
    let alarms = status["alarms"].as_array().unwrap();
    assert!(
        alarms.iter().any(|alarm| alarm["code"] == "journal_full"),
        "{status}"
    );
    let body = json!({"address": "10.0.0.1:81"});
    cardea.send("agent", "PUT", ONE, body).await.ok();
    cardea.call("agent", "DELETE", ONE).await.ok();
    let metrics = cardea.http.get(cardea.admin_url("/metrics")).send().await;
    let metrics = metrics.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("\ncardea_registry_pending_refused_total "),
        "{metrics}"
    );

    held.execute("ROLLBACK").await.unwrap();
    mode_becomes(&cardea, "ok").await;
    let body = json!({"address": "10.0.0.2:80"});
    let taken = cardea.send("agent", "PUT", TWO, body).await.ok();
    assert_eq!(taken.body["durable"], true);
    cardea
        .call("viewer", "GET", ONE)
        .await
        .problem(404, "not_found");
    cardea.stop().await;
}
