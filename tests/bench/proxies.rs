//! Router against nginx and HAProxy: the same routes, the same four upstreams, the same logging.
//!
//! The proxy has core 0, load and upstreams have core 1. Rounds are interleaved (A B C A B C) after
//! one to warm up; the figure to trust is CPU per request, and its ratio to nginx's in the same run.

mod configs;
pub(crate) mod direct;

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use cardea_tests::{
    binary,
    http1::{self, Connection},
    load::Plan,
    ports,
    process::{Process, Spawn},
    scratch::Scratch,
    wait,
};

use crate::{
    machine::{cpu_ns, pss_kib},
    table::{Table, shown, spread},
};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 64;
const FIXED_RATE: f64 = 5000.0;
const IDLE_CONNECTIONS: usize = 1000;
const SOON: Duration = Duration::from_mins(1);

/// A proxy under test.
struct Proxy {
    name: String,
    address: SocketAddr,
    process: Process,
    fresh_kib: u64,
    rounds: Vec<Round>,
}

struct Round {
    cpu_us: f64,
    per_second: f64,
    bad: u64,
}

/// Prints the tables for each number of routes.
pub(crate) async fn run() {
    for routes in [10, 10_000] {
        compare(routes).await;
    }
}

async fn compare(routes: usize) {
    let scratch = Scratch::new("bench-proxies");
    let dir = scratch.path();
    let upstreams: Vec<u16> = (0..4).map(|_| ports::reserve()).collect();
    let mut responder = pinned("upstream", &binary::find("cardea-bench-upstream"), 1)
        .args(upstreams.iter().map(u16::to_string))
        .start(dir);
    responder
        .wait_log("ready", SOON, |log| log.contains("ready").then_some(()))
        .await;

    let script = configs::wrk_script(dir, routes);
    let mut proxies = vec![
        start("nginx", dir, |port| {
            configs::nginx(dir, port, routes, &upstreams)
        })
        .await,
        start("haproxy", dir, |port| {
            configs::haproxy(dir, port, routes, &upstreams)
        })
        .await,
        start("cardea", dir, |port| {
            configs::cardea(dir, port, routes, &upstreams)
        })
        .await,
    ];
    for round in 0..=ROUNDS {
        for proxy in &mut proxies {
            let result = wrk(proxy, &script);
            if round > 0 {
                proxy.rounds.push(result);
            }
        }
    }
    let saturation = Saturation::of(&proxies);
    println!("### Router beside nginx and HAProxy, {routes} routes\n");
    println!(
        "One worker each; host + prefix routing, weighted round robin 4/3/2/1 over four upstreams, \
         X-Forwarded-For, pooled keep-alive upstreams, buffered access log; {CONNECTIONS} keep-alive \
         connections, about 400 bytes of request headers, 1 KiB answers; {ROUNDS} rounds of {} s, \
         interleaved, after one to warm up; median (least–most). {saturation}\n",
        ROUND.as_secs()
    );
    let mut table = Table::new(&["", "CPU µs per request", "× nginx", "requests/s", "failed"]);
    let base = spread(&proxies[0].cpu()).0;
    for proxy in &proxies {
        table.row([
            proxy.name.clone(),
            shown(&proxy.cpu(), 2),
            format!("{:.2}", spread(&proxy.cpu()).0 / base),
            shown(
                &proxy
                    .rounds
                    .iter()
                    .map(|r| r.per_second)
                    .collect::<Vec<_>>(),
                0,
            ),
            proxy.rounds.iter().map(|r| r.bad).sum::<u64>().to_string(),
        ]);
    }
    table.print();
    fixed_rate(&proxies, upstreams[0], routes);
    if routes == 10 {
        memory(&proxies).await;
    }
}

impl Proxy {
    fn cpu(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.cpu_us).collect()
    }
}

/// Which core was the limit.
struct Saturation(String);

impl Saturation {
    fn of(proxies: &[Proxy]) -> Self {
        let busy = |proxy: &Proxy| {
            let rounds = proxy.rounds.iter();
            let shares: Vec<f64> = rounds.map(|r| r.cpu_us * r.per_second / 1e4).collect();
            format!("{} {:.0} %", proxy.name, spread(&shares).0)
        };
        let all: Vec<String> = proxies.iter().map(busy).collect();
        Self(format!(
            "Busy share of the proxy's core: {}.",
            all.join(", ")
        ))
    }
}

impl std::fmt::Display for Saturation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process bound to a core; as root with a high priority, so that neighbours disturb less.
fn pinned(name: &str, program: &Path, core: usize) -> Spawn {
    let bound = direct::bound(core);
    let args: Vec<_> = bound.get_args().map(std::ffi::OsStr::to_owned).collect();
    Spawn::new(name, bound.get_program())
        .args(args)
        .args([program])
}

async fn start(name: &str, dir: &Path, command: impl FnOnce(u16) -> configs::CommandLine) -> Proxy {
    let port = ports::reserve();
    let line = command(port);
    let mut process = pinned(name, &line.program, 0).args(&line.args).start(dir);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait::until_ok(&format!("{name} routes"), SOON, || {
        let end = process.ended();
        assert!(end.is_none(), "{name} ended: {}", process.log_text());
        async {
            let answer = http1::get(address, "h0.svc.local", "/api/v1/x").await;
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
    let fresh_kib = pss_kib(process.pid());
    Proxy {
        name: name.to_owned(),
        address,
        process,
        fresh_kib,
        rounds: Vec::new(),
    }
}

fn wrk(proxy: &Proxy, script: &Path) -> Round {
    let pid = proxy.process.pid();
    let before = cpu_ns(pid);
    let out = direct::bound(1)
        .args(["wrk", "-t1", &format!("-c{CONNECTIONS}")])
        .arg(format!("-d{}s", ROUND.as_secs()))
        .arg("-s")
        .arg(script)
        .arg(format!("http://{}/", proxy.address))
        .output()
        .expect("wrk");
    let spent = cpu_ns(pid) - before;
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let numbers: Vec<f64> = line
        .unwrap_or_else(|| panic!("wrk said: {text}{}", String::from_utf8_lossy(&out.stderr)))
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [requests, micros, bad] = numbers[..] else {
        panic!("wrk said: {text}");
    };
    Round {
        cpu_us: spent as f64 / 1000.0 / requests,
        per_second: requests / (micros / 1e6),
        bad: bad as u64,
    }
}

/// What one target showed at the fixed rate, a value for each round.
struct Fixed {
    name: String,
    address: SocketAddr,
    pid: Option<u32>,
    cpu_us: Vec<f64>,
    latency_ms: Vec<[f64; 3]>,
    failed: u64,
}

impl Fixed {
    fn new(name: &str, address: SocketAddr, pid: Option<u32>) -> Self {
        Self {
            name: name.to_owned(),
            address,
            pid,
            cpu_us: Vec::new(),
            latency_ms: Vec::new(),
            failed: 0,
        }
    }

    fn round(&mut self, keep: bool) {
        let before = self.pid.map_or(0, cpu_ns);
        let seen = direct::load(self.address, FIXED_RATE, Duration::from_secs(3));
        let spent = self.pid.map_or(0, cpu_ns) - before;
        if keep {
            self.cpu_us.push(spent as f64 / 1000.0 / seen.sent as f64);
            self.latency_ms.push(seen.latency_ms);
            self.failed += seen.failed;
        }
    }

    fn latency(&self, which: usize) -> String {
        let all: Vec<f64> = self.latency_ms.iter().map(|round| round[which]).collect();
        format!("{:.2}", spread(&all).0)
    }
}

/// The same rate for all, below saturation, with latency counted from when a request was due.
fn fixed_rate(proxies: &[Proxy], upstream: u16, routes: usize) {
    println!(
        "The same at a fixed {FIXED_RATE:.0} requests/s (open loop, latency from when a request was \
         due; below saturation a request costs more CPU, for everyone), {routes} routes:\n"
    );
    let upstream = SocketAddr::from(([127, 0, 0, 1], upstream));
    let mut all = vec![Fixed::new("direct", upstream, None)];
    all.extend(
        proxies
            .iter()
            .map(|p| Fixed::new(&p.name, p.address, Some(p.process.pid()))),
    );
    for round in 0..=3 {
        for target in &mut all {
            target.round(round > 0);
        }
    }
    let base = spread(&all[1].cpu_us).0;
    let mut table = Table::new(&[
        "",
        "CPU µs per request",
        "× nginx",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "failed",
    ]);
    for target in all {
        let ratio = spread(&target.cpu_us).0 / base;
        let own = target.pid.is_some();
        table.row([
            target.name.clone(),
            if own {
                shown(&target.cpu_us, 1)
            } else {
                "–".to_owned()
            },
            if own {
                format!("{ratio:.2}")
            } else {
                "–".to_owned()
            },
            target.latency(0),
            target.latency(1),
            target.latency(2),
            target.failed.to_string(),
        ]);
    }
    table.print();
}

/// Memory fresh, after the load, and with idle connections that made one request each.
async fn memory(proxies: &[Proxy]) {
    println!(
        "Memory (PSS of the process tree), {IDLE_CONNECTIONS} idle connections that made one request each:\n"
    );
    let mut table = Table::new(&[
        "",
        "fresh MiB",
        "after load MiB",
        "idle MiB",
        "KiB per idle connection",
    ]);
    for proxy in proxies {
        let pid = proxy.process.pid();
        let loaded = pss_kib(pid);
        let mut idle = Vec::new();
        for _ in 0..IDLE_CONNECTIONS {
            let mut connection = Connection::open(proxy.address, SOON)
                .await
                .expect("connects");
            let request = b"GET /api/v1/x HTTP/1.1\r\nHost: h0.svc.local\r\n\r\n";
            connection.exchange(request, SOON).await.expect("an answer");
            idle.push(connection);
        }
        // Proxies give memory back in their own time: read once it no longer changes.
        let settled = Instant::now();
        let mut held = pss_kib(pid);
        wait::until_true("memory has settled", SOON, || {
            let now = pss_kib(pid);
            let same = now == held;
            held = now;
            same && settled.elapsed() > Duration::from_secs(1)
        })
        .await;
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        table.row([
            proxy.name.clone(),
            mib(proxy.fresh_kib),
            mib(loaded),
            mib(held),
            format!(
                "{:.2}",
                (held as f64 - loaded as f64) / IDLE_CONNECTIONS as f64
            ),
        ]);
    }
    table.print();
}

/// The plan of the harness's load for these benches.
fn plan(address: SocketAddr, rate: f64) -> Plan {
    let mut plan = Plan::new(address, "h0.svc.local", rate)
        .gets()
        .connections(CONNECTIONS);
    "/api/v1/x".clone_into(&mut plan.path);
    plan.echo = false;
    plan
}
