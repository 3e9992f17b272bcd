//! A certificate's way: from a file through the registry to clients, and its successor's, while
//! connections go on.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::Arc,
};

use cardea_tests::{
    backend::Backend,
    binary, ports, process,
    site::{Router, RouterSetup, SOON, Site, Token},
    wait,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer,
};

use crate::gate;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Writes `shop.pem` and `shop.key`; gives the certificate.
    fn sign(&self, site: &Site) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        site.scratch.write("shop.pem", &cert.pem());
        site.scratch.write("shop.key", &key.serialize_pem());
        cert.der().clone()
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session that is taken up again goes on with the certificate that it began with.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }
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

    let authority = Authority::new();
    let client = authority.client();
    assert!(connect(&client, tls).is_err());
    let first = authority.sign(&site);
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

    let second = authority.sign(&site);
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
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    ctl(&site, &["delete", "certificate", "shop", "--yes"]);
    wait::until("it is served no more", SOON, || async {
        connect(&client, tls).is_err().then_some(())
    })
    .await;
    assert!(ask(&mut kept).contains(" 200"));
}
