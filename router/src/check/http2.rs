//! A check in HTTP/2, for services that are asked in nothing else.

use std::future::{Future, poll_fn};
use std::{pin::pin, task::Poll};

use bytes::Bytes;

use super::line::Line;

/// Asks for a path: the answer's status.
pub(super) async fn ask(stream: Line, path: &str, host: &str) -> Result<u16, String> {
    let said = |error: h2::Error| format!("HTTP/2: {error}");
    let scheme = stream.scheme();
    let (send, connection) = h2::client::Builder::new()
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(said)?;
    let request = http::Request::builder()
        .uri(format!("{scheme}://{host}{path}"))
        .header(
            "user-agent",
            concat!("cardea-check/", env!("CARGO_PKG_VERSION")),
        )
        .body(())
        .map_err(|error| format!("the request: {error}"))?;
    let mut asking = pin!(async {
        let mut send = send.ready().await.map_err(said)?;
        let (answer, _) = send.send_request(request, true).map_err(said)?;
        answer
            .await
            .map(|answer| answer.status().as_u16())
            .map_err(said)
    });
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        match (asking.as_mut().poll(cx), ended) {
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(said(error))),
            (Poll::Pending, Poll::Ready(Ok(()))) => {
                Poll::Ready(Err("closed before an answer".to_owned()))
            }
            (asked, _) => asked,
        }
    })
    .await
}
