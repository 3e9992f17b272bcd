//! The same work written down for each proxy, and wrk's script.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

const WEIGHTS: [u16; 4] = [4, 3, 2, 1];

/// A program and its arguments.
pub(super) struct CommandLine {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
}

fn find(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.is_file() {
        sbin
    } else {
        PathBuf::from(name)
    }
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a configuration file");
    path.display().to_string()
}

/// Weighted round robin is nginx's default for an upstream with weights.
pub(super) fn nginx(dir: &Path, port: u16, routes: usize, upstreams: &[u16]) -> CommandLine {
    let mut servers = String::new();
    for (upstream, weight) in upstreams.iter().zip(WEIGHTS) {
        writeln!(servers, "    server 127.0.0.1:{upstream} weight={weight};").unwrap();
    }
    let mut hosts = String::new();
    for route in 0..routes {
        writeln!(
            hosts,
            "  server {{ listen 127.0.0.1:{port}; server_name h{route}.svc.local; \
             location /api/v1/ {{ proxy_pass http://search; }} }}"
        )
        .unwrap();
    }
    let at = dir.display();
    let user = if nix::unistd::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let text = format!(
        "{user}
daemon off;
worker_processes 1;
pid {at}/nginx.pid;
error_log {at}/nginx-error.log;
events {{ worker_connections 8192; }}
http {{
  client_body_temp_path {at}/nginx-body;
  proxy_temp_path {at}/nginx-proxy;
  fastcgi_temp_path {at}/nginx-fastcgi;
  uwsgi_temp_path {at}/nginx-uwsgi;
  scgi_temp_path {at}/nginx-scgi;
  server_names_hash_max_size 262144;
  server_names_hash_bucket_size 64;
  access_log {at}/nginx-access.log combined buffer=64k flush=1s;
  keepalive_timeout 75s;
  keepalive_requests 100000000;
  upstream search {{
{servers}    keepalive 128;
    keepalive_requests 100000000;
  }}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{hosts}}}
"
    );
    let config = file(dir, "nginx.conf", &text);
    CommandLine {
        program: find("nginx"),
        args: vec!["-c".to_owned(), config],
    }
}

/// Host and prefix are looked up in a map (a tree), as HAProxy's manual advises for many routes. The
/// log goes to a ring in memory: HAProxy writes no files.
pub(super) fn haproxy(dir: &Path, port: u16, routes: usize, upstreams: &[u16]) -> CommandLine {
    let mut map = String::new();
    for route in 0..routes {
        writeln!(map, "h{route}.svc.local/api/v1/ search").unwrap();
    }
    let map = file(dir, "haproxy.map", &map);
    let mut servers = String::new();
    for (i, (upstream, weight)) in upstreams.iter().zip(WEIGHTS).enumerate() {
        writeln!(
            servers,
            "  server s{i} 127.0.0.1:{upstream} weight {weight}"
        )
        .unwrap();
    }
    let text = format!(
        "global
  nbthread 1
  maxconn 8192
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
  bind 127.0.0.1:{port}
  use_backend %[base,map_beg({map},none)]
backend search
  balance roundrobin
{servers}
backend none
  http-request return status 404
"
    );
    let config = file(dir, "haproxy.cfg", &text);
    CommandLine {
        program: find("haproxy"),
        args: vec!["-db".to_owned(), "-f".to_owned(), config],
    }
}

/// Static mode.
pub(super) fn cardea(dir: &Path, port: u16, routes: usize, upstreams: &[u16]) -> CommandLine {
    let mut text = String::from("[[service]]\nname = \"search\"\n");
    for (upstream, weight) in upstreams.iter().zip(WEIGHTS) {
        writeln!(
            text,
            "[[service.instance]]\naddress = \"127.0.0.1:{upstream}\"\nweight = {weight}"
        )
        .unwrap();
    }
    for route in 0..routes {
        writeln!(
            text,
            "[[route]]\nhost = \"h{route}.svc.local\"\nprefix = \"/api/v1\"\nservice = \"search\""
        )
        .unwrap();
    }
    let config = file(dir, "cardea.toml", &text);
    let mut args: Vec<String> = ["router", "--static"].map(str::to_owned).to_vec();
    args.push(config);
    args.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
    args.extend(["--threads".to_owned(), "1".to_owned()]);
    args.extend([
        "--access-log".to_owned(),
        dir.join("cardea-access.log").display().to_string(),
    ]);
    args.extend(["--admin".to_owned(), "127.0.0.1:0".to_owned()]);
    CommandLine {
        program: cardea_tests::binary::cardea(),
        args,
    }
}

/// Requests with eight ordinary headers over the hosts in turn, and one line of results.
pub(super) fn wrk_script(dir: &Path, routes: usize) -> PathBuf {
    let text = format!(
        r#"local requests = {{}}
local at = 0
function init(args)
  for i = 0, math.min({routes}, 2000) - 1 do
    local host = "h" .. (i * math.max(1, math.floor({routes} / 2000)) % {routes}) .. ".svc.local"
    requests[i + 1] = wrk.format("GET", "/api/v1/items/" .. i .. "?page=2", {{
      ["Host"] = host,
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
      ["Accept"] = "application/json, text/plain, */*",
      ["Accept-Language"] = "en-GB,en;q=0.9,de;q=0.7",
      ["Accept-Encoding"] = "gzip, deflate, br",
      ["Cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark",
      ["Referer"] = "http://www.svc.local/items",
      ["Traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency, all)
  local e = summary.errors
  print(string.format("RESULT %d %d %d", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#
    );
    let path = dir.join(format!("wrk-{routes}.lua"));
    std::fs::write(&path, text).expect("wrk's script");
    path
}
