//! The body of a stream, as HTTP/1.1 bytes behind a head. The stream's window is opened again only
//! by what was handed out: who reads slowly makes the sender wait, and holds a window's worth.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use http::HeaderMap;

use crate::{
    http1::{chunked, request::Framing},
    http2::broken,
};

/// Space below which chunks are staged rather than written in place.
const TIGHT: usize = 64;
/// What a chunk needs beside its data, at most.
const CHUNK_FRAME: usize = 20;

/// A message that is read as HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Source {
    /// Bytes that are ready: the head, small chunks, the trailer.
    staged: Vec<u8>,
    at: usize,
    body: Option<RecvStream>,
    framing: Framing,
    left: u64,
    piece: Bytes,
    done: bool,
}

impl Source {
    /// A message with this head; `framing` says how its body is framed, and whether it has one.
    pub(crate) fn new(head: Vec<u8>, framing: Framing, body: RecvStream) -> Self {
        Self {
            staged: head,
            at: 0,
            body: Some(body),
            framing,
            left: match framing {
                Framing::Length(length) => length,
                _ => 0,
            },
            piece: Bytes::new(),
            done: framing == Framing::None,
        }
    }

    /// From here on DATA is handed out as it comes: a tunnel.
    pub(crate) fn open(&mut self) {
        self.framing = Framing::UntilClose;
        self.done = false;
    }

    /// Nothing more will be read.
    pub(crate) fn close(&mut self) {
        self.body = None;
        self.piece = Bytes::new();
        self.done = true;
    }

    /// As much as there is; `Ok(0)` at the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        loop {
            filled += self.take_staged(&mut space[filled..]);
            if filled == space.len() {
                return Poll::Ready(Ok(filled));
            }
            match self.poll_next(cx, &mut space[filled..]) {
                Poll::Ready(Ok(Some(n))) => filled += n,
                Poll::Ready(Err(error)) if filled == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if filled == 0 => return Poll::Pending,
                // The end; or what failed once, and fails again.
                Poll::Ready(Ok(None) | Err(_)) | Poll::Pending => return Poll::Ready(Ok(filled)),
            }
        }
    }

    fn take_staged(&mut self, space: &mut [u8]) -> usize {
        let staged = &self.staged[self.at..];
        let n = staged.len().min(space.len());
        space[..n].copy_from_slice(&staged[..n]);
        self.at += n;
        if n > 0 && self.at == self.staged.len() {
            self.staged.clear();
            self.at = 0;
        }
        n
    }

    /// Puts the next part of the body into `space` or on the stage; none: it is over.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        if self.piece.is_empty() && !ready!(self.poll_piece(cx))? {
            let more = self.at < self.staged.len();
            return Poll::Ready(Ok(more.then_some(0)));
        }
        let n = match self.framing {
            Framing::Chunked if space.len() < TIGHT => {
                let n = self.piece.len().min(1024);
                chunked::append(&mut self.staged, &self.piece[..n]);
                self.took(n)?;
                0
            }
            Framing::Chunked => {
                let n = self.piece.len().min(space.len() - CHUNK_FRAME);
                let written = chunked::write(space, &self.piece[..n]);
                self.took(n)?;
                written
            }
            _ => {
                let n = self.piece.len().min(space.len());
                space[..n].copy_from_slice(&self.piece[..n]);
                self.took(n)?;
                n
            }
        };
        Poll::Ready(Ok(Some(n)))
    }

    /// Bytes were handed out: the sender may send as many.
    fn took(&mut self, n: usize) -> io::Result<()> {
        self.piece.advance(n);
        match &mut self.body {
            Some(body) => body.flow_control().release_capacity(n).map_err(broken),
            None => Ok(()),
        }
    }

    /// Waits for DATA; `false`: there is none any more.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Some(body) = self.body.as_mut().filter(|_| !self.done) else {
            return Poll::Ready(Ok(false));
        };
        while self.piece.is_empty() {
            match ready!(body.poll_data(cx)) {
                Some(Ok(piece)) => {
                    if let Framing::Length(_) = self.framing {
                        // The library holds both sides to it too; a body that is longer than was
                        // said would be another request.
                        let left = self.left.checked_sub(piece.len() as u64);
                        self.left = left.ok_or(io::ErrorKind::InvalidData)?;
                    }
                    self.piece = piece;
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => {
                    if self.left > 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    if self.framing == Framing::Chunked {
                        let trailers = ready!(body.poll_trailers(cx)).map_err(broken)?;
                        end_of_chunks(&mut self.staged, trailers.as_ref());
                    }
                    self.done = true;
                    return Poll::Ready(Ok(false));
                }
            }
        }
        Poll::Ready(Ok(true))
    }
}

fn end_of_chunks(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a field's line, if its value cannot be taken for more than one.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return;
    }
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
