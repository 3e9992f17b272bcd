//! What goes wrong on the way.

use cardea_tests::{backend::Mode, http1, site::metric_in};

use super::*;
use crate::gate;

/// A guard trips at the first stage: everything is as before, by itself.
async fn returns(test: &str, mode: Mode, guard: &str, says: &str) {
    let _machine = gate::shared().await;
    let (site, backends) = centres(test, None).await;
    let background = load(&site, 500.0);
    figures(&site).await;
    backends[1].state().set_mode(mode);
    let mut wanted = asked();
    wanted.watch = Span::secs(300);
    let id = begin(&site, &wanted).await;
    let back = until(&site, &id, "it returns", |s| {
        s.state == SwitchState::Returned
    })
    .await;
    let said = &back.events.last().unwrap();
    println!(
        "{} ms after it began: {}",
        said.at - back.created_at,
        said.what
    );
    assert_eq!(said.by, "cardea");
    assert!(said.what.contains(says), "{said:?}");
    let revision = site.client().status().await.unwrap().revision;
    for router in &site.routers[..2] {
        router.wait_applied(revision).await;
    }
    assert!(share(&backends, &background, 500).await < 0.01);
    let mut trips = 0.0f64;
    for registry in &site.registries {
        let metrics = http1::get(registry.admin(), "localhost", "/metrics").await;
        let label = format!("guard=\"{guard}\"");
        let text = metrics.unwrap().text();
        trips += metric_in(&text, "cardea_registry_guard_trips_total", &label).unwrap_or_default();
    }
    assert!((trips - 1.0).abs() < 0.1, "{trips}");
    background.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn errors_of_the_target_send_it_back() {
    returns("switches-errors", Mode::Status(500), "errors", "% of 5xx").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_target_sends_it_back() {
    returns(
        "switches-slow",
        Mode::Slow(300),
        "p99",
        "99 in 100 requests took up to",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn too_little_capacity_is_refused_unless_forced() {
    let _machine = gate::shared().await;
    let (site, backends) = centres("switches-capacity", Some(100)).await;
    let background = load(&site, 500.0);
    figures(&site).await;
    let mut wanted = asked();
    let plan = site.client().preview_switch(&wanted).await.unwrap().plan;
    let target = &plan.services[0].targets[0];
    println!("{}", plan.refusals[0].why);
    assert_eq!((target.capacity, plan.refusals.len()), (Some(100.0), 1));
    assert!(target.load > 100.0, "{target:?}");
    let refused = site.client().begin_switch(&wanted, Span::secs(0)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains(
            "service `shop`: cluster `dc-b` can serve 100 requests a second (declared, 1 instances)"
        ),
        "{refused}"
    );
    assert!(site.client().switches().await.unwrap().is_empty());
    assert!(site.client().all_traffic().await.unwrap().is_empty());
    wanted.force = true;
    wanted.stages = vec![100];
    wanted.watch = Span::secs(0);
    let id = begin(&site, &wanted).await;
    until(&site, &id, "it is done", |s| s.state == SwitchState::Done).await;
    assert!(share(&backends, &background, 500).await > 99.0);
    background.stop().await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_goes_on_when_the_registry_that_drives_it_is_killed() {
    let _machine = gate::shared().await;
    let (mut site, backends) = centres("switches-killed", None).await;
    let background = load(&site, 500.0);
    figures(&site).await;
    let id = begin(&site, &asked()).await;
    until(&site, &id, "the second stage is watched", |switch| {
        switch.stage == 1 && switch.converged_at.is_some()
    })
    .await;
    let postgres = site.postgres.as_ref().unwrap();
    let holder = postgres
        .texts("SELECT holder FROM jobs WHERE name = 'operations'")
        .await;
    let drives = usize::from(holder == ["registry-2"]);
    assert_eq!(holder, [format!("registry-{}", drives + 1)]);
    site.registries[drives].kill();
    let survivor = site.registries[1 - drives].client();
    let done = wait::until_ok("the other one ends it", STAGE, || async {
        let shown = survivor.switch(&id).await.map_err(|e| e.to_string())?;
        let switch = shown.switch.object;
        if switch.state == SwitchState::Done {
            Ok(switch)
        } else {
            Err(format!("{}; {:?}", shown.now, switch.events))
        }
    })
    .await;
    for event in &done.events {
        println!(
            "{} {}: {}",
            event.at - done.created_at,
            event.by,
            event.what
        );
    }
    assert!(share(&backends, &background, 500).await > 99.9);
    background.stop().await.assert_clean();
}
