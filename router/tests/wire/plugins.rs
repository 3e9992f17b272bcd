//! Plugins on the wire: what the service sees, what the caller gets, what is logged and counted.

use std::sync::mpsc;

#[path = "plugins/guards.rs"]
mod guards;
#[path = "plugins/ways.rs"]
mod ways;

use crate::harness::{GET, Setup, Upstream, refusing, until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Old: 1\r\n\r\nok";

fn answering(name: &'static str) -> Upstream {
    Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    ))
}

fn get(headers: &str) -> String {
    format!("GET /shop/x?q=1 HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
}

const GRAY: &str = r#"
    [[plugin]]
    name = "g"
    [[plugin.gray.rules]]
    group = "new"
    when = { key = "header:x-user", is = ["u1"] }
"#;
const GROUPS: &str = "groups = { new = { version = \"2\" } }";

#[test]
fn a_rule_sends_a_user_to_the_group_and_says_so() {
    let (old, new) = (answering("old"), answering("new"));
    let router = Setup::new(&[&old])
        .labelled(&new, "version = \"2\"")
        .service(GROUPS)
        .tables(GRAY)
        .start();
    let mut client = router.client();
    for (user, body) in [("u1", "new"), ("u2", "old"), ("u1", "new"), ("u3", "old")] {
        client.send(get(&format!("X-User: {user}\r\n")));
        assert_eq!(client.response().body, body.as_bytes());
    }
    let log = router.log(4);
    let said: Vec<_> = log
        .iter()
        .map(|line| line["plugins"].as_str().unwrap())
        .collect();
    assert_eq!(said, ["g=new", "g=baseline", "g=new", "g=baseline"]);
    let verdicts = "cardea_router_plugin_verdicts_total{cluster=\"default\",plugin=\"g\"";
    for verdict in ["new", "baseline"] {
        router.comes_to(
            &format!("{verdicts},kind=\"gray\",verdict=\"{verdict}\"}}"),
            2.0,
        );
    }
}

const AB: &str = r#"
    [[plugin]]
    name = "g"
    [[plugin.ab.experiments]]
    name = "e"
    key = "header:x-user"
    [[plugin.ab.experiments.variants]]
    name = "b"
    group = "new"
"#;
const SIDES: &str = r#"
    [[plugin]]
    name = "g"
    [plugin.blue_green]
    blue = "baseline"
    green = "new"
    live = "new"
"#;

/// Nobody of a group takes connections any more, and nobody has noticed yet: its first requests are answered
/// like all others, by whoever would be asked if it were known.
#[test]
fn others_answer_at_once_for_a_group_that_is_gone() {
    let refuse = |tables: &str, of: &str, missing: &str| {
        let line = format!("[plugin.{of}]\n");
        let with = format!("{line}missing = \"{missing}\"\n");
        if tables.contains(&line) {
            return tables.replace(&line, &with);
        }
        let rules = format!("[[plugin.{of}.rules]]");
        tables.replace(&rules, &format!("{with}{rules}"))
    };
    for (tables, answers) in [
        (GRAY.to_owned(), true),
        (AB.to_owned(), true),
        (SIDES.to_owned(), true),
        (refuse(GRAY, "gray", "refuse"), false),
        (refuse(SIDES, "blue_green", "refuse"), false),
    ] {
        let old = answering("old");
        let router = Setup::new(&[&old])
            .labelled_at(refusing(), "version = \"2\"")
            .service(GROUPS)
            .tables(&tables)
            .start();
        for ask in [
            get("X-User: u1\r\n"),
            "POST /shop/x HTTP/1.1\r\nHost: h\r\nX-User: u1\r\nContent-Length: 2\r\n\r\nhi"
                .to_owned(),
        ] {
            let answer = router.ask(ask);
            if answers {
                assert_eq!(answer.body, b"old", "{tables}");
            } else {
                assert!(answer.status() >= 502, "{} {tables}", answer.status());
            }
        }
    }
}

#[test]
fn rewriting_changes_what_both_sides_see_and_nothing_else() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .tables(
            r#"
            [[plugin]]
            name = "w"
            [plugin.rewrite]
            host = "inner"
            path = { matches = "^/shop/(.*)$", to = "/v2/${1}" }
            [plugin.rewrite.request]
            remove = ["x-secret"]
            set = { X-User = "${header:x-uid}" }
            [plugin.rewrite.response]
            remove = ["x-old"]
            add = { X-New = "${route}" }
            "#,
        )
        .start();
    let answer = router.ask(get(
        "X-Secret: s\r\nX-Uid: 7\r\nX-User: fake\r\nX-Other: o\r\n",
    ));
    assert_eq!(answer.body, b"ok");
    assert!(answer.field("x-old").is_none());
    assert_eq!(answer.field("x-new"), Some("r"));
    let seen = upstream.seen().remove(0);
    assert!(
        seen.starts_with("GET /v2/x?q=1 HTTP/1.1\r\nHost: inner\r\n"),
        "{seen}"
    );
    for (there, text) in [
        (true, "\r\nX-Other: o\r\n"),
        (true, "\r\nX-User: 7\r\n"),
        (true, "\r\nX-Forwarded-Host: h\r\n"),
        (false, "fake"),
        (false, "X-Secret"),
        (false, "Host: h\r\nX-Secret"),
    ] {
        assert_eq!(seen.contains(text), there, "{text}\n{seen}");
    }
}

#[test]
fn fixed_answers_and_redirects_reach_no_peer() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .tables(
            r#"
            [[plugin]]
            name = "moved"
            [plugin.redirect]
            to = "https://${host}${path}${query}"
            status = 307
            when = { key = "header:x-move", present = true }
            [[plugin]]
            name = "closed"
            [plugin.respond]
            status = 503
            content_type = "text/html"
            body = "<p>closed</p>"
            headers = { X-Why = "${client}" }
            when = { key = "header:x-closed", present = true }
            "#,
        )
        .start();
    let mut client = router.client();
    client.send(get("X-Move: 1\r\n"));
    let moved = client.response();
    assert_eq!(moved.status(), 307);
    assert_eq!(moved.field("location"), Some("https://h/shop/x?q=1"));
    // A body that came with it is skipped, and the connection goes on.
    client.send("POST /shop/x HTTP/1.1\r\nHost: h\r\nX-Closed: 1\r\nContent-Length: 3\r\n\r\nabc");
    let closed = client.response();
    assert_eq!(
        (closed.status(), &closed.body[..]),
        (503, &b"<p>closed</p>"[..])
    );
    assert_eq!(closed.field("content-type"), Some("text/html"));
    assert_eq!(closed.field("x-why"), Some("127.0.0.1"));
    assert_eq!(upstream.connections(), 0);
    client.send(GET);
    assert_eq!(client.response().body, b"ok");
    // What a plugin wrote for one answer is not in the next one.
    client.send(GET);
    assert_eq!(client.response().field("x-why"), None);
}

#[test]
fn restrictions_refuse_by_name() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .tables(
            "[[plugin]]\nname = \"r\"\n[plugin.restrict]\nmethods = [\"GET\", \"PUT\"]\nbody = 4\n\
             content_types = [\"text/plain\"]\n",
        )
        .start();
    let ask =
        |head: &str, body: &str| router.ask(format!("{head} /x HTTP/1.1\r\nHost: h\r\n{body}"));
    let refused = ask("DELETE", "\r\n");
    assert_eq!(
        (refused.status(), refused.field("allow")),
        (405, Some("GET, PUT"))
    );
    let text = "Content-Type: text/plain\r\n";
    let length = |n| format!("{text}Content-Length: {n}\r\n\r\n{}", "x".repeat(n));
    assert_eq!(ask("PUT", &length(4)).status(), 200);
    assert_eq!(ask("PUT", &length(5)).status(), 413);
    assert_eq!(ask("PUT", "Content-Length: 1\r\n\r\nx").status(), 415);
    let chunks = |n| {
        let body = "x".repeat(n);
        format!("{text}Transfer-Encoding: chunked\r\n\r\n{n:x}\r\n{body}\r\n0\r\n\r\n")
    };
    assert_eq!(ask("PUT", &chunks(4)).status(), 200);
    assert_eq!(ask("PUT", &chunks(5)).status(), 413);
}

#[test]
fn limits_answer_429_and_count_running_requests() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            let head = wire.head();
            if head.contains("X-Slow") {
                wait.lock().unwrap().recv().unwrap();
            }
            wire.send(OK);
        }
    });
    let router = Setup::new(&[&upstream])
        .tables(
            "[[plugin]]\nname = \"few\"\nroute = \"r\"\n[plugin.limit]\nconcurrent = 1\n\
             when = { key = \"header:x-slow\", present = true }\n",
        )
        .start();
    let mut slow = router.client();
    slow.send(get("X-Slow: 1\r\n"));
    until("the slow request is at its peer", || {
        upstream.count("X-Slow") == 1
    });
    let refused = router.ask(get("X-Slow: 1\r\n"));
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(refused.field("ratelimit-limit"), Some("1"));
    assert_eq!(router.ask(GET).status(), 200);
    go.send(()).unwrap();
    assert_eq!(slow.response().status(), 200);
    go.send(()).unwrap();
    assert_eq!(router.ask(get("X-Slow: 1\r\n")).status(), 200);
}

#[test]
fn a_change_reaches_open_connections_and_forgets_no_counter() {
    let upstream = Upstream::answering(OK);
    let limit = "[[plugin]]\nname = \"l\"\n[plugin.limit]\nrate = 3\nper = \"minute\"\n";
    let router = Setup::new(&[&upstream]).tables(limit).start();
    let mut client = router.client();
    let mut ask = |headers: &str| {
        client.send(get(headers));
        client.response()
    };
    assert_eq!(ask("").status(), 200);
    assert_eq!(ask("").status(), 200);
    router.edit(|text| {
        text + "[[plugin]]\nname = \"w\"\n[plugin.rewrite.response.set]\nX-New = \"yes\"\n"
    });
    // The last of three; the connection is the same, and so is the count.
    assert_eq!(ask("").field("x-new"), Some("yes"));
    assert_eq!(ask("").status(), 429);
    assert_eq!(upstream.connections(), 1);
    // A bad plugin changes nothing, and is named.
    router.edit_badly(
        |text| text.replace("rate = 3", "rate = 0"),
        "plugin[0].limit.rate",
    );
    assert_eq!(ask("").status(), 429);
}

#[test]
fn what_was_written_for_one_client_never_joins_the_refusal_of_another() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .tables("[[plugin]]\nname = \"w\"\n[plugin.rewrite.response.set]\nX-For = \"${header:x-user}\"\n")
        .start();
    let mut client = router.client();
    let bad = "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n";
    // Both come in one read, so that they share all state of a connection.
    client.send(format!("{}{bad}", get("X-User: u1\r\n")));
    assert_eq!(client.response().field("x-for"), Some("u1"));
    let refused = client.response();
    assert_eq!((refused.status(), refused.field("x-for")), (400, None));
    // Nor does it wait for the next connection.
    assert_eq!(router.ask(get("X-User: u2\r\n")).field("x-for"), Some("u2"));
    let refused = router.ask(bad);
    assert_eq!((refused.status(), refused.field("x-for")), (400, None));
}
