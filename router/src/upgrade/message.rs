//! What two processes say to each other while one takes over: frames of a length and JSON over a Unix
//! socket. Open sockets travel beside a frame, and belong to it.
//!
//! ```text
//! new    Hello ──►                                    ──► Ready (it accepts connections)
//! old              ──► Offer, Sockets…, the tables               ──► Released (it no longer does)
//! ```
//!
//! Either side may say `Refused` with a reason, or just go away, at any point before `Released`: the
//! old process goes on as if nothing had happened.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

use crate::tls::Secret;

/// Changes when processes that speak the old form could not understand the new one.
pub(crate) const PROTOCOL: u32 = 1;
/// How many sockets go with one frame; the kernel takes 253.
pub(crate) const BATCH: usize = 64;
/// How long the other side may take to hear why not.
const REFUSAL: Duration = Duration::from_secs(2);
/// A larger frame is none of ours.
const MAX_FRAME: usize = 1 << 30;

/// One thing said. Fields that a newer process adds are ignored by an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// A process wants to take over.
    Hello {
        protocol: u32,
        version: String,
        cluster: String,
        /// Its router id.
        id: String,
        /// How long it may take to be ready.
        patience_ms: u64,
        /// It takes the sets of other clusters, too.
        #[serde(default)]
        clusters: bool,
    },
    /// What it gets: so many sockets, and the table in a frame of its own.
    Offer {
        version: String,
        sockets: usize,
        table: bool,
        /// So many sets of other clusters come behind the table, each in a frame of its own.
        #[serde(default)]
        others: usize,
        /// Hand-overs so far, and those that failed.
        upgrades: (u64, u64),
        /// With what clients take up their sessions again.
        #[serde(default)]
        tickets: Vec<Secret>,
    },
    /// The names of the sockets that go with this frame.
    Sockets { names: Vec<String> },
    /// The new process accepts connections.
    Ready,
    /// The old process accepts no more, and writes nothing to disk any more.
    Released,
    /// It will not be.
    Refused { reason: String },
}

/// Sends a message; `sockets` go with it.
pub(crate) async fn send(
    stream: &mut UnixStream,
    message: &Message,
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_frame(stream, &serde_json::to_vec(message)?, sockets).await
}

/// Says why it will not be, if the other side still listens.
pub(crate) async fn refuse(stream: &mut UnixStream, reason: String) {
    let refusal = Message::Refused { reason };
    drop(tokio::time::timeout(REFUSAL, send(stream, &refusal, &[])).await);
}

/// Sends bytes; `sockets` go with them.
pub(crate) async fn send_frame(
    stream: &mut UnixStream,
    payload: &[u8],
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length as usize <= MAX_FRAME)
        .ok_or_else(|| io::Error::other("too much to say at once"))?;
    let head = length.to_be_bytes();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space =
                vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(sockets.len()))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(io::Error::other("too many sockets at once"));
            }
            let bytes = [IoSlice::new(&head)];
            Ok(sendmsg(&*stream, &bytes, &mut beside, SendFlags::NOSIGNAL)?)
        })
        .await?;
    stream.write_all(&head[sent..]).await?;
    stream.write_all(payload).await
}

/// The next message with its sockets.
pub(crate) async fn receive(stream: &mut UnixStream) -> io::Result<(Message, Vec<OwnedFd>)> {
    let (payload, sockets) = receive_frame(stream).await?;
    Ok((serde_json::from_slice(&payload)?, sockets))
}

/// The next frame with its sockets.
pub(crate) async fn receive_frame(stream: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut head, mut got) = ([0; 4], 0);
    let mut sockets = Vec::new();
    while got < head.len() {
        let (bytes, more) = stream
            .async_io(Interest::READABLE, || beside(stream, &mut head[got..]))
            .await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        got += bytes;
        sockets.extend(more);
    }
    let length = u32::from_be_bytes(head) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::other("no frame of a router"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((payload, sockets))
}

/// Reads some bytes and the sockets that come beside them.
fn beside(stream: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut bytes = [IoSliceMut::new(into)];
    let read = recvmsg(stream.as_fd(), &mut bytes, &mut control, flags)?.bytes;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more);
        }
    }
    Ok((read, sockets))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream as StdStream,
    };

    use super::*;

    #[tokio::test]
    async fn messages_arrive_in_order_each_with_its_sockets() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let (mut one, given) = StdStream::pair().unwrap();
        let names = Message::Sockets {
            names: vec!["traffic".to_owned(); BATCH],
        };
        let table: Vec<u8> = (0..3_000_000).map(|i: u32| i.to_be_bytes()[3]).collect();
        let talk = async {
            let sockets = vec![given.as_fd(); BATCH];
            send(&mut here, &names, &sockets).await.unwrap();
            send_frame(&mut here, &table, &[]).await.unwrap();
            send(&mut here, &Message::Ready, &[]).await.unwrap();
            drop(here);
        };
        let listen = async {
            let (message, sockets) = receive(&mut there).await.unwrap();
            assert_eq!((message, sockets.len()), (names.clone(), BATCH));
            let (frame, none) = receive_frame(&mut there).await.unwrap();
            assert!(frame == table && none.is_empty());
            assert_eq!(receive(&mut there).await.unwrap().0, Message::Ready);
            let end = receive(&mut there).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
            sockets
        };
        let ((), mut sockets) = tokio::join!(talk, listen);
        let mut other = StdStream::from(sockets.swap_remove(BATCH - 1));
        one.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        here.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        drop(here);
        assert!(receive(&mut there).await.is_err());
    }

    #[test]
    fn an_older_process_ignores_what_a_newer_one_adds() {
        let said = r#"{"offer":{"version":"9","sockets":3,"table":true,"upgrades":[1,0],"new":1}}"#;
        assert!(serde_json::from_str::<Message>(said).is_ok());
    }
}
