//! The same rate for all, below saturation: what latency a proxy adds, and what it costs there.

use std::net::SocketAddr;

use super::{
    paced::{self, Seen},
    stand::{Answers, CONNECTIONS, Proxy, Stand},
};
use crate::{
    machine::cpu_ns,
    table::{Table, middle, spread},
};

pub(super) const RATE: f64 = 5000.0;
const ROUNDS: u64 = 96;
const TURN_MS: u64 = 250;

/// What one target showed, a value for each round.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) cpu_us: Vec<f64>,
    pub(super) latency_us: Vec<[f64; 3]>,
    pub(super) failed: u64,
}

impl Paced {
    fn of(turns: &[Seen]) -> Self {
        Self {
            cpu_us: Vec::new(),
            latency_us: turns.iter().map(|turn| turn.latency_us).collect(),
            failed: turns.iter().map(|turn| turn.failed).sum(),
        }
    }

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

    /// By how much a percentile is more than in the same rounds of another: the median, and the middle
    /// half.
    pub(super) fn more(&self, base: &Self, which: usize) -> String {
        if std::ptr::eq(self, base) {
            return "–".to_owned();
        }
        let rounds = self.latency_us.iter().zip(&base.latency_us);
        let more: Vec<f64> = rounds.map(|(a, b)| a[which] - b[which]).collect();
        middle(&more, 0)
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
    let before: Vec<u64> = targets
        .iter()
        .map(|(.., pid)| pid.map_or(0, cpu_ns))
        .collect();
    let options = [RATE as u64, CONNECTIONS as u64, TURN_MS, ROUNDS];
    let mut args = vec!["turns".to_owned()];
    args.extend(options.map(|option| option.to_string()));
    args.extend(targets.iter().map(|(_, address, _)| address.to_string()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let turns: Vec<Vec<Seen>> = paced::child(&args);
    let all: Vec<Paced> = turns.iter().map(|turns| Paced::of(turns)).collect();
    let cpu_us: Vec<f64> = targets
        .iter()
        .zip(before)
        .zip(&turns)
        .map(|(((.., pid), before), turns)| {
            // The turns of the first round count here alone.
            let sent = (ROUNDS + 1) as f64 * turns[0].sent as f64;
            (pid.map_or(0, cpu_ns) - before) as f64 / 1000.0 / sent
        })
        .collect();
    println!("### Latency at a fixed rate\n");
    println!(
        "{RATE:.0} requests/s, open loop: evenly due, latency from when a request was due; below \
         saturation a request costs more CPU, for everyone. {ROUNDS} rounds in which each has \
         a turn of {TURN_MS} ms, in an order that changes; medians of the turns. Each turn is compared with \
         nginx's of its round: median of the differences in µs, and between which the middle half of them \
         lies. CPU is that of the whole run.\n"
    );
    let mut table = Table::new(&[
        "",
        "CPU µs per request",
        "× nginx",
        "p50 µs",
        "p99 µs",
        "p50 more than nginx's",
        "p99 more than nginx's",
        "failed",
    ]);
    for (((name, _, pid), seen), cpu_us_each) in targets.iter().zip(&all).zip(&cpu_us) {
        let own = |text: String| {
            if pid.is_some() {
                text
            } else {
                "–".to_owned()
            }
        };
        table.row([
            (*name).to_owned(),
            own(format!("{cpu_us_each:.1}")),
            own(format!("{:.2}", cpu_us_each / cpu_us[1])),
            seen.latency(0),
            seen.latency(1),
            seen.more(&all[1], 0),
            seen.more(&all[1], 1),
            seen.failed.to_string(),
        ]);
    }
    table.print();
}
