//! Real sockets against a server with a small app.

use std::sync::Arc;

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
};

use super::*;
use crate::{config::TlsFiles, tls::Certificate};

const SOON: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

fn server(app: Router) -> Server {
    Server {
        name: "test",
        listener: bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap(),
        tls: None,
        app,
        max_connections: 100,
        header_timeout: SOON,
        stop_timeout: SOON,
    }
}

fn run(server: Server) -> Running {
    let address = server.listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(server.run(stop.clone()));
    Running {
        address,
        stop,
        ended,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ended(self) {
        timeout(SOON, self.ended).await.unwrap().unwrap();
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let _ = timeout(SOON, stream.read_to_string(&mut text))
        .await
        .unwrap();
    text
}

/// Says `started` when a request has come, and answers it when told `go`.
fn gated() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (say, wait) = (Arc::clone(&started), Arc::clone(&go));
    let handler = move || async move {
        say.notify_one();
        wait.notified().await;
        "done"
    };
    (Router::new().route("/", get(handler)), started, go)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_request_in_flight_finishes_while_nobody_new_is_let_in() {
    let (app, started, go) = gated();
    let running = run(server(app));
    let mut idle = running.connect().await;
    let mut busy = running.connect().await;
    busy.write_all(GET).await.unwrap();
    started.notified().await;

    running.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(TcpStream::connect(running.address).await.is_err());
    go.notify_one();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"));
    assert!(answer.contains("connection: close"), "{answer}");
    running.ended().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off_when_the_time_to_stop_is_up() {
    let (app, started, _go) = gated();
    let running = run(Server {
        stop_timeout: Duration::from_millis(50),
        ..server(app)
    });
    let mut busy = running.connect().await;
    busy.write_all(GET).await.unwrap();
    started.notified().await;
    running.stop.cancel();
    assert_eq!(read_to_end(&mut busy).await, "");
    running.ended().await;
}

#[tokio::test]
async fn those_who_say_nothing_or_stop_half_way_are_cut_off() {
    let running = run(Server {
        header_timeout: Duration::from_millis(50),
        ..server(Router::new())
    });
    for start in [&b""[..], b"P", b"GET / HT", b"PRI"] {
        let mut stream = running.connect().await;
        stream.write_all(start).await.unwrap();
        let _ = read_to_end(&mut stream).await;
    }
    running.stop.cancel();
    running.ended().await;
}

#[tokio::test]
async fn a_connection_too_many_waits_for_a_place() {
    let (app, started, go) = gated();
    let running = run(Server {
        max_connections: 1,
        ..server(app)
    });
    let mut first = running.connect().await;
    first.write_all(GET).await.unwrap();
    started.notified().await;
    let mut second = running.connect().await;
    second.write_all(GET).await.unwrap();
    let waits = timeout(Duration::from_millis(100), started.notified()).await;
    assert!(waits.is_err());
    drop(first);
    started.notified().await;
    go.notify_one();
    let mut start = [0; 12];
    second.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    drop(second);
    running.stop.cancel();
    running.ended().await;
}

/// A handler whose client goes away is dropped, so that a long poll does not outlive its asker.
#[tokio::test]
async fn a_client_that_goes_away_ends_its_request() {
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (started, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (say, tell) = (Arc::clone(&started), Arc::clone(&dropped));
    let handler = move || async move {
        let _guard = Dropped(tell);
        say.notify_one();
        std::future::pending::<()>().await;
    };
    let running = run(server(Router::new().route("/", get(handler))));
    let mut stream = running.connect().await;
    stream.write_all(GET).await.unwrap();
    started.notified().await;
    drop(stream);
    timeout(SOON, dropped.notified()).await.unwrap();
    running.stop.cancel();
    running.ended().await;
}

fn client(root: Option<&str>) -> reqwest::ClientBuilder {
    // Several tests of one process do this; the first one counts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let roots = root.map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).unwrap());
    reqwest::Client::builder()
        .tls_certs_only(roots)
        .no_proxy()
        .timeout(SOON)
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_without_tls() {
    let app = Router::new().route("/", get(|| async { "ok" }));
    let running = run(server(app));
    let url = format!("http://{}/", running.address);
    for (client, version) in [
        (client(None), http::Version::HTTP_11),
        (client(None).http2_prior_knowledge(), http::Version::HTTP_2),
    ] {
        let answer = client.build().unwrap().get(&url).send().await.unwrap();
        assert_eq!(answer.version(), version);
        assert_eq!(answer.text().await.unwrap(), "ok");
    }
    running.stop.cancel();
    running.ended().await;
}

#[tokio::test]
async fn a_changed_certificate_is_used_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    let write = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        made.cert.pem()
    };
    let first = write();
    let (certificate, loaded) = Certificate::load(files.clone()).unwrap();
    let app = Router::new().route("/", get(|| async { "ok" }));
    let running = run(Server {
        tls: Some(certificate.server().unwrap()),
        ..server(app)
    });
    let watch = tokio::spawn(certificate.watch(loaded, running.stop.clone()));
    let url = format!("https://localhost:{}/", running.address.port());
    let trusting = |root: &str| client(Some(root)).build().unwrap();

    let answer = trusting(&first).get(&url).send().await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);

    let second = write();
    let deadline = tokio::time::Instant::now() + SOON;
    while trusting(&second).get(&url).send().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert!(trusting(&first).get(&url).send().await.is_err());
    running.stop.cancel();
    running.ended().await;
    watch.await.unwrap();
}
