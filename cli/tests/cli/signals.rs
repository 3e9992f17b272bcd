//! What signals do to the roles.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
    sync::mpsc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::command::{DEADLINE, cardea, lives, request, wait_for};

/// A role that was started, and where it serves.
struct Role {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Value,
}

impl Role {
    /// Waits until the log says that it serves.
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut child = cardea(dir)
            .args(arguments)
            .args(["--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Read on when nobody listens any more: the role must not block on its log.
                drop(sender.send(line));
            }
        });
        let mut role = Self {
            child,
            lines,
            said: Value::Null,
        };
        role.said = role.says(" serves");
        role
    }

    /// Waits for a line of the program's own whose message has this.
    fn says(&self, part: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).expect(part);
            let line: Value = serde_json::from_str(&line).unwrap();
            let message = line["message"].as_str().unwrap_or_default();
            let target = line["target"].as_str().unwrap_or_default();
            if message.contains(part) && target.starts_with("cardea::") {
                return line;
            }
        }
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.said[name].as_str().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(pid(self.child.id()), signal).unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap())
}

#[test]
fn hup_makes_a_router_open_its_access_log_again() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "[[service]]\nname = \"a\"\n[[route]]\nhost = \"test.local\"\nservice = \"a\"\n";
    fs::write(dir.path().join("m.toml"), manifest).unwrap();
    let any = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut arguments = vec!["router", "--static", "m.toml", "--access-log", "access.log"];
    arguments.extend(any);
    let mut router = Role::start(dir.path(), &arguments);
    let traffic = router.address("traffic");
    let lines = |name: &str| {
        let text = fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        text.lines().count()
    };
    // No instance: 503, and a line in the log like any other.
    assert_eq!(request(traffic, "GET", "/", "").unwrap().0, 503);
    wait_for("the first line", || {
        (lines("access.log") == 1).then_some(())
    });

    // As logrotate does it.
    fs::rename(
        dir.path().join("access.log"),
        dir.path().join("access.log.1"),
    )
    .unwrap();
    router.signal(Signal::SIGHUP);
    wait_for("the new file", || {
        dir.path().join("access.log").exists().then_some(())
    });
    assert_eq!(request(traffic, "GET", "/", "").unwrap().0, 503);
    wait_for("a line in the new file", || {
        (lines("access.log") == 1).then_some(())
    });
    assert_eq!(lines("access.log.1"), 1);

    router.signal(Signal::SIGTERM);
    assert!(router.child.wait().unwrap().success());
}

#[test]
fn hup_does_not_stop_a_registry() {
    let dir = tempfile::tempdir().unwrap();
    let any = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut arguments = vec!["registry"];
    arguments.extend(any);
    let mut registry = Role::start(dir.path(), &arguments);
    let admin = registry.address("admin");
    for _ in 0..3 {
        registry.signal(Signal::SIGHUP);
        registry.says("HUP");
        assert_eq!(request(admin, "GET", "/readyz", "").unwrap().0, 200);
    }
    registry.signal(Signal::SIGTERM);
    assert!(registry.child.wait().unwrap().success());
}

/// A process that is ended with the test, whatever comes.
struct Wrapped(u32);

impl Drop for Wrapped {
    fn drop(&mut self) {
        let _ = kill(pid(self.0), Signal::SIGKILL);
    }
}

/// The only child of a process.
fn child_of(parent: u32) -> u32 {
    wait_for("the wrapped process", || {
        let path = format!("/proc/{parent}/task/{parent}/children");
        let text = fs::read_to_string(path).ok()?;
        text.split_whitespace().next()?.parse().ok()
    })
}

/// What docs/operations.md advises where nothing else ends the wrapped process.
#[test]
fn a_wrapped_process_can_be_tied_to_its_agents_life() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = cardea(dir.path())
        .args(["agent", "run", "--service", "a", "--port", "1"])
        .args([
            "--registry",
            "http://127.0.0.1:1",
            "--socket",
            "agent.sock",
            "--",
        ])
        .args(["setpriv", "--pdeathsig", "TERM", "--", "sleep", "600"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wrapped = Wrapped(child_of(agent.id()));
    let child = wrapped.0;
    // Not before it is what was asked for: the signal is set by then.
    wait_for("the process itself", || {
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "sleep").then_some(())
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
    wait_for("it to go with its agent", || (!lives(child)).then_some(()));
}
