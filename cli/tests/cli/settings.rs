//! Settings: where they come from, what is refused, what is shown.

use std::fs;

use crate::command::{cardea, run};

#[test]
fn flag_over_environment_over_file_over_default() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("r.toml"),
        "threads = 2\ncluster = \"from-file\"\nid = \"from-file\"\n",
    )
    .unwrap();
    let output = cardea(dir.path())
        .args([
            "check-config",
            "router",
            "--json",
            "--config",
            "r.toml",
            "--",
            "--threads",
            "4",
        ])
        .env("CARDEA_ROUTER_THREADS", "3")
        .env("CARDEA_CLUSTER", "from-environment")
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["threads"], 4);
    assert_eq!(shown["cluster"], "from-environment");
    assert_eq!(shown["id"], "from-file");
    assert_eq!(shown["listen"], "127.0.0.1:8080");
}

#[test]
fn an_unknown_key_is_78_with_line_and_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    for (role, text, at) in [
        (
            "router",
            "# x\n\nlisen = \"127.0.0.1:1\"\n",
            "x.toml:3: lisen: unknown field; did you mean `listen`?",
        ),
        (
            "registry",
            "[guard]\nmax_precent = 3\n",
            "x.toml:2: guard.max_precent: unknown field; did you mean `max_percent`?",
        ),
    ] {
        fs::write(dir.path().join("x.toml"), text).unwrap();
        for words in [&[role][..], &["check-config", role]] {
            let arguments: Vec<&str> = words
                .iter()
                .copied()
                .chain(["--config", "x.toml"])
                .collect();
            let ran = run(dir.path(), &arguments);
            assert_eq!(ran.status, 78, "{words:?}: {}", ran.stderr);
            assert_eq!(ran.stderr.trim(), format!("cardea: {at}"));
        }
    }
    fs::write(
        dir.path().join("a.toml"),
        "[[service]]\nname = \"a\"\nprot = 80\n",
    )
    .unwrap();
    let ran = run(dir.path(), &["agent", "serve", "--config", "a.toml"]);
    assert_eq!(ran.status, 78);
    assert_eq!(
        ran.stderr.trim(),
        "cardea: a.toml:3: service[0].prot: unknown field; did you mean `port`?"
    );
}

#[test]
fn a_wrong_value_is_78_with_line() {
    let dir = tempfile::tempdir().unwrap();
    for (role, text, at) in [
        (
            "router",
            "admin = \"127.0.0.1:8080\"\n",
            "x.toml:1: admin: must differ",
        ),
        ("router", "threads = \"many\"\n", "x.toml:1: threads: "),
        (
            "registry",
            "\ndatabase = \"mysql://x\"\n",
            "x.toml:2: database: write postgres://",
        ),
        (
            "registry",
            "[[tokens]]\nname = \"a\"\nrole = \"viewer\"\n",
            "x.toml:1: tokens[0].secret: ",
        ),
        (
            "agent",
            "[[service]]\nname = \"a\"\nport = 80\nweight = 1001\n",
            "x.toml:4: service[0].weight: ",
        ),
        ("router", "listen = \n", "x.toml:1: "),
    ] {
        fs::write(dir.path().join("x.toml"), text).unwrap();
        let ran = run(dir.path(), &["check-config", role, "--config", "x.toml"]);
        assert_eq!(ran.status, 78, "{text}: {}", ran.stderr);
        assert!(
            ran.stderr.starts_with(&format!("cardea: {at}")),
            "{}",
            ran.stderr
        );
    }
    let ran = run(
        dir.path(),
        &["check-config", "router", "--config", "missing.toml"],
    );
    assert_eq!(ran.status, 78);
}

#[test]
fn what_is_printed_can_be_read_back_and_has_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let text = "database = \"postgres://me:hidden@db/cardea\"\n[[tokens]]\nname = \"ci\"\n\
                role = \"viewer\"\nsecret = \"hidden-hidden-hidden-hidden-hidden\"\n[log]\nlevel = \"warn\"\n";
    fs::write(dir.path().join("x.toml"), text).unwrap();
    let ran = run(
        dir.path(),
        &["check-config", "registry", "--config", "x.toml"],
    );
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains("hidden"), "{}", ran.stdout);
    for role in ["registry", "router"] {
        let ran = run(dir.path(), &["check-config", role]);
        fs::write(dir.path().join("back.toml"), &ran.stdout).unwrap();
        let back = run(dir.path(), &["check-config", role, "--config", "back.toml"]);
        assert_eq!((back.status, back.stdout), (0, ran.stdout));
    }
}

#[test]
fn full_sync_comes_from_flag_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let shown = |flags: &[&str], said: Option<&str>| {
        let mut command = cardea(dir.path());
        command
            .args(["check-config", "registry", "--json", "--"])
            .args(flags);
        if let Some(said) = said {
            command.env("CARDEA_SQLITE_FULL_SYNC", said);
        }
        let output = command.output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["sqlite_full_sync"].as_bool().unwrap()
    };
    assert!(!shown(&[], None));
    assert!(shown(&[], Some("true")));
    assert!(shown(&["--sqlite-full-sync"], None));
    assert!(!shown(&["--sqlite-full-sync=false"], Some("true")));
}

#[test]
fn writes_are_not_done_unasked() {
    let dir = tempfile::tempdir().unwrap();
    for words in [
        &["ctl", "history", "keep", "database"][..],
        &["ctl", "token", "delete", "a"],
    ] {
        let ran = run(dir.path(), words);
        assert_eq!(ran.status, 2, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("--yes"), "{}", ran.stderr);
    }
}

#[test]
fn a_flag_wins_over_the_other_way_in_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "cardea_router_x\n").unwrap();
    let shown = |flags: &[&str]| {
        let output = cardea(dir.path())
            .args(["check-config", "router", "--json", "--"])
            .args(flags)
            .env("CARDEA_TOKEN", "from-the-environment")
            .output()
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(shown(&[])["token"], "***");
    let flag = shown(&["--token-file", "token"]);
    assert_eq!(flag["token_file"], "token");
    assert!(flag["token"].is_null());
    let both = ["router", "--token", "a", "--token-file", "token"];
    let ran = run(dir.path(), &both);
    assert_eq!(ran.status, 2);
    assert!(
        ran.stderr.contains("--token or --token-file"),
        "{}",
        ran.stderr
    );
}
