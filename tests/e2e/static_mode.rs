//! `cardea router --static`: a router without a registry.

use std::{fmt::Write, net::SocketAddr, path::Path};

use cardea_tests::{
    backend::Backend,
    binary, http1,
    load::Plan,
    ports,
    process::{Process, Spawn},
    scratch::Scratch,
    site::SOON,
    wait,
};

use crate::gate;

fn file(backends: &[&Backend]) -> String {
    let mut text = "[[service]]\nname = \"search\"\n".to_owned();
    for (number, backend) in backends.iter().enumerate() {
        let (address, weight) = (backend.address(), 4 - number);
        write!(
            text,
            "[[service.instance]]\naddress = \"{address}\"\nweight = {weight}\n"
        )
        .unwrap();
    }
    text + "[[route]]\nhost = \"h0.svc.local\"\nprefix = \"/api/v1\"\nservice = \"search\"\n"
}

/// A router of this file, and where it takes requests.
fn start(name: &str, scratch: &Scratch, file: &Path, args: &[&str]) -> (Process, SocketAddr) {
    let [traffic, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], ports::reserve())));
    let router = Spawn::new(name, binary::cardea())
        .args(["router", "--static"])
        .args([file])
        .args([
            "--listen",
            &traffic.to_string(),
            "--admin",
            &admin.to_string(),
        ])
        .args(["--access-log", "off", "--threads", "1"])
        .args(args)
        .start(scratch.path());
    (router, traffic)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_served_reloaded_live_and_a_bad_edit_keeps_the_last_good_one() {
    let _machine = gate::shared().await;
    let scratch = Scratch::new("static");
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let path = scratch.write("services.toml", &file(&[&one]));
    let (mut router, traffic) = start("router", &scratch, &path, &[]);
    wait::until("it serves the file", SOON, || {
        let end = router.ended();
        assert!(end.is_none(), "{}", router.log_text());
        async {
            http1::get(traffic, "h0.svc.local", "/api/v1/x")
                .await
                .ok()
                .filter(|a| a.status == 200)
        }
    })
    .await;
    for (host, path, status) in [
        ("h0.svc.local", "/api/v1", 200),
        ("h0.svc.local:80", "/api/v1/", 200),
        ("h0.svc.local", "/api/v1x", 404),
        ("h1.svc.local", "/api/v1", 404),
    ] {
        let answer = http1::get(traffic, host, path).await.unwrap();
        assert_eq!(answer.status, status, "{host} {path}: {}", answer.text());
    }

    let mut plan = Plan::new(traffic, "h0.svc.local", 300.0).label("static");
    "/api/v1/echo".clone_into(&mut plan.path);
    let load = plan.start();
    load.pass(100, SOON).await;
    scratch.write("services.toml", &file(&[&one, &two]));
    wait::until_true("the edit is served", SOON, || {
        two.state().stats().requests > 0
    })
    .await;
    let asked = one.state().stats().requests;
    scratch.write("services.toml", &file(&[&two]).replace("weight", "wieght"));
    wait::until_true("the bad edit is named", SOON, || {
        router.log_text().contains("wieght")
    })
    .await;
    load.pass(300, SOON).await;
    assert!(
        one.state().stats().requests > asked + 50,
        "the last good file is no longer served"
    );
    scratch.write("services.toml", &file(&[&two]));
    wait::until("the next good edit is served", SOON, || async {
        let before = one.state().stats().requests;
        load.pass(50, SOON).await;
        (one.state().stats().requests == before).then_some(())
    })
    .await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
}

/// Whether a process has asked for large pages somewhere: `hg` in proc(5), `VmFlags`.
fn asks_for_large_pages(pid: u32) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut flags = maps
        .lines()
        .filter_map(|line| line.strip_prefix("VmFlags:"));
    flags.any(|flags| flags.split_whitespace().any(|flag| flag == "hg"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_pages_are_asked_for_unless_they_are_off() {
    let _machine = gate::shared().await;
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        println!("this system knows no large pages");
        return;
    }
    let scratch = Scratch::new("large-pages");
    let one = Backend::start("one").await;
    let path = scratch.write("services.toml", &file(&[&one]));
    for (args, asks) in [(&[][..], true), (&["--large-pages", "false"], false)] {
        let name = if asks { "large" } else { "small" };
        let (router, traffic) = start(name, &scratch, &path, args);
        wait::until("it serves the file", SOON, || async {
            let answer = http1::get(traffic, "h0.svc.local", "/api/v1/x").await;
            answer.ok().filter(|answer| answer.status == 200)
        })
        .await;
        let log = router.log_text();
        assert_eq!(asks_for_large_pages(router.pid()), asks, "{args:?}: {log}");
    }
}
