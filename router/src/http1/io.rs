//! Reading and writing sockets under the connection's timer.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use crate::timer::Timer;

/// Reads once. `Ok(0)`: the other side will send nothing more, or `space` is empty.
pub(crate) fn poll_read(
    half: &mut ReadHalf<'_>,
    cx: &mut Context<'_>,
    space: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(space);
    ready!(Pin::new(half).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

/// Writes once.
pub(crate) fn poll_write(
    half: &mut WriteHalf<'_>,
    cx: &mut Context<'_>,
    data: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(half).poll_write(cx, data))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        n => Poll::Ready(Ok(n)),
    }
}

/// Reads once, or until the timer goes off.
pub(crate) async fn read(
    stream: &mut TcpStream,
    timer: &Timer,
    space: &mut [u8],
) -> io::Result<usize> {
    let (mut half, _) = stream.split();
    poll_fn(|cx| match poll_read(&mut half, cx, space) {
        Poll::Pending if timer.fired() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        other => other,
    })
    .await
}

/// Writes everything, or until the timer goes off. Gives the number of bytes that were taken, and
/// the error if that is not all.
pub(crate) async fn write_all(
    stream: &mut TcpStream,
    timer: &Timer,
    data: &[u8],
) -> (usize, io::Result<()>) {
    let (_, mut half) = stream.split();
    let mut written = 0;
    let result = poll_fn(|cx| {
        while written < data.len() {
            match poll_write(&mut half, cx, &data[written..]) {
                Poll::Ready(Ok(n)) => {
                    written += n;
                    if written < data.len() {
                        timer.again();
                    }
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

/// What a pooled connection that should be silent has to say, as far as is known without asking the
/// system (no call is made unless an event has arrived).
pub(crate) fn is_silent(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The same, by asking the system.
pub(crate) fn is_surely_silent(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let socket = socket2::SockRef::from(stream);
    matches!(socket.peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
