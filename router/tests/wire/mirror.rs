//! Copies on the wire: what the target sees, what is dropped, and that the caller never knows.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use crate::harness::{GET, OK, Running, Setup, Upstream, refusing, until};

/// A service `t` at this address, and a plugin that sends copies to it.
fn copies_to(target: &Upstream, more: &str) -> String {
    format!(
        "[[service]]\nname = \"t\"\n[[service.instance]]\naddress = \"{}\"\n\
         [[plugin]]\nname = \"m\"\nroute = \"r\"\n[plugin.mirror]\nservice = \"t\"\n{more}\n",
        target.address
    )
}

fn total(router: &Running, result: &str) -> f64 {
    let line = format!(
        "cardea_router_mirror_total{{cluster=\"default\",plugin=\"m\",result=\"{result}\"}}"
    );
    router.metric(&line).unwrap_or(-1.0)
}

fn copied(router: &Running, result: &str, copies: f64) {
    until(result, || (total(router, result) - copies).abs() < 0.1);
}

#[test]
fn a_copy_is_the_request_as_the_service_sees_it_without_its_secrets() {
    let (upstream, target) = (Upstream::answering(OK), Upstream::answering(OK));
    let edits = "[[plugin]]\nname = \"w\"\n[plugin.rewrite]\nhost = \"inner\"\nprefix = \"/v2\"\n\
                 [plugin.rewrite.request]\nremove = [\"x-old\"]\nset = { X-New = \"1\" }\n";
    let router = Setup::new(&[&upstream])
        .path("/shop")
        .tables(&copies_to(
            &target,
            "methods = [\"GET\", \"PUT\"]\ntimes = 2",
        ))
        .tables(edits)
        .start();
    let mut client = router.client();
    client.send(
        "GET /shop/x?q=1 HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\nAuthorization: Basic x\r\n\
         X-Old: 1\r\nX-Request-Id: id-1\r\n\r\n",
    );
    assert_eq!(client.response().body, b"ok");
    copied(&router, "answered", 2.0);
    let seen = target.seen().concat();
    assert_eq!(
        seen.matches("GET /v2/x?q=1 HTTP/1.1\r\nHost: inner\r\n")
            .count(),
        2,
        "{seen}"
    );
    for (there, text) in [
        (true, "X-Cardea-Mirror: 1\r\n"),
        (true, "X-New: 1\r\n"),
        (true, "X-Request-Id: id-1\r\n"),
        (true, "X-Forwarded-For: 127.0.0.1\r\n"),
        (false, "Cookie"),
        (false, "Authorization"),
        (false, "X-Old"),
    ] {
        assert_eq!(seen.contains(text), there, "{text}\n{seen}");
    }
    let original = upstream.seen().concat();
    assert!(original.contains("Cookie: a=b") && !original.contains("X-Cardea-Mirror"));
    assert_eq!(router.log(1)[0]["plugins"], "w=rewritten m=copied");
    // Bodies go along, whatever their framing; Expect does not.
    client.send("PUT /shop/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    copied(&router, "answered", 4.0);
    client.send(
        "PUT /shop/b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nxyz",
    );
    assert_eq!(client.response().status(), 200);
    copied(&router, "answered", 6.0);
    assert_eq!(target.count("\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"), 2);
    assert_eq!(target.count("\r\n\r\nxyz"), 2);
    assert_eq!(target.count("Expect"), 0);
    // Connections are kept for the next copies, and are the copies' own.
    assert!(target.connections() <= 2, "{}", target.connections());
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn what_is_not_to_be_copied_is_not() {
    let (upstream, target) = (Upstream::answering(OK), Upstream::answering(OK));
    let router = Setup::new(&[&upstream])
        .tables(&copies_to(
            &target,
            "body = 10\n[plugin.mirror.when]\nkey = \"header:x-not\"\npresent = false",
        ))
        .start();
    let mut client = router.client();
    let copy = "GET / HTTP/1.1\r\nHost: h\r\nX-Cardea-Mirror: 1\r\n\r\n";
    for request in [
        copy,
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: h\r\nX-Not: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        client.send(request);
        assert_eq!(client.response().status(), 200);
    }
    client.send("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n12345678901");
    assert_eq!(client.response().status(), 200);
    copied(&router, "dropped_body", 1.0);
    client.send("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    copied(&router, "dropped_body", 2.0);
    client.send(GET);
    assert_eq!(client.response().status(), 200);
    copied(&router, "answered", 1.0);
    assert_eq!(target.count(" HTTP/1.1\r\n"), 1);
    // A request that never came as a whole is no copy.
    let mut half = router.client();
    half.send("GET /half HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nabc");
    until("it is at the service", || upstream.count("/half") == 1);
    drop(half);
    copied(&router, "dropped_incomplete", 1.0);
    // Switched to a shadow it only says so.
    router.edit(|text| text.replace("name = \"m\"", "name = \"m\"\nshadow = true"));
    client.send(GET);
    assert_eq!(client.response().status(), 200);
    until("logged", || {
        router.log(9).last().unwrap()["plugins"] == "m~copied"
    });
    assert_eq!(target.count(" HTTP/1.1\r\n"), 1);
}

#[test]
fn answers_are_thrown_away_or_compared() {
    let upstream = Upstream::answering(OK);
    let target = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let head = wire.request().head;
            wire.send(if head.contains("/status") {
                "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"
            } else if head.contains("/length") {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            } else if head.contains("/interim") {
                "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            } else if head.contains("/broken") {
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"
            } else {
                OK
            });
        }
    });
    let router = Setup::new(&[&upstream])
        .tables(&copies_to(&target, "compare = true"))
        .start();
    let mut client = router.client();
    for path in ["/", "/interim", "/status", "/length", "/broken"] {
        client.send(GET.replace("/ ", &format!("{path} ")));
        assert_eq!(client.response().body, b"ok");
    }
    copied(&router, "answered", 4.0);
    copied(&router, "failed", 1.0);
    let compared = |with: &str| {
        let line = "cardea_router_mirror_compared_total{cluster=\"default\",plugin=\"m\"";
        router.metric(&format!("{line},difference=\"{with}\"}}"))
    };
    let all = ["none", "status", "length"].map(compared);
    assert_eq!(all, [Some(2.0), Some(1.0), Some(1.0)]);
    for of in ["copy", "original"] {
        let line = "cardea_router_mirror_duration_seconds_count{cluster=\"default\",plugin=\"m\"";
        router.comes_to(&format!("{line},of=\"{of}\"}}"), 4.0);
    }
    // A peer that fails copies is none the worse for callers.
    assert_eq!(router.metric("cardea_router_upstream_errors_total"), None);
}

#[test]
fn a_target_that_answers_nothing_holds_nothing_and_nobody() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::answering(OK);
    let target = Upstream::start(move |mut wire, _| {
        let _ = wire.head();
        let _ = wait.lock().unwrap().recv();
    });
    let router = Setup::new(&[&upstream])
        .config(|config| {
            config.mirror.at_once = 2;
            config.mirror.queue = 3;
        })
        .tables(&copies_to(&target, "times = 4\ntimeout = \"5m\""))
        .start();
    let mut client = router.client();
    let mut ask = |times: u8| {
        for _ in 0..times {
            client.send(GET);
            assert_eq!(client.response().body, b"ok");
        }
    };
    ask(20);
    // Two are on their way, three wait; what is more is dropped at once, and counted.
    copied(&router, "dropped_queue", 75.0);
    assert_eq!(upstream.connections(), 1);
    until("two are on their way", || target.connections() == 2);
    // The target goes: those that held out find it out, and none is left over.
    drop(go);
    copied(&router, "failed", 5.0);
    assert_eq!(target.connections(), 5);
}

#[test]
fn a_silent_target_gets_a_copy_from_time_to_time_until_it_answers() {
    let upstream = Upstream::answering(OK);
    let answers = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&answers);
    let target = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            wire.request();
            if told.load(Ordering::SeqCst) {
                wire.send(OK);
            }
        }
    });
    let router = Setup::new(&[&upstream])
        .tables(&copies_to(&target, "times = 16\ntimeout = \"100ms\""))
        .start();
    let mut client = router.client();
    let mut ask = || {
        client.send(GET);
        assert_eq!(client.response().body, b"ok");
    };
    ask();
    // Sixteen in a row.
    copied(&router, "timeout", 16.0);
    until("its silence counts", || {
        ask();
        total(&router, "dropped_silent") > 0.5
    });
    for _ in 0..50 {
        ask();
    }
    // Of 800 copies, as many as a few seconds allow: after one, and then after two.
    assert!((16..=18).contains(&target.connections()));
    answers.store(true, Ordering::SeqCst);
    // One at a time finds out that it answers, and then it gets all of them.
    until("it is heard", || {
        ask();
        total(&router, "answered") > 0.5
    });
    let answered = total(&router, "answered");
    ask();
    until("all of a request's copies go", || {
        total(&router, "answered") > answered + 15.5
    });
}

#[test]
fn a_copy_ends_with_its_time() {
    let upstream = Upstream::answering(OK);
    let target = Upstream::start(|mut wire, _| {
        let _ = wire.head();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        wire.peek();
    });
    let router = Setup::new(&[&upstream])
        .tables(&copies_to(
            &target,
            "times = 2\ntimeout = \"200ms\"\ncompare = true",
        ))
        .start();
    assert_eq!(router.ask(GET).body, b"ok");
    copied(&router, "timeout", 2.0);
    assert!(total(&router, "dropped_queue") < 0.1);
}

#[test]
fn memory_is_bounded_and_nobody_to_send_to_is_counted() {
    let upstream = Upstream::answering(OK);
    let target = Upstream::answering(OK);
    let router = Setup::new(&[&upstream])
        .config(|config| config.mirror.memory = 8 << 10)
        .tables(&copies_to(&target, "methods = [\"PUT\"]"))
        .start();
    let body = "x".repeat(9000);
    let put = |n: usize| {
        format!(
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n{}",
            &body[..n]
        )
    };
    let mut client = router.client();
    client.send(put(9000));
    assert_eq!(client.response().status(), 200);
    copied(&router, "dropped_memory", 1.0);
    // What was held is free again.
    for n in 1..6 {
        client.send(put(4000));
        assert_eq!(client.response().status(), 200);
        copied(&router, "answered", f64::from(n));
    }
    let gone = refusing().to_string();
    router.edit(|text| text.replace(&target.address.to_string(), &gone));
    client.send(put(1));
    assert_eq!(client.response().status(), 200);
    copied(&router, "failed", 1.0);
    router.edit(|text| {
        text.replace("service = \"t\"", "service = \"t\"\ngroup = \"none\"")
            .replace(
                "name = \"t\"",
                "name = \"t\"\ngroups = { none = { version = \"none\" } }",
            )
    });
    client.send(put(1));
    assert_eq!(client.response().status(), 200);
    copied(&router, "dropped_no_instance", 1.0);
}

#[test]
fn only_addresses_that_are_allowed_get_copies() {
    let (upstream, target) = (Upstream::answering(OK), Upstream::answering(OK));
    let plugin = format!(
        "[[plugin]]\nname = \"m\"\n[plugin.mirror]\naddress = \"{}\"\n",
        target.address
    );
    let router = Setup::new(&[&upstream]).tables(&plugin).start();
    assert_eq!(router.ask(GET).body, b"ok");
    copied(&router, "dropped_not_allowed", 1.0);
    assert_eq!(target.connections(), 0);
    let allow = target.address.to_string();
    let router = Setup::new(&[&upstream])
        .config(|config| config.mirror.allow = vec![allow])
        .tables(&plugin)
        .start();
    for _ in 0..3 {
        assert_eq!(router.ask(GET).body, b"ok");
    }
    copied(&router, "answered", 3.0);
    assert_eq!(target.count("X-Cardea-Mirror: 1"), 3);
}

#[test]
fn a_stop_drops_what_is_on_its_way_at_once() {
    let upstream = Upstream::answering(OK);
    let target = Upstream::start(|mut wire, _| {
        while wire.peek() {
            wire.request();
        }
    });
    let router = Setup::new(&[&upstream])
        .tables(&copies_to(&target, "timeout = \"5m\"\ntimes = 3"))
        .start();
    assert_eq!(router.ask(GET).body, b"ok");
    until("copies are on their way", || target.count("GET") == 3);
    let took = router.stop().join().unwrap();
    assert!(took < crate::harness::PATIENCE, "{took:?}");
}
