use std::io::Write;

use super::{registry::RegistrySettings, router::RouterSettings, *};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn router(text: &str, flags: &RouterSettings) -> Result<Merged<RouterSettings>, String> {
    let file = file(text);
    let name = file.path().display().to_string();
    merge(Some(file.path()), flags, &RouterSettings::defaults()).map_err(|exit| match exit {
        Exit::Config(text) => text.replace(&name, "FILE"),
        other => panic!("{other:?}"),
    })
}

#[test]
fn flags_win_over_the_file_and_that_over_defaults() {
    let flags = RouterSettings {
        threads: Some(3),
        token: Some("from-a-flag".to_owned()),
        ..RouterSettings::default()
    };
    let text = "threads = 2\ncluster = \"dc-a\"\ntoken_file = \"x\"\nlimits.head = 8192\n\
                registry = [\"http://a:1\", \"http://b:1\"]\nlog.level = \"debug\"\n";
    let merged = router(text, &flags).unwrap();
    let settings = merged.settings;
    assert_eq!(settings.threads, Some(3));
    assert_eq!(settings.cluster.unwrap().as_str(), "dc-a");
    assert_eq!(settings.token.as_deref(), Some("from-a-flag"));
    assert_eq!(settings.token_file, None);
    assert_eq!(settings.limits.head, Some(8192));
    assert_eq!(settings.listen, RouterSettings::defaults().listen);
    assert_eq!(settings.registry, ["http://a:1", "http://b:1"]);
    assert_eq!(
        merged.log.under(&LogArgs::default()).log_level.as_deref(),
        Some("debug")
    );
    let louder = LogArgs {
        log_level: Some("trace".to_owned()),
        log_format: None,
    };
    assert_eq!(
        merged.log.under(&louder).log_level.as_deref(),
        Some("trace")
    );
}

#[test]
fn unknown_keys_have_a_line_and_a_suggestion() {
    let none = RouterSettings::default();
    let error = |text: &str| router(text, &none).unwrap_err();
    assert_eq!(
        error("# router\n\nclustr = \"dc-a\"\n"),
        "FILE:3: clustr: unknown field; did you mean `cluster`?"
    );
    assert_eq!(
        error("[limits]\nhaed = 1\n"),
        "FILE:2: limits.haed: unknown field; did you mean `head`?"
    );
    assert_eq!(
        error("[log]\nlevl = \"info\"\n"),
        "FILE:2: log.levl: unknown field; did you mean `level`?"
    );
    assert!(error("threads = \"many\"\n").starts_with("FILE:1: threads: "));
    assert!(error("threads = \n").starts_with("FILE:1: "));
    let listen = error("\nlisten = \"here\"\n");
    assert!(
        listen.starts_with("FILE:2: listen: ")
            && listen.contains("127.0.0.1:8080")
            && listen.contains("`off`"),
        "{listen}"
    );
    let version = error("tls_min_version = \"1.1\"\n");
    assert!(
        version.starts_with("FILE:1: tls_min_version: ") && version.contains("1.3"),
        "{version}"
    );
}

#[test]
fn wrong_values_have_a_line() {
    let merged = router("[limits]\nhead = 1\n", &RouterSettings::default()).unwrap();
    let invalid = merged.settings.clone().into_config().unwrap_err();
    let Exit::Config(text) = merged.explain(invalid) else {
        panic!("a wrong setting is a matter of configuration");
    };
    assert!(text.contains(":2: limits.head: between"), "{text}");
}

#[test]
fn limits_of_greedy_clients_have_defaults_and_are_checked() {
    let none = RouterSettings::default();
    let shown_as = |text: &str| shown(&router(text, &none).unwrap().settings)["limits"].clone();
    let limits = shown_as("");
    assert_eq!(limits["min_rate_in"], 256);
    assert_eq!(limits["rate_window"], "30s");
    assert_eq!(limits["connections"], 65_536);
    assert_eq!(limits["queue_timeout"], "100ms");
    assert!(limits.get("connections_per_client").is_none());
    let text = "[limits]\nmin_rate_out = 0\nconnections_per_client = 100\nqueue_timeout = \"0s\"\n\
                requests_per_connection = 1000\n";
    let config = router(text, &none).unwrap().settings.into_config().unwrap();
    assert_eq!(config.limits.min_rate_out, 0);
    assert_eq!(config.limits.connections_per_client, Some(100));
    assert_eq!(config.limits.requests_per_connection, Some(1000));
    assert!(config.limits.queue_timeout.is_zero());
    let merged = router("[limits]\n\nconnections_per_client = 0\n", &none).unwrap();
    let invalid = merged.settings.clone().into_config().unwrap_err();
    let Exit::Config(text) = merged.explain(invalid) else {
        panic!("a wrong setting is a matter of configuration");
    };
    assert!(
        text.contains(":3: limits.connections_per_client: at least 1; leave it out"),
        "{text}"
    );
}

#[test]
fn networks_are_read_strictly() {
    let none = RouterSettings::default();
    let error = |text: &str| router(text, &none).unwrap_err();
    assert_eq!(
        error("\n[proxies]\ntrusted = [\"10.0.0.0/8\", \"10.0.0.1/8\"]\n"),
        "FILE:3: proxies.trusted[1]: `10.0.0.1/8` has bits set behind its prefix: write 10.0.0.0/8"
    );
    let text = error("proxies.trusted = [\"lb.example\"]\n");
    assert!(
        text.starts_with("FILE:1: proxies.trusted[0]: `lb.example` is no network"),
        "{text}"
    );
    let text = error("proxies.believe_ids = \"nobody\"\n");
    assert!(text.starts_with("FILE:1: proxies.believe_ids: "), "{text}");
    let merged = router("proxies.trusted = [\"10.0.0.0/8\", \"::1\"]\n", &none).unwrap();
    assert_eq!(shown(&merged.settings)["proxies"]["trusted"][1], "::1/128");
    let config = merged.settings.into_config().unwrap();
    assert!(config.trusted_proxies.contains("10.1.2.3".parse().unwrap()));
}

#[test]
fn secrets_are_masked() {
    let settings: RegistrySettings = serde_json::from_value(serde_json::json!({
        "database": "postgres://me:hidden@db/cardea",
        "tokens": [{"name": "ci", "role": "viewer", "secret": "hidden"}],
    }))
    .unwrap();
    let text = shown(&settings).to_string();
    assert!(!text.contains("hidden"), "{text}");
    assert!(text.contains("postgres://me:***@db/cardea"), "{text}");
    let router = RouterSettings {
        token: Some("hidden".to_owned()),
        ..RouterSettings::defaults()
    };
    assert_eq!(shown(&router)["token"], "***");
}

#[test]
fn defaults_are_sound() {
    RegistrySettings::defaults().into_config().unwrap();
    RouterSettings::defaults().into_config().unwrap();
}

/// What `--help` says is what holds.
#[test]
fn the_defaults_in_the_help_are_the_defaults() {
    let mut service =
        serde_json::to_value(cardea_agent::ServiceConfig::named("a".parse().unwrap())).unwrap();
    service["registry"] = json(&cardea_agent::Config::default())["registries"].take();
    let agent = json(&cardea_agent::Config::default());
    check_help::<RegistrySettings>(&[&json(&RegistrySettings::defaults())]);
    check_help::<RouterSettings>(&[&json(&RouterSettings::defaults())]);
    check_help::<agent::AgentSettings>(&[&service, &agent]);
    check_help::<agent::ServiceSettings>(&[&service]);
}

#[track_caller]
fn check_help<T: clap::Args>(defaults: &[&Value]) {
    let command = T::augment_args(clap::Command::new("role"));
    for arg in command.get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, said)) = help.rsplit_once("[default: ") else {
            continue;
        };
        let said = said.trim_end_matches(']');
        if said.contains(' ') {
            continue; // Words: there is no one value.
        }
        let id = arg.get_id().as_str();
        let key = match id {
            "warm_up" => "time",
            _ => id.strip_prefix("probe_").unwrap_or(id),
        };
        let held = defaults.iter().find_map(|value| leaf(value, key));
        let held = held.as_deref().unwrap_or("none");
        assert_eq!(said, held, "--{}", arg.get_long().unwrap_or(id));
    }
}

/// The setting with this name, wherever it stands; none: it has no value.
fn leaf(value: &Value, key: &str) -> Option<String> {
    let table = value.as_object()?;
    match table.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Bool(truth)) => Some(truth.to_string()),
        Some(Value::Array(items)) => leaf(&serde_json::json!({ key: items.first()? }), key),
        _ => table.values().find_map(|inner| leaf(inner, key)),
    }
}

#[test]
fn sqlite_can_be_told_to_wait_for_the_disk() {
    let read = |text: &str, flags: &RegistrySettings| {
        let file = file(text);
        let merged = merge(Some(file.path()), flags, &RegistrySettings::defaults());
        let settings = merged.map_err(|exit| format!("{exit:?}"))?.settings;
        Ok::<_, String>((
            settings.threads(),
            settings.into_config().unwrap().sqlite_full_sync,
        ))
    };
    let none = RegistrySettings::default();
    assert!(!read("", &none).unwrap().1);
    let text = "sqlite_full_sync = true\nthreads = 3\n";
    let (threads, full_sync) = read(text, &none).unwrap();
    assert!(full_sync);
    assert_eq!(threads.get(), 3);
    let flags = RegistrySettings {
        sqlite_full_sync: Some(false),
        ..RegistrySettings::default()
    };
    assert!(!read(text, &flags).unwrap().1, "a flag wins");
    assert!(
        read("threads = 0\n", &none)
            .unwrap_err()
            .contains("threads")
    );
}

#[test]
fn a_token_is_read_from_its_file() {
    let secret = file("  cardea_router_x \n");
    assert_eq!(token(None, Some(secret.path())).unwrap(), "cardea_router_x");
    let empty = file("\n");
    let error = token(None, Some(empty.path())).unwrap_err();
    assert_eq!(error.errors[0].field, "token_file");
}

#[test]
fn a_port_for_tls_reaches_the_router() {
    let address = "127.0.0.1:8443".parse().ok();
    let settings = RouterSettings {
        listen_tls: address,
        ..RouterSettings::defaults()
    };
    assert_eq!(settings.into_config().unwrap().listen_tls, address);
}

#[test]
fn a_router_may_listen_with_tls_alone() {
    let text = "listen = \"off\"\nlisten_tls = \"127.0.0.1:8443\"\ntls_min_version = \"1.3\"\n";
    let merged = router(text, &RouterSettings::default()).unwrap();
    let config = merged.settings.into_config().unwrap();
    assert_eq!(config.listen, None);
    assert_eq!(config.listen_tls, Some("127.0.0.1:8443".parse().unwrap()));
    assert_eq!(config.tls_min_version, cardea_router::TlsVersion::V13);
    // Nowhere is wrong, and the default is both versions.
    let merged = router("listen = \"off\"\n", &RouterSettings::default()).unwrap();
    assert_eq!(
        merged.settings.tls_min_version,
        RouterSettings::defaults().tls_min_version
    );
    let invalid = merged.settings.clone().into_config().unwrap_err();
    assert_eq!(invalid.errors[0].field, "listen");
}
