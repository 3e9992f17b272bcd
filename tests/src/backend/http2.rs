//! The backend's HTTP/2 server.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Mode, State};

/// Serves until `end`; then takes no more connections, and says goodbye on those that it has.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Arc<State>,
    end: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        drop(stream.set_nodelay(true));
        let (state, end, tls) = (state.clone(), end.clone(), tls.clone());
        tokio::spawn(async move {
            let Some(tls) = tls else {
                return connection(stream, state, end).await;
            };
            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                connection(stream, state, end).await;
            }
        });
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<State>,
    end: CancellationToken,
) {
    let service = service_fn(move |request| answer(state.clone(), request));
    let serving =
        Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = end.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    drop(serving.await);
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let id = head.headers.get("x-test-id");
    let id = id.and_then(|id| id.to_str().ok()).unwrap_or("-").to_owned();
    // What breaks off is nobody's to answer any more.
    drop(body.collect().await);
    if head.uri.path() == "/healthz" {
        state.probes.fetch_add(1, Ordering::SeqCst);
    } else {
        state.count(head.method.as_str(), &id);
    }
    let status = match state.mode() {
        Mode::Status(status) => status,
        Mode::Failing(share) if state.is_to_fail(share) => 500,
        _ => 200,
    };
    let text = format!("{} {id} {}\n", state.name(), head.method);
    let answer = Response::builder().status(status).body(Full::from(text));
    Ok(answer.expect("an answer"))
}
