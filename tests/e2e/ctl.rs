//! `cardea ctl` against running processes.

use std::process::{Command, Output};

use cardea_tests::{
    backend::Backend,
    binary, process,
    site::{SOON, Site, Token},
    wait,
};
use serde_json::Value;

use crate::gate;

const FILE: &str = r#"
[[cluster]]
name = "default"
description = "here"
[[service]]
name = "search"
balance = "least-loaded"
[[route]]
id = "search"
host = "search.test"
prefix = "/api"
service = "search"
"#;

fn ctl(site: &Site, args: &[&str]) -> Output {
    let mut command = Command::new(binary::cardea());
    command
        .arg("ctl")
        .args(args)
        .env(
            "CARDEA_REGISTRY",
            format!("http://{}", site.registries[0].api()),
        )
        .env("CARDEA_TOKEN", Token::Operator.secret())
        .env(
            "CARDEA_ROUTER",
            format!("http://{}", site.routers[0].admin()),
        )
        .current_dir(site.dir());
    process::output(&mut command, SOON)
}

/// The standard output of a call that succeeds.
fn ok(site: &Site, args: &[&str]) -> String {
    let out = ctl(site, args);
    assert!(
        out.status.success(),
        "{args:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

fn json(site: &Site, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let text = ok(site, &args);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_compared_and_applied() {
    let _machine = gate::shared().await;
    let site = Site::on_sqlite("ctl-apply").await;
    let path = site.scratch.write("services.toml", FILE);
    let file = path.to_str().unwrap();

    assert_eq!(ctl(&site, &["diff", "-f", file]).status.code(), Some(1));
    ok(&site, &["apply", "-f", file, "--dry-run", "--yes"]);
    assert!(
        json(&site, &["get", "services"])
            .as_array()
            .unwrap()
            .is_empty()
    );
    ok(&site, &["apply", "-f", file, "--yes"]);
    assert_eq!(ctl(&site, &["diff", "-f", file]).status.code(), Some(0));
    assert_eq!(
        json(&site, &["get", "services"])[0]["balance"],
        "least-loaded"
    );
    let before = site.registries[0].status().await.revision;
    ok(&site, &["apply", "-f", file, "--yes"]);
    assert_eq!(
        site.registries[0].status().await.revision,
        before,
        "nothing changed"
    );

    site.scratch.write(
        "services.toml",
        &FILE.replace("search.test", "*.search.test"),
    );
    assert_eq!(ctl(&site, &["diff", "-f", file]).status.code(), Some(1));
    site.scratch
        .write("wrong.toml", &FILE.replace("prefix", "prefixx"));
    let wrong = ctl(&site, &["apply", "-f", "wrong.toml", "--yes"]);
    assert!(!wrong.status.success());
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        words.contains("prefixx") && words.contains("did you mean `prefix`"),
        "{words}"
    );

    // The same in YAML.
    let yaml =
        "service:\n- name: other\nroute:\n- id: other\n  host: other.test\n  service: other\n";
    site.scratch.write("more.yaml", yaml);
    ok(&site, &["apply", "-f", "more.yaml", "--yes"]);
    ok(&site, &["delete", "route", "other", "--yes"]);
    let routes = json(&site, &["get", "routes"]);
    assert_eq!(routes.as_array().unwrap().len(), 1, "{routes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_drained_weighed_and_explained() {
    let _machine = gate::shared().await;
    let site = Site::on_sqlite("ctl-drain").await;
    site.scratch.write("services.toml", FILE);
    ok(&site, &["apply", "-f", "services.toml", "--yes"]);
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    site.register("search", "one", one.address()).await;
    site.register("search", "two", two.address()).await;
    site.settled().await;

    let explained = json(
        &site,
        &[
            "explain",
            "GET",
            "http://search.test/api/x",
            "-H",
            "X-User: 7",
        ],
    );
    let text = explained.to_string();
    assert!(
        text.contains("search") && text.contains(&one.address().to_string()),
        "{text}"
    );
    let explained = json(&site, &["explain", "GET", "http://nobody.test/"]).to_string();
    assert!(
        !explained.contains(&one.address().to_string()),
        "{explained}"
    );
    println!(
        "{}",
        ok(&site, &["explain", "GET", "http://search.test/api/x"])
    );

    ok(&site, &["drain", "search/one", "--yes"]);
    site.settled().await;
    for _ in 0..20 {
        assert!(
            site.routers[0]
                .get("search.test", "/api")
                .await
                .text()
                .starts_with("two")
        );
    }
    let last = ctl(&site, &["drain", "search/two"]);
    let said = String::from_utf8_lossy(&last.stderr).into_owned();
    assert_eq!(last.status.code(), Some(2), "{said}");
    assert!(said.contains("no instance left"), "{said}");
    let state = json(&site, &["get", "instances", "search/two"]).to_string();
    assert!(!state.contains("draining"), "{state}");
    ok(&site, &["undrain", "search/one", "--yes"]);
    ok(&site, &["weight", "search/two", "0", "--yes"]);
    site.settled().await;
    for _ in 0..20 {
        assert!(
            site.routers[0]
                .get("search.test", "/api")
                .await
                .text()
                .starts_with("one")
        );
    }
    ok(&site, &["weight", "search/two", "reported", "--yes"]);
    site.settled().await;
    wait::until("both serve again", SOON, || async {
        site.routers[0]
            .get("search.test", "/api")
            .await
            .text()
            .starts_with("two")
            .then_some(())
    })
    .await;
    let routers = json(&site, &["routers"]);
    assert_eq!(routers[0]["id"], "router-1", "{routers}");
    for kind in [
        "clusters",
        "services",
        "routes",
        "instances",
        "routers",
        "changes",
        "status",
        "snapshots",
    ] {
        let table = ok(&site, &["get", kind]);
        assert!(!table.trim().is_empty() || kind == "snapshots", "{kind}");
        json(&site, &["get", kind]);
    }
    println!("{}", ok(&site, &["get", "instances"]));
}

#[test]
fn wrong_use_says_so() {
    for (args, status) in [
        (vec!["ctl", "get", "nonsense"], 2),
        (vec!["nonsense"], 2),
        (vec!["--version"], 0),
        (vec!["ctl", "--help"], 0),
        (vec!["completions", "bash"], 0),
        (
            vec![
                "router",
                "--static",
                "/does/not/exist.toml",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ],
            78,
        ),
        (vec!["registry", "--config", "/does/not/exist.toml"], 78),
    ] {
        let out = process::output(Command::new(binary::cardea()).args(&args), SOON);
        assert_eq!(out.status.code(), Some(status), "{args:?}: {out:?}");
    }
}
