//! Handles of processes that write their output to a file.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait;

/// How long a process may take to notice that it is to stand still.
const STILL: Duration = Duration::from_secs(20);

/// A running process, in its own process group. It is killed, with its group, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// The command line of a process to be.
#[derive(Debug)]
pub struct Spawn {
    name: String,
    command: Command,
}

impl Spawn {
    /// A process called `name` in messages and for its log file.
    pub fn new(name: &str, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).process_group(0);
        Self {
            name: name.to_owned(),
            command,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working folder.
    #[must_use]
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Gives it something to read.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Runs as another user (root only).
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }

    /// Starts it; both outputs are appended to `<dir>/<name>.log`.
    pub fn start(mut self, dir: &Path) -> Process {
        let log = dir.join(format!("{}.log", self.name));
        let open = || -> File {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap_or_else(|e| panic!("{}: {e}", log.display()))
        };
        self.command.stdout(open()).stderr(open());
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{} cannot be started: {e}", self.name));
        Process {
            name: self.name,
            child,
            log,
            status: None,
        }
    }
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All that it has written so far.
    pub fn log_text(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the status of a child");
        }
        self.status
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            let _ = kill(self.nix_pid(), signal);
        }
    }

    /// SIGSTOP, and waits until it has stopped: the signal is only the wish, and its threads run on
    /// until they meet it.
    pub async fn freeze(&self) {
        freeze(self.pid()).await;
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// `kill -9` of the process alone, and waits for its end.
    pub fn kill_now(&mut self) {
        self.signal(Signal::SIGKILL);
        self.status = Some(self.child.wait().expect("the end of a child"));
    }

    /// `kill -9` of the process, its descendants and all in its group.
    pub fn kill_group(&mut self) {
        for child in descendants(self.pid()) {
            signal(child, Signal::SIGKILL);
        }
        let _ = killpg(self.nix_pid(), Signal::SIGKILL);
        self.status = Some(self.child.wait().expect("the end of a child"));
    }

    /// Waits for its end.
    pub async fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} (pid {}) has ended", self.name, self.pid());
        wait::until(&what, limit, || std::future::ready(self.ended())).await
    }

    /// TERM, and waits for its end.
    pub async fn stop(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_end(limit).await
    }

    /// Waits until `pick` finds something in the log.
    pub async fn wait_log<T>(
        &mut self,
        what: &str,
        limit: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> T {
        let what = format!("{} says {what}", self.name);
        wait::until(&what, limit, || {
            let found = pick(&self.log_text());
            if found.is_none() {
                let status = self.ended();
                // What it wrote just before its end counts too.
                let last = pick(&self.log_text());
                assert!(
                    status.is_none() || last.is_some(),
                    "{} ended ({}) before it could be said that {what}:\n{}",
                    self.name,
                    status.expect("just seen"),
                    tail(&self.log_text(), 30)
                );
            }
            std::future::ready(found)
        })
        .await
    }

    /// User and system time so far, in seconds, of the process with all its threads and the
    /// children it has waited for.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.pid())
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        status_kib(self.pid(), "VmRSS:")
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- last lines of {} ----\n{}",
                self.log.display(),
                tail(&self.log_text(), 15)
            );
        }
        self.kill_group();
    }
}

/// Runs a command to its end, which must come in time.
///
/// # Panics
/// When it does not: the process is killed first.
pub fn output(command: &mut Command, limit: Duration) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let pid = child.id();
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = done.recv_timeout(limit) else {
        signal(pid, Signal::SIGKILL);
        panic!("after {limit:?} still running: {command:?}");
    };
    output.unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// User and system time of a process so far, in seconds; 0 when it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return 0.0;
    };
    // utime, stime, cutime, cstime are fields 14 to 17; `rest` begins with field 3.
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // USER_HZ is 100 on every Linux architecture that Rust runs on.
    ticks as f64 / 100.0
}

/// A line of `/proc/PID/status` or `smaps_rollup` in KiB; 0 when it is not there.
pub fn status_kib(pid: u32, field: &str) -> u64 {
    let file = if field == "Pss:" {
        "smaps_rollup"
    } else {
        "status"
    };
    std::fs::read_to_string(format!("/proc/{pid}/{file}"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// SIGSTOP, and waits until every thread of the process has stopped.
pub async fn freeze(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    let what = format!("process {pid} stands still");
    wait::until_true(&what, STILL, || stands_still(pid)).await;
}

fn stands_still(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    // proc(5): the state follows the name, which may hold anything. Who has ended stands still too.
    let still = |text: &str| {
        let state = text.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| state.starts_with(['T', 'Z', 'X']))
    };
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat"));
    tasks
        .flatten()
        .all(|task| stat(task).map_or(true, |text| still(&text)))
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// The children of a process, and theirs.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut all = children(pid);
    let mut at = 0;
    while let Some(&next) = all.get(at) {
        all.extend(children(next));
        at += 1;
    }
    all
}

/// Sends a signal to one process by its id.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    let _ = kill(Pid::from_raw(pid), signal);
}
