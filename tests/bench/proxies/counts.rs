//! System calls per request, counted by the kernel's tracepoint; needs root and `perf`.

use std::{path::Path, process::Command};

use super::{
    stand::{Answers, Proxy, Stand, bound},
    wrk,
};
use crate::table::Table;

const SECONDS: u64 = 2;

pub(super) async fn run() {
    let stand = Stand::new("counts", 4, Answers::Small).await;
    let proxies = stand.proxies(10, 4).await;
    let script = wrk::script(stand.dir(), 10);
    println!("### System calls per request\n");
    println!("Under saturation, as above.\n");
    let mut table = Table::new(&["", "system calls per request"]);
    for proxy in &proxies {
        wrk::load(proxy, &script, 1);
        let shown = count(proxy, &script).map_or_else(|why| why, |calls| format!("{calls:.2}"));
        table.row([proxy.name.clone(), shown]);
    }
    table.print();
}

/// `perf` counts while it runs the load.
fn count(proxy: &Proxy, script: &Path) -> Result<f64, String> {
    let pids = std::iter::once(proxy.pid()).chain(cardea_tests::process::descendants(proxy.pid()));
    let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
    let load = bound(1);
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter"])
        .args(["-p", &pids.join(","), "--"])
        .arg(load.get_program())
        .args(load.get_args());
    let out = wrk::command(perf, proxy, script, SECONDS)
        .output()
        .map_err(|e| format!("perf: {e}"))?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let calls: Option<f64> = text
        .lines()
        .find(|line| line.contains("sys_enter"))
        .and_then(|line| line.split(',').next()?.parse().ok());
    let calls = calls.ok_or(text)?;
    let (requests, ..) = wrk::results(&out);
    Ok(calls / requests)
}
