//! Large bodies between two TCP connections move through a pipe (`splice(2)`): the kernel passes its
//! own pages on, and nobody copies them.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

use crate::http1::buffer::{Lender, Lent};

/// The most bytes that are in a pipe at a time. They are what a client that takes nothing holds back,
/// besides what is in the kernel's buffers anyway.
const MOST: u64 = 256 << 10;

/// A worker's pipes. When all are in use, further bodies are copied.
#[derive(Debug)]
pub(crate) struct Pipes {
    lender: Lender<Pipe>,
    most: usize,
}

/// A pipe, made when it is first needed.
#[derive(Debug, Default)]
struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// What came of asking for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many are in the pipe; 0: the other side has ended.
    Bytes(usize),
    /// The system has no pipe to give, or cannot do it with this connection. Nothing has moved.
    Unable,
}

/// A body's way through a pipe, which is lent only while there are bytes in it.
#[derive(Debug)]
pub(crate) struct Conduit<'w> {
    pipes: &'w Pipes,
    lent: Option<Lent<'w, Pipe>>,
    unable: bool,
}

impl Pipes {
    /// Up to `most` at a time; each takes two descriptors.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            lender: Lender::new(Pipe::default, Pipe::clean),
            most,
        }
    }

    fn lend(&self) -> Option<Lent<'_, Pipe>> {
        (self.lender.out() < self.most).then(|| self.lender.lend())
    }

    /// Closes what was not needed since the last call.
    pub(crate) fn trim(&self) {
        self.lender.trim();
    }

    /// Closes all that are not in use.
    pub(crate) fn clear(&self) {
        self.lender.clear();
    }

    /// Whether some wait to be lent, or are out.
    pub(crate) fn holds_some(&self) -> bool {
        self.lender.holds_some()
    }
}

impl Pipe {
    /// Makes it fit for another body: what was not taken out of it goes with its ends.
    fn clean(&mut self) {
        if self.held > 0 {
            self.ends = None;
            self.held = 0;
        }
    }

    /// Takes bytes out of a connection that has some.
    fn fill(&mut self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let ends = match &mut self.ends {
            Some(ends) => ends,
            none => none.insert(Ends::make()?),
        };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let n = splice(from.as_fd(), None, ends.write.as_fd(), None, most, flags)?;
        self.held += n;
        Ok(n)
    }

    /// Puts what it holds into a connection, as far as there is room.
    fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let n = splice(ends.read.as_fd(), None, to.as_fd(), None, self.held, flags)?;
        self.held = self.held.saturating_sub(n);
        Ok(n)
    }
}

impl Ends {
    fn make() -> Result<Self, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { read, write })
    }
}

impl<'w> Conduit<'w> {
    pub(crate) fn new(pipes: &'w Pipes) -> Self {
        Self {
            pipes,
            lent: None,
            unable: false,
        }
    }

    /// Whether there may be bytes to come through it.
    pub(crate) fn is_able(&self) -> bool {
        !self.unable
    }

    /// How many bytes are in it.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.lent.as_ref().map_or(0, |pipe| pipe.held)
    }

    /// Takes up to `left` bytes out of a connection; only when nothing is held.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        left: u64,
    ) -> Poll<io::Result<Filled>> {
        let most = usize::try_from(left.min(MOST)).unwrap_or(usize::MAX);
        loop {
            if from.poll_read_ready(cx)?.is_pending() {
                self.lent = None;
                return Poll::Pending;
            }
            if self.lent.is_none() {
                self.lent = self.pipes.lend();
            }
            let Some(pipe) = &mut self.lent else {
                self.unable = true;
                return Poll::Ready(Ok(Filled::Unable));
            };
            match from.try_io(Interest::READABLE, || pipe.fill(from, most)) {
                Ok(n) => return Poll::Ready(Ok(Filled::Bytes(n))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_unable(&error) => {
                    self.unable = true;
                    self.lent = None;
                    return Poll::Ready(Ok(Filled::Unable));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Puts what is held into a connection, once.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || self.drain(to)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                other => return Poll::Ready(other),
            }
        }
    }

    /// The same, by asking the system, whatever the event loop has heard.
    pub(crate) fn push(&mut self, to: &TcpStream) -> io::Result<usize> {
        match self.drain(to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        self.lent.as_mut().map_or(Ok(0), |pipe| pipe.drain(to))
    }
}

/// Whether an error says that bytes have to be copied instead: no pipe to be had, or a system that
/// does not know how, or forbids it.
fn is_unable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::PERM
                | Errno::OPNOTSUPP
        )
    )
}

#[cfg(test)]
mod tests;
