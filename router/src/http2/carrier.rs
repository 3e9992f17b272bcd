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

impl Carrier {
    /// Notes what became of writing `data`; where the client seems to take nothing, and somebody wants
    /// to know for sure, the system is asked.
    fn count(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some((meter, _)) = &self.meter else {
            return written;
        };
        match written {
            Poll::Ready(Ok(n)) => meter.wrote(Some(n)),
            Poll::Pending if meter.take_nudge() => {
                let mut half = self.wire.split().1;
                let pushed = half.push(data)?;
                meter.wrote(Some(pushed.moved));
                if pushed.taken > 0 {
                    return Poll::Ready(Ok(pushed.taken));
                }
                let written = half.poll_write(cx, data);
                if written.is_pending() {
                    meter.wrote(None);
                }
                return written;
            }
            Poll::Pending => meter.wrote(None),
            Poll::Ready(Err(_)) => {}
        }
        written
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
        let written = self.wire.split().1.poll_write(cx, data);
        self.count(cx, written, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        let first = first.map_or(&[][..], |buf| &**buf);
        let written = match &mut self.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Other(other) => other.poll_write(cx, first),
        };
        self.count(cx, written, first)
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
