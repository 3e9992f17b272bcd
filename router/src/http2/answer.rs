//! An answer's head, from the pipeline's HTTP/1.1 bytes to a stream's fields.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::http1::{
    head::{Field, Known},
    response::ResponseHead,
};

/// The head that was parsed from the beginning of `data`, without what concerns one connection only.
pub(crate) fn take(data: &[u8], head: &ResponseHead) -> io::Result<Response<()>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::from_u16(head.status).map_err(|_| malformed())?;
    *answer.headers_mut() = fields(data, head.len, &head.fields).ok_or_else(malformed)?;
    Ok(answer)
}

/// The fields of a head of `len` bytes at the beginning of `data` that go on to a stream.
pub(crate) fn fields(data: &[u8], len: usize, fields: &[Field]) -> Option<HeaderMap> {
    // One copy for all values.
    let shared = Bytes::copy_from_slice(&data[..len]);
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        if matches!(
            field.known,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::Http2Settings
                | Known::Listed
        ) {
            continue;
        }
        let name = HeaderName::from_bytes(field.name.of(data)).ok()?;
        let at = field.value.at as usize;
        let value = shared.slice(at..at + field.value.len as usize);
        map.append(name, HeaderValue::from_maybe_shared(value).ok()?);
    }
    Some(map)
}
