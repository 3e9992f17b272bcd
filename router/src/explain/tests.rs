use std::time::Instant;

use cardea_registry_api::Service;

use super::*;
use crate::fixtures::{World, instance, name, route};

fn question(host: &str, target: &str) -> Question {
    Question {
        method: "GET".to_owned(),
        host: host.to_owned(),
        target: target.to_owned(),
        headers: vec![("x-user".to_owned(), "ann".to_owned())],
        client: None,
    }
}

fn world() -> World {
    let mut world = World::default();
    let mut service = Service::named(name("s"));
    service.balance = Balance::Hash(HashKey::Header("x-user".to_owned()));
    world.service(service);
    for (id, host, prefix) in [
        ("api", "a.local", "/api"),
        ("root", "a.local", "/"),
        ("wide", "*.local", "/api"),
        ("other", "b.local", "/api"),
        ("elsewhere", "c", "/x"),
    ] {
        world.route(route(id, host, prefix, "s"));
    }
    for number in 0..3 {
        world.instance(instance("s", number, 100));
    }
    world.publish(Instant::now());
    world
}

#[test]
fn names_the_winner_the_losers_and_the_peer() {
    let world = world();
    let table = world.shared.table_full().unwrap();
    let now = Instant::now();
    let explanation = explain(&table, &question("A.local:80", "/api/x?y"), now);
    assert_eq!(explanation.route.unwrap().route.id.as_str(), "api");
    let lost: Vec<(String, String)> = explanation
        .lost
        .into_iter()
        .map(|lost| (lost.route.id.to_string(), lost.reason))
        .collect();
    let want = [
        ("root", "`api` has a longer prefix"),
        ("wide", "`api` has a more specific host"),
        ("other", "the host is not `b.local`"),
    ];
    assert_eq!(lost, want.map(|(id, why)| (id.to_owned(), why.to_owned())));

    let upstream = explanation.upstream.unwrap();
    assert_eq!(upstream.balance, "hash of header:x-user");
    assert_eq!(upstream.peers.len(), 3);
    // The very peer that a request with this key gets.
    let input = PickInput {
        key: Some(crate::key::hash(b"ann")),
        replayable: true,
        ..PickInput::default()
    };
    let picked = Balancers::new(9)
        .pick(&world.upstream("s"), &input, &[], now)
        .unwrap();
    assert_eq!(upstream.would_pick, Some(picked.peer().key().to_string()));
}

#[test]
fn a_route_that_stands_in_is_named_and_does_not_answer_yet() {
    let mut world = world();
    world.service(Service::named(name("spare")));
    world.instance(instance("spare", 9, 100));
    world.route(route("spare", "spare.local", "/", "spare"));
    let plugin = "name = \"rescue\"\nroute = \"api\"\n[fallback]\nroute = \"spare\"\n";
    world.plugin(toml::from_str(plugin).unwrap());
    world.publish(Instant::now());
    let table = world.shared.table_full().unwrap();
    let explained = |target| explain(&table, &question("a.local", target), Instant::now());
    let covered = explained("/api/x");
    let said: Vec<_> = covered
        .plugins
        .iter()
        .map(|plugin| {
            (
                &*plugin.plugin,
                plugin.kind,
                &*plugin.verdict,
                plugin.shadow,
            )
        })
        .collect();
    assert_eq!(
        said,
        [("rescue", "fallback", "covered (route spare)", false)]
    );
    // Who answers while nothing is wrong.
    assert_eq!(covered.upstream.unwrap().service, "s");
    assert!(explained("/").plugins.is_empty());
}

#[test]
fn says_why_there_is_no_answer() {
    let mut world = world();
    world.route(route("empty", "empty", "/", "nobody"));
    let table = world.publish(Instant::now());
    let refusal = |host: &str, target: &str| {
        let explanation = explain(&table, &question(host, target), Instant::now());
        explanation.refusal.map(|refusal| refusal.status)
    };
    assert_eq!(refusal("nowhere", "/"), Some(404));
    assert_eq!(refusal("a.local", "/api/../x"), Some(400));
    assert_eq!(refusal("empty", "/"), Some(503));
    assert_eq!(refusal("a.local", "/"), None);
}

#[test]
fn asking_uses_nothing_up() {
    let world = world();
    let table = world.shared.table_full().unwrap();
    let upstream = world.upstream("s");
    explain(&table, &question("a.local", "/"), Instant::now());
    for member in upstream.members() {
        assert_eq!(member.peer.report(Instant::now()).requests, 0);
    }
}
