//! What copies to a target that answers nothing cost the callers: the router without copies beside the
//! same with one and with ten of each request, at the same rate.

use std::{fs::OpenOptions, io::Write, net::TcpListener};

use super::{
    configs::{self, CommandLine, Work},
    rate::{Paced, RATE},
    stand::{Answers, Proxy, Stand},
};
use crate::table::{Table, shown, spread};

const ROUNDS: usize = 5;
const SECONDS: u64 = 2;
const CASES: [(&str, u8); 3] = [("no copies", 0), ("1 copy each", 1), ("10 copies each", 10)];

pub(super) async fn run() {
    let stand = Stand::new("mirror", 4, Answers::Small).await;
    // The kernel takes connections, and bytes, until it has enough; nobody ever reads them.
    let hole = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = hole.local_addr().expect("its address").to_string();
    let mut proxies: Vec<Proxy> = Vec::new();
    for (name, times) in CASES {
        let line = |work: &Work<'_>| command(work, &target, times);
        let file = format!("mirror-{times}");
        proxies.push(stand.start(name, &file, 10, 4, line).await);
    }
    let mut all: Vec<Paced> = proxies.iter().map(|_| Paced::default()).collect();
    for round in 0..=ROUNDS {
        for (proxy, seen) in proxies.iter().zip(&mut all) {
            seen.round(proxy.address, Some(proxy.pid()), SECONDS, round > 0);
        }
    }
    println!("### Copies to a target that answers nothing\n");
    println!(
        "{RATE:.0} requests/s, open loop; {ROUNDS} rounds of {SECONDS} s, interleaved; medians. Within \
         a round each is compared with the one without copies; median of the differences.\n"
    );
    let mut table = Table::new(&[
        "",
        "CPU µs per request",
        "p50 µs",
        "p99 µs",
        "p99 more",
        "p99.9 µs",
        "failed",
    ]);
    for (proxy, seen) in proxies.iter().zip(&all) {
        let pairs = all[0].latency_us.iter().zip(&seen.latency_us);
        let more: Vec<f64> = pairs
            .map(|(none, with)| with[1] / none[1] * 100.0 - 100.0)
            .collect();
        table.row([
            proxy.name.clone(),
            shown(&seen.cpu_us, 1),
            seen.latency(0),
            seen.latency(1),
            format!("{:.1} %", spread(&more).0),
            seen.latency(2),
            seen.failed.to_string(),
        ]);
    }
    table.print();
    drop(hole);
}

/// The router, with so many copies of each request.
fn command(work: &Work<'_>, target: &str, times: u8) -> CommandLine {
    let mut line = configs::cardea(work);
    if times > 0 {
        let mut file = OpenOptions::new()
            .append(true)
            .open(work.path(".toml"))
            .expect("the router's file");
        writeln!(
            file,
            "[[plugin]]\nname = \"copies\"\n[plugin.mirror]\naddress = \"{target}\"\ntimes = {times}"
        )
        .expect("the router's file");
        line.args
            .extend(["--mirror-allow".to_owned(), target.to_owned()]);
    }
    line
}
