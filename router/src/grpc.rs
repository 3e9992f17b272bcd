//! gRPC: what its callers expect in place of an HTTP error, and what its statuses and deadlines mean
//! to the router.

use std::time::Duration;

use http::HeaderValue;

use crate::{http1::response::ResponseHead, refusal::Refusal};

/// Whether a content type is gRPC's. gRPC-Web is plain HTTP as far as a router goes.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    let Some((kind, rest)) = content_type.split_at_checked(b"application/grpc".len()) else {
        return false;
    };
    kind.eq_ignore_ascii_case(b"application/grpc")
        && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The same of a field.
pub(crate) fn is_content_type(field: Option<&HeaderValue>) -> bool {
    field.is_some_and(|value| is_grpc(value.as_bytes()))
}

/// The status that says what a refusal says.
pub(crate) fn status(refusal: &Refusal) -> u8 {
    match refusal.status {
        401 => 16,                  // UNAUTHENTICATED
        403 => 7,                   // PERMISSION_DENIED
        404 | 501 => 12,            // UNIMPLEMENTED
        408 | 504 => 4,             // DEADLINE_EXCEEDED
        413 | 414 | 429 | 431 => 8, // RESOURCE_EXHAUSTED
        499 => 1,                   // CANCELLED
        502 | 503 => 14,            // UNAVAILABLE
        _ => 13,                    // INTERNAL
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
pub(crate) fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits
        .iter()
        .fold(0, |n: u64, d| n * 10 + u64::from(d - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The status in the trailer of a chunked body.
pub(crate) fn status_in(trailer: &[u8]) -> Option<u8> {
    trailer.split(|b| *b == b'\n').find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let named = line[..colon].eq_ignore_ascii_case(b"grpc-status");
        named.then(|| parse_status(line[colon + 1..].trim_ascii()))?
    })
}

/// The status in an answer's head.
pub(crate) fn status_of(raw: &[u8], head: &ResponseHead) -> Option<u8> {
    let field = head
        .fields
        .iter()
        .find(|field| field.name.of(raw).eq_ignore_ascii_case(b"grpc-status"))?;
    parse_status(field.value.of(raw))
}

/// A status as it is written.
fn parse_status(value: &[u8]) -> Option<u8> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for yes in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC;x=y",
        ] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in [
            "application/grpc-web",
            "application/grpcx",
            "application/json",
            "",
            "application/gr",
        ] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn timeouts() {
        for (text, ms) in [
            ("1H", 3_600_000),
            ("2M", 120_000),
            ("3S", 3000),
            ("250m", 250),
            ("5000u", 5),
            ("7000000n", 7),
        ] {
            assert_eq!(
                timeout(text.as_bytes()),
                Some(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for bad in ["", "1", "S", "123456789S", "1s", "-1S", "1.5S"] {
            assert_eq!(timeout(bad.as_bytes()), None, "{bad}");
        }
        assert!(timeout(b"99999999H").is_some());
    }

    #[test]
    fn a_trailers_status() {
        assert_eq!(status_in(b"0\r\nx: y\r\nGrpc-Status: 14\r\n\r\n"), Some(14));
        assert_eq!(status_in(b"0\r\ngrpc-status:0\r\n\r\n"), Some(0));
        for none in ["0\r\n\r\n", "0\r\ngrpc-status: x\r\n\r\n", ""] {
            assert_eq!(status_in(none.as_bytes()), None);
        }
    }
}
