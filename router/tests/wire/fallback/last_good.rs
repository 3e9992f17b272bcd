//! The last good answer in place of an error.

use std::sync::atomic::Ordering;

use super::{counted, switched};
use crate::harness::{Setup, Upstream};

const LAST_GOOD: &str =
    "[[plugin]]\nname = \"f\"\n[plugin.fallback.last_good]\nheaders = [\"accept-language\"]\n";

#[test]
fn the_last_good_answer_is_remembered_by_request() {
    let (upstream, status) = switched("fresh");
    let edits = "[[plugin]]\nname = \"w\"\n[plugin.rewrite.response]\nremove = [\"x-inner\"]\nset = { X-User = \"${header:x-user}\" }\n";
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }")
        .tables(LAST_GOOD)
        .tables(edits)
        .start();
    let get = |path: &str, headers: &str| {
        router.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    };
    for (path, headers) in [
        ("/a?q=1", "X-User: u1\r\n"),
        ("/auth", "Authorization: Basic x\r\n"),
        ("/kept-by-nobody", "Cache-Control: no-store\r\n"),
        ("/german", "Accept-Language: de\r\n"),
    ] {
        assert_eq!(get(path, headers).body, b"fresh");
    }
    status.store(500, Ordering::SeqCst);
    let again = get("/a?q=1", "X-User: u2\r\n");
    assert_eq!((again.status(), &again.body[..]), (200, &b"fresh"[..]));
    assert_eq!(again.field("x-cardea-fallback"), Some("status"));
    // It is the service's own answer, edited for this caller.
    assert_eq!(
        (again.field("date"), again.field("x-inner")),
        (Some("then"), None)
    );
    assert_eq!(again.field("x-user"), Some("u2"));
    assert!(again.field("age").is_some());
    let mut client = router.client();
    client.send("HEAD /a?q=1 HTTP/1.1\r\nHost: H\r\n\r\n");
    let head = client.response_to(true);
    assert_eq!(
        (head.status(), head.field("content-length")),
        (200, Some("5"))
    );
    for (path, headers, code) in [
        ("/a?q=2", "", 500),
        ("/a", "", 500),
        ("/auth", "", 500),
        ("/a?q=1", "Authorization: Basic x\r\n", 500),
        ("/kept-by-nobody", "", 500),
        ("/german", "", 500),
        ("/german", "Accept-Language: de\r\n", 200),
    ] {
        assert_eq!(get(path, headers).status(), code, "{path} {headers}");
    }
    assert_eq!(counted(&router, "status", "last_good"), Some(3.0));
    assert_eq!(counted(&router, "status", "failed"), Some(6.0));
    // Another policy of remembering forgets; the same one does not.
    router.edit(|text| {
        text + "[[plugin]]\nname = \"other\"\nroute = \"r\"\n[plugin.restrict]\nbody = 9\n"
    });
    assert_eq!(get("/a?q=1", "").status(), 200);
    router.edit(|text| text.replace("headers = [\"accept-language\"]", "query = [\"q\"]"));
    assert_eq!(get("/a?q=1", "").status(), 500);
}

#[test]
fn what_is_remembered_is_whole_and_within_its_size() {
    let upstream = Upstream::start(|mut wire, number| {
        while wire.peek() {
            let request = wire.request();
            let body = "x".repeat(70_000);
            if request.head.contains("X-Fail") {
                wire.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
            } else if request.head.contains("/chunked") {
                let (a, b) = body.split_at(30_000);
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n",
                    a.len()
                ));
                wire.send(format!("{:x}\r\n{b}\r\n0\r\nX-Trailer: t\r\n\r\n", b.len()));
            } else if request.head.contains("/large") {
                wire.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}{body}\r\n0\r\n\r\n", 140_000));
            } else if request.head.contains("/cut") {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
                return;
            } else {
                wire.send(format!(
                    "HTTP/1.0 200 OK\r\nX-Number: {number}\r\n\r\n{body}"
                ));
                return;
            }
        }
    });
    let router = Setup::new(&[&upstream])
        .service("health = { max_fails = 0 }\nretries = { attempts = 0 }")
        .tables("[[plugin]]\nname = \"f\"\n[plugin.fallback.last_good]\nsize = 100000\n")
        .start();
    let get = |path: &str, headers: &str| {
        let mut client = router.client();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n"
        ));
        client.rest().0
    };
    for path in ["/chunked", "/large", "/cut", "/until-close"] {
        assert!(!get(path, "").is_empty());
    }
    let kept = get("/chunked", "X-Fail: 1\r\n");
    let text = String::from_utf8(kept).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &text[..200]);
    assert!(
        text.contains("\r\nContent-Length: 70000\r\n")
            && text.ends_with("\r\n\r\nxxxx".split_at(4).1)
    );
    assert!(!text.contains("chunked") && text.matches('x').count() >= 70_000);
    for path in ["/large", "/cut", "/until-close"] {
        let answer = get(path, "X-Fail: 1\r\n");
        assert!(answer.starts_with(b"HTTP/1.1 500"), "{path}");
    }
}
