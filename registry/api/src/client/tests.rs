//! The client against registries that are scripted byte by byte on real sockets.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    Cluster, InstanceKey, Problem, Span,
    api::{NewToken, Registration, Role},
    feed::{Coding, Encoder, FORMAT, Head, SetChecksum, set_line},
    problem::Code,
};
use server::{Reply, Server};

mod server;

const WRITTEN: &str = r#"{"epoch":"e","revision":7,"durable":true}"#;

fn key() -> InstanceKey {
    "dc-a/search/[::1]:80".parse().unwrap()
}

fn registration() -> Registration {
    Registration::at("10.0.0.1:80".parse().unwrap())
}

fn client(servers: &[&str]) -> Client {
    Client::new(&ClientConfig {
        addresses: servers.iter().map(|&text| text.to_owned()).collect(),
        token: "cardea_agent_x".into(),
        request_timeout: Span::millis(500),
        ..ClientConfig::default()
    })
    .unwrap()
}

/// An address where nobody listens.
async fn nobody() -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap().to_string()
}

fn problem(code: Code) -> Reply {
    let body = serde_json::to_string(&Problem::new(code, "because")).unwrap();
    Reply::with(
        code.status(),
        &[
            ("content-type", "application/problem+json"),
            ("retry-after", "3"),
        ],
        body,
    )
}

#[test]
fn a_bad_configuration_names_its_fields() {
    let fields = |config: ClientConfig| -> Vec<String> {
        let errors = Client::new(&config).unwrap_err().errors;
        errors.into_iter().map(|e| e.field).collect()
    };
    assert_eq!(fields(ClientConfig::default()), ["addresses"]);
    let bad = ClientConfig {
        addresses: vec![
            "ftp://a".into(),
            "http://user@a".into(),
            "a:7400".into(),
            "http://a?x".into(),
            "http://a:99999".into(),
        ],
        token: "a\nb".into(),
        connect_timeout: Span::secs(0),
        ..ClientConfig::default()
    };
    assert_eq!(
        fields(bad),
        [
            "connect_timeout",
            "addresses[0]",
            "addresses[1]",
            "addresses[3]",
            "addresses[4]",
            "token"
        ]
    );
    let missing = ClientConfig {
        addresses: vec!["https://a".into()],
        ca_file: Some("/nowhere/ca.pem".into()),
        ..ClientConfig::default()
    };
    assert_eq!(fields(missing), ["ca_file"]);
}

#[test]
fn the_token_is_not_shown() {
    let config = ClientConfig {
        addresses: vec!["a:1".into()],
        token: "cardea_agent_secret".into(),
        ..ClientConfig::default()
    };
    let shown = format!("{config:?} {:?}", Client::new(&config).unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn says_who_it_is_and_what_it_wants() {
    let server = Server::start(|_| Reply::json(WRITTEN)).await;
    let base = format!("http://{}/base/", server.address());
    let written = client(&[&base]).register(&key(), &registration()).await;
    assert_eq!(written.unwrap().revision, 7);
    let request = &server.requests()[0];
    assert!(
        request.starts_with(
            "PUT /base/v1/clusters/dc-a/services/search/instances/[::1]:80 HTTP/1.1\r\n"
        )
    );
    for line in [
        "authorization: Bearer cardea_agent_x\r\n",
        "content-type: application/json\r\n",
        concat!("user-agent: cardea/", env!("CARGO_PKG_VERSION"), "\r\n"),
    ] {
        assert!(request.contains(line), "{request}");
    }
    assert!(request.contains(r#""address":"10.0.0.1:80""#), "{request}");
}

#[tokio::test]
async fn passes_over_the_dead_and_the_unavailable_and_stays_with_the_good() {
    let away = Server::start(|_| problem(Code::Unavailable)).await;
    let gateway = Server::start(|_| Reply::with(502, &[], "<html>")).await;
    let good = Server::start(|_| Reply::json(WRITTEN)).await;
    let nobody = nobody().await;
    let client = client(&[
        &nobody,
        &away.address(),
        &gateway.address(),
        &good.address(),
    ]);
    for _ in 0..3 {
        client.register(&key(), &registration()).await.unwrap();
    }
    assert_eq!(away.requests().len(), 1);
    assert_eq!(gateway.requests().len(), 1);
    assert_eq!(good.requests().len(), 3);
    assert_eq!(
        client.current_address(),
        format!("http://{}", good.address())
    );
}

#[tokio::test]
async fn passes_over_one_that_never_answers() {
    let silent = Server::start(|_| Reply::Hang).await;
    let good = Server::start(|_| Reply::json(WRITTEN)).await;
    let began = Instant::now();
    let client = client(&[&silent.address(), &good.address()]);
    client.register(&key(), &registration()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn passes_over_one_that_stops_in_the_middle_of_its_answer() {
    let torn =
        Server::start(|_| Reply::Torn("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")).await;
    let good = Server::start(|_| Reply::json(WRITTEN)).await;
    let client = client(&[&torn.address(), &good.address()]);
    client.register(&key(), &registration()).await.unwrap();
    assert_eq!(
        torn.requests().len(),
        2,
        "a broken connection is tried afresh once"
    );
}

#[tokio::test]
async fn a_restarted_registry_is_reached_over_a_fresh_connection() {
    let server = Server::start(|_| Reply::json(WRITTEN)).await;
    let client = client(&[&server.address()]);
    client.register(&key(), &registration()).await.unwrap();
    server.break_next();
    client.register(&key(), &registration()).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn names_everyone_it_tried() {
    let (one, two) = (nobody().await, nobody().await);
    let error = client(&[&one, &two]).status().await.unwrap_err();
    let ClientError::Transport { attempts } = &error else {
        panic!("{error:?}")
    };
    assert!(attempts.iter().all(|a| a.failure == Failure::Connect));
    let text = error.to_string();
    assert!(text.contains(&one) && text.contains(&two), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_refusal_is_typed_and_final() {
    let server = Server::start(|_| problem(Code::PreconditionFailed)).await;
    let other = Server::start(|_| Reply::json(WRITTEN)).await;
    let client = client(&[&server.address(), &other.address()]);
    let cluster = Cluster::named("dc-a".parse().unwrap());
    let error = client
        .put_cluster(&cluster, Precondition::Revision(4))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::PreconditionFailed));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    assert!(!error.is_temporary());
    assert!(server.requests()[0].contains("if-match: \"4\"\r\n"));
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn why_a_registry_refuses_is_told_rather_than_that_another_is_away() {
    let server = Server::start(|_| problem(Code::Unavailable)).await;
    let nobody = nobody().await;
    let error = client(&[&server.address(), &nobody])
        .status()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable));
    assert_eq!(error.to_string(), "because");
}

#[tokio::test]
async fn what_cannot_be_said_twice_is_not_said_twice() {
    let token = NewToken {
        name: "x".parse().unwrap(),
        role: Role::Agent,
        services: Vec::new(),
    };
    let torn = Server::start(|_| Reply::Torn("HTTP/1.1 20")).await;
    let other = Server::start(|_| Reply::json(WRITTEN)).await;
    let first = client(&[&torn.address(), &other.address()]);
    assert!(matches!(
        first.create_token(&token).await,
        Err(ClientError::Transport { .. })
    ));
    assert_eq!(torn.requests().len(), 1);
    assert!(other.requests().is_empty());

    // Nothing was sent to this one: the next may be asked.
    let secret = r#"{"name":"x","role":"agent","services":[],"created_at":1,"token":"t"}"#;
    let other = Server::start(move |_| Reply::json(secret)).await;
    let second = client(&[&nobody().await, &other.address()]);
    assert_eq!(second.create_token(&token).await.unwrap().token, "t");
}

#[tokio::test]
async fn lists_follow_their_cursors() {
    let server = Server::start(|request| {
        if request.contains("cursor=b%26c") {
            Reply::json(r#"{"items":[{"revision":2,"name":"b","description":""}],"next":null}"#)
        } else {
            Reply::json(r#"{"items":[{"revision":1,"name":"a","description":""}],"next":"b&c"}"#)
        }
    })
    .await;
    let all = client(&[&server.address()]).all_clusters().await.unwrap();
    let names: Vec<_> = all.iter().map(|c| c.object.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn deregistering_waits_as_long_as_it_asked_for() {
    let answer = r#"{"epoch":"e","revision":7,"durable":true,"found":true,"acknowledged":["r1"],"pending":[]}"#;
    let server =
        Server::start(move |_| Reply::json(answer).after(Duration::from_millis(800))).await;
    let client = client(&[&server.address()]);
    let done = client.deregister(&key(), Span::secs(2)).await.unwrap();
    assert_eq!((done.found, done.acknowledged), (true, vec!["r1".into()]));
    assert!(server.requests()[0].contains("?wait=2s "));
}

fn pull(applied: Option<Position>) -> Pull {
    Pull {
        cluster: "dc-a".parse().unwrap(),
        applied,
        wait: Span::secs(1),
        router: Some("r 1".into()),
        version: "0.1".into(),
        full: false,
    }
}

fn update() -> Vec<u8> {
    let line = set_line("service", "search", &serde_json::json!({"name": "search"})).unwrap();
    let mut checksum = SetChecksum::default();
    checksum.add(line.hash);
    let mut encoder = Encoder::new(&Head {
        format: FORMAT,
        cluster: "dc-a".into(),
        epoch: "e".into(),
        revision: 7,
        after: None,
        checksum,
        objects: 1,
        accepted: false,
        degraded: false,
    })
    .unwrap();
    encoder.set(&line);
    encoder.finish()
}

#[tokio::test]
async fn the_feed_in_every_coding() {
    for coding in [Coding::Zstd, Coding::Gzip, Coding::Identity] {
        let server = Server::start(move |_| {
            let body = coding.encode(&update()).unwrap();
            Reply::with(200, &[("content-encoding", coding.as_str())], body)
        })
        .await;
        let client = client(&[&server.address()]);
        let Pulled::Update {
            update: got, bytes, ..
        } = client.pull(&pull(None)).await.unwrap()
        else {
            panic!("an update was sent")
        };
        assert_eq!((got.head.revision, got.entries.len()), (7, 1));
        assert_eq!(bytes, update());
        assert!(server.requests()[0].contains("accept-encoding: zstd, gzip\r\n"));
    }
}

#[tokio::test]
async fn the_feed_says_what_was_applied_and_that_nothing_is_newer() {
    let server = Server::start(|_| {
        Reply::with(
            304,
            &[
                ("cardea-revision", "7"),
                ("cardea-epoch", "e"),
                ("cardea-routers", "3"),
            ],
            "",
        )
    })
    .await;
    let applied = Position {
        epoch: "e~1".into(),
        revision: 7,
    };
    let pulled = client(&[&server.address()])
        .pull(&pull(Some(applied)))
        .await;
    let Pulled::NotModified {
        at: Some(at),
        routers,
    } = pulled.unwrap()
    else {
        panic!("nothing is newer")
    };
    assert_eq!((at.epoch.as_str(), at.revision), ("e", 7));
    assert_eq!(routers, Some(3));
    let want = "GET /v1/clusters/dc-a/snapshot?after=7&epoch=e%7E1&wait=1s&router=r+1&version=0.1 ";
    assert!(
        server.requests()[0].starts_with(want),
        "{}",
        server.requests()[0]
    );
}

#[tokio::test]
async fn a_damaged_feed_is_refused_whole_and_the_next_call_asks_another() {
    let cut = update().len() - 5;
    let mut flipped = update();
    flipped[cut / 2] ^= 1;
    let bodies = [
        ("identity", update()[..cut].to_vec()),
        ("identity", flipped),
        ("zstd", update()),
        ("br", update()),
    ];
    for (coding, body) in bodies {
        let damaged =
            Server::start(move |_| Reply::with(200, &[("content-encoding", coding)], body.clone()))
                .await;
        let good = Server::start(|_| Reply::with(200, &[], update())).await;
        let client = client(&[&damaged.address(), &good.address()]);
        let error = client.pull(&pull(None)).await.unwrap_err();
        let ClientError::Decode { address, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*address, format!("http://{}", damaged.address()));
        client.pull(&pull(None)).await.unwrap();
        assert_eq!(damaged.requests().len(), 1);
    }
}

#[tokio::test]
async fn https_trusts_the_given_authority_and_no_other() {
    let (server, ca) = Server::start_tls(|_| Reply::json(WRITTEN)).await;
    let (_, other_ca) = Server::start_tls(|_| Reply::json(WRITTEN)).await;
    let dir = tempfile::tempdir().unwrap();
    let connect = |pem: &str| {
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, pem).unwrap();
        let config = ClientConfig {
            addresses: vec![format!("https://localhost:{}", server.port())],
            ca_file: Some(ca_file),
            ..ClientConfig::default()
        };
        Client::new(&config).unwrap()
    };
    connect(&ca)
        .register(&key(), &registration())
        .await
        .unwrap();
    let error = connect(&other_ca).register(&key(), &registration()).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("certificate"), "{text}");
}
