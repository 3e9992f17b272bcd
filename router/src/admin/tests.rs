use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::fixtures::{World, instance, route};

fn admin(shared: &Arc<Shared>) -> Router {
    routes(Admin {
        commit: "0123abc".into(),
        shared: Arc::clone(shared),
        render: Arc::new(|out| out.push_str("from_the_workers 1\n")),
        cluster: "dc".into(),
        router: "r1".into(),
    })
}

async fn ask(shared: &Arc<Shared>, path: &str) -> (u16, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = admin(shared).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn json(shared: &Arc<Shared>, path: &str) -> (u16, Value) {
    let (status, text) = ask(shared, path).await;
    (status, serde_json::from_str(&text).unwrap())
}

fn world() -> World {
    let mut world = World::default();
    world.route(route("r", "h", "/", "s"));
    world.instance(instance("s", 0, 100));
    world.instance(instance("s", 1, 0));
    world.publish(Instant::now());
    world
}

#[tokio::test]
async fn ready_only_with_a_table_and_not_while_draining() {
    let shared = Arc::new(Shared::default());
    assert_eq!(ask(&shared, "/healthz").await, (200, "ok\n".to_owned()));
    let (status, body) = json(&shared, "/readyz").await;
    assert_eq!((status, &body["status"]), (503, &"no_table".into()));
    assert_eq!(json(&shared, "/v1/table").await.0, 503);

    let world = world();
    let (status, body) = json(&world.shared, "/readyz").await;
    assert_eq!((status, &body["status"]), (200, &"ok".into()));
    world
        .shared
        .set_degraded("disk_copy", Some("because".to_owned()));
    let (status, body) = json(&world.shared, "/readyz").await;
    assert_eq!((status, &body["status"]), (200, &"degraded".into()));
    assert_eq!(body["reasons"][0]["message"], "because");
    world.shared.start_draining();
    let (status, body) = json(&world.shared, "/readyz").await;
    assert_eq!((status, &body["status"]), (503, &"draining".into()));
    assert_eq!(ask(&world.shared, "/healthz").await.0, 200);
}

#[tokio::test]
async fn shows_peers_table_and_metrics() {
    let world = world();
    let (_, body) = json(&world.shared, "/v1/peers?service=s").await;
    assert_eq!(body["peers"][0]["key"], "dc/s/i0");
    assert_eq!(body["peers"][0]["health"], "up");
    assert_eq!(body["peers"][1]["health"], "idle");
    let (_, body) = json(&world.shared, "/v1/peers?service=x").await;
    assert_eq!(body["peers"], Value::Array(vec![]));

    world
        .shared
        .set_alarms("skipped_object", [("route x".to_owned(), "bad".to_owned())]);
    let (_, body) = json(&world.shared, "/v1/table").await;
    assert_eq!(body["routes"][0]["id"], "r");
    assert_eq!(body["services"][0]["takers"], 1);
    assert_eq!(body["alarms"][0]["message"], "route x: bad");
    assert_eq!(
        (&body["revision"], &body["source"]),
        (&1.into(), &"registry".into())
    );

    let (_, text) = ask(&world.shared, "/metrics").await;
    for line in [
        "from_the_workers 1",
        "cardea_router_config_revision 1",
        "cardea_router_config_source{source=\"registry\"} 1",
        "cardea_router_config_source{source=\"disk\"} 0",
        "cardea_router_peer_healthy{cluster=\"dc\",service=\"s\",peer=\"i0\"} 1",
        "cardea_router_peer_healthy{cluster=\"dc\",service=\"s\",peer=\"i1\"} 0",
        "cardea_router_alarms 1",
        "cardea_router_config_build_seconds_count 0",
        concat!(
            "cardea_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\",commit=\"0123abc\"} 1"
        ),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn explains_and_says_what_is_wrong_with_a_question() {
    let world = world();
    let (status, body) = json(
        &world.shared,
        "/v1/explain?method=get&url=http%3A%2F%2Fh%3A8080%2Fx%3Fy&header=X-User%3A%20ann&client=10.0.0.1",
    )
    .await;
    assert_eq!((status, &body["route"]["id"]), (200, &"r".into()));
    assert_eq!(body["upstream"]["would_pick"], "dc/s/i0");
    // A Host header counts more than the URL's host.
    let (_, body) = json(&world.shared, "/v1/explain?url=h/x&header=host:elsewhere").await;
    assert_eq!(body["refusal"]["status"], 404);
    for (bad, field) in [
        ("", "url"),
        ("?url=ftp%3A%2F%2Fh%2F", "url"),
        ("?url=h&header=x", "header"),
        ("?url=h&client=x", "client"),
        ("?url=h&metod=GET", "metod"),
    ] {
        let (status, body) = json(&world.shared, &format!("/v1/explain{bad}")).await;
        assert_eq!(
            (status, &body["errors"][0]["field"]),
            (400, &field.into()),
            "{bad}"
        );
    }
}
