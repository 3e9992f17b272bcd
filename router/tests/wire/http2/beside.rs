//! Fallbacks and copies where callers, services, those that stand in and those that get copies speak
//! HTTP/2.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};

use super::{
    client::{Client, get, read, request, soon},
    peer::{Call, Peer},
};
use crate::harness::{OK, Running, Setup, Upstream, refusing, until};

/// A service that answers with a status and its own name; `/reset` and `/silent` do what they say.
fn service(name: &'static str, status: u16) -> Peer {
    Peer::start(move |mut call: Call| {
        Box::pin(async move {
            let path = call.path().to_owned();
            if path.ends_with("/reset") {
                call.respond.send_reset(Reason::INTERNAL_ERROR);
                return;
            }
            if path.ends_with("/silent") {
                return std::future::pending().await;
            }
            let (body, _) = call.read().await;
            let head = Response::builder().status(status).header("x-inner", name);
            let mut stream = call.answer(head.body(()).unwrap(), false);
            let text = [name.as_bytes(), &body].concat();
            stream.send_data(Bytes::from(text), true).unwrap();
        })
    })
}

/// A service `o`.
fn other(address: std::net::SocketAddr, protocol: &str) -> String {
    format!(
        "[[service]]\nname = \"o\"\nprotocol = \"{protocol}\"\nhealth = {{ max_fails = 0 }}\n\
         retries = {{ attempts = 0 }}\ntimeouts = {{ first_byte = \"100ms\" }}\n[[service.instance]]\n\
         address = \"{address}\"\n"
    )
}

fn broken(peer: &Peer) -> Setup {
    Setup::new(&[])
        .service(
            "protocol = \"h2c\"\nhealth = { max_fails = 0 }\nretries = { attempts = 0 }\n\
             timeouts = { first_byte = \"100ms\" }",
        )
        .peer(peer.address)
}

const STORED: &str = "[[fallback]]\nname = \"sorry\"\ntext = \"back soon\"\n\
                      [[plugin]]\nname = \"f\"\n[plugin.fallback]\nbody = \"sorry\"\n";

#[test]
fn a_stored_body_stands_in_over_http2() {
    let peer = service("inside", 503);
    let router = broken(&peer).tables(STORED).start();
    let mut client = Client::connect(router.address);
    for (path, reason) in [
        ("/", "status"),
        ("/reset", "unreachable"),
        ("/silent", "timeout"),
    ] {
        let answer = client.ask(get(path), b"");
        assert_eq!(
            (answer.status(), &answer.body[..]),
            (200, &b"back soon"[..]),
            "{path}"
        );
        assert_eq!(answer.field("x-cardea-fallback"), Some(reason), "{path}");
        assert_eq!(answer.field("content-length"), Some("9"));
        for gone in ["connection", "keep-alive", "transfer-encoding", "x-inner"] {
            assert_eq!(answer.field(gone), None, "{path} {gone}");
        }
    }
    let head = client.ask(request("HEAD", "/"), b"");
    assert_eq!(
        (head.field("content-length"), head.body.len()),
        (Some("9"), 0)
    );
    // What is not covered goes out, and so does what comes with a body that nobody has read.
    let post = client.ask(request("POST", "/"), &vec![b'x'; 100_000]);
    assert_eq!(post.status(), 503);
    // A hundred streams of one connection.
    let answers: Vec<_> = (0..100).map(|_| client.open(get("/"), true).0).collect();
    client.runtime.block_on(async {
        for answer in answers {
            let answer = soon(read(answer)).await.unwrap();
            assert_eq!(
                (answer.status(), &answer.body[..]),
                (200, &b"back soon"[..])
            );
        }
    });
    let line = router.log(1).remove(0);
    assert_eq!(
        (&line["hidden_status"], &line["fallback"]),
        (&503.into(), &"stored".into())
    );
}

#[test]
fn the_last_good_answer_is_remembered_over_http2() {
    let peer = Peer::start(|mut call: Call| {
        Box::pin(async move {
            let fine = !call.head.headers().contains_key("x-fail");
            let head = Response::builder().status(if fine { 200 } else { 500 });
            let mut stream = call.answer(head.body(()).unwrap(), false);
            // Neither says how long it is.
            stream.send_data(Bytes::from_static(b"fre"), false).unwrap();
            stream.send_data(Bytes::from_static(b"sh"), true).unwrap();
        })
    });
    let router = broken(&peer)
        .tables("[[plugin]]\nname = \"f\"\n[plugin.fallback.last_good]\n")
        .start();
    let mut client = Client::connect(router.address);
    assert_eq!(client.ask(get("/a"), b"").body, b"fresh");
    let mut failing = get("/a");
    failing
        .headers_mut()
        .insert("x-fail", HeaderValue::from_static("1"));
    let kept = client.ask(failing, b"");
    assert_eq!((kept.status(), &kept.body[..]), (200, &b"fresh"[..]));
    assert!(kept.field("age").is_some() && kept.field("x-cardea-fallback") == Some("status"));
    // A caller of HTTP/1.1 gets the same.
    let mut wire = router.client();
    wire.send("GET /a HTTP/1.1\r\nHost: h.example\r\nX-Fail: 1\r\n\r\n");
    let answer = wire.response();
    assert_eq!((answer.status(), &answer.body[..]), (200, &b"fresh"[..]));
}

#[test]
fn another_service_or_route_is_asked_over_http2() {
    let peer = service("inside", 503);
    let spare = service("spare", 201);
    let old = Upstream::answering(OK);
    let methods = "methods = [\"GET\", \"PUT\"]\n";
    let to_service = format!(
        "[[plugin]]\nname = \"f\"\nroute = \"r\"\n[plugin.fallback]\nservice = \"o\"\n{methods}"
    );
    let to_route = to_service.replace("service = \"o\"", "route = \"spare\"")
        + "[[route]]\nid = \"spare\"\nhost = \"spare.test\"\nprefix = \"/spare\"\nservice = \"o\"\n";
    for (plugin, host, prefix) in [
        (&to_service, "h.example", ""),
        (&to_route, "spare.test", "/spare"),
    ] {
        let router = broken(&peer)
            .tables(&other(spare.address, "h2c"))
            .tables(plugin)
            .start();
        let mut client = Client::connect(router.address);
        for (path, reason) in [
            ("/a?q=1", "status"),
            ("/reset", "unreachable"),
            ("/silent", "timeout"),
        ] {
            let before = spare.heads().len();
            let answer = client.ask(request("PUT", path), b"-body");
            // What stands in does the same at the paths of this name.
            if path.starts_with("/a") {
                assert_eq!(
                    (answer.status(), &answer.body[..]),
                    (201, &b"spare-body"[..]),
                    "{path}"
                );
                assert_eq!(answer.field("x-cardea-fallback"), Some(reason));
            } else {
                assert!(answer.status() >= 500, "{path}");
            }
            let asked = &spare.heads()[before..];
            assert_eq!(asked.len(), 1, "{path} {asked:?}");
            assert_eq!(
                asked[0].uri().to_string(),
                format!("http://{host}{prefix}{path}")
            );
            assert_eq!(asked[0].headers()["x-cardea-fallback"], reason);
        }
    }
    // From one protocol to the other: what was written for a stream goes out on a connection.
    let router = broken(&peer)
        .tables(&other(old.address, "http/1.1"))
        .tables(&to_service)
        .start();
    let mut client = Client::connect(router.address);
    assert_eq!(client.ask(request("PUT", "/a"), b"abc").body, b"ok");
    let seen = old.seen().concat();
    assert!(
        seen.starts_with("PUT /a HTTP/1.1\r\nhost: h.example\r\n"),
        "{seen}"
    );
    assert!(
        seen.contains("X-Cardea-Fallback: status") && seen.contains("\r\nabc"),
        "{seen}"
    );
}

fn copied(router: &Running, result: &str, copies: f64) {
    let line = format!(
        "cardea_router_mirror_total{{cluster=\"default\",plugin=\"m\",result=\"{result}\"}}"
    );
    until(result, || {
        (router.metric(&line).unwrap_or(-1.0) - copies).abs() < 0.1
    });
}

#[test]
fn copies_come_from_http2_and_go_to_it() {
    let mirror = "[[plugin]]\nname = \"m\"\nroute = \"r\"\n[plugin.mirror]\nservice = \"o\"\n\
                  methods = [\"GET\", \"PUT\"]\ntimes = 2\n";
    let original = service("inside", 200);
    let target = service("copy", 200);
    let old = Upstream::answering(OK);
    for (address, protocol) in [(target.address, "h2c"), (old.address, "http/1.1")] {
        let router = Setup::new(&[])
            .service("protocol = \"h2c\"")
            .peer(original.address)
            .tables(&other(address, protocol))
            .tables(mirror)
            .start();
        let mut client = Client::connect(router.address);
        assert_eq!(client.ask(get("/x?q=1"), b"").body, b"inside");
        copied(&router, "answered", 2.0);
        // With and without a length, with trailers, and from a client of HTTP/1.1.
        let body = vec![b'x'; 40_000];
        let mut sized = request("PUT", "/y");
        sized
            .headers_mut()
            .insert("content-length", HeaderValue::from(body.len()));
        assert_eq!(client.ask(sized, &body).body.len(), 40_006);
        copied(&router, "answered", 4.0);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from(1));
        let answer = client.ask_with(request("PUT", "/z"), &body, Some(trailers));
        assert_eq!(answer.body.len(), 40_006);
        copied(&router, "answered", 6.0);
        let mut wire = router.client();
        wire.send("PUT /w HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(wire.response().body, b"insideabc");
        copied(&router, "answered", 8.0);
    }
    let heads = target.heads();
    let paths: Vec<_> = heads.iter().map(|head| head.uri().path()).collect();
    assert_eq!(paths, ["/x", "/x", "/y", "/y", "/z", "/z", "/w", "/w"]);
    for head in &heads {
        assert_eq!(head.headers()["x-cardea-mirror"], "1");
        assert_eq!(head.uri().authority().unwrap(), "h.example");
    }
    let originals = original.heads();
    let marked = |head: &&http::Request<()>| head.headers().contains_key("x-cardea-mirror");
    assert_eq!(originals.iter().filter(marked).count(), 0);
    let seen = old.seen().concat();
    assert_eq!(
        seen.matches("X-Cardea-Mirror: 1").count(),
        8,
        "{}",
        &seen[..400]
    );
    assert_eq!(seen.matches("\r\nabc").count(), 2, "{seen}");
}

#[test]
fn a_copy_that_fails_over_http2_is_counted_and_nobody_knows() {
    let (original, target) = (Upstream::answering(OK), service("copy", 200));
    let mirror = "[[plugin]]\nname = \"m\"\nroute = \"r\"\n[plugin.mirror]\nservice = \"o\"\ntimeout = \"100ms\"\n";
    let router = Setup::new(&[&original])
        .tables(&other(target.address, "h2c"))
        .tables(mirror)
        .start();
    let mut client = Client::connect(router.address);
    for (path, result) in [
        ("/reset", "failed"),
        ("/silent", "timeout"),
        ("/", "answered"),
    ] {
        let answer = client.ask(get(path), b"");
        assert_eq!(
            (answer.status(), &answer.body[..]),
            (200, &b"ok"[..]),
            "{path}"
        );
        copied(&router, result, 1.0);
    }
    router.edit(|text| text.replace(&target.address.to_string(), &refusing().to_string()));
    assert_eq!(client.ask(get("/"), b"").body, b"ok");
    copied(&router, "failed", 2.0);
}
