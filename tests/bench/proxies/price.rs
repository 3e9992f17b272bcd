//! The price of each feature: the same program with one of them switched off at a time. The switches
//! are in `router/examples/priced.rs`, built for this; the product has none.

use std::{fmt::Write, path::PathBuf};

use super::{
    configs::{self, CommandLine, Work},
    stand::{Answers, Proxy, Stand},
    wrk,
};
use crate::table::{Table, spread};

const ROUNDS: usize = 8;
const SECONDS: u64 = 1;
const OFF: [(&str, &str); 6] = [
    ("nothing", ""),
    ("access log", "log"),
    ("metrics", "metrics"),
    ("passive health, latency, retry budget", "health"),
    ("X-Forwarded-For, -Proto, -Host", "forwarded"),
    ("request id", "id"),
];

/// One plugin of each kind, bound to everything; none of them refuses anything.
const PLUGINS: [(&str, &str); 10] = [
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
];

pub(super) async fn run() {
    let program = cardea_tests::binary::profile_dir().join("examples/priced");
    println!("### The price of each feature\n");
    if !program.is_file() {
        println!("Not measured: {} was not built.\n", program.display());
        return;
    }
    let stand = Stand::new("price", 4, Answers::Small).await;
    let script = wrk::script(stand.dir(), 10);
    let mut proxies: Vec<Proxy> = Vec::new();
    let all_off: Vec<&str> = OFF.iter().map(|(_, off)| *off).collect();
    let all_off = ("everything above", all_off[1..].join(","));
    let cases = OFF.iter().map(|(title, off)| (*title, (*off).to_owned()));
    for (title, off) in cases.chain([all_off]) {
        let file = format!("priced-{}", proxies.len());
        let line = |work: &Work<'_>| command(program.clone(), work, &off);
        proxies.push(stand.start(title, &file, 10, 4, line).await);
    }
    let features = proxies.len();
    for (title, policy) in PLUGINS {
        let file = format!("priced-{}", proxies.len());
        let line = |work: &Work<'_>| with_plugin(program.clone(), work, policy);
        proxies.push(stand.start(title, &file, 10, 4, line).await);
    }
    let targets: Vec<_> = proxies.iter().map(|proxy| (proxy, &*script)).collect();
    let seen = wrk::rounds(&targets, ROUNDS, SECONDS);
    println!(
        "Saturated, 10 routes, one of them switched off at a time; {ROUNDS} rounds of {SECONDS} s, \
         interleaved. Within a round each is compared with the one that has everything on; median of \
         the differences.\n"
    );
    let mut table = Table::new(&["switched off", "µs per request less", "of a request"]);
    let full = spread(&seen[0].cpu_us).0;
    let less = |rounds: &wrk::Rounds| {
        let pairs = seen[0].cpu_us.iter().zip(&rounds.cpu_us);
        let less: Vec<f64> = pairs.map(|(all, without)| all - without).collect();
        spread(&less).0
    };
    for (proxy, rounds) in proxies.iter().zip(&seen).take(features).skip(1) {
        let less = less(rounds);
        table.row([
            proxy.name.clone(),
            format!("{less:.2}"),
            format!("{:.1} %", less / full * 100.0),
        ]);
    }
    table.print();
    println!("With everything on: {full:.2} µs.\n");
    println!("The same with one plugin of a kind on every route, in the same rounds.\n");
    let mut table = Table::new(&["plugin", "µs per request more", "of a request"]);
    for (proxy, rounds) in proxies.iter().zip(&seen).skip(features) {
        let more = -less(rounds);
        table.row([
            proxy.name.clone(),
            format!("{more:.2}"),
            format!("{:.1} %", more / full * 100.0),
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
    write!(text, "[[plugin]]\nname = \"priced\"\n{policy}").expect("a string grows");
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
