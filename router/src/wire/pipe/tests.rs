use std::{future::poll_fn, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap());
    let (here, there) = tokio::join!(here, listener.accept());
    (here.unwrap(), there.unwrap().0)
}

fn pipes() -> Pipes {
    Pipes::new(4)
}

async fn fill(conduit: &mut Conduit<'_>, from: &TcpStream, left: u64) -> io::Result<Filled> {
    let filled = poll_fn(|cx| conduit.poll_fill(cx, from, left));
    let patience = Duration::from_mins(1);
    tokio::time::timeout(patience, filled).await.unwrap()
}

#[tokio::test]
async fn bytes_go_through_up_to_what_is_left_and_the_end_is_told() {
    let pipes = pipes();
    let (mut client, from) = connection().await;
    let (to, mut peer) = connection().await;
    let mut conduit = Conduit::new(&pipes);
    client.write_all(b"abcdefgh").await.unwrap();
    assert_eq!(
        fill(&mut conduit, &from, 5).await.unwrap(),
        Filled::Bytes(5)
    );
    assert_eq!((conduit.held(), pipes.lender.out()), (5, 1));
    let moved = poll_fn(|cx| conduit.poll_drain(cx, &to)).await.unwrap();
    assert_eq!((moved, conduit.held()), (5, 0));
    let mut got = [0; 5];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"abcde");
    assert_eq!(
        fill(&mut conduit, &from, 9).await.unwrap(),
        Filled::Bytes(3)
    );
    assert_eq!(conduit.push(&to).unwrap(), 3);
    // Nobody holds a pipe while there is nothing to come.
    let empty = poll_fn(|cx| Poll::Ready(conduit.poll_fill(cx, &from, 9).is_pending())).await;
    assert!(empty);
    assert_eq!((pipes.lender.out(), pipes.lender.waiting()), (0, 1));
    drop(client);
    assert_eq!(
        fill(&mut conduit, &from, 9).await.unwrap(),
        Filled::Bytes(0)
    );
}

#[tokio::test]
async fn a_full_connection_is_waited_for() {
    let pipes = pipes();
    let (mut client, from) = connection().await;
    let (to, mut peer) = connection().await;
    let all: Vec<u8> = (0..40 << 20)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    let sent = all.clone();
    let writing = tokio::spawn(async move { client.write_all(&sent).await });
    let mut conduit = Conduit::new(&pipes);
    let mut left = all.len() as u64;
    let mut waited = false;
    let moving = async {
        while left > 0 || conduit.held() > 0 {
            if conduit.held() == 0 {
                let Filled::Bytes(n @ 1..) = fill(&mut conduit, &from, left).await.unwrap() else {
                    panic!("ended with {left} left");
                };
                left -= n as u64;
            }
            poll_fn(|cx| {
                let drained = conduit.poll_drain(cx, &to);
                waited |= drained.is_pending();
                drained
            })
            .await
            .unwrap();
        }
    };
    let mut got = vec![0; all.len()];
    let ((), read) = tokio::join!(moving, peer.read_exact(&mut got));
    read.unwrap();
    writing.await.unwrap().unwrap();
    assert!(got == all && waited);
}

#[tokio::test]
async fn a_pipe_with_something_in_it_serves_nobody_else() {
    let pipes = pipes();
    let (mut client, from) = connection().await;
    client.write_all(b"abcdefgh").await.unwrap();
    let mut conduit = Conduit::new(&pipes);
    fill(&mut conduit, &from, 5).await.unwrap();
    drop(conduit);
    let mut other = Conduit::new(&pipes);
    assert_eq!(fill(&mut other, &from, 9).await.unwrap(), Filled::Bytes(3));
    assert_eq!(other.held(), 3);
    let (to, mut peer) = connection().await;
    other.push(&to).unwrap();
    let mut got = [0; 3];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"fgh");
}

#[tokio::test]
async fn beyond_the_most_pipes_it_says_so_and_takes_nothing() {
    let pipes = pipes();
    let lent: Vec<_> = (0..4).map(|_| pipes.lend().unwrap()).collect();
    let (mut client, mut from) = connection().await;
    client.write_all(b"abc").await.unwrap();
    let mut conduit = Conduit::new(&pipes);
    assert_eq!(fill(&mut conduit, &from, 3).await.unwrap(), Filled::Unable);
    assert!(!conduit.is_able());
    let mut got = [0; 3];
    from.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"abc");
    drop(lent);
}

#[test]
fn what_the_system_cannot_do_is_told_from_what_the_connection_cannot() {
    for (code, unable) in [
        (Errno::MFILE, true),
        (Errno::NOSYS, true),
        (Errno::INVAL, true),
        (Errno::CONNRESET, false),
        (Errno::PIPE, false),
    ] {
        assert_eq!(is_unable(&code.into()), unable, "{code:?}");
    }
}
