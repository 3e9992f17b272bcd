//! Plugins and stored bodies through the API.

use serde_json::{Value, json};

use crate::Cardea;

const ONE: &str = "/v1/plugins/gray";

fn gray(group: &str) -> Value {
    json!({"name": "gray", "service": "search", "gray": {"rules": [
        {"group": group, "when": {"key": "header:x-user", "modulo": 100, "below": 5}},
    ]}})
}

async fn site() -> Cardea {
    let cardea = Cardea::start().await;
    let service = json!({"name": "search", "groups": {"gray": {"version": "v2"}}});
    let put = cardea.send("operator", "PUT", "/v1/services/search", service);
    put.await.ok();
    cardea
}

#[tokio::test]
async fn a_plugin_is_an_object_as_others_are() {
    let cardea = site().await;
    let made = cardea.send("operator", "PUT", ONE, gray("gray")).await.ok();
    let etag = made.header("etag");
    let got = cardea.call("viewer", "GET", ONE).await.ok();
    assert_eq!(got.header("etag"), etag);
    assert_eq!(got.body["gray"]["rules"][0]["when"]["below"], 5);
    assert_eq!(got.body["enabled"], true);
    let again = cardea.send("operator", "PUT", ONE, gray("gray")).await;
    again.problem(428, "precondition_required");
    let put = |if_match: &str, body: &Value| {
        let request = cardea.request("operator", "PUT", ONE);
        crate::send(request.header("if-match", if_match).json(body))
    };
    put("\"1\"", &gray("gray"))
        .await
        .problem(412, "precondition_failed");
    let mut shadow = gray("gray");
    shadow["shadow"] = true.into();
    put(etag, &shadow).await.ok();

    let log = cardea.call("viewer", "GET", "/v1/changes").await.ok().body;
    let last = log["items"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["kind"], &last["key"]),
        (&json!("plugin"), &json!("gray"))
    );
    assert_eq!(
        (&last["before"]["shadow"], &last["after"]["shadow"]),
        (&json!(false), &json!(true))
    );

    let feed = cardea.request("router", "GET", "/v1/clusters/dc/snapshot");
    let feed = feed.send().await.unwrap().text().await.unwrap();
    assert!(
        feed.contains("{\"set\":\"plugin\",\"key\":\"gray\",\"value\":{"),
        "{feed}"
    );

    let request = cardea.request("operator", "DELETE", ONE);
    crate::send(request.header("if-match", "*")).await.ok();
    cardea
        .call("viewer", "GET", ONE)
        .await
        .problem(404, "not_found");
    cardea.stop().await;
}

#[tokio::test]
async fn a_bad_plugin_is_refused_by_the_field_that_is_wrong() {
    let cardea = site().await;
    let mut regex = gray("gray");
    regex["gray"]["rules"][0]["when"] = json!({"key": "path", "matches": "a{1000}{1000}"});
    let mut typo = gray("gray");
    typo["gray"]["rules"][0]["when"]["modolo"] = 3.into();
    let mut bound = gray("gray");
    bound["service"] = "serch".into();
    let mut deep = gray("gray");
    for _ in 0..9 {
        let when = deep["gray"]["rules"][0]["when"].take();
        deep["gray"]["rules"][0]["when"] = json!({"not": when});
    }
    let layers = json!({"name": "gray", "ab": {"experiments": [
        {"name": "a", "layer": "l", "key": "client", "from": 0, "to": 60, "variants": [{"name": "x"}]},
        {"name": "b", "layer": "l", "key": "client", "from": 50, "to": 100, "variants": [{"name": "x"}]},
    ]}});
    for (body, field, words) in [
        (gray("grey"), "gray.rules[0].group", "did you mean `gray`?"),
        (regex, "gray.rules[0].when.matches", "size limit"),
        (typo, "gray.rules[0].when.modolo", "did you mean `modulo`?"),
        (bound, "service", "did you mean `search`?"),
        (
            deep,
            "gray.rules[0].when.not.not.not.not.not.not.not.not",
            "at most 8 deep",
        ),
        (layers, "ab.experiments[1].from", "overlaps experiment `a`"),
        (
            json!({"name": "gray", "greay": {}}),
            "greay",
            "did you mean `gray`?",
        ),
        (json!({"name": "gray"}), "", "has no policy"),
        (
            json!({"name": "grey", "respond": {}}),
            "name",
            "make them the same",
        ),
    ] {
        let answer = cardea.send("operator", "PUT", ONE, body).await;
        answer.invalid(&[field]);
        let text = answer.body.to_string();
        assert!(text.contains(words), "{text}");
    }
    let listed = cardea.call("viewer", "GET", "/v1/plugins").await.ok();
    assert_eq!(listed.body["items"], json!([]));
    // Through the door for many, the field is named from the body's root.
    let apply =
        json!({"plugins": [gray("gray"), {"name": "p", "route": "nowhere", "respond": {}}]});
    for path in ["/v1/apply", "/v1/apply?dry_run=true"] {
        let answer = cardea.send("operator", "POST", path, apply.clone()).await;
        answer.invalid(&["plugins[1].route"]);
    }
    cardea.send("operator", "PUT", ONE, gray("gray")).await.ok();
    let delete = cardea.request("operator", "DELETE", "/v1/services/search");
    let detail = crate::send(delete.header("if-match", "*")).await;
    let detail = detail.problem(409, "conflict").detail();
    assert!(
        detail.contains("plugin `gray` names service `search`"),
        "{detail}"
    );
    cardea.stop().await;
}

const BODY: &str = "/v1/fallbacks/sorry";

#[tokio::test]
async fn a_body_is_stored_as_it_is_sent() {
    let cardea = Cardea::start().await;
    let put = |query: &str, kind: &str, body: Vec<u8>| {
        let request = cardea.request("operator", "PUT", &format!("{BODY}{query}"));
        let request = request.header("if-match", "*").header("content-type", kind);
        crate::send(request.body(body))
    };
    let got = || async { cardea.call("viewer", "GET", BODY).await.ok().body };
    put("", "text/html; charset=gbk", b"<p>\xc7\xeb".to_vec())
        .await
        .ok();
    assert_eq!(got().await["content_type"], "text/html; charset=gbk");
    assert_eq!(got().await["body"], "PHA+x+s=");
    put("?status=503", "image/png", vec![0; 1 << 20]).await.ok();
    assert_eq!(got().await["status"], 503);
    put("", "image/png", vec![0; (1 << 20) + 1])
        .await
        .problem(413, "too_large");
    // JSON is the object, unless it is said to be the body.
    put("", "application/json", b"{\"data\":[]}".to_vec())
        .await
        .invalid(&["", "raw"]);
    put("?raw=true", "application/json", b"{\"data\":[]}".to_vec())
        .await
        .ok();
    assert_eq!(got().await["content_type"], "application/json");
    let object = json!({"name": "sorry", "body": "QUJD"}).to_string();
    put("?status=200", "application/json", object.clone().into())
        .await
        .invalid(&["status"]);
    put("", "application/json", object.into()).await.ok();
    assert_eq!(got().await["body"], "QUJD");

    let list = cardea
        .call("viewer", "GET", "/v1/fallbacks")
        .await
        .ok()
        .body;
    assert_eq!(list["items"][0]["size"], 3);
    assert!(list["items"][0].get("body").is_none());
    // Old bodies are in the log, for who asks for few changes.
    let log = |limit: u32| {
        let path = format!("/v1/changes?limit={limit}");
        async { cardea.call("viewer", "GET", &{ path }).await.ok().body["items"].clone() }
    };
    let first = |log: &Value| {
        let mut items = log.as_array().unwrap().iter();
        let found = items.find(|item| item["kind"] == "fallback");
        found.unwrap()["after"].clone()
    };
    let (few, many) = (first(&log(10).await), first(&log(11).await));
    assert_eq!(few["body"], "PHA+x+s=");
    assert_eq!(many["size"], 5);
    assert!(many.get("body").is_none());
    cardea.stop().await;
}

/// A page of changes ends where it gets large, and the next one goes on there.
#[tokio::test]
async fn pages_of_large_changes_are_short() {
    let cardea = Cardea::start().await;
    for n in 0..15u8 {
        let request = cardea.request("operator", "PUT", BODY);
        let request = request
            .header("if-match", "*")
            .header("content-type", "text/plain");
        crate::send(request.body(vec![n; 1 << 20])).await.ok();
    }
    let (mut seen, mut pages, mut cursor) = (0, 0, String::new());
    loop {
        let path = format!("/v1/changes?limit=1000{cursor}");
        let page = cardea.call("viewer", "GET", &path).await.ok().body;
        pages += 1;
        let items = page["items"].as_array().unwrap();
        seen += items
            .iter()
            .filter(|item| item["kind"] == "fallback")
            .count();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, 15);
    assert!(pages > 1, "{pages}");
    cardea.stop().await;
}

/// Who writes a plugin is told which routers are too old for it, and so is who lists them.
#[tokio::test]
async fn routers_that_do_not_know_a_kind_are_named() {
    let cardea = site().await;
    for (router, kinds) in [
        ("old", Some("gray, limit")),
        ("new", Some("gray,respond")),
        ("mute", None),
    ] {
        let path = format!("/v1/clusters/dc/snapshot?router={router}&version=0.1");
        let mut poll = cardea.request("router", "GET", &path);
        if let Some(kinds) = kinds {
            poll = poll.header("cardea-plugin-kinds", kinds);
        }
        assert_eq!(poll.send().await.unwrap().status(), 200);
    }
    let put = |name: &str, body: Value| {
        let path = format!("/v1/plugins/{name}");
        async {
            cardea
                .send("operator", "PUT", &{ path }, body)
                .await
                .ok()
                .body
        }
    };
    assert!(put("gray", gray("gray")).await.get("warnings").is_none());
    let closed = json!({"name": "closed", "required": true, "respond": {"status": 503}});
    assert_eq!(
        put("closed", closed.clone()).await["warnings"],
        json!([
            "router `old` of cluster `dc` (version 0.1) does not know plugins of this kind: it \
               answers 503 where `closed` is required"
        ])
    );
    let apply = json!({"plugins": [{"name": "open", "respond": {}}]});
    let applied = cardea
        .send("operator", "POST", "/v1/apply", apply)
        .await
        .ok();
    let warnings = applied.body["written"]["warnings"].as_array().unwrap();
    assert!(
        warnings[0].as_str().unwrap().ends_with("leaves `open` out"),
        "{warnings:?}"
    );
    let listed = cardea.call("viewer", "GET", "/v1/routers").await.ok().body;
    let lacks = |id: &str| {
        let mut routers = listed["items"].as_array().unwrap().iter();
        let router = routers.find(|router| router["id"] == id).unwrap();
        router["unknown_plugins"].clone()
    };
    assert_eq!(lacks("old"), json!(["closed", "open"]));
    assert_eq!((lacks("new"), lacks("mute")), (json!([]), json!([])));
    cardea.stop().await;
}
