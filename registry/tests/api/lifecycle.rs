//! Starting, stopping, first tokens, and ports that are taken.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, time::Instant};

use cardea_registry::{ADMIN_FILE, StartError, config::TlsFiles, start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Cardea, SOON, config, secret, send};

#[tokio::test]
async fn without_any_token_an_admins_is_made_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut bare = config(dir.path());
    bare.tokens.clear();
    let registry = start(bare.clone()).await.unwrap();
    let path = dir.path().join(ADMIN_FILE);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(&path).unwrap();
    let http = crate::http();
    let status = |address: SocketAddr| {
        let url = format!("http://{address}/v1/tokens");
        send(http.get(url).bearer_auth(secret.trim()))
    };
    status(registry.api_address()).await.ok();
    registry.stop().await;

    // The second start makes nothing new.
    let registry = start(bare).await.unwrap();
    let page = status(registry.api_address()).await.ok();
    assert_eq!(page.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), secret);
    registry.stop().await;
}

#[tokio::test]
async fn tokens_of_the_configuration_are_put_once_and_replaced_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let revision = async |config: &cardea_registry::Config| {
        let registry = start(config.clone()).await.unwrap();
        let url = format!("http://{}/v1/status", registry.api_address());
        let old = send(crate::http().get(&url).bearer_auth(crate::secret("viewer"))).await;
        let new = send(
            crate::http()
                .get(&url)
                .bearer_auth(crate::secret("changed")),
        )
        .await;
        registry.stop().await;
        let statuses = (old.status, new.status);
        let body = if old.status == 200 {
            old.body
        } else {
            new.body
        };
        (statuses, body["revision"].as_u64().unwrap())
    };
    let (statuses, first) = revision(&config).await;
    assert_eq!(statuses, (200, 401));
    assert!(!dir.path().join(ADMIN_FILE).exists());
    assert_eq!(revision(&config).await, ((200, 401), first));
    let viewer = config
        .tokens
        .iter_mut()
        .find(|t| t.name.as_str() == "viewer");
    viewer.unwrap().secret = cardea_registry::config::Secret::new(crate::secret("changed"));
    let (statuses, second) = revision(&config).await;
    assert_eq!((statuses, second), ((401, 200), first + 1));
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for setting in ["listen", "admin"] {
        let mut config = config(dir.path());
        if setting == "listen" {
            config.listen = address;
        } else {
            config.admin = address;
        }
        let error = start(config).await.unwrap_err();
        assert!(matches!(error, StartError::Bind { setting: s, .. } if s == setting));
        let text = error.to_string();
        let named = text.contains(setting) && text.contains(&address.to_string());
        assert!(
            named && text.contains("another program has this port"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn wrong_settings_are_found_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = config(&dir.path().join("data"));
    wrong.snapshots.keep = 0;
    assert!(matches!(start(wrong).await, Err(StartError::Config(_))));
    assert!(!dir.path().join("data").exists());

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = start(config(&file)).await.unwrap_err();
    assert!(error.to_string().contains("data_dir"), "{error}");

    let mut no_certificate = config(&dir.path().join("data"));
    no_certificate.tls = Some(TlsFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    });
    let error = start(no_certificate).await.unwrap_err();
    assert!(error.to_string().contains("`tls.cert`"), "{error}");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(config(dir.path())).await.unwrap();
    let cardea = Cardea {
        registry,
        dir,
        http: crate::http(),
    };
    let path = "/v1/clusters/dc-a/services/search/instances/one";
    let revision = cardea.register(path, "10.0.0.1:80").await;
    cardea.registry.stop().await;
    let registry = start(config(cardea.dir.path())).await.unwrap();
    let cardea = Cardea { registry, ..cardea };
    let read = cardea.call("viewer", "GET", path).await.ok();
    assert_eq!(read.body["revision"], revision);
    cardea.stop().await;
}

#[tokio::test]
async fn the_api_speaks_tls() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let cardea = Cardea::with(|config| config.tls = Some(files)).await;
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .build()
        .unwrap();
    let port = cardea.registry.api_address().port();
    let url = format!("https://localhost:{port}/v1/status");
    send(http.get(url).bearer_auth(crate::secret("viewer")))
        .await
        .ok();
    let plain = cardea.http.get(cardea.url("/v1/status")).send().await;
    assert!(plain.is_err());
    // Probes need no certificate.
    send(cardea.http.get(cardea.admin_url("/readyz")))
        .await
        .ok();
    cardea.stop().await;
}

#[tokio::test]
async fn a_registry_that_stops_says_so_on_its_admin_port() {
    let cardea = Cardea::start().await;
    let ready = cardea.admin_url("/readyz");
    let http = cardea.http.clone();
    send(http.get(&ready)).await.ok();
    // A request in flight: without one, the registry may be gone before anybody could ask.
    let mut held = TcpStream::connect(cardea.registry.api_address())
        .await
        .unwrap();
    let head = format!(
        "PUT /v1/clusters/dc-a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 15\r\nexpect: 100-continue\r\n\r\n",
        secret("operator")
    );
    held.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut held, "100 Continue\r\n\r\n").await;

    let stop = tokio::spawn(cardea.stop());
    let deadline = Instant::now() + SOON;
    let answer = loop {
        let answer = send(http.get(&ready)).await;
        if answer.status != 200 {
            break answer;
        }
        assert!(Instant::now() < deadline, "it is ready for ever");
    };
    answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    held.write_all(b"{\"name\":\"dc-a\"}").await.unwrap();
    read_until(&mut held, "HTTP/1.1 200 OK\r\n").await;
    stop.await.unwrap();
}

async fn read_until(stream: &mut TcpStream, end: &str) {
    let mut text = String::new();
    while !text.contains(end) {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(SOON, stream.read(&mut bytes)).await;
        let n = read.unwrap().unwrap();
        assert!(n > 0, "cut off after {text:?}");
        text += std::str::from_utf8(&bytes[..n]).unwrap();
    }
}
