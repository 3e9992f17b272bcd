//! `cardea dev`, from its start to its end.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc,
    time::Instant,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    command::{DEADLINE, Ran, cardea, lives, request, run, wait_for},
    terminal::Terminal,
};

const PORTS: [&str; 8] = [
    "--listen",
    "0",
    "--router-admin",
    "0",
    "--api",
    "0",
    "--registry-admin",
    "0",
];

/// A running `cardea dev`.
struct Dev {
    dir: PathBuf,
    child: Child,
    lines: mpsc::Receiver<String>,
    welcome: String,
    router: SocketAddr,
}

impl Dev {
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_on(Stdio::null(), dir, arguments)
    }

    fn start_on(stdin: Stdio, dir: &Path, arguments: &[&str]) -> Self {
        let begun = Instant::now();
        let mut child = cardea(dir)
            .arg("dev")
            .args(PORTS)
            .args(arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut welcome = String::new();
        loop {
            let line = lines.recv_timeout(DEADLINE).expect("the welcome");
            welcome += &line;
            welcome += "\n";
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        println!("ready after {:?}", begun.elapsed());
        let running = fs::read(dir.join("data/dev.json")).unwrap();
        let running: Value = serde_json::from_slice(&running).unwrap();
        let router = running["router"].as_str().unwrap();
        let router = router.strip_prefix("http://").unwrap().parse().unwrap();
        Self {
            dir: dir.to_owned(),
            child,
            lines,
            welcome,
            router,
        }
    }

    fn ask(&self, service: &str) -> Value {
        let (status, body) = request(self.router, "GET", &format!("/{service}"), "").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The instances that answer, with their processes.
    fn answering(&self, service: &str) -> Vec<(String, u32)> {
        let mut seen: Vec<(String, u32)> = (0..8)
            .map(|_| {
                let said = self.ask(service);
                let pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
                (said["instance"].as_str().unwrap().to_owned(), pid)
            })
            .collect();
        seen.sort();
        seen.dedup();
        seen
    }

    fn ctl(&self, arguments: &[&str]) -> Ran {
        let arguments: Vec<&str> = ["ctl"].iter().chain(arguments).copied().collect();
        run(&self.dir, &arguments)
    }

    fn line(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).expect(part);
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// All processes below this one.
    fn descendants(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut level = vec![self.child.id()];
        while let Some(pid) = level.pop() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            for child in children.unwrap_or_default().split_whitespace() {
                let child = child.parse().unwrap();
                found.push(child);
                level.push(child);
            }
        }
        found
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_five_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &[]);
    let token = fs::read_to_string(dir.path().join("data/operator.token")).unwrap();
    assert!(dev.welcome.contains(token.trim()), "{}", dev.welcome);
    assert!(
        dev.welcome
            .contains(&format!("curl http://{}/hello", dev.router))
    );
    let instances = |service: &str| -> Vec<String> {
        dev.answering(service)
            .into_iter()
            .map(|(id, _)| id)
            .collect()
    };
    assert_eq!(instances("hello"), ["hello-1", "hello-2"]);
    assert_eq!(instances("echo"), ["echo-1", "echo-2"]);

    // A second one in the same directory is told off, and does no harm.
    let arguments: Vec<&str> = ["dev", "--fresh"].into_iter().chain(PORTS).collect();
    let second = run(dir.path(), &arguments);
    assert_eq!(second.status, 1);
    assert!(
        second.stderr.contains("another `cardea dev` runs here"),
        "{}",
        second.stderr
    );

    // 1: kill an instance.
    let (_, victim) = dev.answering("hello")[0];
    assert!(
        dev.welcome.contains(&format!("kill -9 {victim}")),
        "{}",
        dev.welcome
    );
    kill(
        Pid::from_raw(i32::try_from(victim).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    for _ in 0..50 {
        dev.ask("hello");
    }
    let back = dev.line("hello-1 is back");
    wait_for("the new process to answer", || {
        let new = dev
            .answering("hello")
            .into_iter()
            .find(|(id, _)| id == "hello-1")?;
        back.contains(&format!("pid {}", new.1)).then_some(())
    });

    // 2: drain one.
    let drained = dev.ctl(&["drain", "hello-2"]);
    assert_eq!(drained.status, 0, "{}", drained.stderr);
    wait_for("only one to answer", || {
        (dev.answering("hello").len() == 1).then_some(())
    });
    let shown = dev.ctl(&["get", "instances", "--service", "hello", "--json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown[1]["forced"]["state"], "draining");
    let undrained = dev.ctl(&["undrain", "hello-2"]);
    assert_eq!(undrained.status, 0, "{}", undrained.stderr);
    wait_for("both to answer", || {
        (dev.answering("hello").len() == 2).then_some(())
    });

    // 3: stop the registry.
    let stopped = dev.ctl(&["dev", "stop-registry"]);
    assert_eq!(stopped.status, 0, "{}", stopped.stderr);
    assert_eq!(dev.ctl(&["get", "services"]).status, 1);
    assert_eq!(dev.answering("hello").len(), 2);
    let started = dev.ctl(&["dev", "start-registry"]);
    assert_eq!(started.status, 0, "{}", started.stderr);
    wait_for("the registry to answer", || {
        (dev.ctl(&["get", "services"]).status == 0).then_some(())
    });
    assert_eq!(dev.answering("hello").len(), 2);

    // The end: nothing is left.
    let processes = dev.descendants();
    assert_eq!(processes.len(), 8);
    dev.signal(Signal::SIGINT);
    assert!(dev.child.wait().unwrap().success());
    wait_for("no process to be left", || {
        processes.iter().all(|pid| !lives(*pid)).then_some(())
    });
    assert!(!dir.path().join("data/dev.sock").exists());
}

#[test]
fn a_killed_dev_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &[]);
    let processes = dev.descendants();
    assert_eq!(processes.len(), 8);
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    wait_for("no process to be left", || {
        processes.iter().all(|pid| !lives(*pid)).then_some(())
    });
    drop(dev);
    // And the next one starts all the same.
    Dev::start(dir.path(), &[]);
}

#[test]
fn ctl_applies_explains_and_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &[]);
    let file = "[[service]]\nname = \"hello\"\nowner = \"me\"\n[[route]]\nhost = \"new.local\"\nservice = \"hello\"\n";
    fs::write(dir.path().join("m.toml"), file).unwrap();
    let diff = dev.ctl(&["diff", "-f", "m.toml"]);
    assert_eq!(diff.status, 1, "{}", diff.stderr);
    assert!(diff.stdout.contains("+ owner = \"me\""), "{}", diff.stdout);
    assert!(diff.stdout.contains("+ route new.local"), "{}", diff.stdout);
    let applied = dev.ctl(&["apply", "-f", "m.toml"]);
    assert_eq!(applied.status, 0, "{}", applied.stderr);
    assert_eq!(dev.ctl(&["diff", "-f", "m.toml"]).status, 0);

    let explained = wait_for("the router to know the route", || {
        let explained = dev.ctl(&["explain", "GET", "http://new.local/x", "--json"]);
        explained
            .stdout
            .contains("\"new.local\"")
            .then_some(explained)
    });
    assert!(explained.stdout.contains("hello-1"), "{}", explained.stdout);

    let unasked = dev.ctl(&["delete", "route", "new.local"]);
    assert_eq!(unasked.status, 2, "{}", unasked.stderr);
    let tried = dev.ctl(&["delete", "route", "new.local", "--dry-run"]);
    assert_eq!(tried.status, 0, "{}", tried.stderr);
    let deleted = dev.ctl(&["delete", "route", "new.local", "--yes"]);
    assert_eq!(deleted.status, 0, "{}", deleted.stderr);
    assert_eq!(dev.ctl(&["get", "routes", "new.local"]).status, 1);

    let wrong = dev.ctl(&["drain", "hello-3"]);
    assert_eq!(wrong.status, 1);
    assert!(
        wrong.stderr.contains("did you mean `hello-"),
        "{}",
        wrong.stderr
    );
    let refused = dev.ctl(&["--token", "cardea_operator_wrong", "get", "services"]);
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("request id"), "{}", refused.stderr);
    for kind in [
        "clusters",
        "services",
        "routes",
        "instances",
        "routers",
        "tokens",
        "changes",
        "status",
        "snapshots",
    ] {
        for json in [&["get", kind][..], &["get", kind, "--json"]] {
            let ran = dev.ctl(json);
            assert_eq!(ran.status, 0, "{json:?}: {}", ran.stderr);
        }
    }
    let token = dev.ctl(&["token", "create", "mine", "--role", "viewer"]);
    assert!(
        token.stdout.starts_with("cardea_viewer_"),
        "{}{}",
        token.stdout,
        token.stderr
    );
    let seen = dev.ctl(&["--token", token.stdout.trim(), "get", "routers"]);
    assert_eq!(seen.status, 0, "{}", seen.stderr);
}

#[test]
fn ctl_asks_before_something_is_lost_and_only_yes_is_yes() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &[]);
    for (answer, deleted) in [("", false), ("n", false), ("what?", false), ("y", true)] {
        let mut asked = Terminal::open();
        let ctl = cardea(dir.path())
            .args(["ctl", "delete", "route", "echo"])
            .stdin(asked.stdio())
            .stderr(asked.stdio())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        asked.shows("this deletes the route `echo`. Go on? [y/N] ");
        asked.enter(answer);
        let ran = ctl.wait_with_output().unwrap();
        assert_eq!(ran.status.code(), Some(i32::from(!deleted)), "`{answer}`");
        let there = dev.ctl(&["get", "routes", "echo"]).status == 0;
        assert_eq!(there, !deleted, "`{answer}`");
        if !deleted {
            asked.shows("nothing was done");
        }
    }
}

#[test]
fn what_is_typed_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::open();
    let mut dev = Dev::start_on(terminal.stdio(), dir.path(), &[]);
    terminal.enter("r");
    dev.line("The registry is stopped. Traffic goes on");
    assert_eq!(dev.ctl(&["get", "services"]).status, 1);
    assert_eq!(dev.answering("hello").len(), 2);
    terminal.enter("");
    terminal.enter("r");
    dev.line("The registry runs again");
    assert_eq!(dev.ctl(&["get", "services"]).status, 0);
    terminal.enter("q");
    assert!(dev.child.wait().unwrap().success());
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--router-admin", "--api", "--registry-admin"] {
        let mut arguments = vec!["dev"];
        for pair in PORTS.chunks(2) {
            arguments.push(pair[0]);
            arguments.push(if pair[0] == flag {
                address.as_str()
            } else {
                pair[1]
            });
        }
        let ran = run(dir.path(), &arguments);
        assert_eq!(ran.status, 1);
        let port = taken.local_addr().unwrap().port();
        assert!(
            ran.stderr.contains(&format!("port {port}")),
            "{}",
            ran.stderr
        );
        assert!(
            ran.stderr.contains(&format!("{flag} 127.0.0.1:PORT")),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/thesis.txt"), "years").unwrap();
    for fresh in [&[][..], &["--fresh"]] {
        let arguments: Vec<&str> = ["dev"]
            .into_iter()
            .chain(PORTS)
            .chain(fresh.iter().copied())
            .collect();
        let ran = run(dir.path(), &arguments);
        assert_eq!(ran.status, 1);
        assert!(
            ran.stderr
                .contains("is not a data directory of `cardea dev`"),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(
        fs::read_to_string(dir.path().join("data/thesis.txt")).unwrap(),
        "years"
    );
}
