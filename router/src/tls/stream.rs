//! A TLS connection as the pipeline's bytes.
//!
//! An idle connection holds no buffers: what is read and written goes through two of the thread's.
//! A connection keeps only what could not be finished: a part of a record, decrypted bytes for which
//! there was no room, records that the kernel did not take.

use std::{
    cell::{RefCell, RefMut},
    io::{self, Read},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    tls::{
        Facts,
        session::{Driven, Out, Progress, Session, Wish, broken},
    },
    wire::{Duplex, send_now},
};

/// The most plaintext that is encrypted before the kernel has taken it.
const MOST_SENT: usize = 64 << 10;
/// What is read at least: the largest record, so that one read does for it.
const LEAST_READ: usize = 17 << 10;

thread_local! {
    /// Where records are read to and decrypted.
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Where records are encrypted to.
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A TLS connection over TCP.
#[derive(Debug)]
pub(crate) struct TlsStream {
    inner: RefCell<Inner>,
    facts: Arc<Facts>,
}

#[derive(Debug)]
pub(super) struct Inner {
    tcp: TcpStream,
    pub(super) session: Session,
    /// The part of a record that has come.
    incoming: Vec<u8>,
    /// Decrypted bytes that nobody has read yet.
    plain: Vec<u8>,
    plain_read: usize,
    /// Records that the kernel has not taken yet.
    outgoing: Vec<u8>,
    sent: usize,
    /// So many bytes of the present write are in `outgoing`.
    promised: usize,
    receiving: Receiving,
    sending: Sending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Open,
    /// The other side said that this was all.
    Ended,
    /// It ended without saying so, or said what nobody could have said.
    Broken(io::ErrorKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// The handshake goes on.
    NotYet,
    Open,
    /// Nothing more will be said.
    Ended,
    /// And the end is to look like a failure.
    Cut,
}

impl Inner {
    pub(super) fn new(tcp: TcpStream, session: Session) -> Self {
        Self {
            tcp,
            session,
            incoming: Vec::new(),
            plain: Vec::new(),
            plain_read: 0,
            outgoing: Vec::new(),
            sent: 0,
            promised: 0,
            receiving: Receiving::Open,
            sending: Sending::NotYet,
        }
    }

    /// Takes in what was read elsewhere.
    pub(super) fn offer(&mut self, mut bytes: Vec<u8>) -> io::Result<Progress> {
        self.digest(&mut bytes, &mut [], Wish::None)
            .map(|(_, at)| at)
    }

    /// Goes on with the handshake. Ready when both sides may speak. Records that nobody waits for may
    /// still have to be sent: they go with the first that is said.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut at = self.drive(Wish::None)?;
        loop {
            if at != Progress::Wants && !self.session.common().is_handshaking() {
                if self.session.is_waited_for() {
                    ready!(self.poll_flush(cx))?;
                }
                self.sending = Sending::Open;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_flush(cx))?;
            at = ready!(self.poll_pull(cx, &mut []))?.1;
        }
    }

    /// Sends what is there to be sent, as far as the kernel takes it at once.
    pub(super) fn flush_now(&mut self) {
        while self.sent < self.outgoing.len() {
            match self.tcp.try_write(&self.outgoing[self.sent..]) {
                Ok(n) if n > 0 => self.sent += n,
                _ => return,
            }
        }
        self.flushed();
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.flushed();
        Poll::Ready(Ok(()))
    }

    fn flushed(&mut self) {
        self.outgoing = Vec::new();
        self.sent = 0;
    }

    /// The same, by asking the system itself; gives the number of bytes.
    fn push(&mut self) -> io::Result<usize> {
        let n = send_now(&self.tcp, &self.outgoing[self.sent..])?;
        self.sent += n;
        Ok(n)
    }

    fn has_plain(&self) -> bool {
        self.plain_read < self.plain.len()
    }

    fn take_plain(&mut self, space: &mut [u8]) -> usize {
        let left = &self.plain[self.plain_read..];
        let n = left.len().min(space.len());
        space[..n].copy_from_slice(&left[..n]);
        self.plain_read += n;
        if !self.has_plain() {
            self.plain = Vec::new();
            self.plain_read = 0;
        }
        n
    }

    /// Reads once and takes in what came; gives how much of `space` it filled. When that is nothing,
    /// there may be something in `plain`, or the other side has ended, or more is needed.
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
    ) -> Poll<io::Result<(usize, Progress)>> {
        READ.with_borrow_mut(|scratch| {
            let (had, room) = self.before_read(scratch, space.len());
            let mut buf = ReadBuf::new(&mut scratch[had..room]);
            let result = ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf));
            let n = result.map(|()| buf.filled().len());
            Poll::Ready(self.after_read(scratch, had, n, space))
        })
    }

    /// The same with whatever `read` finds at once; `None`: nothing.
    fn pull_now(
        &mut self,
        read: impl FnOnce(&TcpStream, &mut [u8]) -> io::Result<usize>,
    ) -> Option<io::Result<()>> {
        READ.with_borrow_mut(|scratch| {
            let (had, room) = self.before_read(scratch, 0);
            match read(&self.tcp, &mut scratch[had..room]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                result => Some(self.after_read(scratch, had, result, &mut []).map(drop)),
            }
        })
    }

    /// Puts the part of a record that has come into `scratch`; gives where to read to.
    fn before_read(&self, scratch: &mut Vec<u8>, wanted: usize) -> (usize, usize) {
        let had = self.incoming.len();
        // What is encrypted is a little longer.
        let room = had + LEAST_READ.max(wanted + wanted / 32 + 64);
        if scratch.len() < room {
            scratch.resize(room, 0);
        }
        scratch[..had].copy_from_slice(&self.incoming);
        (had, room)
    }

    fn after_read(
        &mut self,
        scratch: &mut [u8],
        had: usize,
        read: io::Result<usize>,
        space: &mut [u8],
    ) -> io::Result<(usize, Progress)> {
        let n = match read {
            // Without a word of farewell: somebody may have cut the connection.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        let n = n.inspect_err(|error| self.receiving = Receiving::Broken(error.kind()))?;
        self.digest(&mut scratch[..had + n], space, Wish::None)
    }

    /// Takes `bytes` in, whose beginning is what `incoming` held.
    fn digest(
        &mut self,
        bytes: &mut [u8],
        space: &mut [u8],
        wish: Wish<'_>,
    ) -> io::Result<(usize, Progress)> {
        let mut out = Out {
            space,
            filled: 0,
            plain: &mut self.plain,
            records: &mut self.outgoing,
        };
        let driven = self.session.drive(bytes, wish, &mut out);
        let filled = out.filled;
        self.keep(&bytes[driven.used..]);
        self.note(driven).map(|at| (filled, at))
    }

    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
    }

    fn note(&mut self, driven: Driven) -> io::Result<Progress> {
        if driven.ended {
            self.receiving = Receiving::Ended;
        }
        driven.progress.map_err(|error| {
            self.receiving = Receiving::Broken(io::ErrorKind::InvalidData);
            // An alert says why, if there is one.
            self.flush_now();
            self.sending = Sending::Ended;
            broken(error)
        })
    }

    /// Does what is wished; what comes of it goes to `outgoing`.
    fn drive(&mut self, wish: Wish<'_>) -> io::Result<Progress> {
        let mut incoming = std::mem::take(&mut self.incoming);
        self.digest(&mut incoming, &mut [], wish).map(|(_, at)| at)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if space.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            if self.has_plain() {
                return Poll::Ready(Ok(self.take_plain(space)));
            }
            match self.receiving {
                Receiving::Open => {}
                Receiving::Ended => return Poll::Ready(Ok(0)),
                Receiving::Broken(kind) => return Poll::Ready(Err(kind.into())),
            }
            let (filled, _) = ready!(self.poll_pull(cx, space))?;
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.has_plain() && self.receiving == Receiving::Open {
            // What went wrong is told to who reads.
            let _ = ready!(self.poll_pull(cx, &mut []));
        }
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.promised == 0 {
            if self.sending != Sending::Open {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let now = &data[..data.len().min(MOST_SENT)];
            // Records that are left over from the handshake go first, in the same write.
            let left = std::mem::take(&mut self.outgoing);
            debug_assert_eq!(self.sent, 0, "a write is finished before the next");
            self.outgoing = WRITE.take();
            self.outgoing.clear();
            self.outgoing.extend_from_slice(&left);
            let driven = self.drive(Wish::Send(now));
            let sent = driven.and_then(|at| match at {
                Progress::Open => {
                    self.promised = now.len();
                    self.write_now(cx)
                }
                Progress::Wants | Progress::Closed => Err(io::ErrorKind::BrokenPipe.into()),
            });
            let records = std::mem::take(&mut self.outgoing);
            let rest = &records[self.sent.min(records.len())..];
            if !rest.is_empty() {
                self.outgoing = rest.to_vec();
            }
            self.sent = 0;
            WRITE.set(records);
            sent?;
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.promised)))
    }

    /// Writes as far as the kernel takes it; the rest is left.
    fn write_now(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            match Pin::new(&mut self.tcp).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_end()?;
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn say_end(&mut self) -> io::Result<()> {
        if self.sending == Sending::Open {
            self.sending = Sending::Ended;
            self.drive(Wish::Close)?;
        }
        Ok(())
    }

    fn is_silent(&mut self, surely: bool) -> bool {
        loop {
            if self.has_plain() || !self.incoming.is_empty() || self.receiving != Receiving::Open {
                return false;
            }
            // What has come may concern only the session: tickets, new keys.
            let heard = self.pull_now(|tcp, space| match tcp.try_read(space) {
                Err(error) if surely && error.kind() == io::ErrorKind::WouldBlock => {
                    (&*socket2::SockRef::from(tcp)).read(space)
                }
                result => result,
            });
            match heard {
                None => return true,
                Some(Ok(())) => {}
                Some(Err(_)) => return false,
            }
        }
    }

    fn has_bytes(&self) -> bool {
        let waits = || {
            let mut byte = [std::mem::MaybeUninit::uninit()];
            let peeked = socket2::SockRef::from(&self.tcp).peek(&mut byte);
            peeked.is_ok_and(|n| n > 0)
        };
        self.has_plain() || !self.incoming.is_empty() || waits()
    }

    /// Makes the end look like a failure.
    pub(super) fn cut(&mut self) {
        self.sending = Sending::Cut;
        let reset = Some(std::time::Duration::ZERO);
        let _ = socket2::SockRef::from(&self.tcp).set_linger(reset);
    }
}

impl Drop for Inner {
    /// Who just ends has said all it had to say; the other side cannot know that otherwise.
    fn drop(&mut self) {
        if self.promised == 0 && self.say_end().is_ok() && self.sending != Sending::Cut {
            self.flush_now();
        }
    }
}

impl TlsStream {
    /// A connection whose handshake is done.
    pub(super) fn new(inner: Inner, facts: Facts) -> Self {
        Self {
            inner: RefCell::new(inner),
            facts: Arc::new(facts),
        }
    }

    /// What was agreed on.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    fn inner(&self) -> RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }
}

impl Duplex for TlsStream {
    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_read(cx, space)
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, data)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_read_ready(cx).map(Ok)
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.inner();
        ready!(inner.poll_read_ready(cx));
        Poll::Ready(!inner.has_plain())
    }

    fn has_bytes(&self) -> bool {
        self.inner.borrow().has_bytes()
    }

    fn is_silent(&self, surely: bool) -> bool {
        self.inner().is_silent(surely)
    }

    fn push(&self) -> io::Result<usize> {
        self.inner().push()
    }

    fn cut(&self) {
        self.inner().cut();
    }

    fn tls(&self) -> Option<&Arc<Facts>> {
        Some(&self.facts)
    }
}
