//! Fallbacks on the wire: what the caller gets instead of an error, and what is still counted.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, Ordering},
};

use crate::harness::{GET, OK, Running, Setup, Upstream, Wire, refusing, until};

#[path = "fallback/elsewhere.rs"]
mod elsewhere;
#[path = "fallback/last_good.rs"]
mod last_good;

const SORRY: &str = r#"
    [[fallback]]
    name = "sorry"
    content_type = "text/html"
    text = "<p>back soon</p>"
"#;
const STORED: &str = r#"
    [[plugin]]
    name = "f"
    [plugin.fallback]
    body = "sorry"
"#;
const PAGE: &[u8] = b"<p>back soon</p>";

/// An upstream that answers with a status that can be changed, and this body.
pub(crate) fn switched(body: &'static str) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let now = Arc::clone(&status);
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            wire.request();
            let (status, n) = (now.load(Ordering::SeqCst), body.len());
            wire.send(format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {n}\r\nX-Inner: 1\r\nDate: then\r\n\r\n{body}"
            ));
        }
    });
    (upstream, status)
}

fn counted(router: &Running, cause: &str, answer: &str) -> Option<f64> {
    router.metric(&format!(
        "cardea_router_fallback_total{{cluster=\"default\",route=\"r\",service=\"s\",\
         cause=\"{cause}\",answer=\"{answer}\"}}"
    ))
}

#[test]
fn a_stored_body_stands_in_for_statuses_and_the_failure_is_still_told() {
    let (upstream, status) = switched("inside");
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }")
        .tables(SORRY)
        .tables(STORED)
        .start();
    let mut client = router.client();
    for (says, shows) in [
        (200, 200),
        (500, 200),
        (502, 200),
        (503, 200),
        (504, 200),
        (501, 501),
        (404, 404),
    ] {
        status.store(says, Ordering::SeqCst);
        client.send(GET);
        let answer = client.response();
        assert_eq!(answer.status(), shows, "{says}");
        let hidden = says != shows;
        assert_eq!(answer.body == PAGE, hidden, "{says}");
        assert_eq!(
            answer.field("x-cardea-fallback"),
            hidden.then_some("status")
        );
        if hidden {
            assert_eq!(answer.field("content-type"), Some("text/html"));
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert!(answer.field("x-request-id").is_some());
        }
    }
    // Neither the client nor the service had to connect again.
    assert_eq!(upstream.connections(), 1);
    until("counted", || {
        counted(&router, "status", "stored") == Some(4.0)
    });
    let verdicts =
        "cardea_router_plugin_verdicts_total{cluster=\"default\",plugin=\"f\",kind=\"fallback\"";
    router.comes_to(&format!("{verdicts},verdict=\"stored\"}}"), 4.0);
    let log = router.log(7);
    let hidden: Vec<_> = log
        .iter()
        .filter(|line| line["fallback"] == "stored")
        .collect();
    assert_eq!(hidden.len(), 4);
    let line = &hidden[2];
    assert_eq!(
        (
            &line["status"],
            &line["hidden_status"],
            &line["upstream_status"]
        ),
        (&200.into(), &503.into(), &503.into()),
    );
    assert_eq!(
        (&line["fallback_for"], &line["plugins"]),
        (&"status".into(), &"f=stored".into())
    );
    assert_eq!(line["bytes_out"], PAGE.len());
    assert_eq!(log[0].get("hidden_status"), None);
}

#[test]
fn every_cause_can_be_hidden_and_names_itself() {
    let silent = || {
        Upstream::start(|mut wire, _| {
            while wire.peek() {
                wire.request();
            }
        })
    };
    let cut = || Upstream::start(|mut wire, _| drop(wire.request()));
    let limit = "[[plugin]]\nname = \"l\"\n[plugin.limit]\nrate = 1\nper = \"minute\"\n";
    let (quiet, broken, fine) = (silent(), cut(), Upstream::answering(OK));
    let first_byte = "timeouts = { first_byte = \"50ms\" }";
    for (setup, cause, code, hidden, kind) in [
        (Setup::new(&[]), "unreachable", 200, 503, "no_instance"),
        (
            Setup::new(&[]).peer(refusing()),
            "unreachable",
            200,
            502,
            "connect",
        ),
        (Setup::new(&[&broken]), "unreachable", 200, 502, "reset"),
        (
            Setup::new(&[&quiet]).service(first_byte),
            "timeout",
            200,
            504,
            "first_byte_timeout",
        ),
        (
            Setup::new(&[&fine]).tables(limit),
            "limit",
            200,
            429,
            "too_many_requests",
        ),
    ] {
        let stored = STORED.replace("body =", "causes = [\"CAUSE\"]\nstatuses = []\nbody =");
        let covered = setup
            .tables(SORRY)
            .tables(&stored.replace("CAUSE", cause))
            .start();
        let mut client = covered.client();
        let mut answer = None;
        for _ in 0..2 {
            client.send(GET);
            answer = Some(client.response());
        }
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status(), &answer.body[..]),
            (code, PAGE),
            "{cause} {kind}"
        );
        assert_eq!(answer.field("x-cardea-fallback"), Some(cause));
        // What is said about the refusal is not said about the answer in its place.
        assert_eq!(answer.field("retry-after"), None);
        assert_eq!(answer.field("ratelimit-limit"), None);
        let line = covered.log(2).remove(1);
        assert_eq!(
            (&line["error"], &line["hidden_status"]),
            (&kind.into(), &hidden.into())
        );
        until(cause, || counted(&covered, cause, "stored") > Some(0.0));
        // With another cause only, the error goes out.
        let other = if cause == "break" { "limit" } else { "break" };
        covered.edit(|text| text.replace(&format!("[\"{cause}\"]"), &format!("[\"{other}\"]")));
        client.send(GET);
        assert_eq!(client.response().status(), hidden, "{cause}");
    }
}

#[test]
fn methods_upgrades_and_begun_answers_are_left_alone() {
    let upstream = Upstream::start(|mut wire, _| {
        let request = wire.request();
        if request.head.contains("/begun") {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        } else {
            wire.send("HTTP/1.1 503 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        }
    });
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }")
        .tables(SORRY)
        .tables(STORED)
        .start();
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    for request in [post, upgrade] {
        let answer = router.ask(request);
        assert_eq!(
            (answer.status(), &answer.body[..]),
            (503, &b"no"[..]),
            "{request}"
        );
    }
    // The first byte is out: the client sees that the answer is not complete.
    let mut client = router.client();
    client.send(GET.replace("/ ", "/begun "));
    let head = client.head();
    assert!(
        head.contains("200 OK") && !head.contains("X-Cardea"),
        "{head}"
    );
    assert_eq!(client.rest().0, b"abc");
    // HEAD has the head of what GET would get, and nothing behind it.
    let mut client = router.client();
    client.send(GET.replace("GET", "HEAD"));
    let head = client.response_to(true);
    assert_eq!(
        (head.status(), head.field("content-length")),
        (200, Some("16"))
    );
    client.send(GET);
    assert_eq!(client.response().body, PAGE);
    // HTTP/1.0 too.
    let mut client = router.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let (all, _) = client.rest();
    assert!(all.ends_with(PAGE));
}

#[test]
fn an_upload_that_is_covered_is_never_read_as_the_next_request() {
    let router = Setup::new(&[])
        .peer(refusing())
        .tables(SORRY)
        .tables(&STORED.replace("body =", "methods = [\"PUT\"]\nbody ="))
        .start();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut client = router.client();
    // The whole body is here: the connection goes on.
    let n = smuggled.len();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n{smuggled}"
    ));
    assert_eq!(client.response().body, PAGE);
    // Only a part is: it does not.
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n{smuggled}"
    ));
    let answer = client.response();
    assert_eq!(
        (&answer.body[..], answer.field("connection")),
        (PAGE, Some("close"))
    );
    client.close_sending();
    client.assert_closed();
    let log = router.log(2);
    assert!(log.iter().all(|line| line["path"] == "/"), "{log:?}");
}

#[test]
fn the_largest_body_reaches_a_slow_reader_and_a_change_the_next_request() {
    let large = "x".repeat(1 << 20);
    let router = Setup::new(&[])
        .file("page.html", &large)
        .tables(STORED)
        .tables("[[fallback]]\nname = \"sorry\"\nfile = \"page.html\"\nstatus = 503\n")
        .start();
    let mut client = router.client();
    for _ in 0..3 {
        client.send(GET);
        let answer = client.response();
        assert_eq!((answer.status(), answer.body.len()), (503, large.len()));
        assert_eq!(
            answer.field("content-type"),
            Some("text/plain; charset=utf-8")
        );
    }
    router.edit(|text| text.replace("file = \"page.html\"", "text = \"new\""));
    client.send(GET);
    assert_eq!(client.response().body, b"new");
    // What is too large, or not there, is named and changes nothing.
    std::fs::write(router.dir.path().join("more"), vec![b'x'; (1 << 20) + 1]).unwrap();
    router.edit_badly(
        |text| text.replace("text = \"new\"", "file = \"more\""),
        "fallback[0].file",
    );
    router.edit_badly(
        |text| {
            text.replace("file = \"more\"", "text = \"new\"")
                .replace("body = \"sorry\"", "body = \"sory\"")
        },
        "did you mean `sorry`?",
    );
    client.send(GET);
    assert_eq!(client.response().body, b"new");
}

#[test]
fn a_shadow_only_says_what_it_would_do() {
    let router = Setup::new(&[])
        .tables(SORRY)
        .tables(&STORED.replace("name = \"f\"", "name = \"f\"\nshadow = true"))
        .start();
    let answer = router.ask(GET);
    assert_eq!(
        (answer.status(), answer.field("x-cardea-fallback")),
        (503, None)
    );
    let line = router.log(1).remove(0);
    assert_eq!(
        (&line["plugins"], &line["status"]),
        (&"f~stored".into(), &503.into())
    );
    assert_eq!(counted(&router, "unreachable", "stored"), None);
}

#[test]
fn a_stampede_of_failures_is_answered_whole() {
    // Peers that die at any point of a request: whatever is whole is either theirs or the fallback's.
    let turn = Mutex::new(0_u32);
    let upstream = Upstream::start(move |mut wire: Wire, _| {
        while wire.peek() {
            let turn = {
                let mut turn = turn.lock().unwrap();
                *turn += 1;
                *turn
            };
            match turn % 4 {
                0 => return,
                1 => {
                    wire.request();
                    return;
                }
                2 => {
                    wire.request();
                    wire.send("HTTP/1.1 200 O");
                    return;
                }
                _ => {
                    wire.request();
                    wire.send(OK);
                }
            }
        }
    });
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }\nretries = { attempts = 0 }")
        .tables(SORRY)
        .tables(STORED)
        .start();
    let mut client = router.client();
    let (mut own, mut theirs) = (0, 0);
    for _ in 0..200 {
        client.send(GET);
        let answer = client.response();
        assert_eq!(answer.status(), 200);
        match &answer.body[..] {
            b"ok" => theirs += 1,
            PAGE => own += 1,
            other => panic!("{}", other.escape_ascii()),
        }
    }
    assert!(own > 0 && theirs > 0, "{own} {theirs}");
    until("counted", || {
        counted(&router, "unreachable", "stored") == Some(f64::from(own))
    });
}
