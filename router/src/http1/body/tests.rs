use std::{future::poll_fn, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::*;
use crate::{
    http1::buffer::Lender,
    timer::Timers,
    wire::{Wire, pipe::Pipes},
};

/// What a tap of this limit has of a body that comes in these pieces.
fn tapped(framing: Framing, pieces: &[&str], limit: usize) -> Result<Vec<u8>, Untapped> {
    let mut body = Body::default();
    body.begin(framing, false, None);
    body.tap(limit);
    let (mut input, mut out) = (Buffer::new(64), Vec::new());
    for piece in pieces {
        input.compact();
        input.space()[..piece.len()].copy_from_slice(piece.as_bytes());
        input.filled(piece.len());
        let mut before = usize::MAX;
        while input.len() < before {
            before = input.len();
            body.take_buffered(&mut input, &mut out).unwrap();
        }
        // It is bounded while it grows, and not only at its end.
        assert!(body.tap.as_ref().unwrap().capacity() <= 2 * limit.max(8));
    }
    body.take_tapped()
}

#[test]
fn a_tap_has_the_content_whole_or_not_at_all() {
    let length = Framing::Length(6);
    let whole = Ok(b"abcdef".to_vec());
    assert_eq!(tapped(length, &["abc", "def"], 6), whole);
    assert_eq!(tapped(length, &["abc", "def"], 5), Err(Untapped::TooLarge));
    assert_eq!(tapped(length, &["abcde"], 6), Err(Untapped::Incomplete));
    let chunks = ["3\r\nabc\r\n", "3\r\nde", "f\r\n0\r\n\r\n"];
    assert_eq!(tapped(Framing::Chunked, &chunks, 6), whole);
    assert_eq!(
        tapped(Framing::Chunked, &chunks[..2], 6),
        Err(Untapped::Incomplete)
    );
    assert_eq!(
        tapped(Framing::Chunked, &chunks, 5),
        Err(Untapped::TooLarge)
    );
    let many = [
        "a0\r\n",
        "xxxxxxxxxxxxxxxxxxxx",
        "xxxxxxxxxxxxxxxxxxxx",
        "xxxxxxxxxxxxxxxxxxxx",
    ];
    assert_eq!(tapped(Framing::Chunked, &many, 16), Err(Untapped::TooLarge));
    assert_eq!(Body::default().take_tapped(), Err(Untapped::Incomplete));
}

/// Both ends of a connection whose buffers are about so large.
async fn connection(buffers: u32) -> (TcpStream, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(buffers).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let here = TcpSocket::new_v4().unwrap();
    here.set_send_buffer_size(buffers).unwrap();
    let here = here.connect(listener.local_addr().unwrap());
    let (here, there) = tokio::join!(here, listener.accept());
    (here.unwrap(), there.unwrap().0)
}

/// A connection may be used again only when its request is out; what is in the pipe is not.
#[tokio::test]
async fn a_body_is_not_done_while_some_of_it_is_in_the_pipe() {
    const SIZE: usize = 40 << 10;
    let all: Vec<u8> = (0..SIZE).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let (mut client, from) = connection(1 << 17).await;
    client.write_all(&all).await.unwrap();
    let arrived = async {
        let mut seen = vec![0; SIZE];
        while from.peek(&mut seen).await.unwrap() < SIZE {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_mins(1);
    tokio::time::timeout(patience, arrived).await.unwrap();
    let (to, mut peer) = connection(4096).await;
    let mut before = 0;
    to.writable().await.unwrap();
    while let Ok(n) = to.try_write(&[b'x'; 1000]) {
        before += n;
    }
    let (mut from, mut to) = (Wire::Tcp(from), Wire::Tcp(to));
    let ((mut from, _), (_, mut to)) = (from.split(), to.split());
    let buffers = Lender::new(|| Buffer::new(64), Buffer::clear);
    let pipes = Pipes::new(1);
    let mut means = Means::new(&buffers, &pipes);
    let timers = Timers::new(std::time::Instant::now());
    let timer = timers.timer().await;
    let patience = Patience {
        from: u64::MAX,
        to: u64::MAX,
        client: Side::From,
        rate: Rate::ANY,
        invited: true,
        beside: 0,
    };
    let mut body = Body::default();
    body.begin(Framing::Length(SIZE as u64), false, None);
    let stuck = poll_fn(|cx| {
        let keep = &mut Keep::default();
        let moved = body.poll_move(cx, &mut from, &mut to, &mut means, keep, &timer, patience);
        Poll::Ready(moved.is_pending())
    });
    assert!(stuck.await, "nobody reads: it waits");
    assert_eq!(body.left(), Some(0), "all of it was taken");
    assert_eq!((body.written(), body.done()), (0, false));
    let reading = async {
        let mut got = vec![0; before + SIZE];
        peer.read_exact(&mut got).await.unwrap();
        got.split_off(before)
    };
    let moving = poll_fn(|cx| {
        let keep = &mut Keep::default();
        body.poll_move(cx, &mut from, &mut to, &mut means, keep, &timer, patience)
    });
    let (moved, got) = tokio::join!(moving, reading);
    moved.unwrap();
    assert!(got == all && body.done() && body.written() == SIZE as u64);
}
