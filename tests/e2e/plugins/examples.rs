//! The files of docs/examples, applied to a real registry: each does what its comments say.

use std::path::Path;

use cardea_tests::{backend::Backend, site::Site};

use super::{ask, ok};
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
