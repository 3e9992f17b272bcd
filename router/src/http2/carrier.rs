//! The connection below the frames.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{http2::meter::Meter, timer::Timers, wire::Wire};

/// A connection as the library wants it, with what had been read of it before.
#[derive(Debug)]
pub(crate) struct Carrier {
    wire: Wire,
    first: Vec<u8>,
    /// Counts what is read, on the side that is not ours to trust.
    meter: Option<(Rc<Meter>, Rc<Timers>)>,
}

impl Carrier {
    pub(crate) fn new(wire: Wire, first: Vec<u8>, meter: Option<(Rc<Meter>, Rc<Timers>)>) -> Self {
        Self { wire, first, meter }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((meter, _)) = &self.meter
            && meter.spent()
        {
            // Whoever drives the connection ends it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if self.first.is_empty() {
            match &mut self.wire {
                Wire::Tcp(stream) => ready!(Pin::new(stream).poll_read(cx, buf))?,
                Wire::Other(other) => {
                    let n = ready!(other.poll_read(cx, buf.initialize_unfilled()))?;
                    buf.advance(n);
                }
            }
        } else {
            let n = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..n]);
            self.first.drain(..n);
        }
        if let Some((meter, timers)) = &self.meter {
            meter.read(&buf.filled()[before..], timers.now());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.split().1.poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Other(other) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                other.poll_write(cx, first.map_or(&[], |buf| &**buf))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.wire, Wire::Tcp(_))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.split().1.poll_shutdown(cx)
    }
}
