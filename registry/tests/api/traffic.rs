//! Where clusters' requests go, through the API.

use serde_json::{Value, json};

use crate::Cardea;

const ALL: &str = "/v1/clusters/dc-a/traffic";
const ONE: &str = "/v1/clusters/dc-a/services/search/traffic";

async fn site() -> Cardea {
    let cardea = Cardea::start().await;
    let body = json!({
        "clusters": [{"name": "dc-a"}, {"name": "dc-b"}],
        "services": [{"name": "search"}, {"name": "shop"}],
        "instances": [
            instance("dc-a", "search"), instance("dc-a", "shop"), instance("dc-b", "search"),
        ],
    });
    cardea
        .send("operator", "POST", "/v1/apply", body)
        .await
        .ok();
    cardea
}

fn instance(cluster: &str, service: &str) -> Value {
    json!({
        "key": {"cluster": cluster, "service": service, "id": "i"},
        "registration": {"address": "10.0.0.1:80", "source": "manual", "lease": null,
                         "capacity": 500},
    })
}

async fn feed(cardea: &Cardea, cluster: &str) -> String {
    let path = format!("/v1/clusters/{cluster}/snapshot");
    let feed = cardea.request("router", "GET", &path);
    feed.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn it_is_an_object_as_others_are_and_in_its_own_cluster_s_feed_only() {
    let cardea = site().await;
    let whole = json!({"cluster": "dc-a", "weights": {"dc-a": 0, "dc-b": 100}});
    let put = cardea
        .send("operator", "PUT", ALL, whole.clone())
        .await
        .ok();
    let lacks = put.body["warnings"][0].as_str().unwrap();
    assert!(
        lacks.starts_with("cluster `dc-b` has no instance that takes requests of shop:"),
        "{lacks}"
    );
    let one = json!({"cluster": "dc-a", "service": "search", "weights": {"dc-b": 1}});
    let put = cardea.send("operator", "PUT", ONE, one).await.ok();
    assert_eq!(put.body.get("warnings"), None);
    let got = cardea.call("viewer", "GET", ALL).await.ok();
    assert_eq!(got.body["weights"]["dc-b"], 100);
    let got = cardea.call("viewer", "GET", ONE).await.ok();
    assert_eq!(got.header("etag"), put.header("etag"));
    let list = cardea
        .call("viewer", "GET", "/v1/traffic?limit=1")
        .await
        .ok();
    assert_eq!(list.body["items"][0]["service"], Value::Null);
    let next = format!("/v1/traffic?cursor={}", list.body["next"].as_str().unwrap());
    let list = cardea.call("viewer", "GET", &next).await.ok();
    assert_eq!(list.body["items"][0]["service"], "search");
    let again = cardea.send("operator", "PUT", ALL, whole).await;
    again.problem(428, "precondition_required");

    let own = feed(&cardea, "dc-a").await;
    for line in [
        "{\"set\":\"traffic\",\"key\":\"dc-a\",",
        "{\"set\":\"traffic\",\"key\":\"dc-a/search\",",
        "{\"set\":\"cluster\",\"key\":\"dc-b\",",
        "\"capacity\":500",
    ] {
        assert!(own.contains(line), "{line}: {own}");
    }
    assert!(!feed(&cardea, "dc-b").await.contains("\"traffic\""));

    let request = cardea.request("operator", "DELETE", ONE);
    crate::send(request.header("if-match", "*")).await.ok();
    cardea
        .call("viewer", "GET", ONE)
        .await
        .problem(404, "not_found");
    assert!(!feed(&cardea, "dc-a").await.contains(
        "dc-a/search\",\"value\":{\"cluster\":\"dc-a\",\"service\":\"search\",\"weights"
    ));
    cardea.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_named_and_changes_nothing() {
    let cardea = site().await;
    let status = cardea.call("viewer", "GET", "/v1/status").await.ok();
    for (body, field) in [
        (json!({"cluster": "dc-b"}), "cluster"),
        (json!({"cluster": "dc-a", "service": "search"}), "service"),
        (
            json!({"cluster": "dc-a", "weights": {"dc-x": 1}}),
            "weights.dc-x",
        ),
        (json!({"cluster": "dc-a", "weight": {}}), "weight"),
        (
            json!({"cluster": "dc-a", "failover": {"order": ["dc-b"], "threshold": 101}}),
            "failover.threshold",
        ),
    ] {
        let answer = cardea.send("operator", "PUT", ALL, body.clone()).await;
        assert_eq!(
            answer.body["errors"][0]["field"], field,
            "{body}: {answer:?}"
        );
    }
    let cluster = json!({"name": "dc-b", "gateway": ["10.0.0.1:80", "10.0.0.1:80"]});
    let request = cardea.request("operator", "PUT", "/v1/clusters/dc-b");
    let answer = crate::send(request.header("if-match", "*").json(&cluster)).await;
    assert_eq!(answer.body["errors"][0]["field"], "gateway", "{answer:?}");
    let after = cardea.call("viewer", "GET", "/v1/status").await.ok();
    assert_eq!(after.body["revision"], status.body["revision"]);
    cardea.stop().await;
}

/// A router of another cluster is waited for where instances go, and is none of this cluster's: what is
/// divided among routers is not divided by it.
#[tokio::test]
async fn a_router_of_another_cluster_acknowledges_and_is_not_counted() {
    let cardea = site().await;
    let cardea_ref = &cardea;
    let poll = |router: &str, after: &str| {
        let path = format!("/v1/clusters/dc-b/snapshot?router={router}{after}");
        async move { crate::send(cardea_ref.request("router", "GET", &path)).await }
    };
    let own = poll("r1", "").await;
    assert_eq!(own.header("cardea-routers"), "1");
    let visitor = poll("dc-a%2Fr1", "").await;
    assert_eq!(visitor.header("cardea-routers"), "1");
    let gone = "/v1/clusters/dc-b/services/search/instances/i?wait=10ms";
    let gone = cardea.call("operator", "DELETE", gone).await.ok();
    assert_eq!(gone.body["pending"], json!(["dc-a/r1", "r1"]));
    let bye = cardea
        .call("router", "DELETE", "/v1/routers/dc-b/dc-a%2Fr1")
        .await;
    assert_eq!(bye.status, 204);
    let left = cardea
        .call("viewer", "GET", "/v1/routers?cluster=dc-b")
        .await
        .ok();
    assert_eq!(left.body["items"].as_array().unwrap().len(), 1);
    cardea.stop().await;
}
