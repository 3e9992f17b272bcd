use std::time::Instant;

use cardea_registry_api::{InstanceState, Plugin, Service};

use super::*;
use crate::{
    fixtures::{World, instance, name, route},
    plugin::asked::Headers,
    table::Table,
};

/// A service with two instances of version 1 (i0, i1) and one of version 2 (i2), on host `h`, prefix
/// `/shop`, with plugins.
fn world(plugins: &[&str]) -> World {
    let service: Service = toml::from_str(
        "name = \"cart\"\n[groups]\ngray = { version = \"2\" }\nempty = { version = \"9\" }\n",
    )
    .unwrap();
    let mut world = World::with(service, &[]);
    for number in 0..3 {
        let mut one = instance("cart", number, 100);
        one.version = if number == 2 { "2" } else { "1" }.to_owned();
        world.instance(one);
    }
    world.route(route("shop", "h", "/shop", "cart"));
    for plugin in plugins {
        world.plugin(plugin_of(plugin));
    }
    world.publish(Instant::now());
    world
}

pub(super) fn plugin_of(toml: &str) -> Plugin {
    let plugin: Plugin = toml::from_str(toml).unwrap();
    plugin.check().unwrap();
    plugin
}

pub(super) struct Outcome {
    pub(super) status: Option<u16>,
    pub(super) group: Option<Vec<String>>,
    pub(super) scratch: Scratch,
    pub(super) said: String,
    pub(super) gone: Vec<String>,
}

pub(super) fn ask(world: &World, headers: &[(&str, &str)]) -> Outcome {
    ask_as(world, Asked::default(), headers)
}

pub(super) fn ask_as(world: &World, asked: Asked<'_>, headers: &[(&str, &str)]) -> Outcome {
    let list: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let table = world.shared.table_full().unwrap();
    let entry = table.route(b"h", b"/shop/x").unwrap();
    let Some(chain) = &entry.chain else {
        panic!("the route has no plugins");
    };
    let asked = Asked {
        path: b"/shop/x",
        headers: Headers::List(&list),
        ..asked
    };
    let mut scratch = Scratch::default();
    let decision = chain.decide(&asked, &table, 1_000_000_000, &mut scratch, Mode::Real);
    let said: Vec<String> = decision
        .said
        .each(chain)
        .map(|(head, verdict)| format!("{}={verdict}", head.name))
        .collect();
    Outcome {
        status: decision.own.as_ref().map(|own| match own {
            Own::Refusal(refusal) => refusal.status,
            Own::Answer(answer) => answer.status,
        }),
        group: decision.slot.map(|slot| ids(&table, slot)),
        gone: decision
            .request_gone
            .iter()
            .copied()
            .flatten()
            .map(|n| String::from_utf8(n.to_vec()).unwrap())
            .collect(),
        scratch,
        said: said.join(" "),
    }
}

pub(super) fn ids(table: &Table, slot: usize) -> Vec<String> {
    let members = table.upstream_at(slot).unwrap().members().iter();
    members.map(|m| m.peer.key().id.to_string()).collect()
}

const GRAY: &str = "name = \"g\"\nroute = \"shop\"\n[[gray.rules]]\ngroup = \"gray\"\n\
                    when = { key = \"header:x-user\", is = [\"u1\"] }\n\
                    [[gray.rules]]\ngroup = \"empty\"\n\
                    when = { key = \"header:x-user\", is = [\"u2\"] }\n";

#[test]
fn rules_choose_the_group_and_everybody_else_gets_the_baseline() {
    let world = world(&[GRAY]);
    let chosen = ask(&world, &[("x-user", "u1")]);
    assert_eq!(chosen.group.unwrap(), ["i2"]);
    assert_eq!(chosen.said, "g=gray");
    let other = ask(&world, &[("x-user", "u5")]);
    assert_eq!(other.group.unwrap(), ["i0", "i1"]);
    assert_eq!(other.said, "g=baseline");
    let missing = ask(&world, &[("x-user", "u2")]);
    assert_eq!(missing.group.unwrap(), ["i0", "i1"]);
    assert_eq!((missing.said.as_str(), missing.status), ("g=missing", None));
}

#[test]
fn a_group_follows_its_instances() {
    let mut world = world(&[GRAY]);
    world.state("cart", 2, InstanceState::Draining);
    world.publish(Instant::now());
    assert_eq!(ask(&world, &[("x-user", "u1")]).said, "g=missing");
    let mut two = instance("cart", 1, 100);
    two.version = "2".to_owned();
    world.instance(two);
    world.publish(Instant::now());
    let chosen = ask(&world, &[("x-user", "u1")]);
    assert!(chosen.group.unwrap().contains(&"i1".to_owned()));
    // A selector that changes moves instances that did not.
    let service: Service =
        toml::from_str("name = \"cart\"\n[groups]\ngray = { version = \"1\" }\n").unwrap();
    world.service(service);
    world.publish(Instant::now());
    assert_eq!(ask(&world, &[("x-user", "u1")]).group.unwrap(), ["i0"]);
}

#[test]
fn a_missing_group_may_refuse_and_a_shadow_does_nothing() {
    // TOML wants the table before its lists.
    let (head, rules) = GRAY.split_at(GRAY.find("[[").unwrap());
    let refusing = format!("{head}[gray]\nmissing = \"refuse\"\n{rules}");
    let missing = ask(&world(&[&refusing]), &[("x-user", "u2")]);
    assert_eq!(missing.status, Some(503));
    let shadow = GRAY.replace("route =", "shadow = true\nroute =");
    let chosen = ask(&world(&[&shadow]), &[("x-user", "u1")]);
    assert_eq!((chosen.group, chosen.said.as_str()), (None, "g=gray"));
}

#[test]
fn the_narrowest_binding_wins_and_kinds_add_up() {
    let limit = |name: &str, bound: &str, rate: u32| {
        format!("name = \"{name}\"\n{bound}\n[limit]\nrate = {rate}\n")
    };
    let (globe, cluster) = (
        limit("globe", "", 5),
        limit("cluster", "cluster = \"dc\"", 4),
    );
    let service = limit("service", "service = \"cart\"", 3);
    let (route, other) = (
        limit("route", "route = \"shop\"", 2),
        limit("other", "route = \"other\"", 1),
    );
    let all = [&globe, &cluster, &service, &route, &other].map(String::as_str);
    for (plugins, winner) in [
        (&all[..], "route"),
        (&all[..3], "service"),
        (&all[..2], "cluster"),
        (&all[..1], "globe"),
    ] {
        let said = ask(&world(plugins), &[]).said;
        assert_eq!(said, format!("{winner}=passed"));
    }
    let disabled = route.replace("route =", "enabled = false\nroute =");
    let said = ask(&world(&[&service, &disabled, GRAY]), &[]).said;
    assert_eq!(said, "service=passed g=baseline");
    let elsewhere = limit("cluster", "cluster = \"other\"", 4);
    let table = world(&[&elsewhere]).shared.table_full().unwrap();
    assert!(table.route(b"h", b"/shop").unwrap().chain.is_none());
}

#[test]
fn counters_outlive_changes() {
    let limit = "name = \"l\"\n[limit]\nrate = 2\nper = \"minute\"\n";
    let mut world = world(&[limit]);
    assert_eq!(ask(&world, &[]).said, "l=passed");
    world.plugin(plugin_of(&limit.replace("rate = 2", "rate = 2\nburst = 2")));
    world.publish(Instant::now());
    assert_eq!(ask(&world, &[]).said, "l=passed");
    let refused = ask(&world, &[]);
    assert_eq!(
        (refused.status, refused.said.as_str()),
        (Some(429), "l=limited")
    );
    let lines = String::from_utf8(refused.scratch.reply).unwrap();
    assert!(lines.contains("Retry-After: 30\r\n"), "{lines}");
    let mut counted = Vec::new();
    let plugins = &world.shared.plugins;
    plugins.tallies(|plugin, kind, verdict, n| {
        counted.push(format!("{plugin} {kind} {verdict} {n}"));
    });
    assert_eq!(counted, ["l limit limited 1", "l limit passed 2"]);
}

#[test]
fn what_is_refused_reaches_nobody_behind() {
    let world = world(&[
        "name = \"r\"\n[restrict]\nmethods = [\"GET\"]\n",
        "name = \"l\"\n[limit]\nrate = 1\n",
        "name = \"a\"\n[respond]\nbody = \"closed\"\nwhen = { key = \"header:x-open\", present = false }\n",
        GRAY,
    ]);
    let post = Asked {
        method: b"POST",
        ..Asked::default()
    };
    let refused = ask_as(&world, post, &[]);
    assert_eq!(
        (refused.status, refused.said.as_str()),
        (Some(405), "r=refused")
    );
    assert_eq!(refused.scratch.reply, b"Allow: GET\r\n");
    let answered = ask(&world, &[]);
    assert_eq!(answered.status, Some(200));
    assert_eq!(answered.said, "r=passed l=passed a=answered");
    let limited = ask(&world, &[("x-open", "1")]);
    assert_eq!(
        (limited.status, limited.said.as_str()),
        (Some(429), "r=passed l=limited")
    );
}

#[test]
fn rewriting_writes_path_host_and_headers() {
    let world = world(&[
        "name = \"w\"\n[rewrite]\nprefix = \"/v2\"\nhost = \"inner.${host}\"\n\
         [rewrite.request]\nremove = [\"x-old\"]\n[rewrite.request.set]\nX-User = \"${header:x-uid}\"\n\
         [rewrite.response.add]\nX-Route = \"${route}\"\n",
    ]);
    let done = ask(&world, &[("x-uid", "7")]);
    assert_eq!(done.scratch.path, b"/v2/x");
    assert_eq!(done.scratch.host, b"inner.svc.local");
    assert_eq!(done.scratch.request, b"X-User: 7\r\n");
    assert_eq!(done.scratch.reply, b"X-Route: shop\r\n");
    assert_eq!(done.gone, ["X-User", "x-old"]);
}

#[test]
fn a_path_that_cannot_be_sent_is_refused() {
    let world =
        world(&["name = \"w\"\n[rewrite.path]\nmatches = \"^.*$\"\nto = \"/${header:x-where}\"\n"]);
    for (value, status) in [("fine", None), ("a b", Some(400)), ("../x", Some(400))] {
        assert_eq!(ask(&world, &[("x-where", value)]).status, status, "{value}");
    }
}

#[test]
fn variants_rewrite_choose_and_tell() {
    let world = world(&[
        "name = \"t\"\n[[ab.experiments]]\nname = \"page\"\nkey = \"header:x-user\"\n\
         request_header = \"X-Variant\"\nresponse_header = \"X-Seen\"\n\
         [[ab.experiments.variants]]\nname = \"old\"\n\
         [[ab.experiments.variants]]\nname = \"new\"\nweight = 0\nprefix = \"/new\"\ngroup = \"gray\"\n\
         is = [\"u1\"]\n",
        GRAY,
    ]);
    let new = ask(&world, &[("x-user", "u1")]);
    assert_eq!(new.said, "t=page=new");
    assert_eq!(new.group.unwrap(), ["i2"]);
    assert_eq!(new.scratch.path, b"/new/x");
    assert_eq!(new.scratch.request, b"X-Variant: page=new\r\n");
    assert_eq!(new.scratch.reply, b"X-Seen: page=new\r\n");
    let old = ask(&world, &[("x-user", "u2")]);
    assert_eq!(old.said, "t=page=old g=missing");
    assert!(old.scratch.path.is_empty());
    assert_eq!(ask(&world, &[]).said, "t=aside g=baseline");
}

#[test]
fn a_kind_nobody_here_knows_is_left_out_or_refuses() {
    let unknown = |required: bool| -> Plugin {
        let text =
            format!("{{\"name\":\"n\",\"required\":{required},\"teleport\":{{\"to\":\"mars\"}}}}");
        serde_json::from_str(&text).unwrap()
    };
    for (required, status) in [(true, Some(503)), (false, None)] {
        let mut world = world(&[GRAY]);
        world.plugin(unknown(required));
        world.publish(Instant::now());
        assert_eq!(ask(&world, &[]).status, status);
    }
}

#[test]
fn other_timeouts_are_a_policy_of_their_own() {
    let world = world(&[
        "name = \"o\"\nroute = \"shop\"\n[override]\nfirst_byte = \"3s\"\nattempts = 0\n",
        GRAY,
    ]);
    let table = world.shared.table_full().unwrap();
    let entry = table.route(b"h", b"/shop").unwrap();
    let policy = table.upstream(entry).policy();
    assert_eq!(
        (
            policy.retries.attempts,
            policy.timeouts.first_byte.as_millis()
        ),
        (0, 3000)
    );
    let chain = entry.chain.as_ref().unwrap();
    let gray = table.upstream_at(chain.slots.named[&name("gray")]).unwrap();
    assert_eq!(gray.policy().retries.attempts, 0);
    // The service itself stays as it is, and peers are listed once.
    let whole: Vec<_> = table.upstreams().collect();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].policy().retries.attempts, 2);
}
