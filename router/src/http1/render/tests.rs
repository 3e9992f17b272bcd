use super::*;
use crate::http1::request::Method;

fn forwarded(text: &str) -> String {
    let mut head = RequestHead::default();
    assert!(head.parse(text.as_bytes(), 0, text.len()).unwrap());
    let mut out = Vec::new();
    let add = Additions {
        client: "10.0.0.9",
        scheme: "http",
        request_id: b"id1",
    };
    request(&mut out, text.as_bytes(), &head, add);
    String::from_utf8(out).unwrap()
}

const ADDED: &str = "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nX-Request-Id: id1\r\n\r\n";

#[test]
fn connection_fields_stay_behind() {
    let out = forwarded(
        "GET /a?b HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, x-hop\r\nA: 1\r\nX-Hop: 2\r\n\
         Keep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nB:2\r\n\
         TE: trailers, gzip\r\ntraceparent: 00-1-2-03\r\n\r\n",
    );
    let want = "GET /a?b HTTP/1.1\r\nHost: h\r\nA: 1\r\nB:2\r\ntraceparent: 00-1-2-03\r\n\
                TE: trailers\r\nConnection: te\r\n"
        .to_owned()
        + ADDED;
    assert_eq!(out, want);
}

#[test]
fn forwarded_fields_are_appended_or_replaced() {
    let out = forwarded(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n\
         X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil\r\nX-Request-Id: bad id\r\n\r\n",
    );
    let added = ADDED.replace("10.0.0.9", "1.1.1.1, 2.2.2.2, 10.0.0.9");
    assert_eq!(out, "GET / HTTP/1.1\r\nHost: h\r\n".to_owned() + &added);
}

#[test]
fn absolute_targets_become_paths() {
    for (target, path) in [
        ("http://h", "/"),
        ("http://h?q", "/?q"),
        ("http://h/x", "/x"),
    ] {
        let out = forwarded(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(out, format!("GET {path} HTTP/1.1\r\nHost: h\r\n{ADDED}"));
    }
    let out = forwarded("GET http://h/ HTTP/1.0\r\n\r\n");
    assert_eq!(out, format!("GET / HTTP/1.1\r\nHost: h\r\n{ADDED}"));
}

#[test]
fn an_upgrade_is_passed_on() {
    let out = forwarded(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-X: 1\r\n\r\n",
    );
    let want =
        "GET / HTTP/1.1\r\nHost: h\r\nSec-X: 1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(out, want.to_owned() + ADDED);
}

#[test]
fn responses_lose_what_concerns_one_connection() {
    let text = "HTTP/1.0 200 Fine\r\nConnection: close, x-a\r\nX-A: 1\r\nContent-Length: 3\r\n\
                Content-Length: 3\r\nServer: s\r\nX-Request-Id: theirs\r\nKeep-Alive: 1\r\nB: 2\r\n\r\n";
    let mut head = ResponseHead::default();
    assert!(
        head.parse(text.as_bytes(), 0, text.len(), Method::Get)
            .unwrap()
    );
    let mut out = Vec::new();
    let delivery = Delivery {
        chunks: false,
        close: true,
        say_keep_alive: false,
    };
    response(&mut out, text.as_bytes(), &head, delivery, b"id1");
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nServer: s\r\nB: 2\r\nConnection: close\r\n\
         X-Request-Id: id1\r\n\r\n"
    );
}
