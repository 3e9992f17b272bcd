//! The files of docs/examples, applied to a real registry: each does what its comments say.

use std::path::Path;

use cardea_tests::{
    backend::Backend,
    site::{SOON, Site},
    wait,
};

use super::{ask, ctl, ok};
use crate::gate;

/// Applies a file with backends in the place of the addresses in it, in their order.
async fn applied(file: &str, names: &[&str]) -> (Site, Vec<Backend>) {
    let site = Site::on_sqlite(&format!("example-{file}")).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/examples/{file}.toml"));
    let mut text = std::fs::read_to_string(&path).unwrap();
    let mut backends = Vec::new();
    for name in names {
        let backend = Backend::start(name).await;
        let at = text.find("address = \"127.0.0.1:").expect("an address") + "address = ".len();
        let end = at + 2 + text[at + 1..].find('"').unwrap();
        // Quoted otherwise, so that the next one is found behind it.
        text.replace_range(at..end, &format!("'{}'", backend.address()));
        backends.push(backend);
    }
    assert!(
        !text.contains("address = \"127"),
        "a backend for each address"
    );
    site.scratch.write("example.toml", &text);
    ok(&site, &["apply", "-f", "example.toml", "--yes"]);
    site.settled().await;
    (site, backends)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_service_is_gray_by_the_tail_of_the_uid() {
    let _machine = gate::shared().await;
    let (site, _backends) = applied("search-gray", &["stable", "gray"]).await;
    for (uid, instance) in [
        ("1703", "gray"),
        ("1742", "stable"),
        ("tester-1", "gray"),
        ("100", "gray"),
        ("99", "stable"),
    ] {
        let answer = ask(
            &site,
            "search.svc.local",
            "GET",
            "/",
            &format!("X-Uid: {uid}\r\n"),
        )
        .await;
        assert!(
            answer.text().starts_with(&format!("{instance} ")),
            "{uid}: {}",
            answer.text()
        );
    }
    let why = ok(
        &site,
        &[
            "explain",
            "GET",
            "http://search.svc.local/",
            "-H",
            "X-Uid: 1703",
        ],
    );
    assert!(why.contains("search-gray"), "{why}");
    ok(&site, &["plugins", "disable", "search-gray"]);
    site.settled().await;
    // No plugin, no groups: both answer.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let answer = ask(&site, "search.svc.local", "GET", "/", "X-Uid: 1742\r\n").await;
        seen.insert(answer.text().split(' ').next().unwrap().to_owned());
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_rankings_are_compared() {
    let _machine = gate::shared().await;
    let (site, _backends) = applied("recommend-ab", &["recommend-1"]).await;
    let variant = async |headers: &str| {
        let answer = ask(&site, "recommend.svc.local", "GET", "/recommend/a", headers).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.header("x-experiment").map(str::to_owned), answer)
    };
    let mut new = 0;
    for uid in 0..1000 {
        let headers = format!("X-Uid: {uid}\r\n");
        let (first, _) = variant(&headers).await;
        new += u32::from(first.as_deref() == Some("ranking=new"));
        if uid % 50 == 0 {
            assert_eq!(
                variant(&headers).await.0,
                first,
                "{uid} sees the same again"
            );
        }
    }
    // 20 % of 1000, give or take four standard deviations.
    assert!((150..=250).contains(&new), "{new}");
    for uid in ["product-manager", "x0007"] {
        let (seen, _) = variant(&format!("X-Uid: {uid}\r\n")).await;
        assert_eq!(seen.as_deref(), Some("ranking=new"), "{uid}");
    }
    let (first, answer) = variant("").await;
    let cookie = answer
        .header("set-cookie")
        .expect("a cookie for callers without a uid");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(variant(&format!("Cookie: {cookie}\r\n")).await.0, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_show_that_everybody_wants_to_see_has_a_page_for_those_beyond() {
    let _machine = gate::shared().await;
    let (site, backends) = applied("star-show", &["tickets-1"]).await;
    let page = "Many are here at once";
    let (mut served, mut limited) = (0, 0);
    for _ in 0..200 {
        let answer = ask(&site, "tickets.svc.local", "GET", "/", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        match answer.header("x-cardea-fallback") {
            None => served += 1,
            Some(why) => {
                assert_eq!(why, "limit");
                assert!(answer.text().contains(page), "{}", answer.text());
                limited += 1;
            }
        }
    }
    assert!(
        served >= 20 && limited > 0,
        "{served} served, {limited} limited"
    );
    assert_eq!(backends[0].state().stats().requests, served);
    drop(backends);
    let why = wait::until("a request that the limit lets through", SOON, || async {
        let answer = ask(&site, "tickets.svc.local", "GET", "/", "").await;
        assert!(answer.text().contains(page), "{}", answer.text());
        let why = answer.header("x-cardea-fallback")?.to_owned();
        (why != "limit").then_some(why)
    })
    .await;
    assert_eq!(why, "unreachable");
    // What the page hides is not forgotten, and what is named cannot be taken away.
    let hidden = site.routers[0]
        .metric("cardea_router_fallback_total", "cause=\"limit\"")
        .await;
    assert!(hidden >= Some(f64::from(limited)), "{hidden:?}");
    let out = ctl(&site, &["fallback", "delete", "tickets-queue", "--yes"]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && words.contains("`tickets-rescue`"),
        "{words}"
    );
}

/// How often the orders are asked for.
const REQUESTS: u64 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_instance_gets_a_tenth_of_the_traffic_three_times() {
    let _machine = gate::shared().await;
    let (site, backends) = applied("copy-to-test", &["orders-1", "test-1"]).await;
    for _ in 0..REQUESTS {
        let answer = ask(&site, "orders.svc.local", "GET", "/", "").await;
        assert!(answer.text().starts_with("orders-1 "), "{answer:?}");
    }
    assert_eq!(backends[0].state().stats().requests, REQUESTS);
    let verdicts = "cardea_router_plugin_verdicts_total";
    let chosen = site.routers[0].metric(verdicts, "verdict=\"copied\"").await;
    let chosen = chosen.unwrap_or_default();
    // A tenth, give or take five standard deviations of the lot.
    assert!((52.0..=148.0).contains(&chosen), "{chosen}");
    wait::until_ok("all copies have arrived", SOON, || async {
        let copies = backends[1].state().stats().requests;
        let all = (copies as f64 - 3.0 * chosen).abs() < 0.5;
        all.then_some(())
            .ok_or(format!("{copies} of 3 times {chosen}"))
    })
    .await;
    // The original may not be taken away for the copy, nor be copied back to.
    let back = "[[plugin]]\nname = \"back\"\nservice = \"orders-test\"\n[plugin.mirror]\nservice = \"orders\"\n";
    site.scratch.write("back.toml", back);
    let out = ctl(&site, &["apply", "-f", "back.toml", "--yes"]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && words.contains("leads back"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_centres_share_a_shop_and_stand_in_for_each_other() {
    let _machine = gate::shared().await;
    let (site, mut backends) = applied("two-centres", &["shop-a", "shop-b"]).await;
    let served = async |headers: &str| {
        let answer = ask(&site, "shop.svc.local", "GET", "/", headers).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().split(' ').next().unwrap().to_owned()
    };
    let share = async || {
        let mut away = 0;
        for _ in 0..100 {
            away += u32::from(served("").await == "shop-b");
        }
        away
    };
    wait::until_ok("the other centre is followed", SOON, async || {
        let away = share().await;
        if away.abs_diff(10) <= 1 {
            Ok(())
        } else {
            Err(format!("{away}"))
        }
    })
    .await;
    for session in 0..20 {
        let cookie = format!("Cookie: session={session}\r\n");
        assert_eq!(served(&cookie).await, served(&cookie).await, "{session}");
    }
    let why = ok(
        &site,
        &[
            "explain",
            "GET",
            "http://shop.svc.local/",
            "-H",
            "Cookie: session=7",
        ],
    );
    assert!(why.contains("by traffic default/shop"), "{why}");
    let shown = ok(&site, &["get", "traffic"]);
    assert!(shown.contains("dc-b 10, default 90"), "{shown}");
    drop(backends.remove(0));
    for _ in 0..30 {
        assert_eq!(served("").await, "shop-b");
    }
}
