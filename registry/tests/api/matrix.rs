//! Every call with every role: who may, who may not, and what each is told.

use serde_json::{Value, json};

use crate::{Cardea, ROLES, figures::report};

const READ: &[&str] = &["viewer", "operator", "admin"];
const WRITE: &[&str] = &["operator", "admin"];
const ADMIN: &[&str] = &["admin"];
const REPORT: &[&str] = &["agent", "operator", "admin"];
const LOOK: &[&str] = &["agent", "viewer", "operator", "admin"];
const FOLLOW: &[&str] = &["router", "admin"];
const ROUTER: &[&str] = &["router", "operator", "admin"];

/// Does not end by itself.
const LIVE: &str = "/v1/clusters/c/figures/live";

/// Each call of the API, who may, and a body with which it goes through as far as roles are asked.
fn calls() -> Vec<(&'static str, &'static str, &'static [&'static str], Value)> {
    const INSTANCE: &str = "/v1/clusters/c/services/s/instances/i";
    let none = Value::Null;
    let empty = json!({"instances": []});
    let mut calls = vec![
        ("GET", "/v1/instances", LOOK, none.clone()),
        ("GET", INSTANCE, LOOK, none.clone()),
        ("PUT", INSTANCE, REPORT, json!({"address": "10.0.0.1:80"})),
        ("PATCH", INSTANCE, REPORT, json!({"weight": 1})),
        ("DELETE", INSTANCE, REPORT, none.clone()),
        (
            "POST",
            "/v1/clusters/c/services/s/instances/i/renew",
            REPORT,
            none.clone(),
        ),
        ("POST", "/v1/renewals", REPORT, empty.clone()),
        ("POST", "/v1/registrations", REPORT, empty),
        ("GET", "/v1/clusters/c/snapshot", FOLLOW, none.clone()),
        ("DELETE", "/v1/routers/c/r", ROUTER, none.clone()),
        (
            "POST",
            "/v1/clusters/c/routers/r/figures",
            ROUTER,
            report("p", 3),
        ),
        ("GET", "/v1/clusters/c/figures", READ, none.clone()),
        ("GET", LIVE, READ, none.clone()),
        ("GET", "/v1/routers", READ, none.clone()),
        ("POST", "/v1/apply", WRITE, json!({})),
        ("GET", "/v1/traffic", READ, none.clone()),
        ("GET", "/v1/plugins/schemas", READ, none.clone()),
        ("GET", "/v1/plugins/schemas/gray", READ, none.clone()),
        ("GET", "/v1/snapshots", READ, none.clone()),
        ("POST", "/v1/snapshots", WRITE, none.clone()),
        ("POST", "/v1/snapshots/verify", READ, none.clone()),
        ("GET", "/v1/changes", READ, none.clone()),
        ("GET", "/v1/status", READ, none.clone()),
        (
            "POST",
            "/v1/alarms/acknowledge",
            WRITE,
            json!({"code": "none"}),
        ),
        ("POST", "/v1/history", WRITE, json!({"keep": "memory"})),
        ("GET", "/v1/tokens", ADMIN, none.clone()),
        (
            "POST",
            "/v1/tokens",
            ADMIN,
            json!({"name": "new", "role": "viewer"}),
        ),
        ("DELETE", "/v1/tokens/new", ADMIN, none.clone()),
    ];
    let made = rcgen::generate_simple_self_signed(["a.local".to_owned()]).unwrap();
    let certificate = json!({
        "name": "c", "chain": made.cert.pem(), "key": made.signing_key.serialize_pem(),
    });
    for (list, one, body) in [
        ("/v1/certificates", "/v1/certificates/c", certificate),
        ("/v1/clusters", "/v1/clusters/c", json!({"name": "c"})),
        ("/v1/services", "/v1/services/s", json!({"name": "s"})),
        (
            "/v1/routes",
            "/v1/routes/r",
            json!({"id": "r", "host": "*", "service": "s"}),
        ),
        (
            "/v1/plugins",
            "/v1/plugins/p",
            json!({"name": "p", "respond": {}}),
        ),
        ("/v1/fallbacks", "/v1/fallbacks/f", json!({"name": "f"})),
    ] {
        calls.push(("GET", list, READ, none.clone()));
        calls.push(("GET", one, READ, none.clone()));
        calls.push(("PUT", one, WRITE, body));
        calls.push(("DELETE", one, WRITE, none.clone()));
    }
    for (one, body) in [
        ("/v1/clusters/c/traffic", json!({"cluster": "c"})),
        (
            "/v1/clusters/c/services/s/traffic",
            json!({"cluster": "c", "service": "s"}),
        ),
    ] {
        calls.push(("GET", one, READ, none.clone()));
        calls.push(("PUT", one, WRITE, body));
        calls.push(("DELETE", one, WRITE, none.clone()));
    }
    calls.extend(operations());
    calls
}

/// Those on switches and releases.
fn operations() -> Vec<(&'static str, &'static str, &'static [&'static str], Value)> {
    let none = Value::Null;
    vec![
        ("GET", "/v1/switches", READ, none.clone()),
        ("GET", "/v1/switches/switch-1", READ, none.clone()),
        (
            "POST",
            "/v1/switches",
            WRITE,
            json!({"cluster": "c", "to": {"c": 1}, "reason": "r"}),
        ),
        ("POST", "/v1/switches/switch-1/approve", WRITE, json!({})),
        ("POST", "/v1/switches/switch-1/pause", WRITE, json!({})),
        ("POST", "/v1/switches/switch-1/resume", WRITE, json!({})),
        ("POST", "/v1/switches/switch-1/undo", WRITE, json!({})),
        ("GET", "/v1/releases", READ, none.clone()),
        ("GET", "/v1/releases/r", READ, none.clone()),
        (
            "POST",
            "/v1/releases",
            WRITE,
            json!({"service": "s", "candidate": "v2", "reason": "r"}),
        ),
        ("POST", "/v1/releases/r/promote", WRITE, json!({})),
        ("POST", "/v1/releases/r/pause", WRITE, json!({})),
        ("POST", "/v1/releases/r/resume", WRITE, json!({})),
        ("POST", "/v1/releases/r/abort", WRITE, json!({})),
        ("POST", "/v1/releases/r/rollback", WRITE, json!({})),
    ]
}

#[tokio::test]
async fn each_role_may_what_it_should_and_no_more() {
    let cardea = Cardea::start().await;
    for (method, path, allowed, body) in calls() {
        let call = |token: &'static str| {
            let mut request = cardea.request(token, method, path);
            if !body.is_null() {
                request = request.json(&body);
            }
            async move {
                if path != LIVE || !allowed.contains(&token) {
                    return crate::send(request).await;
                }
                let answer = request.send().await.unwrap();
                crate::Answer {
                    status: answer.status().as_u16(),
                    headers: answer.headers().clone(),
                    body: Value::Null,
                }
            }
        };
        let nobody = call("").await;
        nobody.problem(401, "unauthenticated");
        assert_eq!(nobody.header("www-authenticate"), "Bearer realm=\"cardea\"");
        let stranger = call("nobody-knows-me").await;
        stranger.problem(401, "unauthenticated");
        for (role, _) in ROLES {
            let answer = call(role).await;
            if allowed.contains(&role) {
                let refused = matches!(answer.status, 401 | 403 | 500);
                assert!(!refused, "{role} {method} {path}: {answer:?}");
                continue;
            }
            let detail = answer.problem(403, "forbidden").detail();
            let named = detail.contains(&format!("has the role `{role}`"))
                && allowed
                    .iter()
                    .all(|role| detail.contains(&format!("`{role}`")));
            assert!(named, "{role} {method} {path}: {detail}");
        }
    }
    cardea.stop().await;
}

/// The table above has every call that the API documents with a token, and no other.
#[tokio::test]
async fn the_matrix_is_complete() {
    let cardea = Cardea::start().await;
    let document = cardea.call("", "GET", "/v1/openapi.json").await.ok().body;
    let mut documented = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"] != json!([{}]) {
                documented.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    let shape = |path: &str| -> usize { path.split('/').count() };
    let fits = |template: &str, path: &str| {
        shape(template) == shape(path)
            && template
                .split('/')
                .zip(path.split('/'))
                .all(|(t, p)| t.starts_with('{') || t == p)
    };
    for (method, template) in &documented {
        let known = calls()
            .iter()
            .any(|(m, path, ..)| m == method && fits(template, path));
        assert!(known, "{method} {template} is not in the matrix");
    }
    assert_eq!(calls().len(), documented.len());
    cardea.stop().await;
}
