//! `cardea-bench [PART…]`: the benches, side by side with their peers in one run, as Markdown.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that cannot go on ends; figures are rounded"
)]

mod agent;
mod etcd;
mod machine;
mod proxies;
mod pull;
mod registry;
mod table;

use std::time::Duration;

use cardea_tests::binary;

const PARTS: [&str; 5] = ["proxies", "registry", "pull", "memory", "agent"];

fn main() {
    let mut parts: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let [first, address, rate, seconds] = &parts[..]
        && first == "load"
    {
        let (address, rate) = (
            address.parse().expect("ADDRESS"),
            rate.parse().expect("RATE"),
        );
        let span = Duration::from_secs(seconds.parse().expect("SECONDS"));
        let seen = runtime.block_on(proxies::direct::main(address, rate, span));
        println!("{}", serde_json::to_string(&seen).expect("JSON"));
        return;
    }
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("unknown part `{unknown}`: there are {}", PARTS.join(", "));
        std::process::exit(2);
    }
    if parts.is_empty() {
        parts = PARTS.map(str::to_owned).to_vec();
    }
    println!(
        "{} {}\n",
        machine::describe(),
        machine::version(&binary::cardea().display().to_string(), "--version")
    );
    println!(
        "{}; {}; {}; {}.\n",
        machine::version("/usr/sbin/nginx", "-v"),
        machine::version("/usr/sbin/haproxy", "-v"),
        machine::version("etcd", "--version"),
        machine::version("wrk", "-v"),
    );
    runtime.block_on(async {
        for part in &parts {
            match part.as_str() {
                "proxies" => proxies::run().await,
                "registry" => registry::run().await,
                "pull" => pull::pulls().await,
                "memory" => pull::memory().await,
                "agent" => agent::run().await,
                _ => unreachable!("checked above"),
            }
        }
    });
}
