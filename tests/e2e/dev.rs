//! `cardea dev`, as somebody who tries it for the first time.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use cardea_tests::{
    binary, http1, ports,
    postgres::Postgres,
    process::{self, Process, Spawn},
    scratch::Scratch,
    site::SOON,
    wait,
};
use nix::sys::signal::Signal;

use crate::gate;

struct Dev {
    process: Process,
    router: SocketAddr,
    flags: Vec<String>,
}

impl Dev {
    fn flags() -> (SocketAddr, Vec<String>) {
        let at = || format!("127.0.0.1:{}", ports::reserve());
        let router = at();
        let pairs = [
            ("--listen", router.clone()),
            ("--router-admin", at()),
            ("--api", at()),
            ("--registry-admin", at()),
        ];
        let flags = pairs
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        (router.parse().unwrap(), flags.collect())
    }

    /// Starts it and waits for its word that it runs.
    async fn start(scratch: &Scratch, more: &[&str]) -> Self {
        let (router, flags) = Self::flags();
        let begun = Instant::now();
        let mut process = Spawn::new("dev", binary::cardea())
            .args(["dev"])
            .args(&flags)
            .args(more)
            .current_dir(scratch.path())
            .start(scratch.path());
        let ready = |log: &str| log.contains("curl http").then_some(());
        process.wait_log("that it runs", SOON, ready).await;
        println!(
            "dev: ready {:.0} ms after the process's start",
            begun.elapsed().as_secs_f64() * 1000.0
        );
        Self {
            process,
            router,
            flags,
        }
    }
}

fn ctl(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary::cardea());
    command.arg("ctl").args(args).current_dir(dir);
    let out = process::output(&mut command, SOON);
    assert!(out.status.success(), "{args:?}: {out:?}");
    out
}

/// Where the instances of `hello` are that take requests.
fn hellos(dir: &Path) -> BTreeSet<String> {
    let args = ["get", "instances", "--service", "hello", "--state", "up"];
    let args: Vec<&str> = args.into_iter().chain(["--json"]).collect();
    let out = ctl(dir, &args);
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let found = found.as_array().unwrap().iter();
    found.map(|one| one["address"].to_string()).collect()
}

/// Asks ten times a second what the welcome text says to ask, until told to stop.
struct Asking {
    stop: tokio_util::sync::CancellationToken,
    task: tokio::task::JoinHandle<(u32, Vec<String>)>,
}

impl Asking {
    fn start(router: SocketAddr) -> Self {
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut asked, mut failed) = (0, Vec::new());
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            while !stopped.is_cancelled() {
                tick.tick().await;
                asked += 1;
                match http1::get(router, "localhost", "/hello").await {
                    Ok(answer) if answer.status == 200 => {}
                    other => failed.push(format!("{other:?}")),
                }
            }
            (asked, failed)
        });
        Self { stop, task }
    }

    async fn stop(self) -> u32 {
        self.stop.cancel();
        let (asked, failed) = self.task.await.unwrap();
        assert!(
            failed.is_empty(),
            "{} of {asked} failed: {failed:?}",
            failed.len()
        );
        asked
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_things_to_try_do_what_the_text_says() {
    let _machine = gate::shared().await;
    let scratch = Scratch::new("dev");
    let dir = scratch.path();
    let mut dev = Dev::start(&scratch, &[]).await;
    let text = dev.process.log_text();
    println!("{text}");
    assert!(
        text.contains("cardea_operator_"),
        "no operator token in: {text}"
    );
    let answer = http1::get(dev.router, "localhost", "/echo").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());

    let asking = Asking::start(dev.router);
    // 1. Kill an instance.
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("kill -9 "));
    let victim: u32 = line
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap()
        .parse()
        .unwrap();
    let before = hellos(dir);
    process::signal(victim, Signal::SIGKILL);
    // On another port: the registry has heard of its end and of its return.
    wait::until("it comes back by itself", SOON, || async {
        let now = hellos(dir);
        (now.len() == 2 && now != before).then_some(())
    })
    .await;
    // 2. Drain one.
    ctl(dir, &["drain", "hello-2"]);
    ctl(dir, &["undrain", "hello-2"]);
    // 3. Stop the registry.
    ctl(dir, &["dev", "stop-registry"]);
    wait::pass(Duration::from_secs(2)).await;
    ctl(dir, &["dev", "start-registry"]);
    ctl(dir, &["get", "instances"]);
    scratch.write("mine.toml", "[[service]]\nname = \"mine\"\n");
    ctl(dir, &["apply", "-f", "mine.toml", "--yes"]);
    let asked = asking.stop().await;
    println!("{asked} requests meanwhile, none failed");

    // A second one beside it gets a clear word.
    let ports = dev.flags.clone();
    let mut second = Command::new(binary::cardea());
    second
        .args(["dev", "--data-dir", "other"])
        .args(&ports)
        .current_dir(dir);
    let second = process::output(&mut second, SOON);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        words.contains(&dev.router.port().to_string()) && words.contains("--listen"),
        "{words}"
    );

    let children = process::descendants(dev.process.pid());
    dev.process.signal(Signal::SIGINT);
    assert!(dev.process.wait_end(SOON).await.success());
    let left: Vec<_> = children
        .iter()
        .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");

    // It remembers; --fresh forgets.
    for (flags, remembers) in [(&[][..], true), (&["--fresh"][..], false)] {
        std::fs::remove_file(scratch.join("dev.log")).unwrap();
        let mut dev = Dev::start(&scratch, flags).await;
        let services = ctl(dir, &["get", "services", "--json"]);
        let services = String::from_utf8_lossy(&services.stdout).into_owned();
        assert_eq!(
            services.contains("mine"),
            remembers,
            "{flags:?}: {services}"
        );
        assert!(dev.process.stop(SOON).await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_on_postgres_too() {
    let _machine = gate::shared().await;
    let scratch = Scratch::new("dev-postgres");
    let postgres = Postgres::start().await;
    let mut dev = Dev::start(&scratch, &["--postgres", &postgres.url()]).await;
    assert_eq!(
        http1::get(dev.router, "localhost", "/hello")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(postgres.number("SELECT count(*) FROM instances").await, 4);
    assert!(dev.process.stop(SOON).await.success());
}
