//! Who may depend on whom, and what must not be in the program: read from `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Each of our crates and which of ours it may name in its manifest.
const DIRECTIONS: [(&str, &[&str]); 6] = [
    ("cardea-registry-api", &[]),
    ("cardea-registry", &["cardea-registry-api"]),
    ("cardea-router", &["cardea-registry-api"]),
    ("cardea-agent", &["cardea-registry-api"]),
    (
        "cardea",
        &[
            "cardea-registry-api",
            "cardea-registry",
            "cardea-router",
            "cardea-agent",
        ],
    ),
    (
        "cardea-tests",
        &[
            "cardea",
            "cardea-registry-api",
            "cardea-registry",
            "cardea-router",
            "cardea-agent",
        ],
    ),
];

/// Crates and who of ours may name them (the tests may use anything).
const OWNERS: [(&str, &[&str]); 7] = [
    ("sqlx", &["cardea-registry"]),
    ("kube", &["cardea-registry"]),
    ("k8s-openapi", &["cardea-registry"]),
    ("tokio-cron-scheduler", &["cardea-registry"]),
    ("utoipa-axum", &["cardea-registry"]),
    ("axum", &["cardea-registry", "cardea-router"]),
    ("moka", &["cardea-router"]),
];

/// Second crypto libraries: with two of them compiled in, rustls panics at run time.
const BANNED: [&str; 6] = [
    "ring",
    "openssl",
    "openssl-sys",
    "native-tls",
    "rsa",
    "aws-lc-fips-sys",
];

struct Graph {
    /// Our crates: what each names in `[dependencies]`.
    named: BTreeMap<String, BTreeSet<String>>,
    /// Every crate that is compiled, with its features.
    resolved: BTreeMap<String, BTreeSet<String>>,
}

/// The platform that this runs on: crates for others need not be downloaded.
fn host() -> String {
    let out = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}

fn graph() -> Graph {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--all-features",
            "--offline",
        ])
        .args(["--filter-platform", &host()])
        .args(["--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let members: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut names = BTreeMap::new();
    let mut named = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let id = package["id"].as_str().unwrap();
        let name = package["name"].as_str().unwrap();
        names.insert(id, name);
        if members.contains(id) {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let plain = dependencies
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            named.insert(name.to_owned(), plain.collect());
        }
    }
    let mut resolved: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let name = names[node["id"].as_str().unwrap()];
        let features = node["features"].as_array().unwrap().iter();
        let features = features.filter_map(Value::as_str).map(str::to_owned);
        resolved
            .entry(name.to_owned())
            .or_default()
            .extend(features);
    }
    Graph { named, resolved }
}

#[test]
fn our_crates_keep_their_directions() {
    let graph = graph();
    let known: BTreeMap<&str, &[&str]> = DIRECTIONS.into_iter().collect();
    for (name, dependencies) in &graph.named {
        let Some(allowed) = known.get(name.as_str()) else {
            panic!("{name} has no place in the house: add it to DIRECTIONS");
        };
        for dependency in dependencies.iter().filter(|d| d.starts_with("cardea")) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn stores_watchers_and_api_stay_with_their_owner() {
    let graph = graph();
    for (foreign, owners) in OWNERS {
        for (name, dependencies) in &graph.named {
            let may = owners.contains(&name.as_str()) || name == "cardea-tests";
            assert!(
                may || !dependencies.contains(foreign),
                "{name} must not depend on {foreign}"
            );
        }
    }
    // The contract has schemas for the registry's OpenAPI, behind a feature nobody else turns on.
    let manifest = include_str!("../../registry/api/Cargo.toml");
    assert!(manifest.contains("utoipa = { workspace = true, optional = true }"));
}

#[test]
fn one_crypto_library_is_compiled_in() {
    let graph = graph();
    let compiled = compiled();
    for banned in BANNED {
        assert!(
            !compiled.contains(banned),
            "{banned} is compiled in: see `cargo tree -i {banned}`"
        );
    }
    assert!(graph.resolved["rustls"].contains("aws_lc_rs"));
    for provider in ["ring", "fips"] {
        assert!(
            !graph.resolved["rustls"].contains(provider),
            "rustls has feature {provider}"
        );
    }
}

/// Every crate that ends up in some program of the workspace on this platform, all features on.
/// (`cargo metadata`'s own list has optional crates that no feature turns on.)
fn compiled() -> BTreeSet<String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let out = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--all-features",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args([
            "--edges",
            "normal,build,dev",
            "--offline",
            "--manifest-path",
            manifest,
        ])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}
