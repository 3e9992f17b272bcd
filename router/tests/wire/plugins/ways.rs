//! Plugins that choose who answers, on the wire.

use std::sync::atomic::Ordering;

use super::answering;
use crate::{
    fallback::switched,
    harness::{Setup, Upstream},
};

fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
}

#[test]
fn blue_green_moves_open_connections_at_once_and_back() {
    let (blue, green) = (answering("blue"), answering("green"));
    let router = Setup::new(&[])
        .labelled(&blue, "version = \"1\"")
        .labelled(&green, "version = \"2\"")
        .service("groups = { blue = { version = \"1\" }, green = { version = \"2\" } }")
        .tables(
            "[[plugin]]\nname = \"bg\"\n[plugin.blue_green]\nlive = \"blue\"\nrequire_ready = 50\n",
        )
        .start();
    let mut client = router.client();
    for (from, to) in [("blue", "green"), ("green", "blue"), ("blue", "green")] {
        for _ in 0..3 {
            client.send(get(""));
            assert_eq!(client.response().body, from.as_bytes());
        }
        let live = |side: &str| format!("live = \"{side}\"");
        router.edit(|text| text.replace(&live(from), &live(to)));
    }
    client.send(get(""));
    assert_eq!(client.response().body, b"green");
}

#[test]
fn a_tag_reaches_the_service_once_and_a_strangers_does_not() {
    let (base, gray) = (answering("base"), answering("gray"));
    let lanes = "[[plugin]]\nname = \"l\"\n[plugin.lanes]\ncallers = [\"127.0.0.0/8\"]\n\
                 [[plugin.lanes.entry]]\nlane = \"gray\"\nwhen = { key = \"cookie:user\", is = [\"u1\"] }\n";
    let router = Setup::new(&[&base])
        .labelled(&gray, "labels = { lane = \"gray\" }")
        .tables(lanes)
        .start();
    let mut client = router.client();
    let mut ask = |headers: &str| {
        client.send(get(headers));
        String::from_utf8(client.response().body).unwrap()
    };
    for _ in 0..3 {
        assert_eq!(ask(""), "base");
        assert_eq!(ask("Cookie: user=u1\r\n"), "gray");
        assert_eq!(ask("Baggage: a=1\r\nbaggage: lane=gray, b=2\r\n"), "gray");
        assert_eq!(ask("X-Lane: none\r\n"), "base");
    }
    let seen = gray.seen().concat();
    assert_eq!(seen.matches("\r\nx-lane: gray\r\n").count(), 6, "{seen}");
    assert_eq!(
        seen.matches("\r\nBaggage: a=1,b=2,lane=gray\r\n").count(),
        3,
        "{seen}"
    );
    assert!(!seen.contains("baggage: lane"), "{seen}");
    assert_eq!(base.count("x-lane: none\r\nBaggage: lane=none\r\n"), 3);
    router.edit(|text| text.replace("127.0.0.0/8", "10.0.0.0/8"));
    let before = base.seen().concat().len();
    assert_eq!(ask("X-Lane: gray\r\nBaggage: lane=gray\r\n"), "base");
    let seen = base.seen().concat();
    assert!(
        !seen[before..].to_ascii_lowercase().contains("lane"),
        "{seen}"
    );
}

const GROUPS: &str = "groups = { gray = { version = \"2\" } }";

#[test]
fn a_whitelist_of_a_hundred_thousand_changes_under_an_open_connection() {
    let (base, gray) = (answering("base"), answering("gray"));
    let ids: Vec<String> = (0..100_000).map(|n| format!("\"user-{n}\"")).collect();
    let rule = format!(
        "[[plugin]]\nname = \"g\"\n[[plugin.gray.rules]]\ngroup = \"gray\"\n\
         when = {{ key = \"header:x-user\", is = [{}] }}\n",
        ids.join(",")
    );
    let router = Setup::new(&[&base])
        .labelled(&gray, "version = \"2\"")
        .service(GROUPS)
        .tables(&rule)
        .start();
    let mut client = router.client();
    let mut ask = |user: &str| {
        client.send(get(&format!("X-User: {user}\r\n")));
        String::from_utf8(client.response().body).unwrap()
    };
    let users = ["user-0", "user-99999", "user-100000"];
    assert_eq!(users.map(&mut ask), ["gray", "gray", "base"]);
    router.edit(|text| text.replace("\"user-99999\"", "\"user-100000\""));
    assert_eq!(users.map(&mut ask), ["gray", "base", "gray"]);
}

#[test]
fn floods_of_headers_and_endless_ids_meet_ten_thousand_rules() {
    let (base, gray) = (answering("base"), answering("gray"));
    let rules: Vec<String> = (0..10_000)
        .map(|n| {
            format!(
                "[[plugin.gray.rules]]\ngroup = \"gray\"\n\
                 when = {{ key = \"cookie:user\", is = [\"u{n}\"] }}\n"
            )
        })
        .collect();
    let router = Setup::new(&[&base])
        .labelled(&gray, "version = \"2\"")
        .service(GROUPS)
        .tables(&format!("[[plugin]]\nname = \"g\"\n{}", rules.concat()))
        .start();
    let flood = "Cookie: a=b\r\n".repeat(80);
    let endless = "u".repeat(4096);
    let mut client = router.client();
    for (cookie, body) in [("u9999", "gray"), ("u10000", "base"), (&endless, "base")] {
        client.send(get(&format!("{flood}Cookie: user={cookie}\r\n")));
        assert_eq!(client.response().body, body.as_bytes(), "{cookie:.9}");
    }
    // What is too much for a head is refused before any rule is asked.
    let refused = router.ask(get(&format!("Cookie: user={}\r\n", "u".repeat(128 << 10))));
    assert_eq!(refused.status(), 431);
    assert_eq!(gray.count("GET "), 1);
}

#[test]
fn a_lanes_answers_are_its_own_and_its_tag_goes_on_to_another_service() {
    let gray = Upstream::answering("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    let (base, other) = (answering("base"), answering("other"));
    let router = Setup::new(&[&base])
        .labelled(&gray, "labels = { lane = \"gray\" }")
        .service("retries = { attempts = 0 }\nhealth = { max_fails = 0 }")
        .tables(&format!(
            "[[service]]\nname = \"o\"\n[[service.instance]]\naddress = \"{}\"\n\
             [[plugin]]\nname = \"f\"\nroute = \"r\"\n[plugin.fallback]\nservice = \"o\"\n\
             [[plugin]]\nname = \"l\"\n[plugin.lanes]\ncallers = [\"127.0.0.0/8\"]\n",
            other.address
        ))
        .start();
    let mut client = router.client();
    client.send(get("X-Lane: gray\r\nBaggage: a=1\r\n"));
    assert_eq!(client.response().body, b"other");
    let seen = other.seen().concat();
    assert!(
        seen.contains("x-lane: gray\r\nBaggage: a=1,lane=gray\r\n"),
        "{seen}"
    );
    assert_eq!(
        seen.to_ascii_lowercase().matches("x-lane").count(),
        1,
        "{seen}"
    );
    client.send(get(""));
    assert_eq!(client.response().body, b"base");

    // The last good answer of a lane is nobody else's.
    let (base, status) = switched("base");
    let lane = answering("gray");
    let router = Setup::new(&[&base])
        .labelled(&lane, "labels = { lane = \"gray\" }")
        .service("retries = { attempts = 0 }\nhealth = { max_fails = 0 }")
        .tables(
            "[[plugin]]\nname = \"f\"\n[plugin.fallback.last_good]\n\
             [[plugin]]\nname = \"l\"\n[plugin.lanes]\ncallers = [\"127.0.0.0/8\"]\n",
        )
        .start();
    assert_eq!(router.ask(get("X-Lane: gray\r\n")).body, b"gray");
    status.store(500, Ordering::SeqCst);
    assert_eq!(router.ask(get("")).status(), 500);
}
