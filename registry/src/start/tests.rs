use std::net::SocketAddr;

use cardea_registry_api::api::{Role, Status};

use super::*;
use crate::{
    config::{DatabaseUrl, Secret},
    testing::Postgres,
};

fn secret(n: u32) -> String {
    format!("viewer-secret-number-{n}-0123456789abcdef")
}

fn viewer(n: u32) -> BootstrapToken {
    BootstrapToken {
        name: "viewer".parse().unwrap(),
        role: Role::Viewer,
        services: Vec::new(),
        secret: Secret::new(secret(n)),
    }
}

fn config(dir: &Path, database: &str, token: BootstrapToken) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        listen: any,
        admin: any,
        data_dir: dir.to_owned(),
        database: Some(DatabaseUrl::new(database)),
        tokens: vec![token],
        ..Config::default()
    }
}

/// The status that this token is shown; none: it is refused.
async fn status(registry: &Registry, secret: &str) -> Option<Status> {
    let url = format!("http://{}/v1/status", registry.api_address());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).bearer_auth(secret).send().await.unwrap();
    match answer.status().as_u16() {
        200 => Some(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()),
        401 => None,
        other => panic!("status {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_put_late_when_the_database_is_away_at_the_start() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let of = |n| config(dir.path(), &postgres.url(), viewer(n));
    start(of(1)).await.unwrap().stop().await;

    postgres.crash();
    let registry = start(of(2)).await.unwrap();
    // It serves from its disk, with the tokens that are there; the new one waits for the database.
    let old = status(&registry, &secret(1)).await.unwrap();
    assert_eq!(old.started_from, "snapshot");
    assert!(status(&registry, &secret(2)).await.is_none());

    postgres.resume();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while status(&registry, &secret(2)).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "never put");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(status(&registry, &secret(1)).await.is_none(), "replaced");
    registry.stop().await;
}
