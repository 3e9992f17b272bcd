use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::{
    fixtures::{World, instance, route},
    plugin::{
        asked::Headers,
        tests::{ask, ask_as, plugin_of},
    },
};

const LANES: &str = "name = \"l\"\n[lanes]\ncallers = [\"127.0.0.0/8\"]\n\
                     [[lanes.entry]]\nlane = \"gray\"\nwhen = { key = \"header:x-user\", is = [\"u1\"] }\n";

/// Instances i0 and i1 of no lane, i2 of lane `gray`, i3 of lane `blue`.
fn world(plugins: &[&str]) -> World {
    let service = "name = \"cart\"\n[groups]\nnew = { version = \"2\" }\n";
    let mut world = World::with(toml::from_str(service).unwrap(), &[]);
    for number in 0..4 {
        let mut one = instance("cart", number, 100);
        one.version = if number == 1 || number == 2 { "2" } else { "1" }.to_owned();
        let lane = ["", "", "gray", "blue"][number];
        if !lane.is_empty() {
            one.labels.insert("lane".to_owned(), lane.to_owned());
        }
        world.instance(one);
    }
    world.route(route("shop", "h", "/shop", "cart"));
    for plugin in plugins {
        world.plugin(plugin_of(plugin));
    }
    world.publish(Instant::now());
    world
}

/// Who would be asked, what was said, and what is written to the request.
fn at(world: &World, headers: &[(&str, &str)]) -> (String, String, String) {
    let outcome = ask(world, headers);
    let table = world.shared.table_full().unwrap();
    let route = table.route(b"h", b"/shop").unwrap();
    let group = outcome
        .group
        .unwrap_or_else(|| crate::plugin::tests::ids(&table, route.slot()));
    let lines = String::from_utf8(outcome.scratch.request).unwrap();
    (group.join(" "), outcome.said, lines)
}

#[test]
fn a_tag_keeps_a_request_in_its_lane() {
    let world = world(&[LANES]);
    for (headers, group, said, lines) in [
        (&[][..], "i0 i1", "l=untagged", ""),
        (
            &[("x-user", "u1")],
            "i2",
            "l=lane",
            "x-lane: gray\r\nBaggage: lane=gray\r\n",
        ),
        (
            &[("x-lane", "blue")],
            "i3",
            "l=lane",
            "x-lane: blue\r\nBaggage: lane=blue\r\n",
        ),
        // The tag that it has, not the one that it would be given here.
        (
            &[("baggage", "a=1, lane=blue;p=2 ,b=2"), ("x-user", "u1")],
            "i3",
            "l=lane",
            "x-lane: blue\r\nBaggage: a=1,b=2,lane=blue\r\n",
        ),
        // A lane that the service has not: the baseline, and the tag goes on.
        (
            &[("x-lane", "other")],
            "i0 i1",
            "l=baseline",
            "x-lane: other\r\nBaggage: lane=other\r\n",
        ),
        // Nothing that could be a lane, and two of them.
        (&[("x-lane", "a b")], "i0 i1", "l=ignored", ""),
        (
            &[("x-lane", "gray"), ("baggage", "lane=blue,a=1")],
            "i0 i1",
            "l=ignored",
            "Baggage: a=1\r\n",
        ),
        (
            &[("baggage", "xlane=gray,lane2=gray")],
            "i0 i1",
            "l=untagged",
            "",
        ),
    ] {
        let seen = at(&world, headers);
        let wanted = (group.to_owned(), said.to_owned(), lines.to_owned());
        assert_eq!(seen, wanted, "{headers:?}");
    }
    let long = "a".repeat(64);
    assert_eq!(at(&world, &[("x-lane", &long)]).1, "l=ignored");
}

#[test]
fn only_whom_it_believes() {
    let stranger = Asked {
        caller: IpAddr::from([192, 0, 2, 1]),
        ..Asked::default()
    };
    let proxy = Asked {
        trusted: true,
        ..stranger
    };
    let tagged = [("x-lane", "gray"), ("baggage", "lane=gray,a=1")];
    let trusting = world(&[LANES]);
    let refused = ask_as(&trusting, stranger, &tagged);
    assert_eq!(refused.said, "l=ignored");
    // Nothing of the tag reaches the service.
    assert_eq!(refused.scratch.request, b"Baggage: a=1\r\n");
    assert_eq!(refused.gone, ["x-lane", "baggage"]);
    assert_eq!(ask_as(&trusting, proxy, &tagged).said, "l=lane");
    let open = LANES.replace("[lanes]", "[lanes]\naccept = \"anybody\"");
    assert_eq!(ask_as(&world(&[&open]), stranger, &tagged).said, "l=lane");
    // Whoever comes may still be tagged here.
    let entered = ask_as(&trusting, stranger, &[("x-user", "u1"), ("x-lane", "blue")]);
    assert_eq!(entered.said, "l=lane");
    assert_eq!(entered.group.unwrap(), ["i2"]);
}

#[test]
fn lanes_follow_their_instances_and_are_nobody_elses() {
    let mut world = world(&[LANES]);
    world.remove("cart", 2);
    world.publish(Instant::now());
    assert_eq!(at(&world, &[("x-lane", "gray")]).1, "l=baseline");
    let mut back = instance("cart", 9, 100);
    back.labels.insert("lane".to_owned(), "gray".to_owned());
    world.instance(back);
    world.publish(Instant::now());
    assert_eq!(at(&world, &[("x-lane", "gray")]).0, "i9");
    // Only lanes are left: nobody else is served by them.
    for number in [0, 1] {
        world.remove("cart", number);
    }
    world.publish(Instant::now());
    assert_eq!(at(&world, &[]).0, "");
}

#[test]
fn a_lane_that_is_down_falls_back_or_refuses() {
    let down = |world: &mut World| {
        world.state("cart", 2, cardea_registry_api::InstanceState::Draining);
        world.publish(Instant::now());
    };
    let mut falls = world(&[LANES]);
    down(&mut falls);
    let (group, said, lines) = at(&falls, &[("x-lane", "gray")]);
    assert_eq!((group.as_str(), said.as_str()), ("i0 i1", "l=missing"));
    assert!(lines.contains("x-lane: gray"));
    let refuse = LANES.replace("[lanes]", "[lanes]\nmissing = \"refuse\"");
    let mut refuses = world(&[&refuse]);
    down(&mut refuses);
    let refused = ask(&refuses, &[("x-lane", "gray")]);
    assert_eq!(
        (refused.status, refused.said.as_str()),
        (Some(503), "l=missing")
    );
}

const GRAY: &str = "name = \"g\"\n[[gray.rules]]\ngroup = \"new\"\n\
                    when = { key = \"header:x-new\", present = true }\n";

#[test]
fn groups_are_chosen_outside_of_lanes() {
    let world = world(&[LANES, GRAY]);
    // i2 is of the new version too, but in a lane.
    let (group, said, _) = at(&world, &[("x-new", "1")]);
    assert_eq!((group.as_str(), said.as_str()), ("i1", "l=untagged g=new"));
    assert_eq!(at(&world, &[]).0, "i0");
    let (group, said, _) = at(&world, &[("x-new", "1"), ("x-lane", "blue")]);
    assert_eq!((group.as_str(), said.as_str()), ("i3", "l=lane"));
}

#[test]
fn a_shadow_only_says_so() {
    let shadow = LANES.replace("name =", "shadow = true\nname =");
    let world = world(&[&shadow]);
    let (group, said, lines) = at(&world, &[("x-lane", "gray")]);
    assert_eq!(
        (group.as_str(), said.as_str(), lines.as_str()),
        ("i0 i1 i2 i3", "l=lane", "")
    );
}

fn tagging() -> Tagging {
    Tagging::new(&Lanes::default()).unwrap()
}

proptest! {
    /// Whatever else is in the baggage, it goes on as it was, in order, and the tag is there once.
    #[test]
    fn baggage_keeps_everything_else(
        before in prop::collection::vec("[a-km-z]{1,5}=[a-z0-9;=%]{0,8}", 0..6),
        after in prop::collection::vec("[a-km-z]{1,5}=[a-z0-9;=%]{0,8}", 0..6),
        tagged: bool,
        split: bool,
    ) {
        let tag = tagged.then(|| "lane = old;x=1".to_owned());
        let all: Vec<String> = before.iter().cloned().chain(tag).chain(after.clone()).collect();
        let lists = if split { all.clone() } else { vec![all.join(" , ")] };
        let list: Vec<_> = lists.into_iter().map(|l| ("baggage".to_owned(), l)).collect();
        let asked = Asked { headers: Headers::List(&list), ..Asked::default() };
        let tagging = tagging();
        let wanted = if tagged { Tag::Lane(b"old") } else { Tag::None };
        prop_assert_eq!(tagging.tag(&asked), wanted);
        let mut out = Vec::new();
        tagging.write(&asked, Some(b"gray"), &mut out);
        let kept: Vec<String> = before.into_iter().chain(after).chain(["lane=gray".to_owned()]).collect();
        let wanted = format!("x-lane: gray\r\nBaggage: {}\r\n", kept.join(","));
        prop_assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn whatever_comes_is_no_more_than_a_lane(value in prop::collection::vec(any::<u8>(), 0..80)) {
        let fits = std::str::from_utf8(&value).is_ok_and(|text| {
            (1..=63).contains(&text.len())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        });
        prop_assert_eq!(is_lane(&value), fits);
    }
}
