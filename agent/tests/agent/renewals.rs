//! Staying registered.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    harness::{Scene, status},
    registry::{Mood, Registry},
};

/// Two services with short leases.
fn config(scene: &Scene, registries: &[&Registry]) -> String {
    let services = [("search", 9001), ("users", 9002)].map(|(name, port)| {
        format!(
            "[[service]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\nlease = \"1s\"\n\
             probe = {{ exec = [\"true\"] }}\n"
        )
    });
    scene.head(registries) + &services.concat()
}

fn both_registered(registry: &Registry) {
    registry.until("both are registered", |state| {
        (state.instances.len() == 2).then_some(())
    });
}

#[test]
fn one_call_renews_all_three_times_a_lease() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let mut agent = scene.serve(&config(&scene, &[&registry]));
    both_registered(&registry);
    let renewals = registry.until("five renewals", |state| {
        let renewals: Vec<_> = state
            .calls
            .iter()
            .filter(|c| c.path == "/v1/renewals")
            .collect();
        (renewals.len() >= 5).then(|| renewals.into_iter().cloned().collect::<Vec<_>>())
    });
    for pair in renewals.windows(2) {
        let apart = pair[1].at.duration_since(pair[0].at);
        assert!(apart > Duration::from_millis(150), "{apart:?}: too often");
        assert!(apart < Duration::from_millis(800), "{apart:?}: too late");
        assert_eq!(pair[1].body["instances"].as_array().unwrap().len(), 2);
    }
    assert_eq!(registry.calls("PUT"), 2);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended().0, 0);
    assert!(registry.get(|state| state.instances.is_empty()));
}

#[test]
fn what_was_forgotten_is_registered_again() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let _agent = scene.serve(&config(&scene, &[&registry]));
    both_registered(&registry);
    registry.set(|state| state.instances.clear());
    both_registered(&registry);
}

#[test]
fn a_service_that_is_refused_takes_no_other_with_it() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let _agent = scene.serve(&config(&scene, &[&registry]));
    both_registered(&registry);
    // As when the token is bound to fewer services than before.
    registry.set(|state| state.forbidden = Some("users"));
    let before = registry.get(|state| state.calls.len());
    registry.until("the other one is renewed without it", |state| {
        state.calls[before..].iter().find_map(|call| {
            let keys = call.body["instances"].as_array()?;
            (keys.len() == 1 && keys[0]["service"] == "search").then_some(())
        })
    });
    let trouble = status(&scene.socket()).services;
    assert_eq!(trouble[0].registry_failure, None);
    assert!(trouble[1].registry_failure.is_some());
    assert_eq!(trouble[1].registered, None);
}

#[test]
fn another_registry_takes_over_and_a_restarted_one_is_found_again() {
    let scene = Scene::new();
    let (first, second) = (Registry::start(), Registry::start());
    let mut agent = scene.serve(&config(&scene, &[&first, &second]));
    both_registered(&first);
    let address = first.address();
    drop(first);
    both_registered(&second);
    let socket = scene.socket();
    assert_eq!(
        status(&socket).registry,
        format!("http://{}", second.address())
    );
    drop(second);
    let first = Registry::start_at(address);
    both_registered(&first);
    first.set(|state| state.mood = Mood::Hanging);
    assert!(agent.runs());
}
