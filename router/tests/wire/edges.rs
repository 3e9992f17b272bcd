//! Limits: one short of them, at them, and one beyond.

use std::fmt::Write as _;

use http::HeaderValue;

use crate::{
    failures::errors,
    harness::{GET, OK, Setup, Upstream},
    http2::{
        client::{Client, get},
        peer::Peer,
    },
};

/// `beginning`, filled up with a field to a head of `size` bytes.
fn filled(beginning: &str, size: usize) -> String {
    let frame = "A: \r\n\r\n".len();
    format!(
        "{beginning}A: {}\r\n\r\n",
        "x".repeat(size - beginning.len() - frame)
    )
}

fn fields(n: usize) -> String {
    (0..n).fold(String::new(), |mut all, i| {
        write!(all, "X-{i}: v\r\n").unwrap();
        all
    })
}

/// What one field and line more or less makes of a request.
#[test]
fn a_requests_head_fits_to_the_byte_and_the_field() {
    const LINE: usize = "GET  HTTP/1.1\r\n".len();
    let upstream = Upstream::answering(OK);
    let start = "GET / HTTP/1.1\r\nHost: h\r\n";
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(n - 1));
    let rest = target(1).len() - 1;
    for limit in [4096, 16 << 10, 20_000, 64 << 10] {
        let router = Setup::new(&[&upstream])
            .config(|c| c.limits.head = limit)
            .start();
        for (request, status) in [
            (filled(start, limit - 1), 200),
            (filled(start, limit), 200),
            (filled(start, limit + 1), 431),
            (target(limit - rest), 200),
            // The target would fit, but not the head.
            (target(limit - rest + 1), 431),
            // The last request line that fits, and the first that does not.
            (target(limit - LINE), 431),
            (target(limit - LINE + 1), 414),
            (target(limit + 1), 414),
            (format!("{start}{}\r\n", fields(98)), 200),
            (format!("{start}{}\r\n", fields(99)), 200),
            (format!("{start}{}\r\n", fields(100)), 431),
        ] {
            let lines = request.matches("\r\n").count();
            for step in [usize::MAX, 1500] {
                let mut client = router.client();
                for piece in request.as_bytes().chunks(step) {
                    if client.try_send(piece).is_err() {
                        break;
                    }
                }
                let answer = client.response().status();
                let what = format!("{limit}: {} bytes, {lines} lines", request.len());
                assert_eq!(answer, status, "{what}");
            }
        }
    }
}

#[test]
fn chunks_and_trailers_fit_to_the_byte() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    let extension = |n| format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(n));
    let trailer = |n: usize| format!("0\r\nA: {}\r\n\r\n", "x".repeat(n - 3));
    for (body, status) in [
        (extension(255), 200),
        (extension(256), 200),
        (extension(257), 400),
        (trailer(8191), 200),
        (trailer(8192), 200),
        (trailer(8193), 400),
        ("000000000000001\r\na\r\n0\r\n\r\n".to_owned(), 200),
        ("0000000000000001\r\na\r\n0\r\n\r\n".to_owned(), 400),
    ] {
        let head = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = router.ask(format!("{head}{body}"));
        assert_eq!(answer.status(), status, "{} bytes", body.len());
    }
}

#[test]
fn bodies_fit_to_the_byte() {
    let upstream = Upstream::answering(OK);
    let limit = 100_000;
    let router = Setup::new(&[&upstream])
        .config(|c| c.limits.body = Some(limit as u64))
        .start();
    for (size, status) in [(limit - 1, 200), (limit, 200), (limit + 1, 413)] {
        let body = "x".repeat(size);
        let (first, second) = body.split_at(size / 2);
        for request in [
            format!("Content-Length: {size}\r\n\r\n{body}"),
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
                first.len(),
                second.len()
            ),
        ] {
            let mut client = router.client();
            client.send(format!("PUT / HTTP/1.1\r\nHost: h\r\n{request}"));
            assert_eq!(client.response().status(), status, "{request:.40}");
        }
        let mut client = Client::connect(router.address);
        let answer = client.ask(crate::http2::client::request("PUT", "/"), body.as_bytes());
        assert_eq!(answer.status(), status, "{size} over HTTP/2");
    }
}

#[test]
fn an_answers_head_fits_to_the_byte_and_the_field() {
    let start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
    let limit = 64 << 10;
    for (answer, status) in [
        (filled(start, limit - 1), 200),
        (filled(start, limit), 200),
        (filled(start, limit + 1), 502),
        (format!("{start}{}\r\n", fields(98)), 200),
        (format!("{start}{}\r\n", fields(99)), 200),
        (format!("{start}{}\r\n", fields(100)), 502),
    ] {
        let what = answer.len();
        let upstream = Upstream::answering(answer);
        let router = Setup::new(&[&upstream]).start();
        assert_eq!(router.ask(GET).status(), status, "{what}");
        assert!((errors(&router, "protocol") > 0.5) == (status == 502));
    }
}

/// What the router adds makes nothing too large for its own HTTP/2.
#[test]
fn as_many_fields_go_through_http2_on_either_side() {
    let upstream = Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
        fields(99)
    ));
    let router = Setup::new(&[&upstream]).start();
    let answer = Client::connect(router.address).ask(get("/"), b"");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("x-98"), Some("v"));

    let peer = Peer::start(|mut call| {
        Box::pin(async move {
            let mut answer = http::Response::new(());
            for i in 0..99 {
                let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
                answer
                    .headers_mut()
                    .insert(name, HeaderValue::from_static("v"));
            }
            call.answer(answer, true);
        })
    });
    let router = Setup::new(&[])
        .service("protocol = \"h2c\"")
        .peer(peer.address)
        .start();
    let answer = router.ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", fields(99)));
    assert_eq!((answer.status(), answer.field("x-98")), (200, Some("v")));
    assert_eq!(peer.heads()[0].headers()["x-98"], "v");
}
