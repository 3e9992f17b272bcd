//! What an agent costs.

use std::time::{Duration, Instant};

use cardea_tests::{process::status_kib, site::Site};

use crate::{
    machine::{cpu_ns, pss_kib},
    table::Table,
};

const SPAN: Duration = Duration::from_secs(30);

/// Prints memory and CPU of an idle agent.
pub(crate) async fn run() {
    let mut site = Site::on_sqlite("bench-agent").await;
    site.add_agent("idle", |setup| {
        setup.lines("lease = \"15s\"\n").probe_interval("2s")
    })
    .await;
    let pid = site.agents[0].process().pid();
    let own = || cpu_ns(pid) - cpu_ns(site_instance(pid));
    let before = own();
    let begun = Instant::now();
    tokio::time::sleep(SPAN).await;
    let spent = own() - before;
    println!("### Agent, wrapping one process, probing it every 2 s, lease 15 s\n");
    let mut table = Table::new(&["resident MiB", "PSS MiB", "CPU while idle"]);
    table.row([
        format!("{:.1}", status_kib(pid, "VmRSS:") as f64 / 1024.0),
        format!(
            "{:.1}",
            (pss_kib(pid) - pss_kib(site_instance(pid))) as f64 / 1024.0
        ),
        format!(
            "{:.4} % of a core over {} s",
            spent as f64 / 1e7 / begun.elapsed().as_secs_f64(),
            SPAN.as_secs()
        ),
    ]);
    table.print();
}

fn site_instance(agent: u32) -> u32 {
    cardea_tests::process::children(agent)
        .first()
        .copied()
        .expect("the wrapped process")
}
