use proptest::prelude::*;

use super::*;

fn parse(text: &[u8]) -> Result<(bool, RequestHead), u16> {
    let mut head = RequestHead::default();
    let complete = head
        .parse(text, 0, text.len())
        .map_err(|refusal| refusal.status)?;
    Ok((complete, head))
}

fn accepted(text: &str) -> RequestHead {
    let (complete, head) = parse(text.as_bytes()).unwrap_or_else(|s| panic!("{s}: {text:?}"));
    assert!(complete, "{text:?}");
    head
}

#[test]
fn a_plain_request() {
    let text = "GET /a/b?q=1 HTTP/1.1\r\nHost: A.example:8080\r\nX-Request-Id: abc-1\r\n\
                Connection: keep-alive\r\n\r\nrest";
    let head = accepted(text);
    let raw = text.as_bytes();
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.path_query.of(raw), b"/a/b?q=1");
    assert_eq!(head.path.of(raw), b"/a/b");
    assert_eq!(head.query(raw), b"q=1");
    assert_eq!(head.host.of(raw), b"A.example:8080");
    assert_eq!(head.host_name.of(raw), b"A.example");
    assert_eq!(head.request_id.map(|s| s.of(raw)), Some(&b"abc-1"[..]));
    assert_eq!(head.len, text.len() - 4);
    assert!(head.keeps_alive());
    assert_eq!(head.framing, Framing::None);
}

#[test]
fn forms_of_targets() {
    for (line, path, host) in [
        ("GET / HTTP/1.1\r\nHost: h", "/", "h"),
        ("GET http://h/x?y HTTP/1.1\r\nHost: H", "/x?y", "H"),
        ("GET http://h HTTP/1.1\r\nHost: h", "/", "h"),
        ("GET HTTP://h?q HTTP/1.1\r\nHost: h", "/", "h"),
        ("OPTIONS * HTTP/1.1\r\nHost: h", "*", "h"),
        ("GET http://h:1/ HTTP/1.0", "/", "h:1"),
        ("GET / HTTP/1.0", "/", ""),
        ("GET / HTTP/1.1\r\nHost: [::1]:80", "/", "[::1]:80"),
    ] {
        let text = format!("{line}\r\n\r\n");
        let head = accepted(&text);
        assert_eq!(
            head.route_target(text.as_bytes()),
            path.as_bytes(),
            "{line}"
        );
        assert_eq!(head.host.of(text.as_bytes()), host.as_bytes(), "{line}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (text, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /# HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA\0: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\u{1}\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
    ] {
        assert_eq!(parse(text.as_bytes()).map(|_| 0), Err(status), "{text:?}");
    }
    let many = (0..101).fold(String::from("GET / HTTP/1.1\r\nHost: a\r\n"), |text, i| {
        text + &format!("x{i}: y\r\n")
    });
    assert_eq!(parse((many + "\r\n").as_bytes()).map(|_| 0), Err(431));
}

#[test]
fn what_a_body_is_made_of() {
    for (fields, framing) in [
        ("Content-Length: 0", Framing::None),
        ("Content-Length: 7", Framing::Length(7)),
        ("Transfer-Encoding: Chunked", Framing::Chunked),
    ] {
        let head = accepted(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        assert_eq!(head.framing, framing);
    }
}

#[test]
fn connection_lists_fields_but_not_those_with_a_meaning() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nConnection: x-a, Host, close\r\n\r\n";
    let head = accepted(text);
    let known: Vec<_> = head.fields.iter().map(|f| f.known).collect();
    assert_eq!(known, [Known::Host, Known::Listed, Known::Connection]);
    assert!(!head.keeps_alive());
}

#[test]
fn upgrades() {
    let with = |upgrade: &str| {
        accepted(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        ))
        .upgrade
    };
    assert!(with("websocket"));
    assert!(!with("h2c"));
}

#[test]
fn request_ids_are_kept_only_when_sane() {
    for (id, kept) in [
        ("abc-1", true),
        ("a b", false),
        ("\"", false),
        ("a\t{}", false),
    ] {
        let head = accepted(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: {id}\r\n\r\n"
        ));
        assert_eq!(head.request_id.is_some(), kept, "{id}");
    }
    let long = "a".repeat(129);
    let head = accepted(&format!(
        "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: {long}\r\n\r\n"
    ));
    assert!(head.request_id.is_none());
}

proptest! {
    /// Every beginning of a good head is incomplete, never refused and never complete.
    #[test]
    fn beginnings_are_incomplete(cut in 0_usize..80) {
        let text = b"\r\nPOST http://host.example/a?b HTTP/1.1\r\nHost: host.example\r\nContent-Length: 3\r\n\r\n";
        let cut = cut.min(text.len() - 1);
        prop_assert_eq!(parse(&text[..cut]).map(|(complete, _)| complete), Ok(false));
    }

    /// Whatever arrives, parsing ends, and what is accepted has one host and one framing.
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&noise);
    }

    /// Damage to one byte of a good head never yields a head with a line feed or NUL inside a field.
    #[test]
    fn damage_never_smuggles(at in 0_usize..90, byte in any::<u8>()) {
        let mut text = b"POST /a?b HTTP/1.1\r\nHost: host.example\r\nContent-Length: 3\r\nX-Other: some value\r\n\r\nabc".to_vec();
        let at = at.min(text.len() - 4);
        text[at] = byte;
        if let Ok((true, head)) = parse(&text) {
            for field in &head.fields {
                for part in [field.name.of(&text), field.value.of(&text)] {
                    prop_assert!(!part.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
                }
            }
        }
    }
}
