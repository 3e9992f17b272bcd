use std::{fmt::Write, sync::Arc, time::Instant};

use cardea_registry_api::{Plugin, Service};
use proptest::prelude::*;

use crate::{
    fixtures::{World, instance, name, route},
    table::{
        Table,
        objects::{Key, Objects},
    },
};

/// Of each kind that makes views of services, copies to an address, or looks at another route.
const PLUGINS: &[&str] = &[
    "name = \"g\"\nservice = \"a\"\n[[gray.rules]]\ngroup = \"new\"\n\
     when = { key = \"header:x\", is = [\"1\"] }\n",
    "name = \"l\"\nroute = \"r1\"\n[lanes]\n",
    "name = \"m\"\nroute = \"r2\"\n[mirror]\naddress = \"10.9.9.9:80\"\n",
    "name = \"m2\"\nservice = \"b\"\n[mirror]\naddress = \"10.9.9.9:80\"\n",
    "name = \"o\"\nroute = \"r3\"\n[override]\nattempts = 7\n",
    "name = \"f\"\nroute = \"r4\"\n[fallback]\nroute = \"r5\"\n",
];

fn plugin(toml: &str) -> Plugin {
    let plugin: Plugin = toml::from_str(toml).unwrap();
    plugin.check().unwrap();
    plugin
}

fn world() -> World {
    let mut world = World::default();
    let grouped = "name = \"a\"\n[groups]\nnew = { version = \"2\" }\n";
    world.service(toml::from_str::<Service>(grouped).unwrap());
    for service in ["a", "b"] {
        for number in 0..3 {
            let mut one = instance(service, number, 100);
            one.version = if number == 2 { "2" } else { "1" }.to_owned();
            world.instance(one);
        }
    }
    world
}

/// An upstream in words.
fn upstream(table: &Table, slot: usize) -> String {
    let Some(upstream) = table.upstream_at(slot) else {
        return "nobody".to_owned();
    };
    let mut text = format!(
        "{} whole={} attempts={}",
        upstream.service(),
        upstream.is_whole(),
        upstream.policy().retries.attempts
    );
    for member in upstream.members() {
        _ = write!(text, " {}", member.peer.key().id);
    }
    text
}

/// A table in words: routes with whom they lead to and what plugins they have, and all that is there
/// for anybody.
fn told(table: &Table) -> (Vec<String>, Vec<String>) {
    let mut routes: Vec<String> = table
        .routes()
        .map(|entry| {
            let mut text = format!("{} -> {}", entry.id, upstream(table, entry.slot()));
            if let Some(chain) = &entry.chain {
                let (stages, slots) = chain.told();
                for slot in slots {
                    _ = write!(text, " [{}]", upstream(table, slot));
                }
                _ = write!(text, " {stages} stages");
            }
            text
        })
        .collect();
    routes.sort();
    let all = 0..table.slots.len();
    let there = all.filter(|slot| table.upstream_at(*slot).is_some());
    let mut there: Vec<String> = there.map(|slot| upstream(table, slot)).collect();
    there.sort();
    (routes, there)
}

fn fresh(world: &World) -> Arc<Table> {
    let mut fresh = World::default();
    fresh.dirty = Objects::default().difference(&world.objects);
    fresh.objects = world.objects.clone();
    fresh.publish(Instant::now())
}

proptest! {
    /// Route by route, or all of them at once with what plugins need: the table is the same.
    #[test]
    fn changed_routes_lead_where_a_fresh_build_leads(
        plugins in prop::sample::subsequence(PLUGINS, 0..=PLUGINS.len()),
        steps in prop::collection::vec((0..7u8, 0..4u8, 0..4u8, any::<bool>()), 1..40),
    ) {
        let mut world = world();
        for toml in plugins {
            world.plugin(plugin(toml));
        }
        world.publish(Instant::now());
        for (id, prefix, service, publish) in steps {
            let id = format!("r{id}");
            match service {
                0 => world.objects.remove(&Key::Route(name(&id)), &mut world.dirty),
                _ => world.route(route(
                    &id,
                    "h",
                    &format!("/p{prefix}"),
                    ["a", "b", "c"][usize::from(service) - 1],
                )),
            }
            if publish {
                let table = world.publish(Instant::now());
                prop_assert_eq!(told(&table), told(&fresh(&world)));
            }
        }
        let table = world.publish(Instant::now());
        prop_assert_eq!(told(&table), told(&fresh(&world)));
    }
}

#[test]
fn a_changed_route_leaves_the_others_and_all_upstreams_as_they_are() {
    let mut world = world();
    for number in 0..1000 {
        world.route(route(
            &format!("r{number}"),
            "h",
            &format!("/p{number}"),
            "a",
        ));
    }
    world.route(route("other", "h", "/other", "b"));
    let before = world.publish(Instant::now());
    world.route(route("r7", "h", "/p7", "b"));
    let after = world.publish(Instant::now());
    let entry =
        |table: &Table, path: &str| std::ptr::from_ref(table.route(b"h", path.as_bytes()).unwrap());
    let other = (0..1000).filter(|number| {
        let path = format!("/p{number}");
        entry(&before, &path) != entry(&after, &path)
    });
    assert_eq!(other.collect::<Vec<_>>(), [7]);
    for (one, two) in before.slots.iter().zip(&*after.slots) {
        let same = one.as_ref().map(Arc::as_ptr) == two.as_ref().map(Arc::as_ptr);
        assert!(same, "no upstream is another");
    }
}

#[test]
fn a_routes_number_is_its_services_too() {
    let mut world = world();
    let mut number = |service| {
        world.route(route("r", "h", "/", service));
        let table = world.publish(Instant::now());
        table.route(b"h", b"/").unwrap().index
    };
    let [a, b] = ["a", "b"].map(&mut number);
    assert_ne!(a, b, "what they counted is told apart");
    assert_eq!(["a", "b"].map(&mut number), [a, b]);
}
