//! Another service, or another route, in place of one that has no answer.

use std::sync::atomic::Ordering;

use super::{PAGE, SORRY, counted, switched};
use crate::harness::{GET, OK, Setup, Upstream, refusing};

const OTHER: &str = "[[plugin]]\nname = \"f\"\nroute = \"r\"\n[plugin.fallback]\nservice = \"o\"\nprefix = \"/spare\"\nmethods = [\"GET\", \"POST\", \"PUT\"]\n";

fn other(upstream: &Upstream) -> String {
    format!(
        "[[service]]\nname = \"o\"\n[[service.instance]]\naddress = \"{}\"\n{OTHER}",
        upstream.address
    )
}

#[test]
fn another_service_is_asked_once_with_the_request_as_it_came() {
    let (upstream, status) = switched("inside");
    let spare = Upstream::answering(
        "HTTP/1.1 201 Made\r\nContent-Length: 5\r\nX-Cardea-Fallback: own\r\nX-Inner: 2\r\n\r\nspare",
    );
    let edits = "[[plugin]]\nname = \"w\"\n[plugin.rewrite]\nhost = \"inner\"\nprefix = \"/v2\"\n[plugin.rewrite.response]\nremove = [\"x-inner\"]\nset = { X-New = \"1\" }\n[plugin.rewrite.request]\nset = { X-For-S = \"1\" }\n";
    let router = Setup::new(&[&upstream])
        .path("/shop")
        .service("health = { max_fails = 0 }")
        .tables(&other(&spare))
        .tables(edits)
        .start();
    status.store(503, Ordering::SeqCst);
    let get = "GET /shop/x?q=1 HTTP/1.1\r\nHost: h\r\nX-Mine: 1\r\n\r\n";
    let mut client = router.client();
    for _ in 0..2 {
        client.send(get);
        let answer = client.response();
        assert_eq!((answer.status(), &answer.body[..]), (201, &b"spare"[..]));
        assert_eq!(answer.field("x-cardea-fallback"), Some("status"));
        assert_eq!(
            (answer.field("x-inner"), answer.field("x-new")),
            (None, Some("1"))
        );
    }
    let seen = spare.seen().remove(0);
    assert!(
        seen.starts_with("GET /spare/x?q=1 HTTP/1.1\r\nHost: h\r\n"),
        "{seen}"
    );
    assert!(
        seen.contains("\r\nX-Mine: 1\r\n") && !seen.contains("X-For-S"),
        "{seen}"
    );
    assert!(seen.contains("\r\nX-Cardea-Fallback: status\r\n"), "{seen}");
    let line = router.log(1).remove(0);
    assert_eq!(
        (&line["status"], &line["hidden_status"], &line["fallback"]),
        (&201.into(), &503.into(), &"service".into())
    );
    assert_eq!(line["peer"], spare.address.to_string());
    // Both services keep their connections.
    assert_eq!((upstream.connections(), spare.connections()), (1, 1));
    // A request that a fallback has passed on is not passed on again, by however many routers.
    client.send(get.replace("X-Mine: 1", "X-Cardea-Fallback: status"));
    assert_eq!(client.response().status(), 503);
    // One that may have been done is not done again.
    client.send("POST /shop/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().body, b"inside");
    // One that may be repeated is, with its body.
    client.send("PUT /shop/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().status(), 201);
    let seen = spare.seen().remove(0);
    assert!(
        seen.contains("PUT /spare/x") && seen.ends_with("\r\n\r\nabc"),
        "{seen}"
    );
    assert_eq!(spare.count("POST"), 0);
}

#[test]
fn a_request_that_nobody_has_seen_goes_elsewhere_whatever_it_is() {
    let spare = Upstream::answering(OK);
    let limit = "[[plugin]]\nname = \"l\"\n[plugin.limit]\nrate = 1\nper = \"minute\"\nwhen = { key = \"header:x-limit\", present = true }\n";
    let router = Setup::new(&[])
        .peer(refusing())
        .tables(&other(&spare))
        .tables(limit)
        .start();
    let mut client = router.client();
    let body = "x".repeat(200_000);
    let n = body.len();
    client.send(format!(
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n{body}"
    ));
    assert_eq!(client.response().body, b"ok");
    let chunked =
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    client.send(chunked);
    assert_eq!(client.response().body, b"ok");
    for _ in 0..2 {
        client.send(chunked.replace("Host: h", "Host: h\r\nX-Limit: 1"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.field("retry-after")), (200, None));
    }
    let seen = spare.seen().remove(0);
    assert!(seen.matches("POST /spare/a").count() == 4 && seen.ends_with("3\r\nabc\r\n0\r\n\r\n"));
    assert!(seen.contains("X-Cardea-Fallback: limit"));
}

#[test]
fn a_fallback_that_fails_leaves_the_first_error_as_it_was() {
    let (upstream, status) = switched("the first error");
    status.store(503, Ordering::SeqCst);
    let (spare, spare_status) = switched("the second");
    let gone = Upstream::start(|mut wire, _| drop(wire.request()));
    let limit = "[[plugin]]\nname = \"l\"\n[plugin.limit]\nrate = 3\nper = \"minute\"\n";
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }")
        .tables(&other(&spare))
        .tables(limit)
        .start();
    let mut client = router.client();
    let mut ask = || {
        client.send(GET);
        client.response()
    };
    for says in [500, 503] {
        spare_status.store(says, Ordering::SeqCst);
        let answer = ask();
        assert_eq!(
            (answer.status(), &answer.body[..]),
            (503, &b"the first error"[..])
        );
        assert_eq!(
            (answer.field("x-inner"), answer.field("x-cardea-fallback")),
            (Some("1"), None)
        );
    }
    router.edit(|text| text.replace(&spare.address.to_string(), &gone.address.to_string()));
    assert_eq!(ask().body, b"the first error");
    // A refusal keeps what is said about it.
    let refused = ask();
    assert_eq!(refused.status(), 429);
    assert!(refused.field("retry-after").is_some());
    let line = router.log(4).remove(2);
    assert_eq!(
        (&line["status"], &line["upstream_status"]),
        (&503.into(), &503.into())
    );
    assert_eq!(
        (line.get("error"), &line["plugins"]),
        (None, &"l=passed f=failed".into())
    );
    assert_eq!(counted(&router, "status", "failed"), Some(3.0));
    assert_eq!(counted(&router, "limit", "failed"), Some(1.0));
    // With a stored body behind it, that one goes out.
    router
        .edit(|text| text.replace("service = \"o\"", "service = \"o\"\nbody = \"sorry\"") + SORRY);
    assert_eq!(ask().body, PAGE);
}

#[test]
fn calls_of_grpc_are_left_alone_unless_asked() {
    let call = "POST /p.S/M HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
                Content-Length: 5\r\n\r\n\0\0\0\0\0";
    let grpc = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: 0\r\nContent-Length: 0\r\n\r\n";
    let spare = Upstream::answering(grpc);
    let router = Setup::new(&[])
        .tables(SORRY)
        .tables(&other(&spare).replace("methods =", "body = \"sorry\"\nmethods ="))
        .start();
    assert_eq!(router.ask(call).field("grpc-status"), Some("14"));
    router.edit(|text| text.replace("methods =", "grpc = true\nmethods ="));
    let answer = router.ask(call);
    assert_eq!(
        (
            answer.field("grpc-status"),
            answer.field("x-cardea-fallback")
        ),
        (Some("0"), Some("unreachable"))
    );
    // A stored body is no answer to it.
    router.edit(|text| text.replace(&spare.address.to_string(), &refusing().to_string()));
    assert_eq!(router.ask(call).field("grpc-status"), Some("14"));
    assert_eq!(router.ask(GET).body, PAGE);
}

/// A route to the service `o` at a host and prefix of its own, as which the route `r` is answered, with
/// plugins of its own.
fn other_route(upstream: &Upstream, plugins: &str) -> String {
    format!(
        r#"
        [[service]]
        name = "o"
        groups = {{ new = {{ version = "2" }} }}
        [[service.instance]]
        address = "{}"
        [[route]]
        id = "spare"
        host = "spare.test"
        prefix = "/spare"
        service = "o"
        [[plugin]]
        name = "f"
        route = "r"
        [plugin.fallback]
        route = "spare"
        {plugins}
        "#,
        upstream.address
    )
}

#[test]
fn another_route_answers_as_it_does_its_own_requests() {
    let (upstream, status) = switched("inside");
    let spare = Upstream::answering(
        "HTTP/1.1 201 Made\r\nContent-Length: 5\r\nX-Inner: 2\r\nX-Theirs: 1\r\n\r\nspare",
    );
    let plugins = r#"
        [[plugin]]
        name = "w"
        route = "r"
        [plugin.rewrite]
        host = "inner"
        prefix = "/v2"
        [plugin.rewrite.request]
        set = { X-For-S = "1" }
        [plugin.rewrite.response]
        set = { X-New = "${route}" }
        [[plugin]]
        name = "theirs"
        route = "spare"
        [plugin.rewrite]
        path = { matches = "^/spare/(.*)$", to = "/made/${1}" }
        [plugin.rewrite.request]
        set = { X-For-O = "${host} ${path} ${route}" }
        remove = ["x-mine"]
        [plugin.rewrite.response]
        remove = ["x-theirs"]
        set = { X-Answered = "${service}" }
        # What refuses, answers or counts for its own callers is not asked.
        [[plugin]]
        name = "closed"
        route = "spare"
        [plugin.respond]
        status = 418
        [[plugin]]
        name = "few"
        route = "spare"
        [plugin.limit]
        rate = 1
        per = "minute"
        burst = 1
    "#;
    let router = Setup::new(&[&upstream])
        .path("/shop")
        .service("health = { max_fails = 0 }")
        .tables(&other_route(&spare, plugins))
        .start();
    status.store(503, Ordering::SeqCst);
    let get = "GET /shop/x?q=1 HTTP/1.1\r\nHost: h\r\nX-Mine: 1\r\n\r\n";
    let mut client = router.client();
    for _ in 0..3 {
        client.send(get);
        let answer = client.response();
        assert_eq!((answer.status(), &answer.body[..]), (201, &b"spare"[..]));
        assert_eq!(answer.field("x-cardea-fallback"), Some("status"));
        assert_eq!(
            (answer.field("x-new"), answer.field("x-answered")),
            (Some("r"), Some("o"))
        );
        assert_eq!(
            (answer.field("x-theirs"), answer.field("x-inner")),
            (None, Some("2"))
        );
    }
    let seen = spare.seen().remove(0);
    let head = "GET /made/x?q=1 HTTP/1.1\r\nHost: spare.test\r\n";
    assert!(seen.starts_with(head), "{seen}");
    assert!(
        seen.contains("\r\nX-For-O: spare.test /spare/x spare\r\n"),
        "{seen}"
    );
    assert!(
        !seen.contains("X-Mine") && !seen.contains("X-For-S"),
        "{seen}"
    );
    let line = router.log(1).remove(0);
    assert_eq!(
        (&line["route"], &line["hidden_status"], &line["fallback"]),
        (&"r".into(), &503.into(), &"route".into())
    );
    assert_eq!(counted(&router, "status", "route"), Some(3.0));
    // It is not passed on again, and the route's own callers meet its plugins.
    client.send(get.replace("X-Mine: 1", "X-Cardea-Fallback: status"));
    assert_eq!(client.response().status(), 503);
    client.send("GET /spare/x HTTP/1.1\r\nHost: spare.test\r\n\r\n");
    assert_eq!(client.response().status(), 418);
}

#[test]
fn another_routes_policy_holds_and_its_failure_leaves_the_error() {
    let (upstream, status) = switched("the first error");
    status.store(503, Ordering::SeqCst);
    let silent = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.request();
        }
    });
    let plugins = r#"
        [[plugin]]
        name = "times"
        route = "spare"
        [plugin.override]
        first_byte = "50ms"
        attempts = 0
        [[plugin]]
        name = "theirs"
        route = "spare"
        [plugin.rewrite.response]
        set = { X-Answered = "${service}" }
        # A rescued request is never rescued again.
        [[plugin]]
        name = "g"
        route = "spare"
        [plugin.fallback]
        body = "sorry"
    "#;
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }\ntimeouts = { first_byte = \"30s\" }")
        .tables(&other_route(&silent, plugins))
        .tables(SORRY)
        .start();
    let answer = router.ask(GET);
    assert_eq!(
        (answer.status(), &answer.body[..]),
        (503, &b"the first error"[..])
    );
    assert_eq!(
        (
            answer.field("x-answered"),
            answer.field("x-cardea-fallback")
        ),
        (None, None)
    );
    assert_eq!(silent.count("GET /spare/"), 1);
    assert_eq!(counted(&router, "status", "failed"), Some(1.0));
    // A group that the route would refuse without, and the route's own prefix left out.
    router.edit(|text| {
        text.replace(
            "route = \"spare\"\n        \n",
            "route = \"spare\"\nprefix = \"/\"\n",
        )
        .replace(
            "[plugin.fallback]\n        body",
            "[plugin.gray]\nmissing = \"refuse\"\n[[plugin.gray.rules]]\ngroup = \"new\"\n#",
        )
    });
    let before = silent.seen().len();
    assert_eq!(router.ask(GET).body, b"the first error");
    assert_eq!(silent.seen().len(), before, "it refused");
}

/// Everything is rescued by one service, whose own requests are not: nobody stands in for himself.
#[test]
fn a_service_that_rescues_all_others_is_not_asked_again_for_its_own() {
    let (upstream, status) = switched("inside");
    let (spare, spare_status) = switched("spare");
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }")
        .tables(&other(&spare).replace("route = \"r\"\n", "").replace(
            "name = \"o\"\n",
            "name = \"o\"\nhealth = { max_fails = 0 }\n",
        ))
        .tables("[[route]]\nid = \"o\"\nhost = \"o\"\nservice = \"o\"\n")
        .start();
    status.store(503, Ordering::SeqCst);
    assert_eq!(router.ask(GET).body, b"spare");
    spare_status.store(503, Ordering::SeqCst);
    let before = spare.count("GET ");
    let answer = router.ask(GET.replace("Host: h", "Host: o"));
    assert_eq!((answer.status(), &answer.body[..]), (503, &b"spare"[..]));
    assert_eq!(spare.count("GET "), before + 1, "asked once");
}
