//! Debian's etcd, and as much of its gRPC (over HTTP/2, by hand) as the comparison needs: put and watch.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use cardea_tests::{
    http1, ports,
    process::{Process, Spawn},
    wait,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

const SOON: Duration = Duration::from_secs(30);

/// A server with one member; fsync is on, as it always is in etcd.
pub(crate) struct Etcd {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Etcd {
    pub(crate) async fn start(dir: &Path) -> Self {
        let (client, peer) = (ports::reserve(), ports::reserve());
        let (client_url, peer_url) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let process = Spawn::new("etcd", "etcd")
            .args(["--name", "one", "--data-dir"])
            .args([dir.join("etcd")])
            .args([
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
            ])
            .args([
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
            ])
            .args([
                "--initial-cluster",
                &format!("one={peer_url}"),
                "--log-level",
                "error",
            ])
            .start(dir);
        let address = SocketAddr::from(([127, 0, 0, 1], client));
        wait::until("etcd is healthy", SOON, || async {
            let answer = http1::get(address, "etcd", "/health").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        Self { process, address }
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// One HTTP/2 connection; calls on it run side by side.
#[derive(Clone)]
pub(crate) struct Client {
    sender: http2::SendRequest<Body>,
    address: SocketAddr,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("etcd");
        stream.set_nodelay(true).expect("a socket option");
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        Self { sender, address }
    }

    fn request(&self, path: &str, body: Body) -> Request<Body> {
        Request::post(format!("http://{}/{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .expect("a request")
    }

    /// `KV.Put`: returns when the write is durable.
    pub(crate) async fn put(&mut self, key: &str, value: &[u8]) {
        let mut message = BytesMut::new();
        field(&mut message, 1, key.as_bytes());
        field(&mut message, 2, value);
        let body = http_body_util::Full::new(frame(&message)).boxed();
        let request = self.request("etcdserverpb.KV/Put", body);
        let response = self
            .sender
            .send_request(request)
            .await
            .expect("an answer to a put");
        let collected = response
            .into_body()
            .collect()
            .await
            .expect("the answer's body");
        let status = collected
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status").cloned());
        assert_eq!(status.expect("a gRPC status"), "0");
    }

    /// `Watch` on all keys below `prefix`.
    pub(crate) async fn watch(&mut self, prefix: &str) -> Watch {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let mut create = BytesMut::new();
        field(&mut create, 1, prefix.as_bytes());
        field(&mut create, 2, &end);
        let mut message = BytesMut::new();
        field(&mut message, 1, &create);
        let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
        sender
            .send(Ok(Frame::data(frame(&message))))
            .await
            .expect("room");
        let stream = futures(receiver);
        let request = self.request("etcdserverpb.Watch/Watch", StreamBody::new(stream).boxed());
        let response = self
            .sender
            .send_request(request)
            .await
            .expect("an answer to a watch");
        assert_eq!(response.status(), StatusCode::OK);
        let mut watch = Watch {
            body: response.into_body(),
            buffer: BytesMut::new(),
            _keep_open: sender,
        };
        // The first message says that the watch stands.
        watch.next().await;
        watch
    }
}

fn futures(
    mut receiver: mpsc::Receiver<Result<Frame<Bytes>, Infallible>>,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// A standing watch.
pub(crate) struct Watch {
    body: Incoming,
    buffer: BytesMut,
    _keep_open: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
}

impl Watch {
    /// The next message and when it was whole.
    pub(crate) async fn next(&mut self) -> (Bytes, Instant) {
        loop {
            if let Some(head) = self.buffer.get(..5) {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.buffer.len() >= 5 + length {
                    let message = self.buffer.split_to(5 + length).freeze().slice(5..);
                    return (message, Instant::now());
                }
            }
            let frame = self
                .body
                .frame()
                .await
                .expect("a watch goes on")
                .expect("a frame");
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// A length-delimited protobuf field.
fn field(out: &mut BytesMut, number: u8, value: &[u8]) {
    out.put_u8(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(value);
}

/// gRPC's five bytes in front of a message.
fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).expect("a small message"));
    out.put_slice(message);
    out.freeze()
}
