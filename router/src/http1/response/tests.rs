use proptest::prelude::*;

use super::*;

fn parse(text: &[u8], method: Method) -> Result<Option<ResponseHead>, Malformed> {
    let mut head = ResponseHead::default();
    Ok(head.parse(text, 0, text.len(), method)?.then_some(head))
}

fn framing(text: &str, method: Method) -> (Framing, bool) {
    let head = parse(text.as_bytes(), method).unwrap().unwrap();
    (head.framing, head.keep_alive)
}

#[test]
fn framings() {
    use Framing::{Chunked, Length, None, UntilClose};
    for (text, method, want) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            Method::Get,
            (Length(3), true),
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            Method::Get,
            (None, true),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            Method::Get,
            (Length(3), true),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            Method::Head,
            (None, true),
        ),
        (
            "HTTP/1.1 304 \r\nContent-Length: 3\r\n\r\n",
            Method::Get,
            (None, true),
        ),
        (
            "HTTP/1.1 204 No\r\nConnection: close\r\n\r\n",
            Method::Get,
            (None, false),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::Get,
            (Chunked, true),
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", Method::Get, (UntilClose, false)),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
            Method::Get,
            (Length(3), false),
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n",
            Method::Get,
            (Length(3), true),
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", Method::Post, (None, true)),
    ] {
        assert_eq!(framing(text, method), want, "{text:?}");
    }
}

#[test]
fn what_cannot_be_framed_is_malformed() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 999 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "SSH-2.0-x\r\n",
    ] {
        assert!(parse(text.as_bytes(), Method::Get).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn beginnings_are_incomplete(cut in 0_usize..60) {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Other: value\r\n\r\n";
        let cut = cut.min(text.len() - 1);
        prop_assert!(parse(&text[..cut], Method::Get).unwrap().is_none());
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&noise, Method::Get);
        let _ = parse(&[b"HTTP/1.1 200 ", &noise[..]].concat(), Method::Get);
    }
}
