//! `cardea-bench [PART…]`: the benches, side by side with their peers in one run, as Markdown;
//! `cardea-bench proxies SECTION…` runs some of the proxies' sections.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that cannot go on ends; figures are rounded"
)]

mod agent;
mod etcd;
mod figures;
mod machine;
mod proxies;
mod pull;
mod registry;
mod table;

use std::time::Duration;

use cardea_tests::binary;

/// The last two are the registry's halves, for a machine that is quiet only for a short time.
const PARTS: [&str; 8] = [
    "proxies",
    "registry",
    "pull",
    "memory",
    "agent",
    "figures",
    "registry-writes",
    "registry-others",
];

fn main() {
    let mut parts: Vec<String> = std::env::args().skip(1).collect();
    if load(&parts) {
        return;
    }
    let mut sections = Vec::new();
    if parts.first().is_some_and(|part| part == "proxies") {
        sections = parts.split_off(1);
        refuse_unknown(&sections, &proxies::SECTIONS);
    }
    refuse_unknown(&parts, &PARTS);
    if parts.is_empty() {
        parts = PARTS[..6].iter().map(|part| (*part).to_owned()).collect();
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for part in &parts {
            match part.as_str() {
                "proxies" => proxies::run(&sections).await,
                "registry" => registry::run(registry::Part::All).await,
                "registry-writes" => registry::run(registry::Part::Writes).await,
                "registry-others" => registry::run(registry::Part::Others).await,
                "pull" => pull::pulls().await,
                "memory" => pull::memory().await,
                "agent" => agent::run().await,
                "figures" => figures::run().await,
                _ => unreachable!("checked above"),
            }
        }
    });
}

/// Runs as one of the loads, if it was started as one.
fn load(args: &[String]) -> bool {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let seen = match args[..] {
        ["paced", address, rate, seconds] => {
            let (address, rate) = (parse(address), parse(rate));
            let span = Duration::from_secs(parse(seconds));
            serde_json::to_string(&proxies::paced::main(address, rate, span))
        }
        ["turns", rate, connections, ms, rounds, ref addresses @ ..] => {
            let addresses: Vec<_> = addresses.iter().map(|at| parse(at)).collect();
            let span = Duration::from_millis(parse(ms));
            let (rate, connections, rounds) = (parse(rate), parse(connections), parse(rounds));
            let seen = proxies::paced::turns(&addresses, rate, connections, span, rounds);
            serde_json::to_string(&seen)
        }
        ["bulk", address, way, size, seconds] => {
            let span = Duration::from_secs(parse(seconds));
            let seen = proxies::bulk::main(parse(address), way == "up", parse(size), span);
            serde_json::to_string(&seen)
        }
        ["handshakes", address, cert, kept, seconds] => {
            let span = Duration::from_secs(parse(seconds));
            serde_json::to_string(&proxies::tls::main(
                parse(address),
                cert,
                kept == "resumed",
                span,
            ))
        }
        _ => return false,
    };
    println!("{}", seen.expect("JSON"));
    true
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("`{text}` is no argument of a load"))
}

fn refuse_unknown(named: &[String], known: &[&str]) {
    if let Some(unknown) = named.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("unknown part `{unknown}`: there are {}", known.join(", "));
        std::process::exit(2);
    }
}
