//! An HTTP/1.1 message's body, taken out of its framing and sent as DATA. Nothing is taken that the
//! stream has no window for: who receives slowly makes the pipeline wait.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    http1::{chunked::Decoder, request::Framing},
    http2::broken,
};

/// A body on its way to a stream.
#[derive(Debug)]
pub(crate) struct Sink {
    to: SendStream<Bytes>,
    framing: Framing,
    left: u64,
    decoder: Decoder,
    trailer: Vec<u8>,
    done: bool,
}

impl Sink {
    /// A body that is framed so. Without a body, the head has ended the stream.
    pub(crate) fn new(to: SendStream<Bytes>, framing: Framing) -> Self {
        Self {
            to,
            framing,
            left: match framing {
                Framing::Length(length) => length,
                Framing::UntilClose => u64::MAX,
                Framing::None | Framing::Chunked => 0,
            },
            decoder: Decoder::default(),
            trailer: Vec::new(),
            done: framing == Framing::None,
        }
    }

    /// Whether the message is complete.
    pub(crate) fn done(&self) -> bool {
        self.done
    }

    /// Takes as much as there is a window for.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut used = 0;
        while used < data.len() {
            if self.done {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.framing == Framing::Chunked {
                used += self
                    .decoder
                    .skip_framing(&data[used..], &mut self.trailer)
                    .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
                self.left = self.decoder.content_left();
                if self.decoder.done() {
                    self.end()?;
                    continue;
                }
            }
            let rest = data.len() - used;
            let n = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
            if n == 0 {
                continue;
            }
            match self.poll_send(cx, &data[used..used + n]) {
                Poll::Ready(sent) => used += sent?,
                Poll::Pending if used > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(used))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.to.reserve_capacity(data.len());
        while self.to.capacity() == 0 {
            match ready!(self.to.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let n = data.len().min(self.to.capacity());
        match self.framing {
            Framing::Chunked => self.decoder.took(n),
            Framing::Length(_) => self.left -= n as u64,
            Framing::None | Framing::UntilClose => {}
        }
        self.done = matches!(self.framing, Framing::Length(_)) && self.left == 0;
        let piece = Bytes::copy_from_slice(&data[..n]);
        self.to.send_data(piece, self.done).map_err(broken)?;
        Poll::Ready(Ok(n))
    }

    /// The last chunk has come.
    fn end(&mut self) -> io::Result<()> {
        self.done = true;
        let trailers = trailers(&self.trailer);
        if trailers.is_empty() {
            return self.to.send_data(Bytes::new(), true).map_err(broken);
        }
        self.to.send_trailers(trailers).map_err(broken)
    }

    /// Ends what has no end of its own; anything else is cut short.
    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        match self.framing {
            _ if self.done => Ok(()),
            Framing::UntilClose => self.end(),
            _ => {
                self.reset(Reason::INTERNAL_ERROR);
                Ok(())
            }
        }
    }

    /// Tells the other side that this is not the whole message.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.done = true;
        self.to.send_reset(reason);
    }

    /// Ready when the other side has given the stream up.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done {
            return Poll::Pending;
        }
        self.to.poll_reset(cx).map(drop)
    }
}

/// The fields of a chunked body's trailer, which begins with the last chunk.
fn trailers(trailer: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in trailer.split(|b| *b == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    fields
}
