//! The demo service's HTTP side.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HOST, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{Demo, Mode, websocket};
use crate::signals::{Asked, Signals};

/// The largest body that is taken, in bytes.
const MAX_BODY: usize = 64 << 20;

/// Why a connection is cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset, as asked")]
struct Cut;

/// Serves until a signal, then finishes what is in flight, for `drain` at most.
pub(super) async fn run(demo: Demo, listener: TcpListener, mut signals: Signals, drain: Duration) {
    let demo = Arc::new(demo);
    let tasks = TaskTracker::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tasks.spawn(connection(demo.clone(), stream, tasks.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            asked = signals.next() => if asked == Asked::Stop { break },
        }
    }
    drop(listener);
    demo.stopping.cancel();
    tasks.close();
    signals
        .unless_hurried(async {
            drop(timeout(drain, tasks.wait()).await);
        })
        .await;
}

async fn connection(demo: Arc<Demo>, stream: TcpStream, tasks: TaskTracker) {
    drop(stream.set_nodelay(true));
    demo.connections.fetch_add(1, Ordering::Relaxed);
    let reset = Arc::new(AtomicBool::new(false));
    let socket = Socket {
        stream,
        reset: reset.clone(),
    };
    let service = service_fn(|request| {
        let (demo, reset, tasks) = (demo.clone(), reset.clone(), tasks.clone());
        async move {
            demo.requests.fetch_add(1, Ordering::Relaxed);
            let response = answer(&demo, request, &tasks).await;
            response.ok_or_else(|| {
                reset.store(true, Ordering::Relaxed);
                Cut
            })
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = demo.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
    demo.connections.fetch_sub(1, Ordering::Relaxed);
}

/// The answer to a request; none: cut the connection.
async fn answer(
    demo: &Arc<Demo>,
    mut request: Request<Incoming>,
    tasks: &TaskTracker,
) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    match (request.method().clone(), path.as_str()) {
        (_, "/healthz") if demo.stopping.is_cancelled() => {
            return Some(text(StatusCode::SERVICE_UNAVAILABLE, "stopping"));
        }
        (_, "/healthz") => return Some(text(StatusCode::OK, "ok")),
        (Method::GET, "/_mode") => return Some(text(StatusCode::OK, demo.mode().to_string())),
        (Method::PUT, "/_mode") => return Some(switch(demo, request).await),
        (Method::GET, "/_status") => return Some(json(StatusCode::OK, &status(demo))),
        (Method::GET, "/_count") => return Some(json(StatusCode::OK, &counts(demo))),
        _ => {}
    }
    match demo.mode() {
        Mode::Ok => {}
        Mode::Slow(time) => tokio::time::sleep(time).await,
        Mode::Error500 => return Some(text(StatusCode::INTERNAL_SERVER_ERROR, "as asked")),
        Mode::Reset => return None,
        Mode::Hang => {
            // Until it is told to stop, so that stopping stays quick.
            demo.stopping.cancelled().await;
            return None;
        }
    }
    if let Some(response) = websocket::upgrade(demo, &mut request, tasks) {
        return Some(response);
    }
    Some(ordinary(demo, request).await)
}

/// Who answers, and what was asked.
#[derive(Serialize)]
struct WhoAmI<'a> {
    service: &'a str,
    instance: &'a str,
    pid: u32,
    version: &'a str,
    method: &'a str,
    path: &'a str,
    host: Option<&'a str>,
    request_id: Option<&'a str>,
}

async fn ordinary(demo: &Demo, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let query = |name: &str| -> Option<u64> {
        let pairs = parts.uri.query().unwrap_or_default().split('&');
        let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        values.next()?.parse().ok()
    };
    let Ok(body) = http_body_util::Limited::new(body, MAX_BODY).collect().await else {
        return text(StatusCode::BAD_REQUEST, "the body did not arrive whole");
    };
    let body = body.to_bytes();
    if let Some(ms) = query("sleep") {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    let id = parts
        .headers
        .get("idempotency-key")
        .and_then(|id| id.to_str().ok());
    if let Some(Err(error)) = id.map(|id| demo.count(id)) {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("journal: {error}"),
        );
    }
    let code =
        query("status").and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    let code = code.unwrap_or(StatusCode::OK);
    let mut response = if let Some(bytes) = query("bytes") {
        let bytes = usize::try_from(bytes).unwrap_or(MAX_BODY).min(MAX_BODY);
        bytes_response(code, "application/octet-stream", vec![b'.'; bytes])
    } else if body.is_empty() {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let request_id = parts
            .headers
            .get("x-request-id")
            .and_then(|id| id.to_str().ok());
        let answer = WhoAmI {
            service: &demo.service,
            instance: &demo.instance,
            pid: std::process::id(),
            version: &demo.version,
            method: parts.method.as_str(),
            path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
            host,
            request_id,
        };
        json(code, &answer)
    } else {
        let mut echo = bytes_response(code, "application/octet-stream", body);
        if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
            echo.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        echo
    };
    // Who answered, also when the body is an echo.
    for (name, value) in [
        ("x-demo-instance", demo.instance.clone()),
        ("x-demo-pid", std::process::id().to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn switch(demo: &Demo, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Ok(body) = http_body_util::Limited::new(request.into_body(), 100)
        .collect()
        .await
    else {
        return text(StatusCode::BAD_REQUEST, "a mode is one short line");
    };
    match String::from_utf8_lossy(&body.to_bytes()).parse() {
        Ok(mode) => {
            demo.set_mode(mode);
            text(StatusCode::OK, mode.to_string())
        }
        Err(error) => text(StatusCode::BAD_REQUEST, error),
    }
}

fn status(demo: &Demo) -> serde_json::Value {
    serde_json::json!({
        "service": demo.service,
        "instance": demo.instance,
        "pid": std::process::id(),
        "version": demo.version,
        "mode": demo.mode().to_string(),
        "requests": demo.seen(),
        "connections": demo.connections.load(Ordering::Relaxed),
    })
}

fn counts(demo: &Demo) -> serde_json::Value {
    let counts = demo
        .counts
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let repeated: serde_json::Map<_, _> = counts
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(id, count)| (id.clone(), (*count).into()))
        .collect();
    serde_json::json!({
        "bodies": counts.values().sum::<u64>(),
        "distinct": counts.len(),
        "repeated": repeated,
    })
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Full<Bytes>> {
    let text = serde_json::to_string(value).unwrap_or_default();
    bytes_response(status, "application/json", text + "\n")
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    bytes_response(status, "text/plain; charset=utf-8", text.into() + "\n")
}

fn bytes_response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A connection that can be told to end with a reset instead of a close.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
