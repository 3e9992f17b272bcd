//! The same rate for all, below saturation: what latency a proxy adds, and what it costs there.

use std::net::SocketAddr;

use super::{
    paced,
    stand::{Answers, Proxy, Stand},
};
use crate::{
    machine::cpu_ns,
    table::{Table, shown, spread},
};

pub(super) const RATE: f64 = 5000.0;
const ROUNDS: usize = 5;
const SECONDS: u64 = 2;

/// What one target showed, a value for each round.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) cpu_us: Vec<f64>,
    pub(super) latency_us: Vec<[f64; 3]>,
    pub(super) failed: u64,
}

impl Paced {
    /// One more round; it counts if it is not for warming up.
    pub(super) fn round(
        &mut self,
        address: SocketAddr,
        pid: Option<u32>,
        seconds: u64,
        keep: bool,
    ) {
        let before = pid.map_or(0, cpu_ns);
        let seen = paced::load(address, RATE, seconds);
        let spent = pid.map_or(0, cpu_ns) - before;
        if keep {
            self.cpu_us.push(spent as f64 / 1000.0 / seen.sent as f64);
            self.latency_us.push(seen.latency_us);
            self.failed += seen.failed;
        }
    }

    /// The median over the rounds of one percentile.
    pub(super) fn latency(&self, which: usize) -> String {
        let all: Vec<f64> = self.latency_us.iter().map(|round| round[which]).collect();
        format!("{:.0}", spread(&all).0)
    }
}

pub(super) async fn run() {
    let stand = Stand::new("rate", 4, Answers::Small).await;
    let proxies = stand.proxies(10, 4).await;
    let direct = SocketAddr::from(([127, 0, 0, 1], stand.upstreams[0]));
    let targets: Vec<(&str, SocketAddr, Option<u32>)> = [("direct", direct, None)]
        .into_iter()
        .chain(
            proxies
                .iter()
                .map(|proxy: &Proxy| (proxy.name.as_str(), proxy.address, Some(proxy.pid()))),
        )
        .collect();
    let mut all: Vec<Paced> = targets.iter().map(|_| Paced::default()).collect();
    for round in 0..=ROUNDS {
        for ((_, address, pid), seen) in targets.iter().zip(&mut all) {
            seen.round(*address, *pid, SECONDS, round > 0);
        }
    }
    println!("### Latency at a fixed rate\n");
    println!(
        "{RATE:.0} requests/s, open loop: evenly due, latency from when a request was due; below \
         saturation a request costs more CPU, for everyone. {ROUNDS} rounds of {SECONDS} s; medians.\n"
    );
    let base = spread(&all[1].cpu_us).0;
    let mut table = Table::new(&[
        "",
        "CPU µs per request",
        "× nginx",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "failed",
    ]);
    for ((name, _, pid), seen) in targets.iter().zip(&all) {
        let own = |text: String| {
            if pid.is_some() {
                text
            } else {
                "–".to_owned()
            }
        };
        table.row([
            (*name).to_owned(),
            own(shown(&seen.cpu_us, 1)),
            own(format!("{:.2}", spread(&seen.cpu_us).0 / base)),
            seen.latency(0),
            seen.latency(1),
            seen.latency(2),
            seen.failed.to_string(),
        ]);
    }
    table.print();
}
