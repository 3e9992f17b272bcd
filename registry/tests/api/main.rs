//! The registry's API over real sockets: a whole registry on SQLite, started in the test.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod certificates;
mod configuration;
mod degraded;
mod document;
mod feed;
mod figures;
mod instances;
mod lifecycle;
mod matrix;
mod operations;
mod plugins;
mod problems;
mod releases;
mod switches;
mod traffic;

use std::{net::SocketAddr, path::Path, time::Duration};

use cardea_registry::{
    Config, Registry,
    config::{BootstrapToken, Secret},
    start,
};
use cardea_registry_api::api::Role;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing here takes this long unless it is broken.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Cardea {
    pub(crate) registry: Registry,
    pub(crate) dir: TempDir,
    pub(crate) http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

pub(crate) const ROLES: [(&str, Role); 5] = [
    ("agent", Role::Agent),
    ("router", Role::Router),
    ("viewer", Role::Viewer),
    ("operator", Role::Operator),
    ("admin", Role::Admin),
];

/// The secret of the token with this name.
pub(crate) fn secret(name: &str) -> String {
    format!("test-token-{name}-0123456789abcdef0123456789")
}

/// One token a role, and `bound`: an agent of the service `search`.
pub(crate) fn config(dir: &Path) -> Config {
    let token = |name: &str, role, services: &[&str]| BootstrapToken {
        name: name.parse().unwrap(),
        role,
        services: services.iter().map(|s| s.parse().unwrap()).collect(),
        secret: Secret::new(secret(name)),
    };
    let mut tokens: Vec<BootstrapToken> = ROLES
        .iter()
        .map(|(name, role)| token(name, *role, &[]))
        .collect();
    tokens.push(token("bound", Role::Agent, &["search"]));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        listen: any,
        admin: any,
        data_dir: dir.to_owned(),
        replica: Some("one".parse().unwrap()),
        tokens,
        ..Config::default()
    }
}

pub(crate) fn http() -> reqwest::Client {
    // Every test does this; the first one counts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(SOON)
        .build()
        .unwrap()
}

impl Cardea {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let registry = start(config).await.unwrap();
        Self {
            registry,
            dir,
            http: http(),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.registry.api_address())
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.registry.admin_address())
    }

    /// A request with the token of this name; empty: none.
    pub(crate) fn request(&self, token: &str, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        let request = self.http.request(method, self.url(path));
        if token.is_empty() {
            request
        } else {
            request.bearer_auth(secret(token))
        }
    }

    pub(crate) async fn call(&self, token: &str, method: &str, path: &str) -> Answer {
        send(self.request(token, method, path)).await
    }

    pub(crate) async fn send(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        send(self.request(token, method, path).json(&body)).await
    }

    /// Registers an instance and returns the revision.
    pub(crate) async fn register(&self, path: &str, address: &str) -> u64 {
        let body = json!({"address": address});
        let answer = self.send("agent", "PUT", path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["revision"].as_u64().unwrap()
    }

    pub(crate) async fn stop(self) {
        tokio::time::timeout(SOON, self.registry.stop())
            .await
            .unwrap();
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let bytes = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Answer {
        status,
        headers,
        body,
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{self:?}");
        self
    }

    /// The answer is this problem, well formed.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["request_id"], self.header("x-request-id"));
        assert_ne!(self.body["request_id"], "");
        self
    }

    /// The fields that the problem names.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array();
        errors
            .into_iter()
            .flatten()
            .map(|error| error["field"].as_str().unwrap())
            .collect()
    }

    #[track_caller]
    pub(crate) fn invalid(&self, fields: &[&str]) -> &Self {
        self.problem(400, "invalid");
        assert_eq!(self.fields(), fields, "{self:?}");
        self
    }

    pub(crate) fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }
}
