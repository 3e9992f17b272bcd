//! TLS with clients: requests over connections that are kept, handshakes in full and resumed, and
//! what an idle connection costs. One certificate (P-256), TLS 1.3, X25519 and AES-256-GCM for all.
//!
//! Handshakes come from a process of its own on core 1, one after another:
//! `cardea-bench handshakes ADDRESS CERT full|resumed SECONDS` prints what it saw as JSON.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cardea_tests::{http1::Dial, tls::Authority};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, Stream,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};

use super::{
    idle, paced,
    stand::{self, Answers, CONNECTIONS, Kind, Proxy, Stand},
    wrk,
};
use crate::{machine::pss_kib, table::Table};

const HOST: &str = "h0.svc.local";
const ROUNDS: usize = 4;
const SECONDS: u64 = 2;
/// Idle connections; the load that holds them pays more than the proxy.
const CLIENTS: usize = 2000;

pub(super) async fn run() {
    let stand = Stand::new("tls", 4, Answers::Small).await;
    let authority = Authority::new("bench");
    let pair = authority.sign(&[HOST]);
    let write = |name: &str, text: &str| drop(stand.scratch.write(name, text));
    write("cert.pem", &pair.cert);
    write("key.pem", &pair.key);
    write("both.pem", &format!("{}{}", pair.cert, pair.key));
    write("ca.pem", &authority.pem());
    let dial = Dial::tls(&client(&authority.pem(), false), HOST);
    let mut proxies = Vec::new();
    for kind in [Kind::Nginx, Kind::Haproxy, Kind::Cardea] {
        proxies.push(stand.secure(kind, stand.dir(), &dial).await);
    }
    let script = wrk::script(stand.dir(), 10);
    let targets: Vec<(&Proxy, &Path)> = proxies.iter().map(|p| (p, script.as_path())).collect();

    println!("### TLS with clients\n");
    println!(
        "TLS 1.3 with AES-256-GCM over X25519, a P-256 certificate; requests and upstreams as above, \
         10 routes. {ROUNDS} rounds of {SECONDS} s, interleaved, after one to warm up; median \
         (least–most).\n\nRequests over {CONNECTIONS} keep-alive connections:\n"
    );
    let load = |proxy: &Proxy, script: &Path| wrk::secure_load(proxy, script, SECONDS);
    let seen = wrk::interleaved(&targets, ROUNDS, load);
    let names = stand::names(&proxies);
    wrk::compare(&names, &seen);

    let ca = stand.dir().join("ca.pem").display().to_string();
    for (how, title) in [
        ("full", "Full handshakes"),
        ("resumed", "Resumed handshakes"),
    ] {
        println!("{title}, one after another, each with one request and its answer:\n");
        let seen = wrk::interleaved(&targets, ROUNDS, |proxy, _| {
            let address = proxy.address.to_string();
            let seconds = SECONDS.to_string();
            let seen: Seen = paced::child(&["handshakes", &address, &ca, how, &seconds]);
            (seen.done as f64, seen.per_second, seen.failed)
        });
        let titles = ["CPU µs per connection", "handshakes/s"];
        wrk::compare_in(&names, &seen, titles);
    }

    println!("{CLIENTS} idle connections that made one request each, PSS of the process tree:\n");
    let mut table = Table::new(&["", "after load MiB", "idle MiB", "KiB per idle connection"]);
    for proxy in &proxies {
        let loaded = proxy.settled_kib().await;
        let clients = idle::connect_by(proxy, &dial, CLIENTS).await;
        let held = proxy.settled_kib().await;
        drop(clients);
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        table.row([
            proxy.name.clone(),
            mib(loaded),
            mib(held),
            format!("{:.2}", (held as f64 - loaded as f64) / CLIENTS as f64),
        ]);
        assert!(pss_kib(proxy.pid()) > 0, "{} is gone", proxy.name);
    }
    table.print();
}

/// What a load of handshakes saw.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    done: u64,
    per_second: f64,
    /// Also those that were not resumed though they should have been, or the other way round.
    failed: u64,
}

/// Shakes hands for that long.
pub(crate) fn main(to: SocketAddr, ca: &str, resumed: bool, span: Duration) -> Seen {
    let ca = std::fs::read_to_string(ca).expect("the authority");
    let config = client(&ca, resumed);
    if resumed {
        // The first session is what the others take up.
        shake(&config, to).expect("a first session");
    }
    let wanted = if resumed {
        HandshakeKind::Resumed
    } else {
        HandshakeKind::Full
    };
    let begun = Instant::now();
    let (mut done, mut failed) = (0, 0);
    while begun.elapsed() < span {
        done += 1;
        let kind = shake(&config, to);
        failed += u64::from(!kind.is_ok_and(|kind| kind == wanted));
    }
    Seen {
        done,
        per_second: done as f64 / begun.elapsed().as_secs_f64(),
        failed,
    }
}

/// One connection with one request.
fn shake(config: &Arc<ClientConfig>, to: SocketAddr) -> std::io::Result<HandshakeKind> {
    let name = HOST.try_into().expect("a host");
    let mut session = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
    let mut tcp = TcpStream::connect(to)?;
    tcp.set_nodelay(true)?;
    let mut stream = Stream::new(&mut session, &mut tcp);
    let request = format!("GET /api/v1/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(std::io::Error::other("no good answer"));
    }
    session
        .handshake_kind()
        .ok_or_else(|| std::io::Error::other("no handshake"))
}

/// A client with one cipher and one curve.
fn client(ca: &str, resumes: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
    roots.add(ca).expect("an authority");
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}
