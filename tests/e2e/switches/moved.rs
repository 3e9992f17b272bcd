//! Requests move in stages, and back, and none of them fails.

use super::*;
use crate::{
    gate,
    websocket::{echo, open},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stages_move_2000_requests_a_second_without_one_failing_and_undo_is_at_once() {
    let _machine = gate::shared().await;
    let (site, backends) = centres("switches-stages", None).await;
    let background = load(&site, 2000.0);
    figures(&site).await;
    let preview = site.client().preview_switch(&asked()).await.unwrap();
    assert!(preview.begun.is_none());
    let shop = &preview.plan.services[0];
    println!("preview: {shop:?}, {:?}", preview.plan.notes);
    assert_eq!(preview.plan.refusals, []);
    assert_eq!(
        (shop.targets[0].cluster.as_str(), shop.targets[0].instances),
        ("dc-b", 1)
    );

    let id = begin(&site, &asked()).await;
    for (stage, percent) in [(0, 10.0), (1, 50.0), (2, 100.0)] {
        until(&site, &id, "the stage is at all routers", |switch| {
            switch.stage == stage && switch.converged_at.is_some()
        })
        .await;
        let share = share(&backends, &background, 1000).await;
        println!("stage {}: {share:.2} %", stage + 1);
        assert!((share - percent).abs() <= 1.0, "{share}");
    }
    let done = until(&site, &id, "it is done", |s| s.state == SwitchState::Done).await;
    for event in &done.events {
        println!(
            "{} {}: {}",
            event.at - done.created_at,
            event.by,
            event.what
        );
    }
    assert_eq!(
        (done.author.as_str(), done.asked.reason.as_str()),
        ("test-admin", "power")
    );

    let took = undo(&site, &id).await;
    let back = share(&backends, &background, 1000).await;
    println!("undone at all routers after {took:.1?}: {back:.2} %");
    assert!(took < MOVED, "{took:?}");
    assert!(back < 0.01, "{back}");
    let report = background.stop().await;
    println!("{report}");
    report.assert_clean();
    let log = site.client().changes(0, Some(1000)).await.unwrap().items;
    let cause = format!("switch {id}");
    let moves = log.iter().filter(|row| row.kind == "traffic");
    assert!(moves.clone().count() >= 4);
    assert!(
        moves
            .clone()
            .all(|row| row.cause == cause && row.actor == "test-admin")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_websocket_stays_until_it_ends_by_itself() {
    let _machine = gate::shared().await;
    let (site, backends) = centres("switches-websocket", None).await;
    site.route("chat.test", "chat", |_| {}).await;
    for (centre, backend) in ["dc-a", "dc-b"].into_iter().zip(&backends) {
        register(&site, centre, "chat", backend, None).await;
    }
    for router in &site.routers {
        serves(router, "chat.test").await;
    }
    let at = site.routers[0].traffic();
    let opened = move || tokio::task::spawn_blocking(move || open(at));
    let (mut old, own) = opened().await.unwrap();
    assert_eq!(own, "dc-a");
    let mut asked = asked();
    asked.service = Some(name("chat"));
    asked.stages = vec![100];
    asked.watch = Span::secs(0);
    let id = begin(&site, &asked).await;
    until(&site, &id, "it is done", |s| s.state == SwitchState::Done).await;
    let (_new, own) = opened().await.unwrap();
    assert_eq!(own, "dc-b");
    assert_eq!(echo(&mut old, "still").unwrap(), "dc-a still");
    assert_eq!(backends[0].state().stats().websockets, 1);
    drop(old);
    wait::until_true("it is gone with its caller", SOON, || {
        backends[0].state().stats().websockets == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_person_approves_and_a_hand_is_noticed() {
    let _machine = gate::shared().await;
    let (site, backends) = centres("switches-approval", None).await;
    let background = load(&site, 200.0);
    let mut wanted = asked();
    wanted.approval = true;
    wanted.stages = vec![50, 100];
    wanted.watch = Span::secs(600);
    let asked_by = operator(&site);
    let begun = asked_by.begin_switch(&wanted, Span::secs(0)).await.unwrap();
    let id = begun.begun.unwrap().switch.object.id;
    let approve = |client: cardea_registry_api::client::Client| {
        let id = id.clone();
        async move {
            let word = Word::default();
            client
                .act_on_switch(&id, SwitchAct::Approve, &word, Span::secs(5))
                .await
        }
    };
    let own = approve(asked_by.clone()).await.unwrap_err().to_string();
    assert!(own.contains("somebody else has to approve it"), "{own}");
    assert!(share(&backends, &background, 200).await < 0.01);
    approve(site.client()).await.unwrap();
    let running = until(&site, &id, "its stage is there", |s| {
        s.converged_at.is_some()
    })
    .await;
    assert_eq!(running.approved_by.as_deref(), Some("test-admin"));
    assert!((share(&backends, &background, 500).await - 50.0).abs() <= 1.0);

    // Somebody else edits what it moves: it stops, says so, and goes over it only with force.
    let mut traffic = cardea_registry_api::Traffic::of("dc-a".parse().unwrap());
    traffic.weights = [(name("dc-a"), 70), (name("dc-b"), 30)].into();
    let client = site.client();
    client
        .put_traffic(&traffic, Precondition::Any)
        .await
        .unwrap();
    let paused = until(&site, &id, "it pauses", |s| s.state == SwitchState::Paused).await;
    let said = &paused.events.last().unwrap().what;
    assert!(said.contains("changed by somebody else"), "{said}");
    let refused = client
        .act_on_switch(&id, SwitchAct::Undo, &Word::default(), Span::secs(0))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("with force it is written over"),
        "{refused}"
    );
    let force = Word {
        reason: String::new(),
        force: true,
    };
    let undone = client
        .act_on_switch(&id, SwitchAct::Undo, &force, Span::secs(5))
        .await
        .unwrap();
    assert!(undone.pending.is_empty());
    assert!(share(&backends, &background, 300).await < 0.01);
    background.stop().await.assert_clean();
}
