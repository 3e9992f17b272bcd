use super::*;

const FULL: &str = r#"
registries = ["http://10.0.0.1:7400", "https://10.0.0.2:7400"]
token = "cardea_agent_x"
cluster = "dc-a"
socket = "/run/cardea/agent.sock"
kill_timeout = "20s"

[[service]]
name = "search"
address = "10.0.0.5:9001"
id = "search-1"
weight = 50
zone = "a"
labels = { lane = "gray" }
version = "1.2"
lease = "10s"
stop_ceiling = "5s"
probe = { http = "/ready", statuses = [200], interval = "1s", timeout = "500ms", failures = 2, successes = 2 }
warm_up = { time = "5s", url = "/warm" }

[[service]]
name = "admin"
port = 9002
probe = { exec = ["/bin/true"] }
"#;

fn fields(config: &Config) -> Vec<String> {
    let errors = config.check().map_or_else(|e| e.errors, |()| Vec::new());
    errors.into_iter().map(|e| e.field).collect()
}

#[test]
fn a_full_file() {
    let config = Config::from_toml(FULL).unwrap();
    config.check().unwrap();
    assert_eq!(config.services[0].probe.failures, 2);
    assert_eq!(config.services[1].stop_ceiling, Span::secs(8));
    assert!(!format!("{config:?}").contains("cardea_agent_x"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = Config::from_toml("[[service]]\nname = \"a\"\nport = 80\n").unwrap();
    config.check().unwrap();
    let mut want = Config::default();
    want.services.push(ServiceConfig {
        port: Some(80),
        ..ServiceConfig::named("a".parse().unwrap())
    });
    assert_eq!(config, want);
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    for (text, field, near) in [
        ("cluser = \"a\"", "cluser", "`cluster`"),
        (
            "[[service]]\nname = \"a\"\nport = 80\nprobe = { htp = \"/\" }",
            "service[0].probe.htp",
            "`http`",
        ),
    ] {
        let error = &Config::from_toml(text).unwrap_err().errors[0];
        assert_eq!(error.field, field);
        assert!(error.message.contains(near), "{}", error.message);
    }
}

type Case = (fn(&mut Config), &'static str);

#[test]
fn each_error_names_its_field() {
    let edit = |change: fn(&mut Config)| {
        let mut config = Config::from_toml(FULL).unwrap();
        change(&mut config);
        fields(&config)
    };
    let cases: [Case; 16] = [
        (|c| c.registries.clear(), "registries"),
        (|c| c.registries[1] = "ftp://a".into(), "registries[1]"),
        (|c| c.token_file = Some("/t".into()), "token_file"),
        (|c| c.kill_timeout = Span::secs(0), "kill_timeout"),
        (|c| c.services.clear(), "service"),
        (|c| c.services[0].port = Some(1), "service[0].port"),
        (|c| c.services[0].address = None, "service[0].address"),
        (|c| c.services[0].weight = 1001, "service[0].weight"),
        (
            |c| c.services[0].lease = Span::millis(5),
            "service[0].lease",
        ),
        (
            |c| c.services[0].stop_ceiling = Span::secs(61),
            "service[0].stop_ceiling",
        ),
        (
            |c| c.services[0].probe.exec = vec!["x".into()],
            "service[0].probe.exec",
        ),
        (
            |c| c.services[0].probe.http = Some("ready".into()),
            "service[0].probe.http",
        ),
        (
            |c| c.services[1].probe.statuses = vec![200],
            "service[1].probe.statuses",
        ),
        (
            |c| c.services[0].probe.interval = Span::millis(1),
            "service[0].probe.interval",
        ),
        (
            |c| c.services[0].warm_up.url = Some("x".into()),
            "service[0].warm_up.url",
        ),
        (|c| c.services[1] = c.services[0].clone(), "service[1]"),
    ];
    for (change, field) in cases {
        assert_eq!(edit(change), [field]);
    }
}
