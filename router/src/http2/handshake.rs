//! The opening of a WebSocket in HTTP/1.1 (RFC 6455, 4), for a service that opens it in HTTP/2
//! (RFC 8441), where nothing is to be proved.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use crate::{
    http1::{
        head::{Field, Known},
        request::{Method, RequestHead},
    },
    refusal::{self, Refusal},
};

/// The only protocol that a stream can be opened for.
pub(crate) const WEBSOCKET: &str = "websocket";
/// What is appended to the client's key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What proves to the client that its WebSocket is open. An upgrade to anything else is refused.
pub(crate) fn accept(raw: &[u8], head: &RequestHead) -> Result<String, Refusal> {
    let websocket = head.fields.iter().any(|field| {
        field.known == Known::Upgrade
            && field
                .value
                .of(raw)
                .eq_ignore_ascii_case(WEBSOCKET.as_bytes())
    });
    if !websocket || head.method != Method::Get {
        return Err(refusal::UPGRADE_NOT_SERVED);
    }
    let is_key = |field: &&Field| (field.name.of(raw)).eq_ignore_ascii_case(b"sec-websocket-key");
    let mut keys = head.fields.iter().filter(is_key);
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.value.of(raw),
        _ => b"",
    };
    proof(key).ok_or(Refusal::bad(
        "a WebSocket is opened with one Sec-WebSocket-Key, 16 bytes in base64",
    ))
}

/// The answer to a key; none: it is no key.
fn proof(key: &[u8]) -> Option<String> {
    let decoded = STANDARD.decode(key).ok()?;
    (decoded.len() == 16).then(|| {
        let sum = Sha1::new().chain_update(key).chain_update(GUID).finalize();
        STANDARD.encode(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_standard_says() {
        let proof = |key: &str| proof(key.as_bytes());
        assert_eq!(
            proof("dGhlIHNhbXBsZSBub25jZQ==").as_deref(),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        for bad in [
            "",
            "abc",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZTEy",
            "*",
        ] {
            assert_eq!(proof(bad), None, "{bad}");
        }
    }
}
