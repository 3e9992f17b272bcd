//! The feed, its long polls, and deregistrations that wait for routers.

use std::time::{Duration, Instant};

use cardea_registry_api::feed::{Coding, Entry, Update};
use reqwest::Response;
use serde_json::json;

use crate::{Cardea, SOON};

const FEED: &str = "/v1/clusters/dc-a/snapshot";
const ONE: &str = "/v1/clusters/dc-a/services/search/instances/one";

struct Pulled {
    update: Update,
    epoch: String,
    revision: u64,
    coding: String,
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value.map_or(String::new(), |v| v.to_str().unwrap().to_owned())
}

async fn pull(cardea: &Cardea, query: &str, accept: &str) -> Pulled {
    let request = cardea.request("router", "GET", &format!("{FEED}{query}"));
    let response = request
        .header("accept-encoding", accept)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let coding = header(&response, "content-encoding");
    let epoch = header(&response, "cardea-epoch");
    let revision = header(&response, "cardea-revision").parse().unwrap();
    assert_eq!(header(&response, "content-type"), "application/x-ndjson");
    let bytes = response.bytes().await.unwrap();
    let decoded = Coding::from_header(Some(&coding))
        .unwrap()
        .decode(&bytes)
        .unwrap();
    let update = Update::decode(&decoded).unwrap();
    Pulled {
        update,
        epoch,
        revision,
        coding,
    }
}

fn applied(pulled: &Pulled, router: &str, wait: &str) -> String {
    format!(
        "?after={}&epoch={}&router={router}&version=1&wait={wait}",
        pulled.revision, pulled.epoch
    )
}

#[tokio::test]
async fn the_set_comes_in_the_coding_that_was_asked_for() {
    let cardea = Cardea::start().await;
    cardea.register(ONE, "10.0.0.1:80").await;
    // A small one comes as it is.
    assert_eq!(pull(&cardea, "", "zstd").await.coding, "");
    let mut revision = 0;
    for n in 0..30 {
        let path = format!("/v1/clusters/dc-a/services/search/instances/two-{n}");
        revision = cardea.register(&path, "10.0.0.2:80").await;
    }
    for (accept, coding) in [
        ("zstd, gzip", "zstd"),
        ("gzip", "gzip"),
        ("identity", ""),
        ("br", ""),
    ] {
        let pulled = pull(&cardea, "", accept).await;
        assert_eq!(pulled.coding, coding);
        assert_eq!(pulled.revision, revision);
        let head = &pulled.update.head;
        assert_eq!((head.revision, &head.epoch), (revision, &pulled.epoch));
        assert_eq!(head.after, None);
        let instances = pulled.update.entries.iter();
        let mut keys = instances.filter_map(|entry| match entry {
            Entry::Set { kind, key, .. } if kind == "instance" => Some(key.as_str()),
            _ => None,
        });
        assert_eq!(keys.next(), Some("dc-a/search/one"));
        assert_eq!(keys.count(), 30);
    }
    cardea.stop().await;
}

#[tokio::test]
async fn a_poll_waits_for_something_newer_and_no_longer() {
    let cardea = Cardea::start().await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let first = pull(&cardea, "", "zstd").await;

    let nothing = cardea
        .call(
            "router",
            "GET",
            &format!("{FEED}{}", applied(&first, "r1", "50ms")),
        )
        .await;
    assert_eq!(nothing.status, 304);
    assert_eq!(
        nothing.header("cardea-revision"),
        first.revision.to_string()
    );
    assert_eq!(nothing.header("cardea-epoch"), first.epoch);
    // Routers are told how many they are; who only looks counts for nobody.
    assert_eq!(nothing.header("cardea-routers"), "1");
    for (query, count) in [("?router=r2", "2"), ("", ""), ("?router=r1", "2")] {
        let request = cardea.request("router", "GET", &format!("{FEED}{query}"));
        let response = request.send().await.unwrap();
        assert_eq!(header(&response, "cardea-routers"), count, "{query}");
    }
    let gone = cardea.call("router", "DELETE", "/v1/routers/dc-a/r2").await;
    assert!(gone.status < 300, "{}", gone.status);

    let query = applied(&first, "r1", "20s");
    let (pulled, revision) = tokio::join!(pull(&cardea, &query, "zstd"), async {
        routers_are(&cardea, 1).await;
        cardea.register(ONE, "10.0.0.1:81").await
    });
    assert_eq!(pulled.revision, revision);
    cardea.stop().await;
}

/// Waits until so many routers are known.
async fn routers_are(cardea: &Cardea, count: usize) {
    let deadline = Instant::now() + SOON;
    loop {
        let page = cardea
            .call("viewer", "GET", "/v1/routers?cluster=dc-a")
            .await
            .ok();
        if page.body["items"].as_array().unwrap().len() == count {
            return;
        }
        assert!(Instant::now() < deadline, "{page:?}");
    }
}

#[tokio::test]
async fn deregistering_waits_until_the_last_router_has_let_go() {
    let cardea = Cardea::start().await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let first = pull(&cardea, "", "zstd").await;
    // Both routers prove that they have the set.
    for router in ["r1", "r2"] {
        let path = format!("{FEED}{}", applied(&first, router, "0s"));
        assert_eq!(cardea.call("router", "GET", &path).await.status, 304);
    }
    // One lets go at once, one late.
    let path = format!("{ONE}?wait=20s");
    let quick = async {
        let next = pull(&cardea, &applied(&first, "r1", "20s"), "zstd").await;
        let path = format!("{FEED}{}", applied(&next, "r1", "0s"));
        cardea.call("router", "GET", &path).await;
    };
    let late = async {
        let next = pull(&cardea, &applied(&first, "r2", "20s"), "zstd").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let proof = Instant::now();
        let path = format!("{FEED}{}", applied(&next, "r2", "0s"));
        cardea.call("router", "GET", &path).await;
        proof
    };
    let deregister = async {
        let answer = cardea.call("agent", "DELETE", &path).await.ok();
        (answer, Instant::now())
    };
    let ((answer, answered), (), proof) = tokio::join!(deregister, quick, late);
    assert_eq!(answer.body["found"], true);
    assert_eq!(answer.body["acknowledged"], json!(["r1", "r2"]));
    assert_eq!(answer.body["pending"], json!([]));
    assert!(answered >= proof && answered - proof < Duration::from_secs(5));
    cardea.stop().await;
}

#[tokio::test]
async fn deregistering_names_the_routers_that_did_not_make_it() {
    let cardea = Cardea::start().await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let first = pull(&cardea, "", "zstd").await;
    let path = format!("{FEED}{}", applied(&first, "r1", "0s"));
    cardea.call("router", "GET", &path).await;
    let answer = cardea
        .call("agent", "DELETE", &format!("{ONE}?wait=100ms"))
        .await
        .ok();
    assert_eq!(answer.body["pending"], json!(["r1"]));
    // A router that says goodbye is waited for no more; twice is fine.
    for _ in 0..2 {
        let gone = cardea.call("router", "DELETE", "/v1/routers/dc-a/r1").await;
        assert_eq!(gone.status, 204);
    }
    let answer = cardea
        .call("agent", "DELETE", &format!("{ONE}?wait=20s"))
        .await
        .ok();
    assert_eq!(answer.body["pending"], json!([]));
    cardea.stop().await;
}

#[tokio::test]
async fn who_waits_is_answered_when_the_registry_stops() {
    let cardea = Cardea::start().await;
    cardea.register(ONE, "10.0.0.1:80").await;
    let first = pull(&cardea, "", "zstd").await;
    let path = format!("{FEED}{}", applied(&first, "r1", "60s"));
    let poll = tokio::spawn(crate::send(cardea.request("router", "GET", &path)));
    routers_are(&cardea, 1).await;
    let before = Instant::now();
    cardea.stop().await;
    let answer = poll.await.unwrap();
    assert_eq!(answer.status, 304);
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_polls_parameters_are_checked() {
    let cardea = Cardea::start().await;
    for (query, field) in [
        ("?after=1", "epoch"),
        ("?epoch=x", "after"),
        ("?after=x&epoch=y", "after"),
        ("?wait=61s", "wait"),
        ("?wait=1", "wait"),
        ("?router=a%20b", "router"),
        ("?full=yes", "full"),
        ("?aftr=1", "aftr"),
    ] {
        let answer = cardea
            .call("router", "GET", &format!("{FEED}{query}"))
            .await;
        answer.problem(400, "invalid");
        assert_eq!(answer.fields()[0], field, "{answer:?}");
    }
    // Who is no router cannot prove anything in a router's name.
    let viewer = cardea
        .call("viewer", "GET", &format!("{FEED}?router=r1"))
        .await;
    assert!(
        viewer
            .problem(403, "forbidden")
            .detail()
            .contains("`router`")
    );
    // It would see private keys.
    let viewer = cardea.call("viewer", "GET", FEED).await;
    viewer.problem(403, "forbidden");
    cardea.stop().await;
}
