//! Switches through the API.

use serde_json::{Value, json};

use crate::Cardea;

async fn site() -> Cardea {
    let cardea = Cardea::start().await;
    let instance = |cluster: &str, service: &str, capacity: Value| {
        json!({
            "key": {"cluster": cluster, "service": service, "id": "i"},
            "registration": {"address": "10.0.0.1:80", "source": "manual", "lease": null,
                             "capacity": capacity},
        })
    };
    let body = json!({
        "clusters": [{"name": "dc-a"}, {"name": "dc-b"}],
        "services": [{"name": "search"}, {"name": "shop"}, {"name": "mail"}],
        "instances": [
            instance("dc-a", "search", Value::Null), instance("dc-a", "shop", json!(500)),
            instance("dc-a", "mail", Value::Null), instance("dc-b", "search", json!(300)),
        ],
        "traffic": [
            {"cluster": "dc-a", "service": "mail", "weights": {"dc-a": 1, "dc-b": 1}},
            {"cluster": "dc-a", "weights": {"dc-a": 100, "dc-b": 0}, "failover": {"order": ["dc-b"]}},
        ],
    });
    cardea
        .send("operator", "POST", "/v1/apply", body)
        .await
        .ok();
    cardea
}

fn asked() -> Value {
    json!({"cluster": "dc-a", "to": {"dc-b": 100}, "reason": "power", "watch": "10m"})
}

fn with(field: &str, value: Value) -> Value {
    let mut body = asked();
    body[field] = value;
    body
}

#[tokio::test]
async fn a_dry_run_says_what_moves_and_writes_nothing() {
    let cardea = site().await;
    let before = cardea.call("viewer", "GET", "/v1/status").await.ok().body["revision"].clone();
    let dry = "/v1/switches?dry_run=true";
    let plan = cardea
        .send("operator", "POST", dry, asked())
        .await
        .ok()
        .body["plan"]
        .clone();
    assert_eq!(plan["traffic"][0]["key"], "dc-a");
    assert_eq!(
        plan["traffic"][0]["stages"][1],
        json!({"dc-a": 50, "dc-b": 50})
    );
    assert_eq!(plan["keeps"], json!(["mail"]));
    let services: Vec<&str> = plan["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["service"].as_str().unwrap())
        .collect();
    assert_eq!(services, ["search", "shop"]);
    let target = &plan["services"][0]["targets"][0];
    assert_eq!(
        (&target["capacity"], &target["known"]),
        (&json!(300.0), &json!("declared"))
    );
    let why = plan["refusals"][0]["why"].as_str().unwrap();
    assert_eq!(
        why,
        "cluster `dc-a` has no live router: nobody would follow"
    );
    let notes = plan["notes"].to_string();
    assert!(
        notes
            .contains("cluster `dc-b` has no instance of shop, of which there are no requests now"),
        "{notes}"
    );
    assert!(notes.contains("mail keep traffic of their own"), "{notes}");

    let wide = with("narrower", json!(true));
    let plan = cardea.send("operator", "POST", dry, wide).await.ok().body["plan"].clone();
    assert_eq!(plan["traffic"][1]["key"], "dc-a/mail");
    assert_eq!(
        plan["traffic"][1]["stages"][0],
        json!({"dc-a": 45, "dc-b": 55})
    );
    let one = with("service", json!("shop"));
    let plan = cardea.send("operator", "POST", dry, one).await.ok().body["plan"].clone();
    assert_eq!(
        (&plan["traffic"][0]["key"], &plan["traffic"][0]["exists"]),
        (&json!("dc-a/shop"), &json!(false))
    );
    let after = cardea.call("viewer", "GET", "/v1/status").await.ok().body["revision"].clone();
    assert_eq!(after, before);
    cardea.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_named_and_changes_nothing() {
    let cardea = site().await;
    for (body, field, says) in [
        (
            with("to", json!({"dc-x": 1})),
            "to.dc-x",
            "there is no cluster `dc-x`: did you mean `dc-a`?",
        ),
        (
            with("cluster", json!("else")),
            "cluster",
            "there is no cluster `else`: create it first",
        ),
        (
            with("service", json!("serch")),
            "service",
            "there is no service `serch`: did you mean `search`?",
        ),
        (with("reason", json!("")), "reason", "say why"),
        (
            with("guards", json!({"error": null})),
            "guards.error",
            "did you mean `errors`?",
        ),
        (asked(), "to", "no live router"),
    ] {
        let answer = cardea.send("operator", "POST", "/v1/switches", body).await;
        let error = &answer.body["errors"][0];
        assert_eq!(error["field"], field, "{answer:?}");
        assert!(
            error["message"].as_str().unwrap().contains(says),
            "{answer:?}"
        );
    }
    let list = cardea.call("viewer", "GET", "/v1/switches").await.ok();
    assert_eq!(list.body["items"], json!([]));
    cardea.stop().await;
}

#[tokio::test]
async fn a_service_s_own_object_has_what_held_for_it_and_goes_with_the_switch() {
    let cardea = site().await;
    let mut body = with("service", json!("search"));
    body["force"] = json!(true);
    let begun = cardea
        .send("operator", "POST", "/v1/switches", body)
        .await
        .ok();
    let id = begun.body["begun"]["switch"]["id"].as_str().unwrap();
    assert_eq!(id, "switch-1");
    let own = "/v1/clusters/dc-a/services/search/traffic";
    let traffic = cardea.call("viewer", "GET", own).await.ok().body;
    assert_eq!(traffic["weights"], json!({"dc-a": 90, "dc-b": 10}));
    assert_eq!(traffic["failover"]["order"], json!(["dc-b"]));
    let shown = cardea
        .call("viewer", "GET", "/v1/switches/switch-1")
        .await
        .ok();
    assert_eq!(shown.body["now"], "stage 1 of 3 (10 %): no router is live");
    let undo = "/v1/switches/switch-1/undo";
    let late = cardea
        .send("operator", "POST", undo, json!({"why": "x"}))
        .await;
    assert_eq!(late.body["errors"][0]["field"], "why");
    let undone = cardea
        .send("admin", "POST", undo, json!({"reason": "no"}))
        .await
        .ok();
    assert_eq!(undone.body["switch"]["state"], "undone");
    cardea
        .call("viewer", "GET", own)
        .await
        .problem(404, "not_found");
    cardea
        .send("admin", "POST", undo, json!({}))
        .await
        .problem(409, "conflict");
    let none = cardea
        .send("admin", "POST", "/v1/switches/switch-7/undo", json!({}))
        .await;
    none.problem(404, "not_found");
    cardea.stop().await;
}
