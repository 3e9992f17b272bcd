//! An experiment's winner gets the weight: callers stay where they should, and a faulty one goes back.

use cardea_registry_api::release::ByWeights;
use cardea_tests::http1::Connection;

use super::*;

/// How many callers are asked for.
const CALLERS: usize = 8000;

/// Callers with a name are known by it; those without one – the load's – get a cookie, which they lose.
const AB: &str = r#"{"name":"buttons","service":"shop","ab":{"experiments":[{"name":"button",
    "key":"header:x-user","cookie":"ab","variants":[
        {"name":"a","weight":100,"group":"baseline"},{"name":"b","weight":100,"group":"v2"}]}]}}"#;

async fn experiment(scenario: &str) -> Shop {
    let shop = Shop::start(Site::on_sqlite(scenario).await).await;
    let plugin: Plugin = serde_json::from_str(AB).unwrap();
    let client = shop.site.client();
    client
        .put_plugin(&plugin, Precondition::None)
        .await
        .unwrap();
    shop.applied().await;
    shop
}

fn winner(steps: &[&str]) -> ReleasePlan {
    let mut winner = plan(steps);
    winner.candidate = name("b");
    winner.ab = Some(ByWeights {
        experiment: name("button"),
    });
    winner
}

/// Who of all callers sees the new version, once routers have the plugins as they are.
async fn at_the_winner(shop: &Shop) -> Vec<bool> {
    shop.applied().await;
    let router = shop.site.routers[0].traffic();
    let mut connection = Connection::open(router, SOON).await.unwrap();
    let mut all = Vec::with_capacity(CALLERS);
    for caller in 0..CALLERS {
        let request = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\nX-User: caller-{caller}\r\n\r\n");
        let answer = connection.exchange(request.as_bytes(), SOON).await;
        let answer = answer.unwrap_or_else(|e| panic!("caller {caller}: {e:?}"));
        assert!(answer.status == 200, "caller {caller}: {answer:?}");
        all.push(answer.text().starts_with("new "));
    }
    all
}

/// Within a point of what was asked for.
fn assert_share(all: &[bool], percent: f64) {
    let share = all.iter().filter(|at| **at).count() as f64 * 100.0 / all.len() as f64;
    println!("{share:.2} % of the callers, {percent} % asked for");
    assert!((share - percent).abs() <= 1.0, "{share} % of {percent} %");
}

/// Whoever saw the new version before sees it still: shares only add callers.
fn assert_only_added(before: &[bool], after: &[bool]) {
    let lost = before.iter().zip(after).filter(|(was, is)| **was && !**is);
    assert_eq!(lost.count(), 0, "they saw the winner before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_experiments_winner_takes_all_step_by_step_and_callers_stay_with_it() {
    let _machine = gate::shared().await;
    let shop = experiment("release-winner").await;
    let load = shop.load(100.0);
    let before = at_the_winner(&shop).await;
    assert_share(&before, 50.0);
    let id = shop.begin(&winner(&["75:manual", "90:5s", "100:0s"])).await;
    let most = at_the_winner(&shop).await;
    assert_share(&most, 75.0);
    assert_only_added(&before, &most);
    ok(&shop.site, &["release", "promote", "--yes"]);
    // From here on by itself, over the figures of both variants' groups.
    let over = shop
        .wait(&id, "its end", |info| state(info).is_over())
        .await;
    assert_eq!(state(&over), ReleaseState::Finished, "{over:?}");
    let shares: Vec<u16> = (over.release.events.iter())
        .map(|event| event.percent.hundredths() / 100)
        .collect();
    assert_eq!(shares, [75, 90, 100, 100]);
    assert!(at_the_winner(&shop).await.iter().all(|at| *at));
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
    // It is over, and all are where they were again.
    ok(&shop.site, &["release", "rollback", id.as_str(), "--yes"]);
    assert_eq!(at_the_winner(&shop).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_winner_goes_back_and_all_callers_are_where_they_were() {
    let _machine = gate::alone().await;
    let shop = experiment("release-loser").await;
    let before = at_the_winner(&shop).await;
    shop.new.state().set_mode(Mode::Failing(20));
    let id = shop.begin(&winner(&["75:1m", "100:0s"])).await;
    let load = shop.load(200.0);
    let begun = Instant::now();
    let over = shop
        .wait(&id, "it is back", |info| state(info).is_over())
        .await;
    println!("back after {:?}: {:?}", begun.elapsed(), over.release.why);
    assert_eq!(state(&over), ReleaseState::RolledBack);
    assert!(begun.elapsed() < BACK);
    let why = over.release.why.unwrap();
    assert!(why.starts_with("`b` has more errors at 75 %"), "{why}");
    load.stop().await;
    shop.new.state().set_mode(Mode::Ok);
    assert_eq!(at_the_winner(&shop).await, before);
}
