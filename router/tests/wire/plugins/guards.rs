//! Plugins that let a service alone, on the wire.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use crate::harness::{GET, OK, Setup, Upstream, refusing, until};

const BAD: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";

const BREAK: &str = "[[plugin]]\nname = \"b\"\nservice = \"s\"\n[plugin.break]\nmin_requests = 5\n\
                     open = \"1h\"\nprobes = 2\n";

/// Answers well or badly, as it is told.
fn moody() -> (Upstream, Arc<AtomicBool>) {
    let bad = Arc::new(AtomicBool::new(true));
    let mood = Arc::clone(&bad);
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            wire.request();
            wire.send(if mood.load(Ordering::SeqCst) { BAD } else { OK });
        }
    });
    (upstream, bad)
}

#[test]
fn a_breaker_opens_refuses_without_asking_and_closes_again() {
    let (upstream, bad) = moody();
    let router = Setup::new(&[&upstream]).tables(BREAK).start();
    for _ in 0..5 {
        assert_eq!(router.ask(GET).status(), 500);
    }
    let asked = upstream.count("GET ");
    let refused = router.ask(GET);
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.field("retry-after"), Some("3600"));
    assert!(
        String::from_utf8(refused.body)
            .unwrap()
            .contains("circuit_open")
    );
    assert_eq!(upstream.count("GET "), asked);
    let labels = "cluster=\"default\",plugin=\"b\",service=\"s\"";
    let state = |state: &str| {
        router.metric(&format!(
            "cardea_router_breaker_state{{{labels},state=\"{state}\"}}"
        ))
    };
    let opened = |times: f64| {
        let counted = format!("cardea_router_breaker_opened_total{{{labels}}}");
        router.comes_to(&counted, times);
        assert_eq!(state("open"), Some(1.0));
    };
    opened(1.0);
    assert!(
        router.table().contains("\"state\":\"open\",\"opened\":1"),
        "{}",
        router.table()
    );
    // An edit keeps what is known; that it is not to stay open for so long counts at once.
    router.edit(|text| text.replace("1h", "100ms"));
    assert_eq!(state("open"), Some(1.0));
    // A probe that fails opens it again …
    assert_eq!(router.ask(GET).status(), 500);
    opened(2.0);
    // … and two that do not close it.
    bad.store(false, Ordering::SeqCst);
    until("a good answer", || router.ask(GET).status() == 200);
    until("it is closed", || {
        router.ask(GET);
        state("closed") == Some(1.0)
    });
    for _ in 0..5 {
        assert_eq!(router.ask(GET).status(), 200);
    }
    let log = router.log(7);
    assert_eq!(log[5]["plugins"], "b=open");
    assert_eq!(log[5]["error"], "circuit_open");
}

#[test]
fn a_service_that_cannot_be_reached_opens_it_and_a_client_that_leaves_does_not() {
    let router = Setup::new(&[]).peer(refusing()).tables(BREAK).start();
    until("it is open", || {
        String::from_utf8(router.ask(GET).body)
            .unwrap()
            .contains("circuit_open")
    });
    // Nobody answers, and everybody leaves.
    let silent = Upstream::start(|mut wire, _| while wire.fill() {});
    let router = Setup::new(&[&silent]).tables(BREAK).start();
    for number in 1..=9 {
        let mut client = router.client();
        client.send(GET);
        until("it is asked", || silent.count("GET ") == number);
        client.reset();
    }
    let log = router.log(9);
    assert!(
        log.iter().all(|line| line["error"] == "client_gone"),
        "{log:?}"
    );
    let table = router.table();
    assert!(
        table.contains("\"state\":\"closed\",\"opened\":0"),
        "{table}"
    );
}

#[test]
fn adaptive_concurrency_refuses_what_is_too_much_at_a_time() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            wire.request();
            wait.lock().unwrap().recv().unwrap();
            wire.send(OK);
        }
    });
    let router = Setup::new(&[&upstream])
        .tables("[[plugin]]\nname = \"b\"\n[plugin.break.adaptive]\ninitial = 2\nmin = 2\n")
        .start();
    let mut clients: Vec<_> = (0..2).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    until("both are there", || upstream.count("GET ") == 2);
    let refused = router.ask(GET);
    assert_eq!(refused.status(), 503);
    assert!(
        String::from_utf8(refused.body)
            .unwrap()
            .contains("overloaded")
    );
    // Whichever of them gets it.
    for _ in &clients {
        go.send(()).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    // There is room once the router has seen the end of what the clients have got.
    until("there is room", || {
        go.send(()).unwrap();
        router.ask(GET).status() == 200
    });
}

#[test]
fn limits_by_a_claim_of_the_token() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .tables(
            "[[plugin]]\nname = \"l\"\n[plugin.limit]\nrate = 1\nper = \"minute\"\nkey = \"jwt:sub\"\n\
             [[plugin.limit.keys]]\nis = \"vip\"\nrate = 2\n",
        )
        .start();
    // {"sub":"u1"}, {"sub":"u2"}, {"sub":"vip"}
    let ask = |payload: &str| {
        let token = format!("Authorization: Bearer e30.{payload}.c2ln\r\n");
        router
            .ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{token}\r\n"))
            .status()
    };
    let (one, two, vip) = ("eyJzdWIiOiJ1MSJ9", "eyJzdWIiOiJ1MiJ9", "eyJzdWIiOiJ2aXAifQ");
    assert_eq!([one, one, two, two].map(ask), [200, 429, 200, 429]);
    assert_eq!([vip, vip, vip].map(ask), [200, 200, 429]);
    assert_eq!([GET, GET].map(|get| router.ask(get).status()), [200, 200]);
}

#[test]
fn what_a_breaker_refuses_a_fallback_answers() {
    let (upstream, _) = moody();
    let router = Setup::new(&[&upstream])
        .tables(BREAK)
        .tables(
            "[[fallback]]\nname = \"sorry\"\ncontent_type = \"text/html\"\ntext = \"back soon\"\n\
             [[plugin]]\nname = \"f\"\n[plugin.fallback]\nbody = \"sorry\"\nstatuses = []\n\
             causes = [\"break\"]\n",
        )
        .start();
    for _ in 0..5 {
        assert_eq!(router.ask(GET).status(), 500);
    }
    let rescued = router.ask(GET);
    assert_eq!(
        (rescued.status(), &rescued.body[..]),
        (200, &b"back soon"[..])
    );
    assert_eq!(rescued.field("x-cardea-fallback"), Some("break"));
    assert_eq!(rescued.field("retry-after"), None);
}
