//! The price of each feature: the same program with one of them switched off at a time. The switches
//! are in `router/examples/priced.rs`, built for this; the product has none.

use std::{fmt::Write, net::TcpListener, path::PathBuf};

use super::{
    configs::{self, CommandLine, Work},
    stand::{Answers, Proxy, Stand},
    wrk,
};
use crate::table::{Table, quartiles, spread};

const ROUNDS: usize = 8;
const SECONDS: u64 = 1;
const OFF: [(&str, &str); 7] = [
    ("everything on", ""),
    ("nothing, another of the same", ""),
    ("access log", "log"),
    ("metrics", "metrics"),
    ("passive health, latency, retry budget", "health"),
    ("X-Forwarded-For, -Proto, -Host", "forwarded"),
    ("request id", "id"),
];

/// One plugin of each kind, bound to everything; none of them refuses anything.
const PLUGINS: [(&str, &str); 17] = [
    ("none", ""),
    ("none, another of the same", ""),
    (
        "restrict",
        "[plugin.restrict]\nmethods = [\"GET\"]\nhead = 8192\n",
    ),
    ("limit, one for all", "[plugin.limit]\nrate = 10000000\n"),
    (
        "limit by a header, and at a time",
        "[plugin.limit]\nrate = 10000000\nconcurrent = 100000\nkey = \"header:host\"\n",
    ),
    ("break", "[plugin.break]\nslow = \"10s\"\n"),
    (
        "break, adaptive",
        "[plugin.break.adaptive]\ninitial = 1000\nmin = 1000\n",
    ),
    ("lanes, untagged", "[plugin.lanes]\n"),
    (
        "ab",
        "[[plugin.ab.experiments]]\nname = \"page\"\nkey = \"header:host\"\n\
         request_header = \"X-Variant\"\n[[plugin.ab.experiments.variants]]\nname = \"a\"\n\
         [[plugin.ab.experiments.variants]]\nname = \"b\"\n",
    ),
    (
        "blue_green",
        "[plugin.blue_green]\nlive = \"baseline\"\nblue = \"baseline\"\n",
    ),
    (
        "gray, one rule",
        "[[plugin.gray.rules]]\ngroup = \"baseline\"\nwhen = { key = \"header:x-user\", is = [\"u\"] }\n",
    ),
    (
        "rewrite, a header each way",
        "[plugin.rewrite.request.set]\nX-A = \"${route}\"\n[plugin.rewrite.response.set]\nX-B = \"b\"\n",
    ),
    (
        "fallback, a stored body",
        "[plugin.fallback]\nbody = \"sorry\"\n[[fallback]]\nname = \"sorry\"\ntext = \"later\"\n",
    ),
    (
        "fallback, the last good answer",
        "[plugin.fallback.last_good]\n",
    ),
    (
        "mirror, of no request",
        "service = \"search\"\n[plugin.mirror]\nservice = \"copies\"\nmethods = [\"PUT\"]\n[[service]]\nname = \"copies\"\n\
         [[service.instance]]\naddress = \"127.0.0.1:FIFTH\"\n",
    ),
    (
        "mirror, a copy each, answered at once",
        "service = \"search\"\n[plugin.mirror]\nservice = \"copies\"\n[[service]]\nname = \"copies\"\n\
         [[service.instance]]\naddress = \"127.0.0.1:FIFTH\"\n",
    ),
    (
        "mirror, a copy each, never answered",
        "service = \"search\"\n[plugin.mirror]\nservice = \"copies\"\n[[service]]\nname = \"copies\"\n\
         [[service.instance]]\naddress = \"127.0.0.1:HOLE\"\n",
    ),
];

/// Where a cluster's requests go, with half of the peers in another one.
const TRAFFIC: [(&str, &str); 6] = [
    ("none", ""),
    ("none, another of the same", ""),
    (
        "weights over two clusters",
        "weights = { default = 50, b = 50 }\n",
    ),
    (
        "weights, sticky by a header",
        "weights = { default = 50, b = 50 }\nsticky = \"header:host\"\n",
    ),
    (
        "failover, everybody healthy",
        "failover = { order = [\"b\"] }\n",
    ),
    (
        "weights, failover and zones",
        "weights = { default = 50, b = 50 }\nzones = \"near\"\nfailover = { order = [\"b\"] }\n",
    ),
];

/// The program's features.
pub(super) async fn run() {
    println!("### The price of each feature\n");
    let Some(program) = program() else { return };
    let stand = Stand::new("price", 4, Answers::Small).await;
    let script = wrk::script(stand.dir(), 10);
    let mut proxies: Vec<Proxy> = Vec::new();
    let all_off: Vec<&str> = OFF.iter().map(|(_, off)| *off).collect();
    let all_off = ("everything above", all_off[2..].join(","));
    let cases = OFF.iter().map(|(title, off)| (*title, (*off).to_owned()));
    for (title, off) in cases.chain([all_off]) {
        let file = format!("priced-{}", proxies.len());
        let line = |work: &Work<'_>| command(program.clone(), work, &off);
        proxies.push(stand.start(title, &file, 10, 4, line).await);
    }
    let targets: Vec<_> = proxies.iter().map(|proxy| (proxy, &*script)).collect();
    let seen = wrk::rounds(&targets, 2 * ROUNDS, SECONDS);
    println!(
        "Saturated, 10 routes, one of them switched off at a time; {} rounds of {SECONDS} s, \
         interleaved. Within a round each is compared with the one that has everything on; median of the \
         differences (and between which the middle half of them is). What the first line says is noise.\n",
        2 * ROUNDS
    );
    print(
        ["switched off", "µs per request less"],
        -1.0,
        &proxies,
        &seen,
    );
    println!("With everything on: {:.2} µs.\n", spread(&seen[0].cpu_us).0);
}

/// Plugins of each kind.
pub(super) async fn of_plugins() {
    println!("### The price of each plugin\n");
    let Some(program) = program() else { return };
    // The last one gets nothing but copies.
    let stand = Stand::new("price", 5, Answers::Small).await;
    // The kernel takes connections, and bytes, until it has enough; nobody ever reads them.
    let hole = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ports = [
        ("FIFTH", stand.upstreams[4]),
        ("HOLE", hole.local_addr().expect("its address").port()),
    ];
    let script = wrk::script(stand.dir(), 10);
    let mut proxies: Vec<Proxy> = Vec::new();
    for (title, policy) in PLUGINS {
        let file = format!("priced-{}", proxies.len());
        let policy = ports.iter().fold(policy.to_owned(), |text, (name, port)| {
            text.replace(name, &port.to_string())
        });
        let line = |work: &Work<'_>| with_plugin(program.clone(), work, &policy);
        proxies.push(stand.start(title, &file, 10, 4, line).await);
    }
    let targets: Vec<_> = proxies.iter().map(|proxy| (proxy, &*script)).collect();
    let seen = wrk::rounds(&targets, ROUNDS, SECONDS);
    println!(
        "Saturated, 10 routes, one plugin of a kind on every route; {ROUNDS} rounds of {SECONDS} s, \
         interleaved. Within a round each is compared with the one without plugins; median of the \
         differences (and between which the middle half of them is). What the first line says is noise.\n"
    );
    print(["plugin", "µs per request more"], 1.0, &proxies, &seen);
    println!("Without plugins: {:.2} µs.\n", spread(&seen[0].cpu_us).0);
    drop(hole);
}

/// Traffic between clusters.
pub(super) async fn of_traffic() {
    println!("### The price of traffic between clusters\n");
    let Some(program) = program() else { return };
    let stand = Stand::new("price", 4, Answers::Small).await;
    let script = wrk::script(stand.dir(), 10);
    let mut proxies: Vec<Proxy> = Vec::new();
    for (title, traffic) in TRAFFIC {
        let file = format!("priced-{}", proxies.len());
        let line = |work: &Work<'_>| with_traffic(program.clone(), work, traffic);
        proxies.push(stand.start(title, &file, 10, 4, line).await);
    }
    let targets: Vec<_> = proxies.iter().map(|proxy| (proxy, &*script)).collect();
    let seen = wrk::rounds(&targets, 2 * ROUNDS, SECONDS);
    println!(
        "Saturated, 10 routes to one service with four peers, two of them in another cluster where there is a \
         traffic object; {} rounds of {SECONDS} s, interleaved. Within a round each is compared with the one \
         without an object; median of the differences (and between which the middle half of them is). What the \
         first line says is noise.\n",
        2 * ROUNDS
    );
    print(["traffic", "µs per request more"], 1.0, &proxies, &seen);
    println!("Without an object: {:.2} µs.\n", spread(&seen[0].cpu_us).0);
}

fn program() -> Option<PathBuf> {
    let program = cardea_tests::binary::profile_dir().join("examples/priced");
    if program.is_file() {
        return Some(program);
    }
    println!("Not measured: {} was not built.\n", program.display());
    None
}

/// All but the first, compared with it; `sign`: whether more or less is asked.
fn print(head: [&str; 2], sign: f64, proxies: &[Proxy], seen: &[wrk::Rounds]) {
    let mut table = Table::new(&[head[0], head[1], "of a request"]);
    let base = &seen[0].cpu_us;
    let full = spread(base).0;
    for (proxy, rounds) in proxies.iter().zip(seen).skip(1) {
        let pairs = base.iter().zip(&rounds.cpu_us);
        let differences: Vec<f64> = pairs.map(|(base, with)| (with - base) * sign).collect();
        let [low, median, high] = quartiles(&differences);
        table.row([
            proxy.name.clone(),
            format!("{median:.2} ({low:.2}–{high:.2})"),
            format!("{:.1} %", median / full * 100.0),
        ]);
    }
    table.print();
}

/// With everything on, and a plugin.
fn with_plugin(program: PathBuf, work: &Work<'_>, policy: &str) -> CommandLine {
    let line = command(program, work, "");
    let manifest = &line.args[0];
    let mut text = std::fs::read_to_string(manifest).expect("it was just written");
    let (groups, wanted) = (
        "name = \"search\"\n",
        "groups = { green = { version = \"2\" } }\n",
    );
    text = text.replacen(groups, &format!("{groups}{wanted}"), 1);
    if !policy.is_empty() {
        write!(text, "[[plugin]]\nname = \"priced\"\n{policy}").expect("a string grows");
    }
    std::fs::write(manifest, text).expect("it was just written");
    line
}

/// With everything on, and a traffic object over two clusters.
fn with_traffic(program: PathBuf, work: &Work<'_>, traffic: &str) -> CommandLine {
    let line = command(program, work, "");
    if traffic.is_empty() {
        return line;
    }
    let manifest = &line.args[0];
    let text = std::fs::read_to_string(manifest).expect("it was just written");
    let instance = "[[service.instance]]\n";
    let mut parts = text.split(instance);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (n, part) in parts.enumerate() {
        let cluster = if n % 2 == 1 { "cluster = \"b\"\n" } else { "" };
        write!(text, "{instance}{cluster}{part}").expect("a string grows");
    }
    write!(text, "[[traffic]]\ncluster = \"default\"\n{traffic}").expect("a string grows");
    std::fs::write(manifest, text).expect("it was just written");
    line
}

fn command(program: PathBuf, work: &Work<'_>, off: &str) -> CommandLine {
    CommandLine {
        program,
        args: vec![
            configs::manifest(work),
            format!("127.0.0.1:{}", work.port),
            work.path("-access.log"),
            off.to_owned(),
        ],
    }
}
