//! What the pipeline reads from and writes to: a TCP connection, or something that behaves as one
//! with a protocol of its own inside (TLS, a stream of an HTTP/2 connection).
//!
//! TCP is the case that counts: it costs one branch an operation.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::net::{self, RecvFlags, SendFlags};
use tokio::{
    io::{AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, tcp},
};

use crate::{timer::Timer, tls};

pub(crate) mod pipe;

/// A connection's bytes.
#[derive(Debug)]
pub(crate) enum Wire {
    /// As they are.
    Tcp(TcpStream),
    /// Taken out of, and put into, something else.
    Other(Box<dyn Duplex>),
}

/// Bytes both ways over something that is not plain TCP. Its methods take `&self`, because both
/// directions are in use at the same time; all of it stays within one thread.
pub(crate) trait Duplex: fmt::Debug {
    /// Reads once. `Ok(0)`: the other side will send nothing more, or `space` is empty.
    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes once. What it says was written is on its way: there is no flush. After `Pending` it is
    /// called again with the same bytes, perhaps with more behind them.
    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Says that nothing more will be written.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when there may be something to read, or the other side has ended.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether a side that has nothing to say but its next request has gone away; `false`: it has
    /// said something, and it makes no sense to ask again. Never ready where that cannot be known.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let _ = cx;
        Poll::Pending
    }

    /// Whether there is something to read now, by asking the system.
    fn has_bytes(&self) -> bool;

    /// Whether nothing was said on an idle connection; `surely`: by asking the system.
    fn is_silent(&self, surely: bool) -> bool;

    /// Sends on what was taken before, as far as the system takes it when it is asked itself; gives
    /// the number of bytes.
    fn push(&self) -> io::Result<usize> {
        Ok(0)
    }

    /// Whether it is not its own reader that keeps it from writing, but a connection that it shares.
    fn is_held_up(&self) -> bool {
        false
    }

    /// Makes its end, when it is dropped, look like a failure to the other side.
    fn cut(&self);

    /// What was agreed on where it is TLS, or within TLS.
    fn tls(&self) -> Option<&Arc<tls::Facts>> {
        None
    }

    /// Whether it is a stream of an HTTP/2 connection.
    fn is_http2(&self) -> bool {
        false
    }
}

/// The error of a connection whose other side says that it has done nothing for the request.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the request was not processed")]
pub(crate) struct Unprocessed;

/// The error of a stream that the other side has reset, on a connection that goes on.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the stream was reset")]
pub(crate) struct StreamReset;

/// Whether an error is one of these.
pub(crate) fn is<E: std::error::Error + 'static>(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<E>)
}

/// The reading half.
#[derive(Debug)]
pub(crate) enum ReadHalf<'w> {
    Tcp(tcp::ReadHalf<'w>),
    Other(&'w dyn Duplex),
}

/// The writing half.
#[derive(Debug)]
pub(crate) enum WriteHalf<'w> {
    Tcp(tcp::WriteHalf<'w>),
    Other(&'w dyn Duplex),
}

impl Wire {
    /// Both halves, to be used at the same time.
    pub(crate) fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Other(other) => (ReadHalf::Other(&**other), WriteHalf::Other(&**other)),
        }
    }

    /// Reads once, or until the timer goes off.
    pub(crate) async fn read(&mut self, timer: &Timer, space: &mut [u8]) -> io::Result<usize> {
        let (mut half, _) = self.split();
        poll_fn(|cx| match half.poll_read(cx, space) {
            Poll::Pending if timer.fired() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => other,
        })
        .await
    }

    /// Writes everything, or until the timer goes off. Gives the number of bytes that were taken,
    /// and the error if that is not all.
    pub(crate) async fn write_all(
        &mut self,
        timer: &Timer,
        data: &[u8],
    ) -> (usize, io::Result<()>) {
        match self.at_once(data) {
            Ok(n) if n == data.len() => (n, Ok(())),
            Ok(n) => self.write(timer, data, n, true).await,
            Err(error) => (0, Err(error)),
        }
    }

    /// The same, but the timer's time is for all of it, however it moves on. `true`: nothing had to be
    /// waited for.
    pub(crate) async fn write_in_time(&mut self, timer: &Timer, data: &[u8]) -> io::Result<bool> {
        match self.at_once(data)? {
            n if n == data.len() => Ok(true),
            n => self.write(timer, data, n, false).await.1.map(|()| false),
        }
    }

    /// Writes what the system takes when it is asked itself: nearly always all, and then the event loop
    /// has nothing to do with it.
    fn at_once(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) if !data.is_empty() => send_now(stream, data),
            _ => Ok(0),
        }
    }

    async fn write(
        &mut self,
        timer: &Timer,
        data: &[u8],
        mut written: usize,
        anew: bool,
    ) -> (usize, io::Result<()>) {
        let (_, mut half) = self.split();
        let result = poll_fn(|cx| {
            while written < data.len() {
                match half.poll_write(cx, &data[written..]) {
                    Poll::Ready(Ok(n)) => {
                        written += n;
                        if anew && written < data.len() {
                            timer.again();
                        }
                    }
                    // Then it is the connection's time that counts.
                    Poll::Pending if timer.fired() && half.is_held_up() => {
                        timer.again();
                        return Poll::Pending;
                    }
                    Poll::Pending if timer.fired() => {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        (written, result)
    }

    /// Says that nothing more will be written.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        let (_, mut half) = self.split();
        poll_fn(|cx| half.poll_shutdown(cx)).await
    }

    /// Makes sure that what was written can be told from what was cut off, before it is dropped.
    /// With plain TCP that needs nothing.
    pub(crate) async fn farewell(&mut self, timer: &Timer) {
        let Self::Other(other) = self else { return };
        poll_fn(|cx| match other.poll_shutdown(cx) {
            Poll::Pending if !timer.fired() => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Ready when there may be something to read, or the other side has ended.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Other(other) => other.poll_read_ready(cx),
        }
    }

    /// What was agreed on where it is TLS, or within TLS.
    pub(crate) fn tls(&self) -> Option<&Arc<tls::Facts>> {
        match self {
            Self::Tcp(_) => None,
            Self::Other(other) => other.tls(),
        }
    }

    /// Whether there is something to read now. The system itself is asked: the event loop may not
    /// have heard yet.
    pub(crate) fn has_bytes(&self) -> bool {
        match self {
            Self::Tcp(stream) => peek(stream).is_ok_and(|n| n > 0),
            Self::Other(other) => other.has_bytes(),
        }
    }

    /// Whether an idle connection is open and has nothing to say, as far as is known without asking
    /// the system (no call is made unless an event has arrived).
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Tcp(stream) => is_blocked(&stream.try_read(&mut [0])),
            Self::Other(other) => other.is_silent(false),
        }
    }

    /// The same, by asking the system.
    pub(crate) fn is_surely_silent(&self) -> bool {
        match self {
            Self::Tcp(stream) => is_blocked(&peek(stream)),
            Self::Other(other) => other.is_silent(true),
        }
    }

    /// Has what tells whether it is silent fetched. Only tokio knows where that is kept, so it is read, but
    /// nothing waits for what it says.
    pub(crate) fn fetch_ahead(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.try_io(Interest::READABLE, || Ok(()));
        }
    }

    /// Makes its end, when it is dropped, look like a failure to the other side, so that not even an
    /// answer without a length looks complete.
    pub(crate) fn cut(&self) {
        match self {
            Self::Tcp(stream) => {
                let reset = Some(std::time::Duration::ZERO);
                let _ = socket2::SockRef::from(stream).set_linger(reset);
            }
            Self::Other(other) => other.cut(),
        }
    }

    /// Whether HTTP/2 may begin here: on plain TCP with prior knowledge, in TLS where it was agreed on
    /// (RFC 9113, 3.3), and never within a stream of HTTP/2.
    pub(crate) fn may_speak_http2(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Other(other) => !other.is_http2() && other.tls().is_some_and(|facts| facts.http2),
        }
    }

    /// Whether it is a stream of an HTTP/2 connection.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Other(other) if other.is_http2())
    }
}

/// What the system took without being waited for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pushed {
    /// Bytes of what was offered.
    pub(crate) taken: usize,
    /// Bytes on the wire.
    pub(crate) moved: usize,
}

/// Writes at once what fits, by asking the system, whatever the event loop has heard.
pub(crate) fn send_now(stream: &TcpStream, data: &[u8]) -> io::Result<usize> {
    match socket2::SockRef::from(stream).send_with_flags(data, nix::libc::MSG_NOSIGNAL) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// Reads once. The system is called without the C library, whose `recv` and `send` are points where a
/// thread can be cancelled: to say so before and after each costs a hundredth of a request.
fn poll_recv(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    space: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let most = space.len();
        let recv = || Ok(net::recv(stream, &mut *space, RecvFlags::empty())?.1);
        if let Some(read) = once(stream, Interest::READABLE, most, recv) {
            return Poll::Ready(read);
        }
    }
}

/// Writes once; see [`poll_recv`].
fn poll_send(stream: &TcpStream, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let send = || Ok(net::send(stream, data, SendFlags::NOSIGNAL)?);
        if let Some(written) = once(stream, Interest::WRITABLE, data.len(), send) {
            return Poll::Ready(written);
        }
    }
}

/// Makes a call; none: the system has nothing, or takes nothing, now. A call that does a part shows that
/// the next would do nothing: it is not made before an event says otherwise (as tokio's own reads and
/// writes have it).
fn once(
    stream: &TcpStream,
    interest: Interest,
    most: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    let mut part = 0;
    let done = stream.try_io(interest, || {
        let n = call()?;
        if (1..most).contains(&n) {
            part = n;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    if is_blocked(&done) {
        return (part > 0).then_some(Ok(part));
    }
    Some(done)
}

/// No call is made unless an event has arrived.
fn poll_gone(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<bool> {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let peeked = ready!(stream.poll_peek(cx, &mut ReadBuf::uninit(&mut byte)));
    Poll::Ready(!matches!(peeked, Ok(n) if n > 0))
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    socket2::SockRef::from(stream).peek(&mut byte)
}

fn is_blocked(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl ReadHalf<'_> {
    /// Reads once. `Ok(0)`: the other side will send nothing more, or `space` is empty.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(half) => poll_recv(half.as_ref(), cx, space),
            Self::Other(other) => other.poll_read(cx, space),
        }
    }

    /// The connection, where it is plain TCP.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(half) => Some(half.as_ref()),
            Self::Other(_) => None,
        }
    }

    /// Whether a side that has nothing to say but its next request has gone away; `false`: it has
    /// said something, and it makes no sense to ask again.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::Tcp(half) => poll_gone(half.as_ref(), cx),
            Self::Other(other) => other.poll_gone(cx),
        }
    }

    /// Whether the other side has given this up while it is sending, where that can be known without
    /// reading: on a stream.
    pub(crate) fn gave_up(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Other(other) => matches!(other.poll_gone(cx), Poll::Ready(true)),
        }
    }
}

impl WriteHalf<'_> {
    /// Writes once.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match self {
            Self::Tcp(half) => ready!(poll_send(half.as_ref(), cx, data))?,
            Self::Other(other) => ready!(other.poll_write(cx, data))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Writes once after [`WriteHalf::poll_write`] was not ready, by asking the system itself.
    pub(crate) fn push(&mut self, data: &[u8]) -> io::Result<Pushed> {
        match self {
            Self::Tcp(half) => {
                let n = send_now(half.as_ref(), data)?;
                Ok(Pushed { taken: n, moved: n })
            }
            Self::Other(other) => Ok(Pushed {
                taken: 0,
                moved: other.push()?,
            }),
        }
    }

    /// The connection, where it is plain TCP.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(half) => Some(half.as_ref()),
            Self::Other(_) => None,
        }
    }

    /// Whether it is not the reader that keeps it from writing.
    pub(crate) fn is_held_up(&self) -> bool {
        matches!(self, Self::Other(other) if other.is_held_up())
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Other(other) => other.poll_shutdown(cx),
        }
    }
}
