//! Help, version, completions and exit statuses.

use crate::command::run;

const COMMANDS: &[&[&str]] = &[
    &["dev"],
    &["registry"],
    &["router"],
    &["agent", "run"],
    &["agent", "serve"],
    &["agent", "deregister"],
    &["agent", "status"],
    &["check-config"],
    &["completions"],
    &["demo-service"],
    &["ctl"],
    &["ctl", "get"],
    &["ctl", "apply"],
    &["ctl", "diff"],
    &["ctl", "delete"],
    &["ctl", "drain"],
    &["ctl", "undrain"],
    &["ctl", "weight"],
    &["ctl", "routers"],
    &["ctl", "explain"],
    &["ctl", "token", "create"],
    &["ctl", "history"],
    &["ctl", "dev"],
];

#[test]
fn every_command_has_help_with_examples() {
    let dir = tempfile::tempdir().unwrap();
    for words in COMMANDS {
        let arguments: Vec<&str> = words.iter().copied().chain(["--help"]).collect();
        let ran = run(dir.path(), &arguments);
        assert_eq!(ran.status, 0, "{words:?}");
        assert!(ran.stdout.contains("Example"), "{words:?}:\n{}", ran.stdout);
    }
}

#[test]
fn help_shows_no_secret_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    for words in COMMANDS {
        let output = crate::command::cardea(dir.path())
            .args(*words)
            .arg("--help")
            .env("CARDEA_TOKEN", "hidden")
            .env("CARDEA_DATABASE", "postgres://me:hidden@db/x")
            .env("CARDEA_DEV_POSTGRES", "postgres://me:hidden@db/x")
            .output()
            .unwrap();
        assert!(
            !String::from_utf8_lossy(&output.stdout).contains("hidden"),
            "{words:?}"
        );
    }
}

#[test]
fn the_version_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(dir.path(), &["--version"]);
    assert_eq!(ran.status, 0);
    assert!(
        ran.stdout
            .starts_with(concat!("cardea ", env!("CARGO_PKG_VERSION"))),
        "{}",
        ran.stdout
    );
}

#[test]
fn completions_know_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(dir.path(), &["completions", shell]);
        assert_eq!(ran.status, 0, "{shell}");
        for word in ["undrain", "explain", "check-config", "deregister"] {
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
        assert!(!ran.stdout.contains("demo-service) "), "{shell}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let dir = tempfile::tempdir().unwrap();
    for words in [
        &["nonsense"][..],
        &["ctl", "drain"],
        &["ctl", "get", "nonsense"],
        &["ctl", "weight", "a", "1001"],
        &["router", "--threads", "many"],
        &["dev", "--listen", "0.0.0.0:8080"],
        &["agent", "run", "--service", "a"],
        &["registry", "--tls-cert", "x"],
    ] {
        let ran = run(dir.path(), words);
        assert_eq!(ran.status, 2, "{words:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn what_fails_while_running_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        dir.path(),
        &["ctl", "--registry", "http://127.0.0.1:1", "get", "services"],
    );
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains("no registry answered"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("--registry"), "{}", ran.stderr);
    let ran = run(dir.path(), &["agent", "status", "--socket", "nobody.sock"]);
    assert_eq!(ran.status, 1);
    let ran = run(dir.path(), &["ctl", "dev", "status"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains("no `cardea dev` runs in data"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_command_that_is_not_there_is_127() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "agent",
        "run",
        "--service",
        "a",
        "--port",
        "1",
        "--socket",
        "a.sock",
        "--",
        "./no",
    ];
    let ran = run(dir.path(), &arguments);
    assert_eq!(ran.status, 127, "{}", ran.stderr);
    assert!(ran.stderr.contains("./no"), "{}", ran.stderr);
}
