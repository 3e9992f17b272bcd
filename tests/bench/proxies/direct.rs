//! The open-loop load as a process of its own, so that it can be bound to a core.

use std::{net::SocketAddr, process::Command, time::Duration};

use serde::{Deserialize, Serialize};

/// What it saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// p50, p99, p99.9 in ms.
    pub(crate) latency_ms: [f64; 3],
}

/// Runs `cardea-bench load …` on core 1.
pub(super) fn load(address: SocketAddr, rate: f64, span: Duration) -> Seen {
    let me = std::env::current_exe().expect("the path of this program");
    let out = bound(1)
        .arg(me)
        .args([
            "load",
            &address.to_string(),
            &rate.to_string(),
            &span.as_secs().to_string(),
        ])
        .output()
        .expect("cardea-bench load");
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!(
            "cardea-bench load: {e}: {}",
            String::from_utf8_lossy(&out.stderr)
        )
    })
}

/// The process's own side.
pub(crate) async fn main(address: SocketAddr, rate: f64, span: Duration) -> Seen {
    let load = super::plan(address, rate).start();
    load.pass((rate * span.as_secs_f64()) as u64, span * 10)
        .await;
    let report = load.stop().await;
    Seen {
        sent: report.sent,
        failed: report.failed,
        latency_ms: [500, 990, 999].map(|at| report.percentile(at)),
    }
}

/// A command bound to a core, as root with a high priority.
pub(super) fn bound(core: usize) -> Command {
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("nice");
        command.args(["-n", "-15", "taskset"]);
        command
    } else {
        Command::new("taskset")
    };
    command.args(["-c", &core.to_string()]);
    command
}
