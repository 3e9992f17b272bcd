//! An HTTP/2 client for tests, over the same library that the router uses: what it must not check
//! itself is tested with raw frames.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

use crate::harness::PATIENCE;

/// A client with a thread's worth of event loop.
pub(crate) struct Client {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) send: SendRequest<Bytes>,
}

/// An answer as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|v| v.to_str().unwrap())
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Whatever is waited for is there in time.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::with(to, h2::client::Builder::new().initial_window_size(1 << 20))
    }

    pub(crate) fn with(to: SocketAddr, builder: &h2::client::Builder) -> Self {
        let runtime = runtime();
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(to).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (send, connection) = builder.handshake(stream).await.unwrap();
            tokio::spawn(async move {
                let _ = connection.await;
            });
            send
        });
        Self { runtime, send }
    }

    /// Opens a stream.
    pub(crate) fn open(
        &mut self,
        request: Request<()>,
        ended: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let send = self.send.clone();
        self.runtime.block_on(soon(async {
            let mut send = send.ready().await.unwrap();
            send.send_request(request, ended).unwrap()
        }))
    }

    /// A request with its whole answer.
    pub(crate) fn ask(&mut self, request: Request<()>, body: &[u8]) -> Answer {
        self.ask_with(request, body, None)
    }

    pub(crate) fn ask_with(
        &mut self,
        request: Request<()>,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Answer {
        let ended = body.is_empty() && trailers.is_none();
        let (answer, stream) = self.open(request, ended);
        self.runtime.block_on(async {
            let sent = send_all(stream, body.to_vec(), trailers, ended);
            let sending = tokio::spawn(sent);
            let answer = soon(read(answer)).await.unwrap();
            sending.abort();
            answer
        })
    }
}

/// Sends a body as the window allows.
pub(crate) async fn send_all(
    mut stream: SendStream<Bytes>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
) {
    let mut rest = Bytes::from(body);
    if ended {
        return;
    }
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(n)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        let piece = rest.split_to(n.min(rest.len()));
        let last = rest.is_empty() && trailers.is_none();
        if stream.send_data(piece, last).is_err() {
            return;
        }
    }
    match trailers {
        Some(trailers) => drop(stream.send_trailers(trailers)),
        // After the last piece this is an error, and means nothing.
        None => drop(stream.send_data(Bytes::new(), true)),
    }
}

/// Reads an answer to its end.
pub(crate) async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    let (content, trailers) = read_body(&mut body).await?;
    Ok(Answer {
        head: Response::from_parts(head, ()),
        body: content,
        trailers,
    })
}

pub(crate) async fn read_body(
    body: &mut RecvStream,
) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut content = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        content.extend_from_slice(&piece);
    }
    Ok((content, body.trailers().await?))
}

pub(crate) fn get(path: &str) -> Request<()> {
    request("GET", path)
}

pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://h.example{path}"))
        .body(())
        .unwrap()
}
