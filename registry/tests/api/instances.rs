//! Register, renew, change, deregister.

use serde_json::{Value, json};

use crate::Cardea;

const ONE: &str = "/v1/clusters/dc-a/services/search/instances/10.0.0.1:80";
const TWO: &str = "/v1/clusters/dc-a/services/search/instances/two";

#[tokio::test]
async fn an_instance_lives_and_goes() {
    let cardea = Cardea::start().await;
    let body = json!({
        "address": "10.0.0.1:80", "weight": 7, "zone": "z1", "version": "1.2",
        "labels": {"lane": "gray"}, "lease": "20s",
    });
    let registered = cardea.send("agent", "PUT", ONE, body.clone()).await.ok();
    assert_eq!(registered.body["durable"], true);
    let read = cardea.call("agent", "GET", ONE).await.ok().body;
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(read[field], *value, "{field}");
    }
    assert_eq!(
        (&read["state"], &read["source"]),
        (&json!("up"), &json!("agent"))
    );
    // What registering implied is there too.
    for path in ["/v1/clusters/dc-a", "/v1/services/search"] {
        cardea.call("viewer", "GET", path).await.ok();
    }
    let renewed = cardea
        .call("agent", "POST", &format!("{ONE}/renew"))
        .await
        .ok();
    assert_eq!(renewed.body, json!({"renewed": 1, "unknown": []}));
    // A renewal is no change.
    let again = cardea.send("agent", "PUT", ONE, body).await.ok();
    assert_eq!(again.body["revision"], registered.body["revision"]);

    let patch = json!({"state": "draining", "weight": 3});
    cardea.send("agent", "PATCH", ONE, patch).await.ok();
    let read = cardea.call("agent", "GET", ONE).await.ok().body;
    assert_eq!(
        (&read["state"], &read["weight"]),
        (&json!("draining"), &json!(3))
    );

    let gone = cardea
        .call("agent", "DELETE", &format!("{ONE}?wait=1s"))
        .await
        .ok();
    assert_eq!(gone.body["found"], true);
    assert_eq!(gone.body["pending"], json!([]));
    let gone = cardea.call("agent", "DELETE", ONE).await.ok();
    assert_eq!(gone.body["found"], false);
    cardea
        .call("agent", "GET", ONE)
        .await
        .problem(404, "not_found");
    let renew = cardea.call("agent", "POST", &format!("{ONE}/renew")).await;
    assert!(
        renew
            .problem(404, "not_found")
            .detail()
            .contains("register it again")
    );
    let patch = cardea
        .send("agent", "PATCH", ONE, json!({"weight": 3}))
        .await;
    patch.problem(404, "not_found");
    cardea.stop().await;
}

#[tokio::test]
async fn what_an_operator_forces_outlives_the_agents_reports() {
    let cardea = Cardea::start().await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let forced = json!({"forced": {"state": "disabled", "weight": 0}});
    let agent = cardea.send("agent", "PATCH", ONE, forced.clone()).await;
    assert!(
        agent
            .problem(403, "forbidden")
            .detail()
            .contains("`operator`")
    );
    cardea
        .send("operator", "PATCH", ONE, forced.clone())
        .await
        .ok();
    cardea.register(ONE, "10.0.0.1:81").await;
    let read = cardea.call("viewer", "GET", ONE).await.ok().body;
    assert_eq!(read["forced"], forced["forced"]);
    assert_eq!(read["address"], "10.0.0.1:81");
    let listed = |state: &'static str| {
        let path = format!("/v1/instances?cluster=dc-a&service=search&state={state}");
        let cardea = &cardea;
        async move {
            let page = cardea.call("viewer", "GET", &path).await.ok().body;
            page["items"].as_array().unwrap().len()
        }
    };
    assert_eq!((listed("disabled").await, listed("up").await), (1, 0));
    let lift = json!({"forced": {}});
    cardea.send("operator", "PATCH", ONE, lift).await.ok();
    assert_eq!((listed("disabled").await, listed("up").await), (0, 1));
    cardea.stop().await;
}

#[tokio::test]
async fn many_at_once() {
    let cardea = Cardea::start().await;
    let key = |id: &str| json!({"cluster": "dc-a", "service": "search", "id": id});
    let one =
        |id: &str, address: &str| json!({"key": key(id), "registration": {"address": address}});
    let bad = json!({"instances": [
        one("a", "10.0.0.1:80"),
        {"key": key("b"), "registration": {"address": "10.0.0.2:80", "weight": 1001}},
    ]});
    let refused = cardea.send("agent", "POST", "/v1/registrations", bad).await;
    refused.invalid(&["instances[1].registration.weight"]);
    let bad = json!({"instances": [one("a", "10.0.0.1:80"), one("b", "nowhere")]});
    let refused = cardea.send("agent", "POST", "/v1/registrations", bad).await;
    refused.invalid(&["instances[1].registration.address"]);
    let page = cardea.call("viewer", "GET", "/v1/instances").await.ok();
    assert_eq!(page.body["items"], json!([]));

    let many: Vec<Value> = (0..1000)
        .map(|i| one(&format!("i{i}"), "10.0.0.1:80"))
        .collect();
    let request = json!({"instances": many});
    cardea
        .send("agent", "POST", "/v1/registrations", request)
        .await
        .ok();
    let many: Vec<Value> = (0..1001)
        .map(|i| one(&format!("i{i}"), "10.0.0.1:80"))
        .collect();
    let request = json!({"instances": many});
    let refused = cardea
        .send("agent", "POST", "/v1/registrations", request)
        .await;
    refused.invalid(&["instances"]);

    let renewals = json!({"instances": [key("i0"), key("nobody"), key("i999")]});
    let renewed = cardea
        .send("agent", "POST", "/v1/renewals", renewals)
        .await
        .ok();
    assert_eq!(
        renewed.body,
        json!({"renewed": 2, "unknown": [key("nobody")]})
    );
    let many: Vec<Value> = (0..10_001).map(|_| key("i0")).collect();
    let renewals = json!({"instances": many});
    let refused = cardea.send("agent", "POST", "/v1/renewals", renewals).await;
    refused.invalid(&["instances"]);
    cardea.stop().await;
}

#[tokio::test]
async fn lists_filter_and_page_across_clusters() {
    let cardea = Cardea::start().await;
    let mut all = Vec::new();
    for cluster in ["a", "b", "c"] {
        for service in ["s", "t"] {
            for id in ["1", "2", "3"] {
                let path = format!("/v1/clusters/{cluster}/services/{service}/instances/{id}");
                cardea.register(&path, "10.0.0.1:80").await;
                all.push(format!("{cluster}/{service}/{id}"));
            }
        }
    }
    for (query, prefix, middle) in [
        ("", "", ""),
        ("cluster=b&", "b/", ""),
        ("service=t&", "", "/t/"),
        ("cluster=c&service=s&", "c/", "/s/"),
        ("cluster=none&", "none", ""),
    ] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/instances?{query}limit=2&cursor={cursor}");
            let page = cardea.call("viewer", "GET", &path).await.ok().body;
            for item in page["items"].as_array().unwrap() {
                let text = |name: &str| item[name].as_str().unwrap();
                seen.push(format!(
                    "{}/{}/{}",
                    text("cluster"),
                    text("service"),
                    text("id")
                ));
            }
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        let fits = |key: &&String| key.starts_with(prefix) && key.contains(middle);
        let want: Vec<String> = all.iter().filter(fits).cloned().collect();
        assert_eq!(seen, want, "{query}");
    }
    let bad = cardea
        .call("viewer", "GET", "/v1/instances?state=down")
        .await;
    bad.invalid(&["state"]);
    cardea.stop().await;
}

#[tokio::test]
async fn a_bound_token_touches_its_services_only() {
    let cardea = Cardea::start().await;
    let body = json!({"address": "10.0.0.1:80"});
    cardea.send("bound", "PUT", ONE, body.clone()).await.ok();
    cardea.call("bound", "GET", ONE).await.ok();
    let other = "/v1/clusters/dc-a/services/other/instances/x";
    cardea.register(other, "10.0.0.1:80").await;
    let key = json!({"cluster": "dc-a", "service": "other", "id": "x"});
    let bulk = json!({"instances": [{"key": key, "registration": body}]});
    let answers = [
        cardea.send("bound", "PUT", other, body).await,
        cardea
            .send("bound", "PATCH", other, json!({"weight": 1}))
            .await,
        cardea.call("bound", "DELETE", other).await,
        cardea.call("bound", "GET", other).await,
        cardea
            .call("bound", "POST", &format!("{other}/renew"))
            .await,
        cardea
            .send("bound", "POST", "/v1/registrations", bulk)
            .await,
        cardea
            .send("bound", "POST", "/v1/renewals", json!({"instances": [key]}))
            .await,
        cardea
            .call("bound", "GET", "/v1/instances?service=other")
            .await,
    ];
    for answer in answers {
        let detail = answer.problem(403, "forbidden").detail();
        assert!(
            detail.contains("`bound`") && detail.contains("`other`"),
            "{detail}"
        );
    }
    cardea
        .call("bound", "GET", "/v1/instances")
        .await
        .invalid(&["service"]);
    let page = cardea
        .call("bound", "GET", "/v1/instances?service=search")
        .await
        .ok();
    assert_eq!(page.body["items"].as_array().unwrap().len(), 1);
    cardea.stop().await;
}

#[tokio::test]
async fn only_operators_register_by_hand() {
    let cardea = Cardea::start().await;
    for body in [
        json!({"address": "10.0.0.1:80", "source": "manual", "lease": null}),
        json!({"address": "10.0.0.1:80", "state": "disabled"}),
    ] {
        let refused = cardea.send("agent", "PUT", TWO, body.clone()).await;
        assert!(
            refused
                .problem(403, "forbidden")
                .detail()
                .contains("`operator`")
        );
        cardea.send("operator", "PUT", TWO, body).await.ok();
    }
    let body = json!({"address": "10.0.0.1:80", "lease": null});
    cardea
        .send("agent", "PUT", ONE, body)
        .await
        .invalid(&["lease"]);
    cardea.stop().await;
}
