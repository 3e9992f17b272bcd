use cardea_registry_api::network::{Network, Networks};

use super::*;
use crate::http1::request::Method;

fn forwarded(text: &str) -> String {
    forwarded_by(text, None, false)
}

fn forwarded_by(text: &str, trusted: Option<&str>, drop_underscores: bool) -> String {
    let mut head = RequestHead::default();
    assert!(head.parse(text.as_bytes(), 0, text.len()).unwrap());
    let mut out = Vec::new();
    let trusted: Option<Networks> = trusted.map(|t| {
        t.split(' ')
            .map(|n| n.parse::<Network>().unwrap())
            .collect()
    });
    let believed = trusted.map(|trusted| Believed::read(&head, text.as_bytes(), &trusted));
    let add = Additions {
        client: b"10.0.0.9",
        believed: believed.as_ref(),
        scheme: "http",
        request_id: b"id1",
        client_cert: None,
        drop_underscores,
        path: b"",
        host: b"",
        gone: [&[]; 2],
        lines: b"",
        at_once: false,
    };
    request(&mut out, text.as_bytes(), &head, add);
    String::from_utf8(out).unwrap()
}

const ADDED: &str = "X-Forwarded-For: 10.0.0.9\r\nX-Real-IP: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nX-Request-Id: id1\r\n\r\n";

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
fn what_a_stranger_says_about_clients_is_replaced() {
    let out = forwarded(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Request-Id: bad id\r\n\
         X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /x\r\nX-Real-IP: 1.1.1.1\r\n\
         Forwarded: for=1.1.1.1;host=evil;proto=https\r\nX_Forwarded_For: 1.1.1.1\r\n\
         X-Real_IP: 1.1.1.1\r\nX_Request_Id: 7\r\ntracestate: a=b\r\nX_Kept: 1\r\n\r\n",
    );
    assert_eq!(
        out,
        format!("GET / HTTP/1.1\r\nHost: h\r\nX_Kept: 1\r\n{ADDED}")
    );
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_continued() {
    let out = forwarded_by(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6, 1.1.1.1\r\nx-forwarded-for: 10.0.0.7\r\n\
         X-Forwarded-Proto: HTTPS\r\nX-Forwarded-Host: public:8443\r\nX-Forwarded-Port: 8443\r\n\
         X-Real-IP: 6.6.6.6\r\nForwarded: for=7.7.7.7\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
        Some("10.0.0.0/8"),
        false,
    );
    assert_eq!(
        out,
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Port: 8443\r\n\
         X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.7, 10.0.0.9\r\nX-Real-IP: 1.1.1.1\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: public:8443\r\nX-Request-Id: id1\r\n\r\n"
    );
}

#[test]
fn forwarded_becomes_x_forwarded() {
    let out = forwarded_by(
        "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=6.6.6.6;host=evil, for=\"[2001:db8::1]:99\";Proto=https;\
         host=\"public:1\"\r\nForwarded: for=_hidden,for=1.1.1.1;by=x;host=mine;proto=https , for=10.0.0.7\r\n\r\n",
        Some("10.0.0.0/8"),
        false,
    );
    assert_eq!(
        out,
        "GET / HTTP/1.1\r\nHost: h\r\n\
         X-Forwarded-For: 6.6.6.6, 2001:db8::1, unknown, 1.1.1.1, 10.0.0.7, 10.0.0.9\r\n\
         X-Real-IP: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: mine\r\n\
         X-Request-Id: id1\r\n\r\n"
    );
    // Nothing of a malformed one is believed.
    let out = forwarded_by(
        "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=1.1.1.1;proto=https, for=\"2.2.2.2\r\n\r\n",
        Some("10.0.0.0/8"),
        false,
    );
    assert_eq!(out, format!("GET / HTTP/1.1\r\nHost: h\r\n{ADDED}"));
}

#[test]
fn names_with_underscores_stay_behind_if_wanted() {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nUser_Agent: x\r\nA: 1\r\n\r\n";
    let out = forwarded_by(text, None, true);
    assert_eq!(out, format!("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n{ADDED}"));
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
    let text = "HTTP/1.0 200 Fine\r\nDate: then\r\nConnection: close, x-a\r\nX-A: 1\r\nContent-Length: 3\r\n\
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
    response(
        &mut out,
        text.as_bytes(),
        &head,
        delivery,
        b"id1",
        ReplyEdits::default(),
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 200 Fine\r\nDate: then\r\nContent-Length: 3\r\nServer: s\r\nB: 2\r\nConnection: close\r\n\
         X-Request-Id: id1\r\n\r\n"
    );
}
