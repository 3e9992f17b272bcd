//! The price of each feature: the same program with one of them switched off at a time. The switches
//! are in `router/examples/priced.rs`, built for this; the product has none.

use std::path::PathBuf;

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
    let targets: Vec<_> = proxies.iter().map(|proxy| (proxy, &*script)).collect();
    let seen = wrk::rounds(&targets, ROUNDS, SECONDS);
    println!(
        "Saturated, 10 routes, one of them switched off at a time; {ROUNDS} rounds of {SECONDS} s, \
         interleaved. Within a round each is compared with the one that has everything on; median of \
         the differences.\n"
    );
    let mut table = Table::new(&["switched off", "µs per request less", "of a request"]);
    let full = spread(&seen[0].cpu_us).0;
    for (proxy, rounds) in proxies.iter().zip(&seen).skip(1) {
        let pairs = seen[0].cpu_us.iter().zip(&rounds.cpu_us);
        let less: Vec<f64> = pairs.map(|(all, without)| all - without).collect();
        let less = spread(&less).0;
        table.row([
            proxy.name.clone(),
            format!("{less:.2}"),
            format!("{:.1} %", less / full * 100.0),
        ]);
    }
    table.print();
    println!("With everything on: {full:.2} µs.\n");
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
