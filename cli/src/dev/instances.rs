//! The demo services' instances: each a process started through the agent, and started again when it
//! ends.

use std::{
    fs::{File, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::http;

/// After the first unexpected end it is started again so much later, then later each time …
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Who lived so long begins again with the first pause.
const LONG_LIFE: Duration = Duration::from_secs(20);
/// How long a deregistering agent and its service may take to stop.
const STOP: Duration = Duration::from_secs(15);

/// What is the same for all.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// This program.
    pub(super) program: PathBuf,
    /// The data directory.
    pub(super) data_dir: PathBuf,
    /// The registry's API.
    pub(super) api: String,
    /// The file of the agents' token.
    pub(super) token_file: PathBuf,
}

/// One instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    /// Its service.
    pub(super) service: &'static str,
    /// Its id.
    pub(super) id: &'static str,
}

/// The demo services' instances.
pub(super) const ALL: [Spec; 4] = [
    Spec {
        service: "hello",
        id: "hello-1",
    },
    Spec {
        service: "hello",
        id: "hello-2",
    },
    Spec {
        service: "echo",
        id: "echo-1",
    },
    Spec {
        service: "echo",
        id: "echo-2",
    },
];

/// What happens to an instance.
#[derive(Debug)]
pub(super) enum Event {
    /// It answers.
    Up {
        /// Its process, not its agent's.
        pid: u32,
        /// Where.
        address: SocketAddr,
    },
    /// It is gone, and comes back after a while.
    Gone {
        /// How it ended.
        how: String,
        /// When it is started again.
        back_in: Duration,
    },
}

/// Keeps one instance running until told to stop, then stops it gracefully.
pub(super) async fn keep(
    common: Common,
    spec: Spec,
    events: mpsc::Sender<(Spec, Event)>,
    stopping: CancellationToken,
    hurry: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        let how = match start(&common, spec) {
            Ok((child, address)) => {
                match live(child, address, spec, &events, &stopping, &hurry).await {
                    Some(how) => how,
                    None => return,
                }
            }
            Err(error) => error,
        };
        if begun.elapsed() > LONG_LIFE {
            pause = FIRST_PAUSE;
        }
        let gone = Event::Gone {
            how,
            back_in: pause,
        };
        drop(events.send((spec, gone)).await);
        tokio::select! {
            () = sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How it ended by itself; none when it was stopped.
async fn live(
    mut child: Child,
    address: SocketAddr,
    spec: Spec,
    events: &mpsc::Sender<(Spec, Event)>,
    stopping: &CancellationToken,
    hurry: &CancellationToken,
) -> Option<String> {
    let announce = async {
        let pid = answering(address).await;
        drop(events.send((spec, Event::Up { pid, address })).await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = child.wait() => Some(describe(ended)),
        () = announce => None,
        () = stopping.cancelled() => {
            stop(&mut child, hurry).await;
            None
        }
    }
}

fn start(common: &Common, spec: Spec) -> Result<(Child, SocketAddr), String> {
    let address = free_address().map_err(|e| format!("no free port: {e}"))?;
    let log_path = common.data_dir.join(format!("logs/{}.log", spec.id));
    let wrong = |e: std::io::Error| format!("{}: {e}", log_path.display());
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(wrong)?;
    let second = log.try_clone().map_err(wrong)?;
    let mut command = Command::new(&common.program);
    // What the user has set for other roles is not meant for these.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARDEA_") {
            command.env_remove(name);
        }
    }
    let port = address.port().to_string();
    command
        .args(["agent", "run", "--die-with-parent"])
        .args(["--registry", &common.api, "--cluster", "default"])
        .args(["--service", spec.service, "--id", spec.id])
        .args(["--address", &address.to_string(), "--app-version", "1"])
        .args(["--probe-http", "/healthz", "--probe-interval", "500ms"])
        .args(["--stop-ceiling", "3s"])
        .arg("--token-file")
        .arg(&common.token_file)
        .arg("--socket")
        .arg(common.data_dir.join(format!("agents/{}.sock", spec.id)))
        .arg("--")
        .arg(&common.program)
        .args(["demo-service", "--die-with-parent", "--port", &port])
        .args(["--service", spec.service, "--instance", spec.id])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second)
        // A Ctrl-C on the terminal is for `cardea dev`, which stops them in order.
        .process_group(0)
        .kill_on_drop(true);
    let child = command
        .spawn()
        .map_err(|e| format!("cannot be started: {e}"))?;
    Ok((child, address))
}

/// A port that was free a moment ago.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Waits until the instance answers; its process id.
async fn answering(address: SocketAddr) -> u32 {
    let url = format!("http://{address}/_status");
    loop {
        if let Ok(answer) = http::get(&url, Duration::from_secs(1)).await {
            let status = serde_json::from_slice::<serde_json::Value>(&answer.body);
            let pid = status.ok().and_then(|status| status["pid"].as_u64());
            if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
                return pid;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// TERM, which lets the agent deregister first; KILL for the whole group when that takes too long.
async fn stop(child: &mut Child, hurry: &CancellationToken) {
    let Some(pid) = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .map(Pid::from_raw)
    else {
        return;
    };
    let _ = kill(pid, Signal::SIGTERM);
    let gracefully = async {
        tokio::select! {
            _ = child.wait() => true,
            () = hurry.cancelled() => false,
        }
    };
    if timeout(STOP, gracefully).await != Ok(true) {
        let _ = killpg(pid, Signal::SIGKILL);
        drop(child.wait().await);
    }
}

/// How an agent ended, told of the process it wrapped.
fn describe(ended: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    let status = match ended {
        Ok(status) => status,
        Err(error) => return format!("is lost: {error}"),
    };
    match (status.code(), status.signal()) {
        (Some(code @ 129..=192), _) => format!("was killed (signal {})", code - 128),
        (Some(code @ 1..), _) => format!("has failed (status {code})"),
        (None, Some(signal)) => format!("was killed with its agent (signal {signal})"),
        (Some(_), _) | (None, None) => "has ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn ends_are_told_of_the_service() {
        let told = |raw: i32| describe(Ok(ExitStatus::from_raw(raw)));
        assert_eq!(told(137 << 8), "was killed (signal 9)");
        assert_eq!(told(9), "was killed with its agent (signal 9)");
        assert_eq!(told(78 << 8), "has failed (status 78)");
        assert_eq!(told(0), "has ended");
    }
}
