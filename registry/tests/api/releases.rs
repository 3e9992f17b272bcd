//! Releases through the API: what orders may say.

use serde_json::{Value, json};

use crate::Cardea;

#[tokio::test]
async fn an_order_that_says_what_it_does_not_know_is_refused_by_name() {
    let cardea = Cardea::start().await;
    let instance = |id: &str, version: &str| {
        json!({
            "key": {"cluster": "c", "service": "shop", "id": id},
            "registration": {"address": "10.0.0.1:80", "source": "manual", "lease": null,
                             "version": version},
        })
    };
    let body = json!({
        "services": [{"name": "shop", "groups": {"v2": {"version": "2"}}}],
        "instances": [instance("a", "1"), instance("b", "2")],
    });
    cardea
        .send("operator", "POST", "/v1/apply", body)
        .await
        .ok();
    let plan = json!({"service": "shop", "candidate": "v2", "reason": "r",
        "steps": [{"percent": 10, "pause": "manual"}, {"percent": 100, "pause": "manual"}]});
    let begun = cardea.send("operator", "POST", "/v1/releases", plan).await;
    let id = begun.ok().body["release"]["release"]["id"].clone();
    let order = async |word: &str, said: Value| {
        let path = format!("/v1/releases/{}/{word}", id.as_str().unwrap());
        cardea.send("operator", "POST", &path, said).await
    };
    for (word, said, field) in [
        ("pause", json!({"full": true}), "full"),
        (
            "promote",
            json!({"reason": "r", "while_away": true}),
            "while_away",
        ),
        ("rollback", json!({"while_away": true}), "reason"),
        (
            "rollback",
            json!({"reason": " ", "while_away": true}),
            "reason",
        ),
    ] {
        let refused = order(word, said).await;
        assert_eq!(
            refused.body["errors"][0]["field"], field,
            "{}",
            refused.body
        );
    }
    let path = format!("/v1/releases/{}", id.as_str().unwrap());
    let stands = cardea.call("viewer", "GET", &path).await.ok();
    assert_eq!(stands.body["release"]["state"], "running");
    // With the database it is the order as it always is.
    let said = json!({"reason": "r", "while_away": true});
    let back = order("rollback", said).await.ok();
    assert_eq!(back.body["release"]["release"]["state"], "rolled-back");
    assert_eq!(back.body["written"]["durable"], true);
    assert_eq!(back.body["written"]["warnings"], Value::Null);
    cardea.stop().await;
}
