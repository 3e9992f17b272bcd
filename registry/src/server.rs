//! Listening sockets and their connections: one loop for the API and one for the admin port.
//!
//! A connection belongs to its server: when the server stops, it stops accepting, lets requests in
//! flight finish for a bounded time, and then drops what is left.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::rt::Executor;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the loop rests when the system has no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long until half a preface is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);
/// HTTP/2 connections are asked for a sign of life this often.
const PING: Duration = Duration::from_secs(20);
/// The most requests at once on an HTTP/2 connection.
const STREAMS: u32 = 256;

/// What one server is made of.
pub(crate) struct Server {
    /// For the log.
    pub(crate) name: &'static str,
    /// Already bound.
    pub(crate) listener: TcpListener,
    /// None: plain HTTP.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// What answers.
    pub(crate) app: Router,
    /// The most connections at once.
    pub(crate) max_connections: usize,
    /// For a TLS handshake or a request's head.
    pub(crate) header_timeout: Duration,
    /// For requests in flight when it stops.
    pub(crate) stop_timeout: Duration,
}

/// Binds so that a restart at once does not fail and a second program on the port does.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

impl Server {
    /// Serves until `stop`, then drains. The listener is closed before the draining begins, so that
    /// clients turn to another registry at once.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self {
            name,
            listener,
            tls,
            app,
            max_connections,
            header_timeout,
            stop_timeout,
        } = self;
        let tasks = Tasks::default();
        let connection = Connection {
            http: Arc::new(http(tasks.clone(), header_timeout)),
            tls: tls.map(TlsAcceptor::from),
            app,
            header_timeout,
            stop: stop.clone(),
        };
        let places = Arc::new(Semaphore::new(max_connections));
        let accepting = async {
            loop {
                // The semaphore is never closed.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let stream = accept(name, &listener).await;
                let connection = connection.clone();
                tasks.execute(async move {
                    connection.serve(stream).await;
                    drop(place);
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
        drop(listener);
        tasks.all.close();
        if timeout(stop_timeout, tasks.all.wait()).await.is_err() {
            tracing::warn!(
                server = name,
                connections = tasks.all.len(),
                "requests still ran when the time to stop was up; their connections are closed"
            );
            tasks.abort.cancel();
            tasks.all.wait().await;
        }
    }
}

/// A server's connections and their HTTP/2 streams.
#[derive(Debug, Clone, Default)]
struct Tasks {
    all: TaskTracker,
    abort: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let abort = self.abort.clone();
        self.all.spawn(async move {
            let _ = abort.run_until_cancelled(task).await;
        });
    }
}

async fn accept(name: &str, listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if gone_already(&error) => {}
            Err(error) => {
                tracing::error!(server = name, %error, "cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn gone_already(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn http(tasks: Tasks, header_timeout: Duration) -> auto::Builder<Tasks> {
    let mut http = auto::Builder::new(tasks);
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(64)
        .max_buf_size(64 * 1024)
        // Head and body in one piece cost less than two that the kernel gathers.
        .writev(false);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(32 * 1024)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(64);
    http
}

#[derive(Clone)]
struct Connection {
    http: Arc<auto::Builder<Tasks>>,
    tls: Option<TlsAcceptor>,
    app: Router,
    header_timeout: Duration,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            // hyper-util tells the versions apart itself, but waits for ever for the first bytes.
            let Some(Ok(http2)) = self.in_time(speaks_http2(&stream)).await else {
                return;
            };
            return self.talk(stream, http2).await;
        };
        match self.in_time(tls.accept(stream)).await {
            Some(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.talk(stream, http2).await;
            }
            Some(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            None => tracing::debug!("a TLS handshake took too long"),
        }
    }

    /// The outcome, unless it takes too long or the server stops.
    async fn in_time<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = timeout(self.header_timeout, what) => outcome.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        http2: bool,
    ) {
        let http = auto::Builder::clone(&self.http);
        let http = if http2 {
            http.http2_only()
        } else {
            http.http1_only()
        };
        let service = TowerToHyperService::new(self.app.clone());
        let mut talk = pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = &mut talk => ended,
            () = self.stop.cancelled() => {
                talk.as_mut().graceful_shutdown();
                talk.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

/// Looks at the first bytes without taking them. HTTP/2 without TLS begins with a fixed preface; no
/// method of HTTP/1 begins as it does. Clients send these bytes in one piece.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut start = [0; PREFACE.len()];
    let mut n = stream.peek(&mut start).await?;
    if n < 3 || !PREFACE.starts_with(&start[..n]) {
        return Ok(false);
    }
    // hyper would wait for the rest for ever; somebody who sends half of it is no client of ours.
    while n < PREFACE.len() && PREFACE.starts_with(&start[..n]) {
        tokio::time::sleep(PREFACE_PAUSE).await;
        let more = stream.peek(&mut start).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        n = more;
    }
    Ok(n == PREFACE.len())
}

#[cfg(test)]
mod tests;
