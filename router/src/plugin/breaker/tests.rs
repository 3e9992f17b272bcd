use std::time::Instant;

use super::*;
use crate::{
    fixtures::{World, instance, route},
    plugin::{
        Own, Scratch,
        asked::{Asked, Headers},
        tests::plugin_of,
    },
};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 3600 * SECOND;
const BREAK: &str = "name = \"b\"\n[break]\nmin_requests = 4\nslow = \"1s\"\n";

/// Two services, a plugin that reaches both.
fn world(plugin: &str) -> World {
    let mut world = World::with(toml::from_str("name = \"cart\"").unwrap(), &[100]);
    world.instance(instance("shop", 0, 100));
    world.route(route("cart", "cart", "/", "cart"));
    world.route(route("other", "cart", "/other", "cart"));
    world.route(route("shop", "shop", "/", "shop"));
    world.plugin(plugin_of(plugin));
    world.publish(Instant::now());
    world
}

/// Status if it is refused, or the ticket; what was said; what is added to the answer.
fn ask(
    world: &World,
    host: &str,
    now: u64,
    mode: Mode,
) -> (Result<Option<Ticket>, u16>, String, String) {
    let table = world.shared.table_full().unwrap();
    let entry = table.route(host.as_bytes(), b"/").unwrap();
    let chain = entry.chain.as_ref().unwrap();
    let asked = Asked {
        headers: Headers::List(&[]),
        ..Asked::default()
    };
    let mut scratch = Scratch::default();
    let decision = chain.decide(&asked, &table, now, &mut scratch, mode);
    let said = decision.said.each(chain).map(|(_, verdict)| verdict);
    let said = said.collect::<Vec<_>>().join(" ");
    let outcome = match decision.own {
        Some(Own::Refusal(refusal)) => Err(refusal.status),
        Some(Own::Answer(_)) => panic!("no such plugin"),
        None => Ok(decision.ticket),
    };
    (outcome, said, String::from_utf8(scratch.reply).unwrap())
}

fn real(world: &World, host: &str, now: u64) -> (Result<Option<Ticket>, u16>, String, String) {
    ask(world, host, now, Mode::Real)
}

/// What one says about a request that comes at `now`.
fn said(world: &World, host: &str, now: u64) -> String {
    real(world, host, now).1
}

fn fail(world: &World, host: &str, times: usize, now: u64) {
    for _ in 0..times {
        let (ticket, ..) = real(world, host, now);
        ticket.unwrap().unwrap().failed(now);
    }
}

#[test]
fn a_service_in_trouble_is_left_alone_and_tried_again() {
    let world = world(BREAK);
    fail(&world, "cart", 4, START);
    let (refused, said_then, lines) = real(&world, "cart", START);
    assert_eq!(refused.unwrap_err(), 503);
    assert_eq!(
        (said_then.as_str(), lines.as_str()),
        ("open", "Retry-After: 5\r\n")
    );
    // The other service is another one.
    assert_eq!(said(&world, "shop", START), "passed");
    let later = START + 5 * SECOND;
    let mut probes: Vec<Ticket> = (0..3)
        .map(|_| {
            let (ticket, said, _) = real(&world, "cart", later);
            assert_eq!(said, "probed");
            ticket.unwrap().unwrap()
        })
        .collect();
    assert_eq!(said(&world, "cart", later), "open");
    // One that is not heard of leaves room for another.
    drop(probes.pop());
    let (again, ..) = real(&world, "cart", later);
    probes.push(again.unwrap().unwrap());
    for mut probe in probes {
        probe.answered(200, Call::No, Duration::from_millis(5), later);
    }
    assert_eq!(said(&world, "cart", later), "passed");
}

#[test]
fn calls_of_grpc_count_by_their_status_where_it_is_named() {
    let named = "name = \"b\"\n[break]\nmin_requests = 4\ngrpc_statuses = [14]\n";
    let took = Duration::from_millis(1);
    for (policy, call, trailer, open) in [
        (named, Call::Ended(14), None, true),
        (named, Call::Ended(5), None, false),
        (named, Call::Running, Some(14), true),
        (named, Call::Running, Some(0), false),
        (named, Call::Running, None, false),
        (named, Call::No, Some(14), false),
        (BREAK, Call::Ended(14), None, false),
        (BREAK, Call::Running, Some(14), false),
    ] {
        let world = world(policy);
        for _ in 0..4 {
            let (ticket, ..) = real(&world, "cart", START);
            let mut ticket = ticket.unwrap().unwrap();
            assert_eq!(ticket.heeds_calls(), policy == named);
            ticket.answered(200, call, took, START);
            ticket.ended(trailer, START);
        }
        let wanted = if open { "open" } else { "passed" };
        assert_eq!(said(&world, "cart", START), wanted, "{call:?} {trailer:?}");
    }
    // A stream that breaks off is a failure, unless its reader left; so is a status of HTTP at once.
    for (status, by_client, open) in [(200, false, true), (200, true, false), (503, true, true)] {
        let world = world(named);
        for _ in 0..4 {
            let (ticket, ..) = real(&world, "cart", START);
            let mut ticket = ticket.unwrap().unwrap();
            ticket.answered(status, Call::Running, took, START);
            ticket.broke_off(by_client, START);
        }
        let wanted = if open { "open" } else { "passed" };
        assert_eq!(said(&world, "cart", START), wanted, "{status} {by_client}");
    }
}

#[test]
fn statuses_and_slowness_count_as_configured() {
    for (status, took, open) in [
        (200, 999, false),
        (404, 0, false),
        (501, 0, false),
        (500, 0, true),
        (200, 1000, true),
    ] {
        let world = world(BREAK);
        for _ in 0..4 {
            let (ticket, ..) = real(&world, "cart", START);
            let mut ticket = ticket.unwrap().unwrap();
            ticket.answered(status, Call::No, Duration::from_millis(took), START);
        }
        let wanted = if open { "open" } else { "passed" };
        assert_eq!(said(&world, "cart", START), wanted, "{status} {took}");
    }
}

#[test]
fn what_it_knows_outlives_tables_and_edits_and_not_the_plugin() {
    let mut world = world(BREAK);
    fail(&world, "cart", 4, START);
    world.instance(instance("cart", 7, 100));
    world.plugin(plugin_of(&BREAK.replace("\"1s\"", "\"2s\"")));
    world.publish(Instant::now());
    assert_eq!(said(&world, "cart", START), "open");
    let reports = world.shared.plugins.breakers();
    let states: Vec<_> = reports
        .iter()
        .map(|(plugin, service, report)| {
            format!("{plugin} {service} {} {}", report.state, report.opened)
        })
        .collect();
    assert_eq!(states, ["b cart open 1", "b shop closed 0"]);
    let mut off = plugin_of(BREAK);
    off.name = crate::fixtures::name("c");
    world.plugin(off);
    world.objects.remove(
        &crate::table::objects::Key::Plugin(crate::fixtures::name("b")),
        &mut world.dirty,
    );
    world.publish(Instant::now());
    assert_eq!(said(&world, "cart", START), "passed");
    let reports = world.shared.plugins.breakers();
    assert!(
        reports.iter().all(|(plugin, ..)| plugin.as_str() == "c"),
        "{reports:?}"
    );
}

#[test]
fn asking_changes_nothing_and_a_shadow_refuses_nobody() {
    let world_ = world(BREAK);
    fail(&world_, "cart", 4, START);
    let later = START + 5 * SECOND;
    for _ in 0..9 {
        let (asked, said, _) = ask(&world_, "cart", later, Mode::Asking);
        assert!(asked.unwrap().is_none());
        assert_eq!(said, "probed");
    }
    let shadow = world(&BREAK.replace("name =", "shadow = true\nname ="));
    fail(&shadow, "cart", 4, START);
    let (passed, said, lines) = real(&shadow, "cart", START);
    assert!(passed.unwrap().is_none());
    assert_eq!((said.as_str(), lines.as_str()), ("open", ""));
}

#[test]
fn no_more_at_a_time_than_latency_allows() {
    let world = world("name = \"b\"\n[break.adaptive]\ninitial = 10\n");
    let tickets: Vec<_> = (0..10)
        .map(|_| real(&world, "cart", START).0.unwrap())
        .collect();
    let (refused, said_then, _) = real(&world, "cart", START);
    assert_eq!(
        (refused.unwrap_err(), said_then.as_str()),
        (503, "overloaded")
    );
    assert_eq!(ask(&world, "cart", START, Mode::Asking).1, "overloaded");
    assert_eq!(said(&world, "shop", START), "passed");
    drop(tickets);
    assert_eq!(said(&world, "cart", START), "passed");
    let reports = world.shared.plugins.breakers();
    assert_eq!((reports[0].2.limit, reports[0].2.running), (Some(10), 0));
}
