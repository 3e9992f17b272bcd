//! The same work written down for each proxy, and wrk's script.

mod envoy;

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

pub(super) use envoy::{envoy, envoy_program};

/// Given to the upstreams in turn.
const WEIGHTS: [u16; 4] = [4, 3, 2, 1];

/// A program and its arguments.
pub(super) struct CommandLine {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
}

/// What a proxy is to do, and where it keeps its files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) dir: &'a Path,
    /// Begins the names of its files.
    pub(super) name: &'a str,
    pub(super) port: u16,
    pub(super) routes: usize,
    pub(super) upstreams: &'a [u16],
    /// Where `cert.pem`, `key.pem` and `both.pem` are, if TLS 1.3 is to be spoken, over X25519 and with
    /// one cipher.
    pub(super) tls: Option<&'a Path>,
}

impl Work<'_> {
    fn file(&self, suffix: &str, text: &str) -> String {
        let path = self.path(suffix);
        std::fs::write(&path, text).expect("a configuration file");
        path
    }

    pub(super) fn path(&self, suffix: &str) -> String {
        let path = self.dir.join(format!("{}{suffix}", self.name));
        path.display().to_string()
    }

    /// A file of the TLS folder.
    fn pem(&self, name: &str) -> Option<String> {
        Some(self.tls?.join(name).display().to_string())
    }

    /// Ports and weights.
    fn peers(&self) -> impl Iterator<Item = (u16, u16)> {
        self.upstreams
            .iter()
            .copied()
            .zip(WEIGHTS.into_iter().cycle())
    }
}

fn find(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.is_file() {
        sbin
    } else {
        PathBuf::from(name)
    }
}

/// Weighted round robin is nginx's default for an upstream with weights. Bodies stream, as with the
/// others: its default would write uploads, and downloads of slow clients, to files.
pub(super) fn nginx(work: &Work<'_>) -> CommandLine {
    let Work { port, routes, .. } = *work;
    let mut servers = String::new();
    for (upstream, weight) in work.peers() {
        writeln!(servers, "    server 127.0.0.1:{upstream} weight={weight};").unwrap();
    }
    let ssl = if work.tls.is_some() { " ssl" } else { "" };
    let secure = match (work.pem("cert.pem"), work.pem("key.pem")) {
        (Some(cert), Some(key)) => format!(
            "  ssl_certificate {cert};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.3;
  ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
  ssl_ecdh_curve X25519;
"
        ),
        _ => String::new(),
    };
    let mut hosts = String::new();
    for route in 0..routes {
        writeln!(
            hosts,
            "  server {{ listen 127.0.0.1:{port}{ssl}; server_name h{route}.svc.local; \
             location /api/v1/ {{ proxy_pass http://search; }} }}"
        )
        .unwrap();
    }
    let at = work.path("");
    let user = if nix::unistd::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let text = format!(
        "{user}
daemon off;
worker_processes 1;
pid {at}.pid;
error_log {at}-error.log;
events {{ worker_connections 16384; }}
http {{
  client_body_temp_path {at}-body;
  proxy_temp_path {at}-proxy;
  fastcgi_temp_path {at}-fastcgi;
  uwsgi_temp_path {at}-uwsgi;
  scgi_temp_path {at}-scgi;
  server_names_hash_max_size 262144;
  server_names_hash_bucket_size 64;
  access_log {at}-access.log combined buffer=64k flush=1s;
  keepalive_timeout 75s;
  keepalive_requests 100000000;
  upstream search {{
{servers}    keepalive 512;
    keepalive_requests 100000000;
  }}
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{secure}{hosts}}}
"
    );
    let config = work.file(".conf", &text);
    CommandLine {
        program: find("nginx"),
        args: vec!["-c".to_owned(), config],
    }
}

/// Host and prefix are looked up in a map (a tree), as HAProxy's manual advises for many routes. The
/// log goes to a ring in memory: HAProxy writes no files.
pub(super) fn haproxy(work: &Work<'_>) -> CommandLine {
    let Work { port, routes, .. } = *work;
    let mut map = String::new();
    for route in 0..routes {
        writeln!(map, "h{route}.svc.local/api/v1/ search").unwrap();
    }
    let map = work.file(".map", &map);
    let mut servers = String::new();
    for (i, (upstream, weight)) in work.peers().enumerate() {
        writeln!(
            servers,
            "  server s{i} 127.0.0.1:{upstream} weight {weight}"
        )
        .unwrap();
    }
    let secure = work.pem("both.pem").map_or(String::new(), |pem| {
        format!(
            " ssl crt {pem} ssl-min-ver TLSv1.3 ciphersuites TLS_AES_256_GCM_SHA384 curves X25519"
        )
    });
    let text = format!(
        "global
  nbthread 1
  maxconn 12000
  no strict-limits
  log ring@requests local0
ring requests
  format raw
  maxlen 1024
  size 1048576
defaults
  mode http
  log global
  option httplog
  option forwardfor
  option http-keep-alive
  http-reuse always
  timeout connect 1s
  timeout client 75s
  timeout server 60s
frontend in
  bind 127.0.0.1:{port}{secure}
  use_backend %[base,map_beg({map},none)]
backend search
  balance roundrobin
  default-server pool-purge-delay 60s
{servers}
backend none
  http-request return status 404
"
    );
    let config = work.file(".cfg", &text);
    CommandLine {
        program: find("haproxy"),
        args: vec!["-db".to_owned(), "-f".to_owned(), config],
    }
}

/// Static mode. Idle connections to upstreams are kept for as long as nginx keeps them (60 s; Envoy keeps them for
/// an hour): between two rounds of one proxy lie those of the others, and to connect anew is not what a
/// request costs.
pub(super) fn cardea(work: &Work<'_>) -> CommandLine {
    let mut args: Vec<String> = ["router", "--static"].map(str::to_owned).to_vec();
    args.push(manifest(work));
    let address = format!("127.0.0.1:{}", work.port);
    if work.tls.is_some() {
        let only = [
            "--listen",
            "off",
            "--tls-min-version",
            "1.3",
            "--listen-tls",
        ];
        args.extend(only.map(str::to_owned));
    } else {
        args.push("--listen".to_owned());
    }
    args.push(address);
    args.extend(["--threads".to_owned(), "1".to_owned()]);
    args.extend(["--access-log".to_owned(), work.path("-access.log")]);
    args.extend(["--admin".to_owned(), "127.0.0.1:0".to_owned()]);
    CommandLine {
        program: cardea_tests::binary::cardea(),
        args,
    }
}

/// The routes and peers as a static file.
pub(super) fn manifest(work: &Work<'_>) -> String {
    let mut text =
        String::from("[[service]]\nname = \"search\"\n[service.timeouts]\nkeepalive = \"60s\"\n");
    for (upstream, weight) in work.peers() {
        writeln!(
            text,
            "[[service.instance]]\naddress = \"127.0.0.1:{upstream}\"\nweight = {weight}"
        )
        .unwrap();
    }
    for route in 0..work.routes {
        writeln!(
            text,
            "[[route]]\nhost = \"h{route}.svc.local\"\nprefix = \"/api/v1\"\nservice = \"search\""
        )
        .unwrap();
    }
    if let (Some(cert), Some(key)) = (work.pem("cert.pem"), work.pem("key.pem")) {
        writeln!(
            text,
            "[[certificate]]\nname = \"bench\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\""
        )
        .unwrap();
    }
    work.file(".toml", &text)
}
