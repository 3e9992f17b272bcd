//! Deregister, wait for the routers, only then stop the process.

use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::{
    harness::Scene,
    registry::{Mood, Registry},
};

/// Says when it is told to stop, and ends with 7.
const SERVICE: &str = "trap 'echo told >> $D/log; exit 7' TERM; trap 'echo int >> $D/log; exit 8' INT; \
                       touch $D/ready; while [ -d $D ]; do sleep 0.02; done";
const STUBBORN: &str =
    "trap 'echo told >> $D/log' TERM; touch $D/ready; while [ -d $D ]; do sleep 0.02; done";

#[test]
fn the_process_is_told_only_when_every_router_has_let_go() {
    let (scene, registry) = (Scene::new(), Registry::start());
    registry.set(|state| state.routers_take = Duration::from_millis(800));
    let script = "trap 'date +%s%N > $D/told; exit 7' TERM; touch $D/ready; \
                  while [ -d $D ]; do sleep 0.02; done";
    let mut agent = scene.run(&scene.config(&[&registry], ""), script);
    registry.registered("up");
    agent.signal(Signal::SIGTERM);
    let deregistered = registry.call("DELETE", 0);
    assert!(
        deregistered.path.contains("?wait=4"),
        "{}",
        deregistered.path
    );
    let answered = registry.until("the routers' word", |state| state.answered);
    assert_eq!(agent.ended().0, 7);
    let told = Duration::from_nanos(scene.read("told").trim().parse().unwrap());
    assert!(told >= answered.duration_since(UNIX_EPOCH).unwrap());
    assert!(registry.get(|state| state.instances.is_empty()));
}

#[test]
fn the_process_gets_the_signal_that_came() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let mut agent = scene.run(&scene.config(&[&registry], ""), SERVICE);
    registry.registered("up");
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.ended().0, 8);
    assert_eq!(scene.read("log"), "int\n");
    assert_eq!(registry.calls("DELETE"), 1);
}

#[test]
fn a_dead_registry_blocks_no_longer_than_the_ceiling() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let config = scene
        .config(&[&registry], "")
        .replace("\"5s\"", "\"1500ms\"");
    let mut agent = scene.run(&config, SERVICE);
    registry.registered("up");
    drop(registry);
    agent.signal(Signal::SIGTERM);
    let (status, took) = agent.ended();
    assert_eq!(status, 7);
    assert!(
        took >= Duration::from_millis(1400),
        "{took:?}: it gave up early"
    );
    assert!(took < Duration::from_millis(2500), "{took:?}: it waited on");
}

#[test]
fn a_registry_that_hangs_costs_its_time_out_and_another_is_told() {
    let (scene, hangs, well) = (Scene::new(), Registry::start(), Registry::start());
    let mut agent = scene.run(&scene.config(&[&hangs, &well], ""), SERVICE);
    hangs.registered("up");
    hangs.set(|state| state.mood = Mood::Hanging);
    agent.signal(Signal::SIGTERM);
    well.call("DELETE", 0);
    let waited = well.until("a call that waits", |state| {
        state
            .calls
            .iter()
            .find(|call| call.path.contains("?wait="))
            .cloned()
    });
    assert_eq!(waited.method, "DELETE");
    let (status, took) = agent.ended();
    assert_eq!(status, 7);
    assert!(took < Duration::from_millis(3500), "{took:?}");
}

#[test]
fn a_registry_that_is_unavailable_is_asked_again_until_it_is_back() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let mut agent = scene.run(&scene.config(&[&registry], ""), SERVICE);
    registry.registered("up");
    registry.set(|state| state.mood = Mood::Refusing(503));
    agent.signal(Signal::SIGTERM);
    registry.until("a second attempt", |state| {
        let tried = state
            .calls
            .iter()
            .filter(|call| call.method == "DELETE")
            .count();
        (tried >= 2).then_some(())
    });
    registry.set(|state| state.mood = Mood::Well);
    assert_eq!(agent.ended().0, 7);
    assert!(registry.get(|state| state.instances.is_empty()));
}

#[test]
fn a_registry_that_refuses_is_not_waited_for() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let mut agent = scene.run(&scene.config(&[&registry], ""), SERVICE);
    registry.registered("up");
    registry.set(|state| state.mood = Mood::Refusing(403));
    agent.signal(Signal::SIGTERM);
    let (status, took) = agent.ended();
    assert_eq!(status, 7);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_second_signal_hurries_on() {
    let (scene, registry) = (Scene::new(), Registry::start());
    registry.set(|state| state.routers_take = Duration::from_secs(4));
    let mut agent = scene.run(&scene.config(&[&registry], ""), SERVICE);
    registry.registered("up");
    let began = Instant::now();
    agent.signal(Signal::SIGTERM);
    registry.call("DELETE", 0);
    agent.signal(Signal::SIGTERM);
    scene.until_written("log", "told");
    assert_eq!(agent.ended().0, 7);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_process_that_does_not_stop_is_killed() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let mut agent = scene.run(&scene.config(&[&registry], ""), STUBBORN);
    registry.registered("up");
    agent.signal(Signal::SIGTERM);
    scene.until_written("log", "told");
    let (status, took) = agent.ended();
    assert_eq!(status, 128 + 9);
    assert!(took >= Duration::from_millis(700), "{took:?}");
}

#[test]
fn what_never_was_ready_stops_at_once() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let script = "trap 'exit 5' TERM; echo up > $D/log; while [ -d $D ]; do sleep 0.02; done";
    let mut agent = scene.run(&scene.config(&[&registry], ""), script);
    scene.until_written("log", "up");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended().0, 5);
    assert!(registry.get(|state| state.calls.is_empty()));
}
