//! The candidate's last instance goes away in the middle of a release.

use super::*;

/// First it dies and nobody says so; then somebody does. Callers notice neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_baseline_answers_for_a_candidate_whose_last_instance_dies_and_it_goes_back() {
    let _machine = gate::shared().await;
    let mut shop = Shop::start(Site::on_sqlite("release-gone").await).await;
    let mut half = plan(&["50:manual", "100:manual"]);
    // Only what becomes of its instances matters here.
    half.limits.least_requests = 1_000_000;
    let id = shop.begin(&half).await;
    shop.applied().await;
    let load = shop.load(200.0);
    load.pass(300, SOON).await;
    assert!(shop.new.state().stats().requests > 100);
    let stand_in = Backend::start("nobody's").await;
    drop(std::mem::replace(&mut shop.new, stand_in));
    load.pass(600, SOON * 3).await;
    let stands = shop.see(&id).await;
    assert_eq!(state(&stands), ReleaseState::Running);
    let gone = key(CLUSTER, "shop", "v2");
    let client = shop.site.client();
    client.deregister(&gone, Span::secs(0)).await.unwrap();
    let over = shop
        .wait(&id, "it is back", |info| state(info).is_over())
        .await;
    assert_eq!(state(&over), ReleaseState::RolledBack);
    assert_eq!(
        over.release.why.as_deref(),
        Some("no instance of `v2` takes requests any more")
    );
    load.pass(200, SOON).await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
}
