//! Debian's etcd, and as much of its gRPC (over HTTP/2, by hand) as the comparison needs: put and watch.

use std::{
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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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

/// What HTTP/2 calls its frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// One HTTP/2 connection with one call at a time, written by hand: as thin as the HTTP/1 client that
/// the registry is measured with. A request is one write, and who asks reads the answer himself.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    /// The next call's stream.
    next: u32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("etcd");
        stream.set_nodelay(true).expect("a socket option");
        let mut client = Self {
            stream,
            buffer: BytesMut::new(),
            next: 1,
        };
        let mut hello = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
        // As much as is never used up, for a stream (setting 4) and for all of them.
        let plenty = 0x3fff_0000_u32.to_be_bytes();
        frame(&mut hello, SETTINGS, 0, 0, &[&[0, 4], &plenty[..]].concat());
        frame(&mut hello, WINDOW, 0, 0, &plenty);
        client.send(&hello).await;
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("etcd reads");
    }

    /// Begins a call with a message; its stream.
    async fn call(&mut self, path: &str, message: &[u8], last: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        // POST, http; then literals that no table keeps: :path, :authority, content-type, te.
        let mut head = BytesMut::from(&[0x83, 0x86][..]);
        for (name, value) in [
            (&[0x04][..], path),
            (&[0x01], "etcd"),
            (&[0x0f, 0x10], "application/grpc"),
            (b"\x00\x02te", "trailers"),
        ] {
            head.put_slice(name);
            head.put_u8(u8::try_from(value.len()).expect("a short header"));
            head.put_slice(value.as_bytes());
        }
        let mut body = BytesMut::with_capacity(message.len() + 5);
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).expect("a small message"));
        body.put_slice(message);
        let mut out = BytesMut::new();
        frame(&mut out, HEADERS, END_HEADERS, stream, &head);
        let flags = if last { END_STREAM } else { 0 };
        frame(&mut out, DATA, flags, stream, &body);
        self.send(&out).await;
        stream
    }

    /// The next frame of a stream: type, flags, payload. What concerns the connection is done.
    async fn frame_of(&mut self, wanted: u32) -> (u8, u8, Bytes) {
        loop {
            let Some(head) = self.buffer.get(..9) else {
                self.fill().await;
                continue;
            };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if self.buffer.len() < 9 + length {
                self.fill().await;
                continue;
            }
            let payload = self.buffer.split_to(9 + length).freeze().slice(9..);
            match kind {
                DATA | HEADERS if stream == wanted => return (kind, flags, payload),
                SETTINGS | PING if flags & ACK == 0 => {
                    let echo = if kind == PING { &payload[..] } else { &[] };
                    let mut ack = BytesMut::new();
                    frame(&mut ack, kind, ACK, 0, echo);
                    self.send(&ack).await;
                }
                SETTINGS | PING | WINDOW => {}
                other => panic!("etcd sent a frame of type {other}"),
            }
        }
    }

    async fn fill(&mut self) {
        let read = self.stream.read_buf(&mut self.buffer).await.expect("etcd");
        assert_ne!(read, 0, "etcd closed the connection");
    }

    /// `KV.Put`: returns when the write is durable.
    pub(crate) async fn put(&mut self, key: &str, value: &[u8]) {
        let mut message = BytesMut::new();
        field(&mut message, 1, key.as_bytes());
        field(&mut message, 2, value);
        let stream = self.call("/etcdserverpb.KV/Put", &message, true).await;
        let mut answered = false;
        loop {
            let (kind, flags, _) = self.frame_of(stream).await;
            // An answer has a message; a failure has trailers only.
            answered |= kind == DATA;
            if flags & END_STREAM != 0 {
                break;
            }
        }
        assert!(answered, "a put failed");
    }

    /// `Watch` on all keys below `prefix`.
    pub(crate) async fn watch(mut self, prefix: &str) -> Watch {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let mut create = BytesMut::new();
        field(&mut create, 1, prefix.as_bytes());
        field(&mut create, 2, &end);
        let mut message = BytesMut::new();
        field(&mut message, 1, &create);
        let stream = self
            .call("/etcdserverpb.Watch/Watch", &message, false)
            .await;
        let mut watch = Watch {
            client: self,
            stream,
            buffer: BytesMut::new(),
        };
        // The first message says that the watch stands.
        watch.next().await;
        watch
    }
}

/// A standing watch.
pub(crate) struct Watch {
    client: Client,
    stream: u32,
    buffer: BytesMut,
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
            let (kind, flags, payload) = self.client.frame_of(self.stream).await;
            assert_eq!(flags & END_STREAM, 0, "a watch goes on");
            if kind == DATA {
                self.buffer.extend_from_slice(&payload);
            }
        }
    }
}

/// An HTTP/2 frame.
fn frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
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
