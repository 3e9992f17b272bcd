//! The demo service's WebSocket echo: what comes as a message goes back as one.

use std::{io, sync::Arc};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::task::TaskTracker;

use super::Demo;

/// The largest frame that is taken, in bytes.
const MAX_FRAME: u64 = 1 << 20;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Close, with status 1001: going away.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// Takes the upgrade if the request asks for a WebSocket.
pub(super) fn upgrade(
    demo: &Arc<Demo>,
    request: &mut Request<Incoming>,
    tasks: &TaskTracker,
) -> Option<Response<Full<Bytes>>> {
    let asks = request
        .headers()
        .get(UPGRADE)?
        .as_bytes()
        .eq_ignore_ascii_case(b"websocket");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| asks)?;
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).ok()?);
    let upgraded = hyper::upgrade::on(request);
    let stopping = demo.stopping.clone();
    tasks.spawn(async move {
        let Ok(upgraded) = upgraded.await else {
            return;
        };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        let ended = tokio::select! {
            ended = echo(&mut from, &mut to) => ended,
            () = stopping.cancelled() => to.write_all(&GOING_AWAY).await,
        };
        drop(to.shutdown().await);
        if let Err(error) = ended {
            tracing::debug!(%error, "websocket");
        }
    });
    Some(response)
}

/// Sends each frame back until the other side closes.
async fn echo(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    loop {
        let Some((first, payload)) = frame(from).await? else {
            return Ok(());
        };
        let kind = first & 0x0f;
        if kind == PONG {
            continue;
        }
        let first = if kind == PING { 0x80 | PONG } else { first };
        let mut out = Vec::with_capacity(payload.len() + 10);
        out.push(first);
        match u16::try_from(payload.len()) {
            Ok(length) if length < 126 => out.push(payload.len().to_le_bytes()[0]),
            Ok(length) => {
                out.push(126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(127);
                out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&payload);
        to.write_all(&out).await?;
        to.flush().await?;
        if kind == CLOSE {
            return Ok(());
        }
    }
}

/// One frame: its first byte, and its payload without the mask; none at the end.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let first = match from.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let second = from.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(from.read_u16().await?),
        127 => from.read_u64().await?,
        short => u64::from(short),
    };
    if length > MAX_FRAME || second & 0x80 == 0 {
        return Err(io::Error::other(
            "a masked frame of at most 1 MiB is expected",
        ));
    }
    let mut mask = [0; 4];
    from.read_exact(&mut mask).await?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some((first, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_unmasked() {
        // "Hello", masked, from RFC 6455; then a ping and a close.
        let hello = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let ping = [0x89, 0x80, 1, 2, 3, 4];
        let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
        let sent = [&hello[..], &ping, &close].concat();
        let mut got = Vec::new();
        echo(&mut &sent[..], &mut got).await.unwrap();
        assert_eq!(got, b"\x81\x05Hello\x8a\x00\x88\x02\x03\xe8");
        let mut long = vec![0x82, 0xfe, 0x01, 0x00, 0, 0, 0, 0];
        long.extend([7; 256]);
        let mut got = Vec::new();
        echo(&mut &long[..], &mut got).await.unwrap();
        assert_eq!(got[..4], [0x82, 126, 1, 0]);
        assert_eq!(got.len(), 260);
    }
}
