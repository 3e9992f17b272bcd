//! Plugins from the registry: each kind with real routers and instances, changed under load.

use std::{
    fmt::Write,
    process::{Command, Output},
};

use cardea_registry_api::{
    Plugin,
    api::{Registration, Written},
    client::{ClientError, InstanceQuery, Precondition},
};
use cardea_tests::{
    backend::Backend,
    binary,
    http1::{self, Connection, Response},
    process,
    site::{CLUSTER, SOON, Site, Token, address_of, key, name},
    wait,
};
use serde_json::{Value, json};

use crate::gate;

mod change;
mod commands;
mod examples;
mod unknown;

const HOST: &str = "shop.test";

/// A registry, a router, and the service `shop` with an instance of version 1 and one of version 2,
/// which is the group `new`.
pub(crate) struct Shop {
    pub(crate) site: Site,
    _backends: [Backend; 2],
}

impl Shop {
    pub(crate) async fn start(scenario: &str) -> Self {
        let site = Site::on_sqlite(scenario).await;
        let backends = [Backend::start("old").await, Backend::start("new").await];
        site.route(HOST, "shop", |service| {
            let groups = json!({"new": {"version": "2"}});
            service.groups = serde_json::from_value(groups).unwrap();
        })
        .await;
        for (backend, version) in backends.iter().zip(["1", "2"]) {
            let registration = Registration {
                version: version.to_owned(),
                // Counts only where a plugin of lanes does.
                labels: (version == "2")
                    .then(|| ("lane".to_owned(), "b".to_owned()))
                    .into_iter()
                    .collect(),
                source: cardea_registry_api::Source::Manual,
                lease: None,
                ..Registration::at(address_of(backend.address()))
            };
            let key = key(CLUSTER, "shop", &format!("v{version}"));
            site.client().register(&key, &registration).await.unwrap();
        }
        let shop = Self {
            site,
            _backends: backends,
        };
        shop.site.settled().await;
        shop
    }

    /// Puts a plugin that is bound to the route, and waits for the router.
    async fn put(&self, policy: Value) {
        let written = self.try_put(&policy).await.unwrap();
        self.site.routers[0].wait_applied(written.revision).await;
    }

    async fn try_put(&self, policy: &Value) -> Result<Written, ClientError> {
        let client = self.site.client();
        client.put_plugin(&plugin(policy), Precondition::Any).await
    }

    async fn delete(&self) {
        let client = self.site.client();
        let gone = client.delete_plugin(&name("p"), Precondition::Any).await;
        let revision = gone.unwrap().revision;
        self.site.routers[0].wait_applied(revision).await;
    }

    /// A request with these header lines.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str) -> Response {
        ask(&self.site, HOST, method, path, headers).await
    }

    /// Which instance answers a GET with these header lines.
    pub(crate) async fn who(&self, path: &str, headers: &str) -> String {
        let answer = self.ask("GET", path, headers).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = answer.text();
        text.split(' ').next().unwrap().to_owned()
    }
}

pub(crate) async fn ask(
    site: &Site,
    host: &str,
    method: &str,
    path: &str,
    headers: &str,
) -> Response {
    let router = site.routers[0].traffic();
    let mut connection = Connection::open(router, SOON).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\
         {headers}\r\n"
    );
    connection.exchange(request.as_bytes(), SOON).await.unwrap()
}

/// The plugin `p` on the route, with one policy.
fn plugin(policy: &Value) -> Plugin {
    let mut plugin = json!({"name": "p", "route": HOST});
    for (field, value) in policy.as_object().unwrap() {
        plugin[field] = value.clone();
    }
    serde_json::from_value(plugin).unwrap()
}

pub(crate) fn ctl(site: &Site, args: &[&str]) -> Output {
    let registry = format!("http://{}", site.registries[0].api());
    let mut command = Command::new(binary::cardea());
    command
        .arg("ctl")
        .args(args)
        .env("CARDEA_REGISTRY", registry)
        .env("CARDEA_TOKEN", Token::Operator.secret())
        .env(
            "CARDEA_ROUTER",
            format!("http://{}", site.routers[0].admin()),
        )
        .current_dir(site.dir());
    process::output(&mut command, SOON)
}

/// What a call says that succeeds.
pub(crate) fn ok(site: &Site, args: &[&str]) -> String {
    let out = ctl(site, args);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {errors}");
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_that_refuse_and_answer_do_what_they_say() {
    let _machine = gate::shared().await;
    let shop = Shop::start("plugin-refuse").await;

    shop.put(json!({"restrict": {"methods": ["GET"], "target": 40}}))
        .await;
    assert_eq!(shop.ask("DELETE", "/", "").await.status, 405);
    let long = format!("/{}", "x".repeat(80));
    assert_eq!(shop.ask("GET", &long, "").await.status, 414);
    shop.who("/", "").await;

    shop.put(json!({"limit": {"rate": 1, "per": "minute", "burst": 2, "key": "header:x-user"}}))
        .await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(shop.ask("GET", "/", "X-User: u1\r\n").await);
    }
    let codes: Vec<u16> = statuses.iter().map(|answer| answer.status).collect();
    assert_eq!(codes, [200, 200, 429]);
    assert!(
        statuses[2].header("retry-after").is_some(),
        "{:?}",
        statuses[2]
    );
    assert_eq!(shop.ask("GET", "/", "X-User: u2\r\n").await.status, 200);

    shop.put(json!({"redirect": {"to": "https://${host}/new${path}${query}", "status": 307}}))
        .await;
    let answer = shop.ask("GET", "/a?b=c", "").await;
    assert_eq!(answer.status, 307);
    assert_eq!(
        answer.header("location"),
        Some("https://shop.test/new/a?b=c")
    );

    shop.put(
        json!({"respond": {"status": 503, "body": "closed", "headers": {"X-Why": "${route}"}}}),
    )
    .await;
    let answer = shop.ask("GET", "/", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "closed"));
    assert_eq!(answer.header("x-why"), Some(HOST));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_that_choose_and_change_do_what_they_say() {
    let _machine = gate::shared().await;
    let shop = Shop::start("plugin-choose").await;

    shop.put(json!({"ab": {"experiments": [{
        "name": "e", "key": "header:x-user", "response_header": "X-Variant",
        "variants": [
            {"name": "a", "weight": 1},
            {"name": "b", "weight": 0, "group": "new", "is": ["tester"], "ends_with": ["7"]},
        ],
    }]}}))
    .await;
    for (user, variant) in [
        ("tester", "e=b"),
        ("x17", "e=b"),
        ("x18", "e=a"),
        ("x18", "e=a"),
    ] {
        let answer = shop.ask("GET", "/", &format!("X-User: {user}\r\n")).await;
        assert_eq!(answer.header("x-variant"), Some(variant), "{user}");
        assert!(
            variant != "e=b" || answer.text().starts_with("new"),
            "{user}: {}",
            answer.text()
        );
    }

    shop.put(json!({"gray": {"rules": [
        {"group": "new", "when": {"key": "header:x-user", "modulo": 100, "below": 5}},
    ]}}))
    .await;
    for (user, instance) in [
        ("u104", "new"),
        ("u105", "old"),
        ("none", "old"),
        ("u200", "new"),
    ] {
        let who = shop.who("/", &format!("X-User: {user}\r\n")).await;
        assert_eq!(who, instance, "{user}");
    }
    assert_eq!(shop.who("/", "").await, "old");

    shop.put(json!({"rewrite": {
        "path": {"matches": "^/v1/(.*)$", "to": "/${1}"},
        "response": {"set": {"X-Seen": "${path}"}},
    }}))
    .await;
    let answer = shop.ask("GET", "/v1/big?bytes=7", "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 7));
    assert!(answer.header("x-seen").is_some(), "{answer:?}");

    shop.put(json!({"override": {"first_byte": "50ms", "attempts": 0}}))
        .await;
    assert_eq!(shop.ask("GET", "/slow?ms=5000", "").await.status, 504);
    shop.delete().await;
    assert_eq!(shop.ask("GET", "/slow?ms=100", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_policy_is_refused_by_name_and_a_good_one_is_taken_back() {
    let _machine = gate::shared().await;
    let mut shop = Shop::start("plugin-bad").await;
    let gray = |group: &str| json!({"gray": {"rules": [{"group": group}]}});
    shop.put(gray("new")).await;
    assert_eq!(shop.who("/", "").await, "new");
    let before = shop.site.registries[0].status().await.revision;
    for (policy, field) in [
        (gray("newer"), "gray.rules[0].group"),
        (
            json!({"gray": {"rules": [{"group": "new", "when": {"key": "path", "matches": "("}}]}}),
            "gray.rules[0].when.matches",
        ),
        (
            json!({"gray": {"rules": [{"group": "new"}]}, "route": "no-such"}),
            "route",
        ),
    ] {
        let error = shop.try_put(&policy).await.unwrap_err();
        let ClientError::Problem { problem, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(problem.errors[0].field, field, "{problem:?}");
    }
    assert_eq!(shop.site.registries[0].status().await.revision, before);
    assert_eq!(shop.who("/", "").await, "new");

    // A change that was a mistake: the log has the form before, and it is put again.
    shop.put(json!({"respond": {"status": 500}})).await;
    assert_eq!(shop.ask("GET", "/", "").await.status, 500);
    let client = shop.site.client();
    let log = client.changes(before, Some(10)).await.unwrap();
    let last = log.items.last().unwrap();
    let good: Plugin = serde_json::from_value(last.before.clone().unwrap()).unwrap();
    let written = client
        .put_plugin(&good, Precondition::Revision(last.revision))
        .await
        .unwrap();
    shop.site.routers[0].wait_applied(written.revision).await;
    assert_eq!(shop.who("/", "").await, "new");

    // Registry and router come back with it, one after the other and the router alone.
    let copy = shop.site.routers[0].data_dir().join("table.ndjson");
    let revision = format!("\"revision\":{},", written.revision);
    wait::until("the copy on disk has it", SOON, || async {
        let text = std::fs::read_to_string(&copy).ok()?;
        text.contains(&revision).then_some(())
    })
    .await;
    shop.site.registries[0].kill();
    shop.site.routers[0].kill();
    shop.site.routers[0].resume().await;
    assert_eq!(shop.who("/", "").await, "new", "from the copy on disk");
    shop.site.registries[0].resume().await;
    let kept = shop.site.client().plugin(&name("p")).await.unwrap();
    assert_eq!(kept.object, good);
    shop.put(gray("baseline")).await;
    assert_eq!(shop.who("/", "").await, "old");
}

/// The same file says the same in static mode and through the registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_means_the_same_with_and_without_a_registry() {
    let _machine = gate::shared().await;
    let shop = Shop::start("plugin-static").await;
    let instances = shop
        .site
        .client()
        .all_instances(InstanceQuery::default())
        .await
        .unwrap();
    let mut file =
        "[[service]]\nname = \"shop\"\ngroups = { new = { version = \"2\" } }\n".to_owned();
    for instance in instances.iter().map(|instance| &instance.object) {
        let (id, address, version) = (&instance.id, &instance.address, &instance.version);
        writeln!(
            file,
            "[[service.instance]]\nid = \"{id}\"\naddress = \"{address}\"\nversion = \"{version}\""
        )
        .unwrap();
    }
    file += r#"
        [[route]]
        id = "shop.test"
        host = "shop.test"
        service = "shop"
        [[plugin]]
        name = "p"
        route = "shop.test"
        [[plugin.gray.rules]]
        group = "new"
        when = { key = "header:x-user", ends_with = ["7"] }
        [[plugin]]
        name = "q"
        service = "shop"
        [plugin.rewrite.response.set]
        X-Mark = "${service}"
        [[fallback]]
        name = "sorry"
        text = "later"
    "#;
    let path = shop.site.scratch.write("both.toml", &file);
    let path = path.to_str().unwrap();
    assert_eq!(
        ctl(&shop.site, &["diff", "-f", path]).status.code(),
        Some(1)
    );
    ok(&shop.site, &["apply", "-f", path, "--yes"]);
    assert_eq!(
        ctl(&shop.site, &["diff", "-f", path]).status.code(),
        Some(0)
    );
    shop.site.settled().await;

    let (traffic, admin) = (
        cardea_tests::ports::reserve(),
        cardea_tests::ports::reserve(),
    );
    let alone = process::Spawn::new("static", binary::cardea())
        .args(["router", "--static", path])
        .args(["--listen", &format!("127.0.0.1:{traffic}")])
        .args(["--admin", &format!("127.0.0.1:{admin}")])
        .args(["--access-log", "off", "--threads", "1"])
        .start(shop.site.dir());
    let own = std::net::SocketAddr::from(([127, 0, 0, 1], traffic));
    wait::until("the file is served", SOON, || async {
        http1::get(own, HOST, "/")
            .await
            .ok()
            .filter(|answer| answer.status == 200)
    })
    .await;
    for user in ["u17", "u18", "u27", "x"] {
        let mut said = Vec::new();
        for router in [shop.site.routers[0].traffic(), own] {
            let mut connection = Connection::open(router, SOON).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-User: {user}\r\n\r\n");
            let answer = connection.exchange(request.as_bytes(), SOON).await.unwrap();
            let mark = answer.header("x-mark").map(str::to_owned);
            said.push((answer.status, mark, answer.text()));
        }
        assert_eq!(said[0], said[1], "{user}");
        assert_eq!(said[0].1.as_deref(), Some("shop"));
        assert_eq!(
            said[0].2.starts_with("new"),
            user.ends_with('7'),
            "{said:?}"
        );
    }
    drop(alone);
}
