use std::time::Instant;

use cardea_registry_api::Service;

use super::*;
use crate::{
    balance::random::Random,
    fixtures::{World, instance, name, route},
    plugin::{Mode, Scratch, Stage, asked::Headers},
};

fn world(plugins: &[&str]) -> World {
    let service: Service =
        toml::from_str("name = \"cart\"\n[groups]\ngray = { version = \"2\" }\n").unwrap();
    let mut world = World::with(service, &[100]);
    world.instance(instance("copy", 7, 100));
    world.route(route("shop", "h", "/shop", "cart"));
    for toml in plugins {
        let plugin: cardea_registry_api::Plugin = toml::from_str(toml).unwrap();
        plugin.check().unwrap();
        world.plugin(plugin);
    }
    world.publish(Instant::now());
    world
}

/// What was said, and whether a copy is made.
fn ask(world: &World, asked: Asked<'_>, headers: &[(&str, &str)]) -> (String, bool) {
    let list: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let asked = Asked {
        path: b"/shop/x",
        headers: Headers::List(&list),
        ..asked
    };
    let table = world.shared.table_full().unwrap();
    let chain = table
        .route(b"h", b"/shop/x")
        .unwrap()
        .chain
        .clone()
        .unwrap();
    let mut scratch = Scratch::default();
    let decision = chain.decide(&asked, &table, 0, &mut scratch, Mode::Real);
    let said = decision.said.each(&chain);
    let said: Vec<_> = said
        .map(|(head, said)| format!("{}={said}", head.name))
        .collect();
    (said.join(" "), decision.mirror.is_some())
}

const PLAIN: &str = "name = \"m\"\n[mirror]\nservice = \"copy\"\n";

#[test]
fn requests_are_copied_by_method_and_condition_and_never_twice() {
    let method = |method: &'static [u8]| Asked {
        method,
        ..Asked::default()
    };
    let shadow = PLAIN.replace("name = \"m\"", "name = \"m\"\nshadow = true");
    let posts = format!("{PLAIN}methods = [\"POST\"]\n");
    let some = format!("{PLAIN}[mirror.when]\nkey = \"header:x-user\"\npresent = true\n");
    let none: [(&str, &str); 0] = [];
    for (toml, asked, headers, said, copies) in [
        (PLAIN, method(b"GET"), &none[..], "m=copied", true),
        (PLAIN, method(b"OPTIONS"), &none, "m=copied", true),
        (PLAIN, method(b"POST"), &none, "", false),
        (
            PLAIN,
            method(b"GET"),
            &[("x-cardea-mirror", "1")],
            "",
            false,
        ),
        (
            PLAIN,
            method(b"GET"),
            &[("upgrade", "websocket")],
            "",
            false,
        ),
        (&shadow, method(b"GET"), &none, "m=copied", false),
        (&posts, method(b"POST"), &none, "m=copied", true),
        (&posts, method(b"GET"), &none, "", false),
        (&some, method(b"GET"), &none, "", false),
        (&some, method(b"GET"), &[("x-user", "1")], "m=copied", true),
    ] {
        let found = ask(&world(&[toml]), asked, headers);
        assert_eq!(found, (said.to_owned(), copies), "{toml} {headers:?}");
    }
    // What another plugin refuses reaches no service, nor its copy.
    let refused = world(&[PLAIN, "name = \"r\"\n[restrict]\nmethods = [\"PUT\"]\n"]);
    assert_eq!(
        ask(&refused, method(b"GET"), &none),
        ("r=refused".to_owned(), false)
    );
}

#[test]
fn shares_are_as_asked_and_other_than_those_of_other_plugins() {
    let mut random = Random::new(7);
    let gray = "name = \"g\"\n[[gray.rules]]\ngroup = \"gray\"\nwhen = { percent = 10 }\n";
    for share in ["0.01", "10", "100"] {
        let world = world(&[&format!("{PLAIN}percent = {share}\n"), gray]);
        let (mut copied, mut both) = (0_u32, 0_u32);
        for _ in 0..100_000 {
            let lot = random.next();
            let asked = Asked {
                lot,
                ..Asked::default()
            };
            let (said, copies) = ask(&world, asked, &[]);
            copied += u32::from(copies);
            both += u32::from(copies && !said.contains("baseline"));
        }
        let (copied, both) = (f64::from(copied) / 1000.0, f64::from(both) / 1000.0);
        let wanted: f64 = share.parse().unwrap();
        assert!((copied - wanted).abs() < 0.5, "{share} % came to {copied}");
        // The lot of one does not decide the other's.
        assert!((both - copied / 10.0).abs() < 0.5, "{copied} {both}");
    }
}

#[test]
fn targets_are_services_groups_and_addresses_that_no_route_leads_to() {
    let target = |world: &World| {
        let table = world.shared.table_full().unwrap();
        let chain = table
            .route(b"h", b"/shop/x")
            .unwrap()
            .chain
            .clone()
            .unwrap();
        let Some(Stage::Mirror(mirror)) = chain.stages.last() else {
            panic!("it is the last stage");
        };
        let upstream = table.upstream_at(mirror.slot.unwrap())?;
        let members: Vec<_> = upstream
            .members()
            .iter()
            .map(|m| m.peer.authority().to_owned())
            .collect();
        Some((upstream.service().to_string(), members.join(" ")))
    };
    let of = |to: &str| format!("name = \"m\"\n[mirror]\n{to}\n");
    let mut world = world(&[&of("service = \"copy\"")]);
    let text = |s: &str, m: &str| Some((s.to_owned(), m.to_owned()));
    assert_eq!(target(&world), text("copy", "10.0.0.8:80"));
    for (to, expected) in [
        ("group = \"gray\"", text("cart", "")),
        ("service = \"nobody\"", None),
        (
            "address = \"test.local:81\"",
            text("mirror", "test.local:81"),
        ),
    ] {
        world.plugin(toml::from_str(&of(to)).unwrap());
        world.publish(Instant::now());
        assert_eq!(target(&world), expected, "{to}");
    }
    // It is no upstream that is checked or listed, and goes with the plugin.
    let slots = |world: &World| {
        world
            .shared
            .table_full()
            .unwrap()
            .slots
            .iter()
            .flatten()
            .count()
    };
    let table = world.shared.table_full().unwrap();
    assert!(table.upstreams().all(|u| u.service().as_str() != "mirror"));
    let with = slots(&world);
    let key = crate::table::objects::Key::Plugin(name("m"));
    world.objects.remove(&key, &mut world.dirty);
    world.publish(Instant::now());
    assert_eq!(slots(&world) + 1, with);
}

#[test]
fn what_carries_secrets_stays_behind_unless_asked() {
    let gone = |more: &str| {
        let policy: plugin::Mirror = toml::from_str(&format!("service = \"s\"\n{more}")).unwrap();
        let copying = Copying::new(&name("m"), &policy, Arc::default()).unwrap();
        copying
            .gone
            .iter()
            .map(|n| String::from_utf8(n.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(gone(""), ["authorization", "cookie"]);
    assert!(gone("credentials = true").is_empty());
}
