//! A service that speaks HTTP/2.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    ext::Protocol,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{read_body, runtime, send_all};

pub(crate) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A server; its connections end with it.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<Request<()>>>>,
    goodbye: tokio::sync::watch::Sender<bool>,
    runtime: tokio::runtime::Runtime,
}

/// What a handler gets.
pub(crate) struct Call {
    pub(crate) head: Request<()>,
    /// Of an extended CONNECT.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
}

impl Call {
    pub(crate) fn path(&self) -> &str {
        self.head.uri().path()
    }

    /// Begins an answer.
    pub(crate) fn answer(&mut self, head: Response<()>, ended: bool) -> SendStream<Bytes> {
        self.respond.send_response(head, ended).unwrap()
    }

    /// Answers at once.
    pub(crate) async fn finish(&mut self, body: impl Into<Vec<u8>>, trailers: Option<HeaderMap>) {
        let stream = self.answer(Response::new(()), false);
        send_all(stream, body.into(), trailers, false).await;
    }

    pub(crate) async fn read(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        read_body(&mut self.body).await.unwrap()
    }
}

impl Peer {
    pub(crate) fn start(handler: impl Fn(Call) -> Serving + Send + Sync + 'static) -> Self {
        Self::with(Builder::new().initial_window_size(1 << 20), handler)
    }

    pub(crate) fn with(
        builder: &Builder,
        handler: impl Fn(Call) -> Serving + Send + Sync + 'static,
    ) -> Self {
        Self::listen(None, builder, handler)
    }

    /// The same within TLS.
    pub(crate) fn secure(
        tls: Arc<rustls::ServerConfig>,
        builder: &Builder,
        handler: impl Fn(Call) -> Serving + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(tls), builder, handler)
    }

    fn listen(
        tls: Option<Arc<rustls::ServerConfig>>,
        builder: &Builder,
        handler: impl Fn(Call) -> Serving + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = runtime();
        let (goodbye, told) = tokio::sync::watch::channel(false);
        let peer = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            heads: Arc::default(),
            goodbye,
            runtime,
        };
        let connections = peer.connections.clone();
        let serving = Service {
            builder: builder.clone(),
            handler: Arc::new(handler),
            heads: peer.heads.clone(),
            told,
        };
        peer.runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (serving, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        return serving.serve(stream).await;
                    };
                    let accepted = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await;
                    if let Ok(stream) = accepted {
                        serving.serve(stream).await;
                    }
                });
            }
        });
        peer
    }

    /// Answers `ok` with the request's body behind it.
    pub(crate) fn echo() -> Self {
        Self::start(|mut call| {
            Box::pin(async move {
                let (body, trailers) = call.read().await;
                call.finish(body, trailers).await;
            })
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn heads(&self) -> Vec<Request<()>> {
        self.heads.lock().unwrap().clone()
    }

    /// Every connection is told to end.
    pub(crate) fn say_goodbye(&self) {
        let _ = self.goodbye.send(true);
    }
}

/// What a connection is served with.
struct Service<H> {
    builder: Builder,
    handler: Arc<H>,
    heads: Arc<Mutex<Vec<Request<()>>>>,
    told: tokio::sync::watch::Receiver<bool>,
}

impl<H> Clone for Service<H> {
    fn clone(&self) -> Self {
        let mut told = self.told.clone();
        told.mark_unchanged();
        Self {
            builder: self.builder.clone(),
            handler: self.handler.clone(),
            heads: self.heads.clone(),
            told,
        }
    }
}

impl<H: Fn(Call) -> Serving> Service<H> {
    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Ok(mut frames) = self.builder.handshake(stream).await else {
            return;
        };
        let mut leaving = false;
        loop {
            let accepted = tokio::select! {
                accepted = frames.accept() => accepted,
                _ = self.told.changed(), if !leaving => {
                    leaving = true;
                    frames.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((mut request, respond))) = accepted else {
                return;
            };
            let protocol = request.extensions_mut().remove::<Protocol>();
            let (parts, body) = request.into_parts();
            let head = Request::from_parts(parts, ());
            self.heads.lock().unwrap().push(head.clone());
            tokio::spawn((self.handler)(Call {
                head,
                protocol,
                body,
                respond,
            }));
        }
    }
}
