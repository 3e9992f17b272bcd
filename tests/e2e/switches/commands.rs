//! `ctl switch …` against running processes.

use std::process::Command;

use cardea_tests::{binary, process};
use serde_json::Value;

use super::*;
use crate::gate;

/// `ctl` at one of the registries; whether it went well, and what it said.
fn run(site: &Site, registry: usize, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary::cardea());
    command
        .arg("ctl")
        .args(args)
        .env(
            "CARDEA_REGISTRY",
            format!("http://{}", site.registries[registry].api()),
        )
        .env("CARDEA_TOKEN", Token::Operator.secret())
        .current_dir(site.dir());
    let out = process::output(&mut command, SOON);
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8(text).unwrap())
}

/// The same, when it must go well.
pub(super) fn ctl_at(site: &Site, registry: usize, args: &[&str]) -> String {
    let (success, text) = run(site, registry, args);
    assert!(success, "{args:?}: {text}");
    text
}

fn ctl(site: &Site, args: &[&str]) -> (bool, String) {
    run(site, 0, &[&["switch"], args].concat())
}

fn ok(site: &Site, args: &[&str]) -> String {
    let (success, text) = ctl(site, args);
    assert!(success, "{args:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_switch_from_the_command_line() {
    let _machine = gate::shared().await;
    let (site, _backends) = centres("switches-ctl", Some(1000)).await;
    let to = ["dc-a", "--to", "dc-a=0,dc-b=100"];
    let with = |first: &'static str, rest: &[&'static str]| {
        let words = [&[first], &to[..], rest].concat();
        ctl(&site, &words)
    };
    let (success, preview) = with("preview", &[]);
    assert!(success, "{preview}");
    assert!(
        preview.contains("traffic dc-a (new): dc-a=100 → dc-a=90 dc-b=10 → "),
        "{preview}"
    );
    assert!(preview.contains("1000  declared"), "{preview}");
    let (success, refused) = with("start", &["--yes"]);
    assert!(!success && refused.contains("reason: say why"), "{refused}");
    let (success, dry) = with("start", &["--reason", "drill", "--dry-run"]);
    assert!(success && dry.contains("nothing was written"), "{dry}");
    let started = ["--reason", "drill", "--watch", "10m", "--yes"];
    let (success, begun) = with("start", &started);
    assert!(success, "{begun}");
    assert!(
        begun.contains("switch-1 is running at 10 %: at all 2 routers"),
        "{begun}"
    );
    let (success, second) = with("start", &started);
    assert!(
        !success && second.contains("switch `switch-1` of test-operator is running"),
        "{second}"
    );
    let paused = ok(&site, &["pause", "switch-1", "--reason", "lunch", "--yes"]);
    assert!(paused.contains("switch-1 is paused"), "{paused}");
    let status = ok(&site, &["status"]);
    for part in [
        "dc-a → dc-a=0 dc-b=100",
        "by test-operator: drill",
        "paused: lunch",
        "stays at 10 %",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    ok(&site, &["resume", "switch-1", "--yes"]);
    let (success, own) = ctl(&site, &["approve", "switch-1", "--yes"]);
    assert!(
        !success && own.contains("is running: it cannot be approved"),
        "{own}"
    );
    let undone = ok(&site, &["undo", "switch-1", "--yes"]);
    assert!(
        undone.contains("switch-1 is undone: at all 2 routers"),
        "{undone}"
    );
    let list: Value = serde_json::from_str(&ok(&site, &["list", "--json"])).unwrap();
    assert_eq!(list[0]["state"], "undone");
    let (success, unknown) = ctl(&site, &["status", "switch-9"]);
    assert!(
        !success && unknown.contains("there is no switch `switch-9`"),
        "{unknown}"
    );
}
