//! A server that answers what it is told, byte by byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, pki_types::PrivateKeyDer},
};

/// What to answer.
#[derive(Clone)]
pub(super) enum Reply {
    /// A whole answer, perhaps after a while.
    Whole(Vec<u8>, Duration),
    /// These bytes; then the connection is closed.
    Torn(&'static str),
    /// Nothing, ever.
    Hang,
}

impl Reply {
    pub(super) fn json(body: &str) -> Self {
        Self::with(200, &[("content-type", "application/json")], body)
    }

    pub(super) fn with(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let mut answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{}\r\n",
            body.len(),
            lines.concat()
        )
        .into_bytes();
        answer.extend(body);
        Self::Whole(answer, Duration::ZERO)
    }

    pub(super) fn after(self, delay: Duration) -> Self {
        match self {
            Self::Whole(answer, _) => Self::Whole(answer, delay),
            other => other,
        }
    }
}

type Handler = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

struct Shared {
    handler: Handler,
    requests: Mutex<Vec<String>>,
    break_next: AtomicBool,
}

/// Runs until it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start<H>(handler: H) -> Self
    where
        H: Fn(&str) -> Reply + Send + Sync + 'static,
    {
        Self::start_with(Arc::new(handler), None).await
    }

    /// With a certificate for `localhost`, which is returned too.
    pub(super) async fn start_tls<H>(handler: H) -> (Self, String)
    where
        H: Fn(&str) -> Reply + Send + Sync + 'static,
    {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Self::start_with(Arc::new(handler), Some(acceptor)).await;
        (server, made.cert.pem())
    }

    async fn start_with(handler: Handler, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler,
            requests: Mutex::default(),
            break_next: AtomicBool::new(false),
        });
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Head and body of each request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The next request on a connection that is already open is answered with its end.
    pub(super) fn break_next(&self) {
        self.shared.break_next.store(true, Ordering::SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match tls {
                None => serve(stream, &shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, &shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: &Shared) {
    let mut buffer = Vec::new();
    loop {
        while whole(&buffer).is_none() {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let length = whole(&buffer).unwrap();
        let request: Vec<u8> = buffer.drain(..length).collect();
        let request = String::from_utf8(request).unwrap();
        let reply = (shared.handler)(&request);
        shared.requests.lock().unwrap().push(request);
        if shared.break_next.swap(false, Ordering::SeqCst) {
            return;
        }
        match reply {
            Reply::Whole(answer, delay) => {
                tokio::time::sleep(delay).await;
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            Reply::Torn(bytes) => {
                drop(stream.write_all(bytes.as_bytes()).await);
                return;
            }
            Reply::Hang => std::future::pending().await,
        }
    }
}

/// The length of the first request in the buffer, once it is there whole.
fn whole(buffer: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(buffer);
    let head = text.find("\r\n\r\n")? + 4;
    let body = text[..head]
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |value| value.parse().unwrap());
    (buffer.len() >= head + body).then_some(head + body)
}
