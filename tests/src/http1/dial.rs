//! How a connection begins: plainly, with something said first, within TLS.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Stage;

/// How a connection begins.
#[derive(Debug, Clone, Default)]
pub struct Dial {
    /// What is said before anything else: a header of the PROXY protocol.
    pub first: String,
    /// Within TLS, to this host; none: in the clear.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A connection's bytes.
#[derive(Debug)]
pub enum Stream {
    /// As they are.
    Tcp(TcpStream),
    /// Within TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dial {
    /// Within TLS, to this host.
    pub fn tls(config: &Arc<ClientConfig>, host: &str) -> Self {
        let host = ServerName::try_from(host.to_owned()).expect("a host");
        Self {
            first: String::new(),
            tls: Some((config.clone(), host)),
        }
    }

    /// Which says this first.
    #[must_use]
    pub fn saying(mut self, first: &str) -> Self {
        first.clone_into(&mut self.first);
        self
    }

    /// Connects; `stage` says how far it came.
    pub async fn connect(&self, to: SocketAddr, stage: &mut Stage) -> io::Result<Stream> {
        *stage = Stage::Connect;
        let mut stream = TcpStream::connect(to).await?;
        drop(stream.set_nodelay(true));
        stream.write_all(self.first.as_bytes()).await?;
        let Some((config, host)) = &self.tls else {
            return Ok(Stream::Tcp(stream));
        };
        *stage = Stage::Handshake;
        let connector = TlsConnector::from(config.clone());
        let stream = connector.connect(host.clone(), stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
