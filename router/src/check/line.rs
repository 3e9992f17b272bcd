//! A connection that a peer is checked through.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use crate::{tls::TlsStream, upstream::Security, wire::Duplex};

/// A connection to a peer, on the service's terms.
pub(super) enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Line {
    pub(super) async fn new(
        tcp: TcpStream,
        security: &Security,
        host: &str,
    ) -> Result<Self, String> {
        match security {
            Security::Plain => Ok(Self::Plain(tcp)),
            Security::Broken => Err("tls: the service's terms cannot be met by anybody".to_owned()),
            Security::Tls(terms) => match terms.connect_untimed(tcp, host).await {
                Ok(stream) => Ok(Self::Tls(Box::new(stream))),
                Err(failed) => Err(format!("tls: {}", failed.error)),
            },
        }
    }

    /// That it could be opened was all.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(_) => self.shutdown().await.map_err(|e| format!("tls: {e}")),
        }
    }

    /// What a request says of how it was sent.
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Self::Plain(_) => "http",
            Self::Tls(_) => "https",
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => {
                let n = ready!(stream.poll_read(cx, buf.initialize_unfilled()))?;
                buf.advance(n);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => stream.poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_shutdown(cx),
        }
    }
}
