//! Clusters, services and routes; `apply`.

use serde_json::{Value, json};

use crate::{Answer, Cardea};

/// Each kind with two different forms of an object, and where it stands.
fn kinds() -> [(&'static str, &'static str, Value, Value); 3] {
    [
        (
            "clusters",
            "dc-a",
            json!({"name": "dc-a"}),
            json!({"name": "dc-a", "description": "the first"}),
        ),
        (
            "services",
            "search",
            json!({"name": "search"}),
            json!({"name": "search", "owner": "search@example.org"}),
        ),
        (
            "routes",
            "r1",
            json!({"id": "r1", "host": "a.svc.local", "service": "target"}),
            json!({"id": "r1", "host": "b.svc.local", "prefix": "/api", "service": "target"}),
        ),
    ]
}

async fn matching(cardea: &Cardea, method: &str, path: &str, tag: &str, body: &Value) -> Answer {
    let request = cardea.request("operator", method, path);
    crate::send(request.header("if-match", tag).json(body)).await
}

#[tokio::test]
async fn objects_are_created_read_replaced_and_deleted_under_their_revision() {
    let cardea = Cardea::start().await;
    let target = json!({"name": "target"});
    let created = cardea
        .send("operator", "PUT", "/v1/services/target", target)
        .await;
    created.ok();
    for (kind, key, first, second) in kinds() {
        let path = format!("/v1/{kind}/{key}");
        cardea
            .call("viewer", "GET", &path)
            .await
            .problem(404, "not_found");
        let created = cardea
            .send("operator", "PUT", &path, first.clone())
            .await
            .ok();
        assert_eq!(created.body["durable"], true);
        let revision = created.body["revision"].as_u64().unwrap();
        assert_eq!(created.header("etag"), format!("\"{revision}\""));
        assert_eq!(created.header("cardea-revision"), revision.to_string());
        assert_eq!(created.header("cardea-epoch"), created.body["epoch"]);

        let read = cardea.call("viewer", "GET", &path).await.ok();
        assert_eq!(read.header("etag"), format!("\"{revision}\""));
        assert_eq!(read.body["revision"], revision);

        // Without a revision nothing is replaced or deleted, with another one neither.
        let put = cardea.send("operator", "PUT", &path, second.clone()).await;
        put.problem(428, "precondition_required");
        let delete = cardea.call("operator", "DELETE", &path).await;
        delete.problem(428, "precondition_required");
        let stale = format!("\"{}\"", revision + 1000);
        let put = matching(&cardea, "PUT", &path, &stale, &second).await;
        put.problem(412, "precondition_failed");
        let delete = matching(&cardea, "DELETE", &path, &stale, &second).await;
        delete.problem(412, "precondition_failed");

        let tag = format!("\"{revision}\"");
        let replaced = matching(&cardea, "PUT", &path, &tag, &second).await.ok();
        assert!(replaced.body["revision"].as_u64().unwrap() > revision);
        // The same again makes no revision.
        let again = matching(&cardea, "PUT", &path, "*", &second).await.ok();
        assert_eq!(again.body["revision"], replaced.body["revision"]);
        let delete = matching(&cardea, "DELETE", &path, &tag, &second).await;
        delete.problem(412, "precondition_failed");
        matching(&cardea, "DELETE", &path, "*", &second).await.ok();
        cardea
            .call("viewer", "GET", &path)
            .await
            .problem(404, "not_found");
        let gone = matching(&cardea, "DELETE", &path, "*", &second).await;
        gone.problem(404, "not_found");
        // `*` is whatever is there, also nothing.
        matching(&cardea, "PUT", &path, "*", &first).await.ok();
    }
    cardea.stop().await;
}

#[tokio::test]
async fn what_refers_to_each_other_stays_whole() {
    let cardea = Cardea::start().await;
    let route = |id: &str| json!({"id": id, "host": "a.b", "prefix": "/", "service": "search"});
    let put = |id: &'static str| cardea.send("operator", "PUT", id, route(&id[11..]));
    put("/v1/routes/r1").await.invalid(&["service"]);
    let path = "/v1/clusters/dc-a/services/search/instances/i1";
    cardea.register(path, "10.0.0.1:80").await;
    put("/v1/routes/r1").await.ok();
    put("/v1/routes/r2").await.problem(409, "conflict");
    for path in ["/v1/services/search", "/v1/clusters/dc-a"] {
        let delete = matching(&cardea, "DELETE", path, "*", &json!({})).await;
        delete.problem(409, "conflict");
    }
    let other = cardea
        .send("operator", "PUT", "/v1/routes/r3", route("r4"))
        .await;
    other.invalid(&["id"]);
    cardea.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_that_neither_repeat_nor_skip() {
    let cardea = Cardea::start().await;
    let names: Vec<String> = (0..25).map(|i| format!("s{i:02}")).collect();
    let services: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let request = json!({"services": services});
    cardea
        .send("operator", "POST", "/v1/apply", request)
        .await
        .ok();

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/services?limit=10&cursor={cursor}");
        let page = cardea.call("viewer", "GET", &path).await.ok().body;
        let items = page["items"].as_array().unwrap();
        assert!(
            items
                .iter()
                .all(|item| item["revision"].as_u64().unwrap() > 0)
        );
        seen.extend(
            items
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, names);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("cursor=%3F", "cursor"),
        ("curser=x", "curser"),
    ] {
        for list in ["clusters", "services", "routes", "instances", "tokens"] {
            let path = format!("/v1/{list}?{query}");
            cardea.call("admin", "GET", &path).await.invalid(&[field]);
        }
    }
    cardea.stop().await;
}

#[tokio::test]
async fn apply_does_all_or_nothing_and_says_what() {
    let cardea = Cardea::start().await;
    let instance = |address: &str, source: &str| {
        json!({
            "key": {"cluster": "dc-a", "service": "search", "id": "i1"},
            "registration": {"address": address, "source": source, "lease": null},
        })
    };
    let request = json!({
        "clusters": [{"name": "dc-a"}],
        "services": [{"name": "search"}],
        "routes": [{"id": "r1", "host": "*", "service": "search"}],
        "instances": [instance("10.0.0.1:80", "manual")],
    });
    let dry = cardea
        .send(
            "operator",
            "POST",
            "/v1/apply?dry_run=true",
            request.clone(),
        )
        .await
        .ok();
    assert_eq!(dry.body["written"], Value::Null);
    let verbs = |answer: &Answer| -> Vec<(String, String)> {
        let actions = answer.body["actions"].as_array().unwrap();
        let text = |action: &Value, name: &str| action[name].as_str().unwrap().to_owned();
        actions
            .iter()
            .map(|action| (text(action, "kind"), text(action, "verb")))
            .collect()
    };
    let all = |verb: &str| -> Vec<(String, String)> {
        ["cluster", "service", "instance", "route"]
            .map(|kind| (kind.to_owned(), verb.to_owned()))
            .to_vec()
    };
    assert_eq!(verbs(&dry), all("create"));
    cardea
        .call("viewer", "GET", "/v1/services/search")
        .await
        .problem(404, "not_found");

    let done = cardea
        .send("operator", "POST", "/v1/apply", request.clone())
        .await
        .ok();
    assert_eq!(verbs(&done), all("create"));
    let again = cardea
        .send("operator", "POST", "/v1/apply", request)
        .await
        .ok();
    assert_eq!(verbs(&again), all("unchanged"));
    assert_eq!(
        again.body["written"]["revision"],
        done.body["written"]["revision"]
    );

    // One bad object: nothing of the rest happens, and its place is named.
    for dry_run in ["", "?dry_run=true"] {
        let path = format!("/v1/apply{dry_run}");
        let bad = json!({
            "services": [{"name": "other"}],
            "routes": [
                {"id": "r2", "host": "x.y", "service": "other"},
                {"id": "r3", "host": "*", "service": "nobody"},
            ],
        });
        let refused = cardea.send("operator", "POST", &path, bad).await;
        refused.invalid(&["routes[1].service"]);
        let clash = json!({"routes": [{"id": "r9", "host": "*", "service": "search"}]});
        let refused = cardea.send("operator", "POST", &path, clash).await;
        assert_eq!(refused.problem(409, "conflict").fields(), ["routes[0]"]);
        let bad = json!({"instances": [instance("10.0.0.1:80", "agent")]});
        let refused = cardea.send("operator", "POST", &path, bad).await;
        refused.invalid(&["instances[0].registration.source"]);
    }
    cardea
        .call("viewer", "GET", "/v1/services/other")
        .await
        .problem(404, "not_found");
    cardea.stop().await;
}
