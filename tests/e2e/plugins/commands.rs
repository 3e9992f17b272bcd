//! What `ctl` says and does about plugins, groups and stored bodies.

use cardea_tests::{site::SOON, wait};
use serde_json::{Value, json};

use super::{Shop, ctl, ok};
use crate::gate;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctl_shows_and_changes_plugins() {
    let _machine = gate::shared().await;
    let shop = Shop::start("plugin-ctl").await;
    let site = &shop.site;
    let gray = json!({"gray": {"rules": [
        {"group": "new", "when": {"key": "header:x-user", "is": ["u1"]}}]}});
    shop.put(gray).await;
    let table = ok(site, &["plugins", "list"]);
    for word in ["PLUGIN", "p ", "gray", "route shop.test", " on "] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let why = ok(
        site,
        &["explain", "GET", "http://shop.test/", "-H", "X-User: u1"],
    );
    assert!(why.contains('p') && why.contains("new"), "{why}");

    let settle = || async {
        site.settled().await;
        shop.who("/", "X-User: u1\r\n").await
    };
    assert_eq!(settle().await, "new");
    ok(site, &["plugins", "shadow", "p", "--dry-run"]);
    assert!(!ok(site, &["plugins", "list"]).contains("shadow"));
    ok(site, &["plugins", "shadow", "p"]);
    let log = site.routers[0]
        .data_dir()
        .with_file_name("router-1-access.log");
    settle().await;
    wait::until("the log has the shadow's verdict", SOON, || async {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("\"p~new\"").then_some(())
    })
    .await;
    ok(site, &["plugins", "shadow", "p", "--off"]);
    assert_eq!(settle().await, "new");
    ok(site, &["plugins", "disable", "p"]);
    assert!(ok(site, &["plugins", "list"]).contains(" off "));
    ok(site, &["plugins", "unbind", "p"]);
    assert!(ok(site, &["plugins", "list"]).contains("everything"));
    let nowhere = ctl(site, &["plugins", "bind", "p", "--service", "shpo"]);
    let words = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(
        words.contains("service: there is no service `shpo`; did you mean `shop`?"),
        "{words}"
    );
    ok(site, &["plugins", "bind", "p", "--service", "shop"]);
    assert_eq!(settle().await, "new");
    let one: Value = serde_json::from_str(&ok(site, &["plugins", "get", "p", "--json"])).unwrap();
    assert_eq!(
        (&one["service"], &one["enabled"]),
        (&json!("shop"), &json!(true))
    );
    let kinds = ok(site, &["plugins", "schema"]);
    assert!(
        kinds.contains("restrict") && kinds.contains("override"),
        "{kinds}"
    );
    let schema: Value = serde_json::from_str(&ok(site, &["plugins", "schema", "gray"])).unwrap();
    assert_eq!(schema["required"], json!(["name", "gray"]));
    let missing = ctl(site, &["plugins", "schema", "grey"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("did you mean `gray`"));
    ok(site, &["plugins", "delete", "p", "--yes"]);
    assert_eq!(ok(site, &["get", "plugins"]).lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctl_shows_and_changes_groups_and_bodies() {
    let _machine = gate::shared().await;
    let shop = Shop::start("plugin-groups").await;
    let site = &shop.site;
    shop.put(json!({"gray": {"rules": [{"group": "new"}]}}))
        .await;
    let groups = ok(site, &["groups", "list"]);
    assert!(
        groups.contains("version=2") && groups.contains("baseline"),
        "{groups}"
    );
    ok(
        site,
        &["groups", "set", "shop", "blue", "zone=a", "version=3"],
    );
    let out = ctl(site, &["groups", "unset", "shop", "new"]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && words.contains("plugin `p`"),
        "{words}"
    );
    ok(site, &["groups", "unset", "shop", "blue", "--dry-run"]);
    ok(site, &["groups", "unset", "shop", "blue"]);
    assert!(!ok(site, &["groups", "list", "shop"]).contains("blue"));

    let body = "<p>later \u{2603}</p>";
    site.scratch.write("sorry.html", body);
    ok(
        site,
        &["fallback", "put", "sorry", "sorry.html", "--dry-run"],
    );
    assert!(!ok(site, &["fallback", "list"]).contains("sorry"));
    ok(
        site,
        &["fallback", "put", "sorry", "sorry.html", "--status", "503"],
    );
    ok(site, &["fallback", "put", "sorry", "sorry.html"]);
    assert_eq!(ok(site, &["fallback", "get", "sorry"]), body);
    let list = ok(site, &["get", "fallbacks"]);
    assert!(
        list.contains("text/html; charset=utf-8") && list.contains("16 B"),
        "{list}"
    );
    assert!(
        !ctl(site, &["fallback", "delete", "sorry"]).status.success(),
        "it asks"
    );
    ok(site, &["fallback", "delete", "sorry", "--yes"]);
}
