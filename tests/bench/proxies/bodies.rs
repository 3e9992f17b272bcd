//! Bodies of 100 KiB and 10 MiB, both ways: CPU per MB and MB a second.

use super::{
    bulk, paced,
    stand::{Answers, Proxy, Stand},
};
use crate::table::{Table, middle, ratios, shown, spread};

const ROUNDS: usize = 12;
const SECONDS: u64 = 1;
const SIZES: [(&str, usize); 2] = [("100 KiB", 100 << 10), ("10 MiB", 10 << 20)];

#[derive(Debug, Default)]
struct Moved {
    cpu_us: Vec<f64>,
    per_second: Vec<f64>,
    failed: u64,
}

pub(super) async fn run() {
    let stand = Stand::new("bodies", 4, Answers::Bulk).await;
    let proxies = stand.proxies(10, 4).await;
    println!("### Bodies\n");
    println!(
        "32 connections, one body after another; {ROUNDS} rounds of {SECONDS} s, interleaved, after one \
         to warm up; MB are 10⁶ bytes. Nobody buffers bodies on disk. Ratios are taken in each round: \
         their median, and the middle half.\n"
    );
    let mut table = Table::new(&[
        "",
        "body",
        "CPU µs per MB",
        "× nginx, round by round",
        "MB/s",
        "core busy",
        "failed",
    ]);
    for way in ["down", "up"] {
        for (title, size) in SIZES {
            let mut all: Vec<Moved> = proxies.iter().map(|_| Moved::default()).collect();
            for round in 0..=ROUNDS {
                for (proxy, moved) in proxies.iter().zip(&mut all) {
                    moved.round(proxy, way, size, round > 0);
                }
            }
            for (proxy, moved) in proxies.iter().zip(&all) {
                let (cpu, rate) = (spread(&moved.cpu_us).0, spread(&moved.per_second).0);
                table.row([
                    proxy.name.clone(),
                    format!("{title} {way}"),
                    shown(&moved.cpu_us, 0),
                    moved.times(&all[0]),
                    shown(&moved.per_second, 0),
                    format!("{:.0} %", cpu * rate / 1e4),
                    moved.failed.to_string(),
                ]);
            }
        }
    }
    table.print();
}

impl Moved {
    fn times(&self, base: &Self) -> String {
        middle(&ratios(&self.cpu_us, &base.cpu_us), 2)
    }

    fn round(&mut self, proxy: &Proxy, way: &str, size: usize, keep: bool) {
        let (address, size) = (proxy.address.to_string(), size.to_string());
        let seconds = SECONDS.to_string();
        let (spent, seen): (f64, bulk::Seen) =
            proxy.cpu_us(|| paced::child(&["bulk", &address, way, &size, &seconds]));
        if keep {
            let megabytes = seen.bytes as f64 / 1e6;
            self.cpu_us.push(spent / megabytes);
            self.per_second.push(megabytes / seen.seconds);
            self.failed += seen.failed;
        }
    }
}
