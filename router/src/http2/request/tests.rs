use http::{Request, request::Builder};
use proptest::prelude::*;

use super::*;
use crate::http1::request::RequestHead;

fn get(uri: &str) -> Builder {
    Request::builder().uri(uri)
}

fn rendered(request: Builder, ended: bool) -> Result<(String, Framing), Unfit> {
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let rendered = render(&parts, ended)?;
    Ok((String::from_utf8(rendered.head).unwrap(), rendered.framing))
}

#[test]
fn a_request_becomes_http1() {
    let request = get("http://h.example:8080/a?b=c")
        .header("accept", "*/*")
        .header("host", "H.example:8080")
        .header("cookie", "a=b")
        .header("te", "trailers")
        .header("cookie", "c=d");
    assert_eq!(
        rendered(request, true).unwrap(),
        (
            "GET /a?b=c HTTP/1.1\r\nhost: h.example:8080\r\naccept: */*\r\nte: trailers\r\n\
             cookie: a=b; c=d\r\nconnection: close\r\n\r\n"
                .to_owned(),
            Framing::None
        )
    );
}

#[test]
fn a_body_is_framed_by_its_length_or_in_chunks() {
    let post = || get("http://h/").method("POST");
    let with = |length: &str| post().header("content-length", length);
    let (head, framing) = rendered(post(), false).unwrap();
    assert_eq!(framing, Framing::Chunked);
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    let (head, framing) = rendered(with("7"), false).unwrap();
    assert_eq!(framing, Framing::Length(7));
    assert!(head.contains("content-length: 7\r\n"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    let (head, framing) = rendered(with("0"), true).unwrap();
    assert_eq!(framing, Framing::None);
    assert!(head.contains("content-length: 0\r\n"), "{head}");
    assert_eq!(rendered(post(), true).unwrap().1, Framing::None);
    for bad in ["7, 7", "+7", "-1", "0x7", "7 7", ""] {
        assert!(rendered(with(bad), false).is_err(), "{bad}");
    }
    assert!(rendered(with("7"), true).is_err());
    assert!(rendered(with("7").header("content-length", "8"), false).is_err());
}

#[test]
fn what_concerns_a_connection_is_refused() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
    ] {
        assert!(
            rendered(get("http://h/").header(name, value), true).is_err(),
            "{name}"
        );
    }
    let settings = get("http://h/").header("http2-settings", "AAMAAABk");
    assert!(!rendered(settings, true).unwrap().0.contains("settings"));
}

#[test]
fn another_host_is_left_for_the_parser_to_refuse() {
    let (head, _) = rendered(get("http://a/").header("host", "b"), true).unwrap();
    let mut parsed = RequestHead::default();
    let refusal = parsed.parse(head.as_bytes(), 0, head.len()).unwrap_err();
    assert_eq!(refusal.status, 400);
}

#[test]
fn targets_are_in_origin_form() {
    for bad in ["/é", "/\u{a0}"] {
        let path = PathAndQuery::try_from(bad).unwrap();
        assert!(push_target(&mut Vec::new(), &path).is_err(), "{bad}");
    }
    let mut out = Vec::new();
    push_target(&mut out, &PathAndQuery::from_static("*")).unwrap();
    assert_eq!(out, b"*");
}

#[test]
fn a_websocket_becomes_an_upgrade() {
    let request = Request::builder()
        .method("CONNECT")
        .uri("http://h.example/chat?x=1")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "mine")
        .extension(Protocol::from_static("websocket"));
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let rendered = render(&parts, false).unwrap();
    assert!(rendered.tunnel);
    let head = String::from_utf8(rendered.head).unwrap();
    assert!(
        head.starts_with("GET /chat?x=1 HTTP/1.1\r\nhost: h.example\r\n"),
        "{head}"
    );
    assert!(
        head.ends_with("==\r\nconnection: upgrade\r\n\r\n"),
        "{head}"
    );
    assert!(!head.contains("mine"), "{head}");
    let mut parsed = RequestHead::default();
    assert!(parsed.parse(head.as_bytes(), 0, head.len()).unwrap());
    assert!(parsed.upgrade);
    assert_eq!(new_key().len(), 24);
    assert_ne!(new_key(), new_key());
}

proptest! {
    /// Whatever the fields hold, what the pipeline's parser reads is what was sent: the same
    /// fields, and no others.
    #[test]
    fn nothing_is_smuggled(
        method in prop_oneof![Just("GET"), Just("POST"), Just("M-SEARCH"), Just("PRI")],
        path in "/[ -~]{0,20}",
        fields in prop::collection::vec(
            ("[a-z0-9!#$&'*+.^_`|~-]{1,12}", prop::collection::vec(any::<u8>(), 0..20)),
            0..20,
        ),
        length in prop::option::of(0_u64..100),
        ended: bool,
    ) {
        let mut request = get("http://h.example/").method(method);
        let Ok(target) = PathAndQuery::try_from(path.as_str()) else { return Ok(()); };
        for (name, value) in &fields {
            request = request.header(name, &value[..]);
        }
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let Ok(request) = request.body(()) else { return Ok(()); };
        let (mut parts, ()) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        uri.path_and_query = Some(target);
        parts.uri = http::Uri::from_parts(uri).unwrap();
        let Ok(rendered) = render(&parts, ended) else { return Ok(()); };
        let mut parsed = RequestHead::default();
        let head = &rendered.head;
        match parsed.parse(head, 0, head.len()) {
            Ok(complete) => prop_assert!(complete),
            // Refused is as good.
            Err(_) => return Ok(()),
        }
        prop_assert_eq!(parsed.len, head.len());
        prop_assert_eq!(parsed.framing, rendered.framing);
        prop_assert_eq!(parsed.host.of(head), b"h.example");
        prop_assert_eq!(parsed.method_name.of(head), method.as_bytes());
        let mut expected: Vec<(Vec<u8>, Vec<u8>)> = parts
            .headers
            .iter()
            .filter(|(name, _)| *name != "cookie" && *name != "content-length")
            .filter(|(name, _)| *name != "http2-settings" && *name != "host")
            .map(|(n, v)| (n.as_str().into(), v.as_bytes().trim_ascii().to_vec()))
            .collect();
        expected.sort();
        let own = ["host", "content-length", "transfer-encoding", "cookie", "connection"];
        let mut got: Vec<(Vec<u8>, Vec<u8>)> = parsed
            .fields
            .iter()
            .map(|f| (f.name.of(head).to_vec(), f.value.of(head).trim_ascii().to_vec()))
            .filter(|(name, _)| !own.contains(&std::str::from_utf8(name).unwrap()))
            .collect();
        got.sort();
        prop_assert_eq!(got, expected);
    }
}
