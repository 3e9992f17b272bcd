//! A certificate's way: from a file through the registry to clients, and its successor's, while
//! connections go on.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::Arc,
};

use cardea_tests::{
    backend::Backend,
    binary,
    http1::Dial,
    load::Plan,
    ports, process,
    site::{Router, RouterSetup, SOON, Site, Token},
    tls::Authority,
    wait,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::CertificateDer};

use crate::gate;

/// Writes `shop.pem` and `shop.key`; gives the certificate.
fn sign(authority: &Authority, site: &Site) -> CertificateDer<'static> {
    let pair = authority.sign(&["shop.test"]);
    site.scratch.write("shop.pem", &pair.cert);
    site.scratch.write("shop.key", &pair.key);
    pair.der()
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

fn connect(config: &Arc<ClientConfig>, to: SocketAddr) -> std::io::Result<Connection> {
    let name = "shop.test".try_into().unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let tcp = TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(SOON))?;
    let mut connection = StreamOwned::new(session, tcp);
    while connection.conn.is_handshaking() {
        connection.conn.complete_io(&mut connection.sock)?;
    }
    Ok(connection)
}

fn served(connection: &Connection) -> CertificateDer<'static> {
    connection.conn.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

fn ask(connection: &mut Connection) -> String {
    let request = "GET /echo HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    connection.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = connection.read(&mut piece).unwrap();
        assert!(n > 0, "ended after {}", text.escape_ascii());
        text.extend_from_slice(&piece[..n]);
        let head = text.windows(4).position(|w| w == b"\r\n\r\n");
        let Some(head) = head else { continue };
        let shown = String::from_utf8_lossy(&text[..head]).to_ascii_lowercase();
        let length = shown
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        if text.len() >= head + 4 + length.unwrap().parse::<usize>().unwrap() {
            return shown.lines().next().unwrap().to_owned();
        }
    }
}

fn ctl(site: &Site, args: &[&str]) -> String {
    let mut command = Command::new(binary::cardea());
    let registry = format!("http://{}", site.registries[0].api());
    command
        .arg("ctl")
        .args(args)
        .env("CARDEA_REGISTRY", registry)
        .env("CARDEA_TOKEN", Token::Operator.secret())
        .current_dir(site.dir());
    let out = process::output(&mut command, SOON);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "{args:?}: {text}");
    text
}

/// The files below `dir` that hold a line of the certificate's key and are not their owner's alone;
/// the key's own file is the test's.
fn readable_secrets(dir: &Path, site: &Site) -> Vec<String> {
    let own = site.scratch.join("shop.key");
    let key = std::fs::read_to_string(&own).unwrap();
    let secret = key.lines().nth(1).unwrap().as_bytes();
    let mut found = Vec::new();
    let (mut held, mut folders) = (0, vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Sockets cannot be read, and files may go meanwhile.
            let Ok(bytes) = std::fs::read(&path) else {
                continue;
            };
            if path == own || !bytes.windows(secret.len()).any(|piece| piece == secret) {
                continue;
            }
            held += 1;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            if mode & 0o077 != 0 {
                found.push(format!("{} {mode:o}", path.display()));
            }
        }
    }
    assert!(
        held >= 2,
        "the database and the router's copy hold it: {held}"
    );
    found
}

const FILE: &str = r#"
[[certificate]]
name = "shop"
cert_file = "shop.pem"
key_file = "shop.key"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_applied_served_replaced_and_taken_away() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("certificates").await;
    let backend = Backend::start("shop").await;
    let tls = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
    let setup = RouterSetup::new("secure", &[site.registries[0].api()]);
    let setup = setup.flag("--listen-tls", &tls.to_string());
    let router = Router::start(setup, site.dir()).await;
    site.routers.push(router);
    let file = site.scratch.write("certificates.toml", FILE);
    let file = file.to_str().unwrap().to_owned();
    let more = format!(
        "[[service]]\nname = \"shop\"\n[[service.instance]]\naddress = \"{}\"\n\
         [[route]]\nhost = \"shop.test\"\nservice = \"shop\"\n",
        backend.address()
    );
    let shop = site.scratch.write("shop.toml", &more);
    ctl(&site, &["apply", "-f", shop.to_str().unwrap(), "--yes"]);

    let authority = Authority::new("ca");
    let client = authority.client();
    assert!(connect(&client, tls).is_err());
    let first = sign(&authority, &site);
    let told = ctl(&site, &["apply", "-f", &file, "--yes"]);
    assert!(!told.contains("PRIVATE"), "{told}");
    wait::until("the certificate is served", SOON, || async {
        connect(&client, tls)
            .is_ok_and(|c| served(&c) == first)
            .then_some(())
    })
    .await;
    let mut kept = connect(&client, tls).unwrap();
    assert!(ask(&mut kept).contains(" 200"));

    let second = sign(&authority, &site);
    let told = ctl(&site, &["apply", "-f", &file, "--yes"]);
    assert!(!told.contains("PRIVATE"), "{told}");
    wait::until("the next one is served", SOON, || async {
        assert!(ask(&mut connect(&client, tls).unwrap()).contains(" 200"));
        (served(&connect(&client, tls).unwrap()) == second).then_some(())
    })
    .await;
    assert!(ask(&mut kept).contains(" 200"));
    let listed = ctl(&site, &["get", "certificates"]);
    assert!(listed.contains("shop.test"), "{listed}");
    let listed = ctl(&site, &["get", "certificates", "shop", "--json"]);
    assert!(!listed.contains("PRIVATE"), "{listed}");

    // What is kept on disk is its owner's only.
    let router = site.routers.last().unwrap();
    let copy = router.data_dir().join("table.ndjson");
    wait::until("the copy on disk has it", SOON, || async {
        std::fs::read_to_string(&copy)
            .is_ok_and(|text| text.contains("PRIVATE KEY"))
            .then_some(())
    })
    .await;
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Nor does any file hold a key that others may read: no log, and nothing that is kept.
    assert_eq!(readable_secrets(site.dir(), &site), Vec::<String>::new());

    ctl(&site, &["delete", "certificate", "shop", "--yes"]);
    wait::until("it is served no more", SOON, || async {
        connect(&client, tls).is_err().then_some(())
    })
    .await;
    assert!(ask(&mut kept).contains(" 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_new_certificates_a_second_drop_no_connection() {
    const SWAPS: usize = 50;
    const CONNECTIONS: usize = 16;
    let _machine = gate::shared().await;
    let mut site = Site::empty("certificates-swapped");
    site.add_registry(|setup| setup).await;
    let tls = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
    site.add_router(|setup| setup.flag("--listen-tls", &tls.to_string()))
        .await;
    let backend = Backend::start("shop").await;
    site.route("shop.test", "shop", |_| {}).await;
    site.register("shop", "one", backend.address()).await;
    let authority = Authority::new("ca");
    let pairs: Vec<_> = (0..=SWAPS)
        .map(|_| authority.sign(&["shop.test"]))
        .collect();
    let client = site.client();
    client
        .apply(&pairs[0].to_apply("shop"), false)
        .await
        .unwrap();
    site.settled().await;
    let dial = Dial::tls(&authority.client(), "shop.test");
    let plan = |rate, label: &str| {
        let plan = Plan::new(tls, "shop.test", rate).label(label);
        plan.connections(CONNECTIONS).dial(dial.clone())
    };
    let kept = plan(400.0, "kept").start();
    let fresh = plan(100.0, "fresh").fresh().start();
    kept.pass(100, SOON).await;
    fresh.pass(20, SOON).await;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    let begun = std::time::Instant::now();
    for pair in &pairs[1..] {
        tick.tick().await;
        client.apply(&pair.to_apply("shop"), false).await.unwrap();
    }
    let took = begun.elapsed();
    let config = authority.client();
    let last = pairs[SWAPS].der();
    wait::until("the last one is served", SOON, || async {
        (served(&connect(&config, tls).unwrap()) == last).then_some(())
    })
    .await;
    kept.pass(100, SOON).await;
    fresh.pass(20, SOON).await;
    assert_eq!(
        kept.opened(),
        CONNECTIONS as u64,
        "connections were dropped"
    );
    for load in [kept, fresh] {
        let report = load.stop().await;
        println!("{report}");
        report.assert_clean();
    }
    println!("{SWAPS} certificates in {:.1} s", took.as_secs_f64());
    let failed = site.routers[0].metric("cardea_router_tls_handshake_failures_total", "");
    assert_eq!(failed.await, Some(0.0));
}
