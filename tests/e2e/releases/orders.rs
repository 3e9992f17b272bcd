//! What people order, and what their hands do, by `cardea ctl`.

use super::*;

/// How a release stands, as `ctl --json` says it.
fn stands(shop: &Shop, args: &[&str]) -> ReleaseInfo {
    let mut all = vec!["release"];
    all.extend(args);
    all.push("--json");
    let text = ok(&shop.site, &all);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let info = if value.get("analysis").is_some() || value.get("revision").is_some() {
        value
    } else {
        value["release"].clone()
    };
    serde_json::from_value(info).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn refused(shop: &Shop, args: &[&str]) -> String {
    let out = ctl(&shop.site, args);
    assert!(!out.status.success(), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

fn percent(info: &ReleaseInfo) -> u16 {
    info.release.percent.hundredths() / 100
}

const START: [&str; 9] = [
    "release",
    "start",
    "shop",
    "--to",
    "v2",
    "--steps",
    "10:manual,50:manual,100:manual",
    "--yes",
    "--reason",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_promote_pause_resume_abort_and_roll_back() {
    let _machine = gate::shared().await;
    let shop = Shop::start(Site::on_sqlite("release-orders").await).await;
    let preview = ok(&shop.site, &["release", "preview", "shop", "--to", "v2"]);
    for said in [
        "shop: from baseline to v2",
        "steps      25 % (1m) → 50 % (1m) → 100 % (0s)",
        "nothing was done",
        "note: until now nothing kept requests from `v2`",
    ] {
        assert!(preview.contains(said), "{preview}");
    }
    assert!(
        shop.site
            .client()
            .releases()
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let no = refused(&shop, &["release", "start", "shop", "--to", "v2", "--yes"]);
    assert!(no.contains("reason: say why"), "{no}");
    let no = refused(
        &shop,
        &[
            "release", "start", "shop", "--to", "v9", "--yes", "--reason", "r",
        ],
    );
    assert!(
        no.contains("candidate: service `shop` has no group `v9`"),
        "{no}"
    );
    let start = |reason| [&START[..], &[reason]].concat();
    ok(&shop.site, &start("first"));
    let first = stands(&shop, &["status"]);
    assert_eq!(
        (percent(&first), state(&first)),
        (10, ReleaseState::Running)
    );
    let id = first.release.id.clone();
    // One at a time, by name.
    let no = refused(&shop, &start("second"));
    assert!(no.contains(&format!("release `{id}`")), "{no}");
    // Nobody promotes what waits for people.
    let waits = first.analysis.unwrap().waits_for;
    assert_eq!(waits.as_deref(), Some("somebody to promote it"));
    assert_eq!(
        percent(&stands(
            &shop,
            &["promote", "--yes", "--reason", "it looks well"]
        )),
        50
    );
    assert_eq!(state(&stands(&shop, &["pause"])), ReleaseState::Paused);
    assert_eq!(state(&stands(&shop, &["resume"])), ReleaseState::Running);
    assert_eq!(
        percent(&stands(&shop, &["promote", "--full", "--yes"])),
        100
    );
    let (old, new) = shop.answered(100).await;
    assert_eq!(old, 0);
    assert!(new >= 100);
    assert_eq!(
        state(&stands(&shop, &["rollback", "--yes"])),
        ReleaseState::RolledBack
    );
    let (_, new) = shop.answered(100).await;
    assert_eq!(new, 0);
    // Left where it is.
    ok(&shop.site, &start("third"));
    stands(&shop, &["promote", "--yes"]);
    let left = stands(&shop, &["abort", "--yes"]);
    assert_eq!((percent(&left), state(&left)), (50, ReleaseState::Aborted));
    let (old, new) = shop.answered(400).await;
    assert!(old > 100 && new > 100, "{old} {new}");
    let no = refused(
        &shop,
        &["release", "promote", left.release.id.as_str(), "--yes"],
    );
    assert!(no.contains("is over: it is aborted"), "{no}");
    let list = ok(&shop.site, &["release", "list"]);
    assert!(
        list.contains("rolled-back") && list.contains("aborted"),
        "{list}"
    );
    let log = shop.site.client().changes(0, None).await.unwrap();
    let mut causes = log
        .items
        .iter()
        .filter(|change| change.cause == format!("release {id}"));
    assert!(causes.any(|change| change.kind == "plugin" && change.actor == "test-operator"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_on_the_plugin_makes_it_pause_and_other_rules_stay() {
    let _machine = gate::shared().await;
    let shop = Shop::start(Site::on_sqlite("release-hand").await).await;
    let rule = r#"{"name":"rules","service":"shop","gray":{"rules":[
        {"when":{"key":"header:x-tester","present":true},"group":"v2"}]}}"#;
    let plugin: Plugin = serde_json::from_str(rule).unwrap();
    let client = shop.site.client();
    client
        .put_plugin(&plugin, Precondition::None)
        .await
        .unwrap();
    let id = shop.begin(&plan(&["10:manual", "100:0s"])).await;
    let change = |edit: fn(&mut Plugin)| {
        let client = client.clone();
        async move {
            let mut stored = client.plugin(&name("rules")).await.unwrap();
            edit(&mut stored.object);
            let seen = Precondition::Revision(stored.revision);
            client.put_plugin(&stored.object, seen).await.unwrap();
        }
    };
    let groups = || async {
        let stored = client.plugin(&name("rules")).await.unwrap();
        stored.object.gray.unwrap().rules.len()
    };
    assert_eq!(groups().await, 2, "its own behind the other");
    // Another rule is nobody's business; its own is.
    change(|plugin| {
        plugin.gray.as_mut().unwrap().rules[0].when.key = "header:x-other".parse().ok();
    })
    .await;
    change(|plugin| {
        let rules = &mut plugin.gray.as_mut().unwrap().rules;
        rules[1].when.percent = serde_json::from_str("33").ok();
    })
    .await;
    let paused = shop
        .wait(&id, "it pauses", |info| state(info) == ReleaseState::Paused)
        .await;
    let why = paused.release.why.unwrap();
    assert_eq!(
        why,
        "the release's rule in plugin `rules` was changed, by hand"
    );
    let events = paused.release.events.len();
    assert_eq!(
        events, 2,
        "started and paused, not paused for the other rule"
    );
    // Whoever resumes wants its share back.
    ok(&shop.site, &["release", "resume"]);
    let stored = client.plugin(&name("rules")).await.unwrap();
    let rules = stored.object.gray.unwrap().rules;
    assert_eq!(rules[1].when.percent.unwrap().hundredths(), 1000);
    assert_eq!(
        rules[0].when.key.as_ref().unwrap().to_string(),
        "header:x-other"
    );
    ok(&shop.site, &["release", "rollback", "--yes"]);
    assert_eq!(groups().await, 2);
}
