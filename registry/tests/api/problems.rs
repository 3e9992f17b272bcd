//! What is wrong with a request is said with the field and the fix.

use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use crate::{Cardea, send};

const ONE: &str = "/v1/clusters/dc-a/services/search/instances/one";

#[tokio::test]
async fn names_in_the_path_are_checked() {
    let cardea = Cardea::start().await;
    let body = json!({"address": "10.0.0.1:80"});
    for (path, fields) in [
        (
            "/v1/clusters/A/services/b%20c/instances/d%2Fe",
            &["cluster", "service", "id"][..],
        ),
        ("/v1/clusters/a/services/-/instances/d", &["service"]),
    ] {
        let put = cardea.send("agent", "PUT", path, body.clone()).await;
        put.invalid(fields);
        cardea.call("agent", "GET", path).await.invalid(fields);
    }
    for (path, field) in [
        ("/v1/clusters/A", "cluster"),
        ("/v1/services/-", "service"),
        ("/v1/routes/a%20b", "id"),
        ("/v1/tokens/A", "name"),
    ] {
        cardea.call("admin", "DELETE", path).await.invalid(&[field]);
    }
    let undecodable = cardea.call("viewer", "GET", "/v1/clusters/%FF").await;
    undecodable.invalid(&[""]);
    let router = cardea.call("router", "DELETE", "/v1/routers/A/b%20c").await;
    router.invalid(&["cluster", "id"]);
    cardea.stop().await;
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let cardea = Cardea::start().await;
    for (body, field, says) in [
        (
            r#"{"address": "10.0.0.1:80", "wieght": 1}"#,
            "wieght",
            "did you mean `weight`",
        ),
        (
            r#"{"address": "10.0.0.1:80", "weight": 1001}"#,
            "weight",
            "0 to 1000",
        ),
        (
            r#"{"address": "10.0.0.1:80", "weight": "1"}"#,
            "weight",
            "u16",
        ),
        (
            r#"{"address": "10.0.0.1:80", "lease": "1ms"}"#,
            "lease",
            "between 1s and 24h",
        ),
        (
            r#"{"address": "10.0.0.1:80", "lease": "soon"}"#,
            "lease",
            "length of time",
        ),
        (
            r#"{"address": "10.0.0.1:80", "labels": {"a b": "c"}}"#,
            "labels.a b",
            "label's key",
        ),
        (
            r#"{"address": "10.0.0.1:80", "zone": "A"}"#,
            "zone",
            "is not a name",
        ),
        (r#"{"address": "0.0.0.0:80"}"#, "address", "unspecified"),
        (r#"{"address": "10.0.0.1"}"#, "address", "host:port"),
        (r#"{"weight": 1}"#, "", "missing field `address`"),
        (r#"{"address""#, "", "not JSON"),
        ("", "", "not JSON"),
    ] {
        let request = cardea.request("agent", "PUT", ONE);
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let answer = send(request).await;
        answer.invalid(&[field]);
        assert!(answer.detail().contains(says), "{answer:?}");
    }
    cardea.stop().await;
}

#[tokio::test]
async fn only_json_and_only_so_much_of_it() {
    let cardea = Cardea::start().await;
    for (content_type, says) in [
        (
            "application/x-www-form-urlencoded",
            "`application/x-www-form-urlencoded`",
        ),
        ("text/json", "`text/json`"),
        ("", "missing"),
    ] {
        let mut request = cardea.request("agent", "PUT", ONE).body("{}");
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let answer = send(request).await;
        let detail = answer.problem(415, "unsupported_media_type").detail();
        assert!(detail.contains(says), "{detail}");
    }
    let with_charset = cardea.request("agent", "PUT", ONE);
    let with_charset = with_charset
        .header(CONTENT_TYPE, "Application/JSON; charset=utf-8")
        .body(r#"{"address": "10.0.0.1:80"}"#);
    send(with_charset).await.ok();

    let large = "x".repeat((1 << 20) + 1);
    let known = cardea.request("agent", "PUT", ONE).body(large.clone());
    let known = send(known.header(CONTENT_TYPE, "application/json")).await;
    known.problem(413, "too_large");
    // Said in pieces, so that its length is not known before.
    let pieces = large.into_bytes();
    let pieces = futures_util::stream::iter(
        pieces
            .chunks(1 << 16)
            .map(|p| Ok::<_, std::io::Error>(p.to_vec()))
            .collect::<Vec<_>>(),
    );
    let unknown = cardea
        .request("agent", "PUT", ONE)
        .body(reqwest::Body::wrap_stream(pieces));
    let unknown = send(unknown.header(CONTENT_TYPE, "application/json")).await;
    unknown.problem(413, "too_large");
    cardea.stop().await;
}

#[tokio::test]
async fn what_the_api_does_not_have_is_a_problem_too() {
    let cardea = Cardea::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/clusters/",
        "/v1/clusters/a/b",
        "/v2/clusters",
    ] {
        let answer = cardea.call("admin", "GET", path).await;
        answer.problem(404, "not_found");
    }
    let answer = cardea.call("admin", "PATCH", "/v1/clusters/a").await;
    answer.problem(405, "method_not_allowed");
    let mut allow: Vec<&str> = answer.header("allow").split(',').collect();
    allow.sort_unstable();
    assert_eq!(allow, ["DELETE", "GET", "HEAD", "PUT"]);
    for url in ["/nothing", "/v1/clusters"] {
        let answer = send(cardea.http.get(cardea.admin_url(url))).await;
        answer.problem(404, "not_found");
    }
    let answer = send(cardea.http.post(cardea.admin_url("/metrics"))).await;
    answer.problem(405, "method_not_allowed");
    cardea.stop().await;
}

#[tokio::test]
async fn request_ids_are_kept_when_they_are_sane() {
    let cardea = Cardea::start().await;
    let with = |id: &'static str| {
        let request = cardea
            .request("", "GET", "/v1/clusters")
            .header("x-request-id", id);
        send(request)
    };
    let answer = with("trace-1.a:b").await;
    answer.problem(401, "unauthenticated");
    assert_eq!(answer.header("x-request-id"), "trace-1.a:b");
    for bad in ["a b", "<script>"] {
        let answer = with(bad).await;
        answer.problem(401, "unauthenticated");
        assert_eq!(answer.header("x-request-id").len(), 32);
    }
    let good = cardea.call("viewer", "GET", "/v1/clusters").await.ok();
    assert_eq!(good.header("x-request-id").len(), 32);
    cardea.stop().await;
}

#[tokio::test]
async fn revisions_and_parameters_are_read_strictly() {
    let cardea = Cardea::start().await;
    for tag in ["42", "W/\"42\"", "\"x\"", ""] {
        let request = cardea.request("operator", "DELETE", "/v1/clusters/a");
        send(request.header("if-match", tag))
            .await
            .invalid(&["if-match"]);
    }
    for (method, path, field) in [
        ("DELETE", "?wait=61s", "wait"),
        ("DELETE", "?wait=8", "wait"),
        ("DELETE", "?wiat=8s", "wiat"),
        ("DELETE", "?wait=1s&wait=2s", "wait"),
        ("GET", "?x=1", "x"),
    ] {
        let answer = cardea.call("agent", method, &format!("{ONE}{path}")).await;
        answer.invalid(&[field]);
    }
    cardea.stop().await;
}
