//! The demo service.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::command::{cardea, request};

struct Demo {
    child: Child,
    address: SocketAddr,
}

impl Demo {
    fn start(dir: &std::path::Path, arguments: &[&str]) -> Self {
        let mut child = cardea(dir)
            .args([
                "demo-service",
                "--service",
                "hello",
                "--instance",
                "hello-1",
            ])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_who_it_is_and_misbehaves_as_told() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo::start(dir.path(), &["--journal", "bodies"]);
    let at = demo.address;
    let (status, body) = request(at, "GET", "/any/path?x=1", "").unwrap();
    assert_eq!(status, 200);
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["instance"], "hello-1");
    assert_eq!(said["pid"], demo.child.id());
    assert_eq!(said["path"], "/any/path?x=1");
    assert_eq!(
        request(at, "POST", "/", "ping").unwrap(),
        (200, "ping".to_owned())
    );

    assert_eq!(request(at, "PUT", "/_mode", "error500").unwrap().0, 200);
    assert_eq!(request(at, "GET", "/", "").unwrap().0, 500);
    assert_eq!(request(at, "PUT", "/_mode", "reset").unwrap().0, 200);
    assert_eq!(request(at, "GET", "/", ""), None);
    assert_eq!(request(at, "PUT", "/_mode", "nonsense").unwrap().0, 400);
    assert_eq!(request(at, "GET", "/healthz", "").unwrap().0, 200);
    assert_eq!(request(at, "PUT", "/_mode", "ok").unwrap().0, 200);
    assert_eq!(request(at, "GET", "/?status=418", "").unwrap().0, 418);
    assert_eq!(
        request(at, "GET", "/?bytes=10", "").unwrap().1,
        ".........."
    );
}

#[test]
fn a_stop_finishes_what_is_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path(), &[]);
    let at = demo.address;
    let slow = std::thread::spawn(move || request(at, "GET", "/?sleep=700", ""));
    crate::command::wait_for("the request to arrive", || {
        let status = request(at, "GET", "/_status", "")?.1;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        (status["connections"].as_u64() == Some(2)).then_some(())
    });
    let pid = Pid::from_raw(i32::try_from(demo.child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(slow.join().unwrap().unwrap().0, 200);
    assert!(demo.child.wait().unwrap().success());
}
