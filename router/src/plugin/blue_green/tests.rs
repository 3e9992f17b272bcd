use std::time::Instant;

use cardea_registry_api::InstanceState;
use proptest::prelude::*;

use super::*;
use crate::{
    fixtures::{World, instance, route},
    plugin::tests::{ask, plugin_of},
};

fn sides(toml: &str) -> Sides {
    let policy: BlueGreen = toml::from_str(toml).unwrap();
    policy.check().unwrap();
    Sides::from(&policy)
}

/// So many usable peers of so many, of the live side and of the other one.
fn choose(toml: &str, moved: bool, live: (u64, u64), other: (u64, u64)) -> Choice {
    let all = [live, other].map(|(usable, of)| Ready { usable, of });
    sides(toml).choose(moved, |side| all[side], |side| all[side].usable > 0)
}

#[test]
fn which_side_answers() {
    let at_once = "live = \"green\"";
    let half = "live = \"green\"\nrequire_ready = 50";
    let refuse = "live = \"green\"\nmissing = \"refuse\"";
    for (toml, moved, live, other, wanted) in [
        (at_once, false, (2, 2), (2, 2), Choice::Live),
        (at_once, false, (1, 9), (2, 2), Choice::Live),
        (at_once, false, (0, 9), (2, 2), Choice::Instead),
        (at_once, true, (0, 0), (0, 0), Choice::Nobody),
        (refuse, true, (0, 2), (2, 2), Choice::Nobody),
        (half, false, (2, 4), (4, 4), Choice::Live),
        (half, false, (1, 4), (4, 4), Choice::Held),
        (half, false, (0, 0), (4, 4), Choice::Held),
        (half, false, (1, 4), (0, 4), Choice::Early),
        (half, false, (0, 4), (0, 4), Choice::Nobody),
        // Once it has moved, it is not driven back by a few that fail.
        (half, true, (1, 4), (4, 4), Choice::Live),
        (half, true, (0, 4), (4, 4), Choice::Instead),
    ] {
        assert_eq!(
            choose(toml, moved, live, other),
            wanted,
            "{toml} {moved} {live:?} {other:?}"
        );
    }
}

proptest! {
    /// A request is refused only if nobody is there, or somebody asked for it; and goes to a side only
    /// if that has somebody.
    #[test]
    fn nobody_is_refused_in_vain(
        moved: bool,
        refuse: bool,
        share in 0u16..=100,
        live in (0u64..9, 0u64..9),
        other in (0u64..9, 0u64..9),
    ) {
        let (live, other) = ((live.0.min(live.1), live.1), (other.0.min(other.1), other.1));
        let missing = if refuse { "refuse" } else { "other" };
        let toml = format!("live = \"blue\"\nrequire_ready = {share}\nmissing = \"{missing}\"");
        match choose(&toml, moved, live, other) {
            Choice::Live | Choice::Early => prop_assert!(live.0 > 0),
            Choice::Held => {
                prop_assert!(!moved && other.0 > 0);
                prop_assert!(live.0 * 100 < live.1 * u64::from(share) || live.0 == 0);
            }
            Choice::Instead => prop_assert!(live.0 == 0 && other.0 > 0 && !refuse),
            Choice::Nobody => prop_assert!(live.0 == 0 && (other.0 == 0 || refuse)),
        }
    }
}

const SERVICE: &str = "name = \"cart\"\n\
                       [groups]\nblue = { version = \"1\" }\ngreen = { version = \"2\" }\n";

fn plugin(live: &str, ready: u8) -> String {
    format!(
        "name = \"bg\"\nroute = \"shop\"\n[blue_green]\nlive = \"{live}\"\nrequire_ready = {ready}\n"
    )
}

/// Two blue instances (i0, i1), two green ones (i2, i3), and one of neither (i4).
fn world(plugin: &str) -> World {
    let mut world = World::with(toml::from_str(SERVICE).unwrap(), &[]);
    for number in 0..5 {
        let mut one = instance("cart", number, 100);
        one.version = (number / 2 + 1).to_string();
        world.instance(one);
    }
    world.route(route("shop", "h", "/shop", "cart"));
    world.plugin(plugin_of(plugin));
    world.publish(Instant::now());
    world
}

fn switch(world: &mut World, live: &str) {
    world.plugin(plugin_of(&plugin(live, 60)));
    world.publish(Instant::now());
}

fn checks(world: &World, id: &str, down: bool) {
    let upstream = world.upstream("cart");
    let mut members = upstream.members().iter();
    let member = members.find(|member| member.peer.key().id.as_str() == id);
    member
        .unwrap()
        .peer
        .set_checks(down.then(|| "a test says so".to_owned()));
}

#[test]
fn editing_live_moves_everything_and_back() {
    let mut world = world(&plugin("blue", 60));
    let now = |world: &World| {
        let outcome = ask(world, &[]);
        (outcome.said, outcome.group.unwrap_or_default().join(" "))
    };
    let blue = ("bg=blue".to_owned(), "i0 i1".to_owned());
    let green = ("bg=green".to_owned(), "i2 i3".to_owned());
    assert_eq!(now(&world), blue);
    switch(&mut world, "green");
    assert_eq!(now(&world), green);
    switch(&mut world, "blue");
    assert_eq!(now(&world), blue);
}

#[test]
fn the_old_side_stays_until_enough_of_the_new_one_is_ready() {
    let mut world = world(&plugin("blue", 60));
    assert_eq!(ask(&world, &[]).said, "bg=blue");
    checks(&world, "i2", true);
    switch(&mut world, "green");
    let held = ask(&world, &[]);
    assert_eq!(
        (held.said.as_str(), held.group.unwrap()),
        ("bg=held", vec!["i0".to_owned(), "i1".to_owned()])
    );
    // One that still starts is not ready either.
    checks(&world, "i2", false);
    world.state("cart", 2, InstanceState::Starting);
    world.publish(Instant::now());
    assert_eq!(ask(&world, &[]).said, "bg=held");
    world.state("cart", 2, InstanceState::Up);
    world.publish(Instant::now());
    assert_eq!(ask(&world, &[]).said, "bg=green");
    // It has moved: what fails there from now on does not bring the old version back.
    checks(&world, "i2", true);
    assert_eq!(ask(&world, &[]).said, "bg=green");
    checks(&world, "i3", true);
    assert_eq!(ask(&world, &[]).said, "bg=missing");
}

#[test]
fn neither_side_there_is_nobody_elses_business() {
    let mut world = world(&plugin("blue", 0));
    for number in 0..4 {
        world.remove("cart", number);
    }
    world.publish(Instant::now());
    // The fifth instance is in neither group.
    let refused = ask(&world, &[]);
    assert_eq!(
        (refused.status, refused.said.as_str()),
        (Some(503), "bg=missing")
    );
    let mut shadow = plugin_of(&plugin("blue", 0));
    shadow.shadow = true;
    world.plugin(shadow);
    world.publish(Instant::now());
    let passed = ask(&world, &[]);
    assert_eq!((passed.status, passed.group), (None, None));
}
