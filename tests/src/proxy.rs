//! A TCP proxy that can be cut, and that can swallow PostgreSQL's notifications.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A running proxy on loopback; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// Changes with each cut: connections of an older generation end.
    generation: watch::Sender<u64>,
    open: AtomicBool,
    swallow: AtomicBool,
    swallowed: AtomicU64,
}

impl Proxy {
    /// Starts one in front of `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target,
            generation: watch::Sender::new(0),
            open: AtomicBool::new(true),
            swallow: AtomicBool::new(false),
            swallowed: AtomicU64::new(0),
        });
        let end = CancellationToken::new();
        tokio::spawn(accept(listener, shared.clone(), end.clone()));
        Self {
            address,
            shared,
            end,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and closes new ones at once.
    pub fn cut(&self) {
        self.shared.open.store(false, Ordering::SeqCst);
        self.shared.generation.send_modify(|number| *number += 1);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.shared.open.store(true, Ordering::SeqCst);
    }

    /// Swallows (or no longer swallows) PostgreSQL's notification messages; the rest passes.
    pub fn swallow_notifications(&self, on: bool) {
        self.shared.swallow.store(on, Ordering::SeqCst);
    }

    /// How many notifications were swallowed.
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, end: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let client = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => continue,
            },
        };
        if shared.open.load(Ordering::SeqCst) {
            tasks.spawn(relay(client, shared.clone(), end.clone()));
        }
    }
}

async fn relay(client: TcpStream, shared: Arc<Shared>, end: CancellationToken) {
    let mut generation = shared.generation.subscribe();
    generation.mark_unchanged();
    let Ok(server) = TcpStream::connect(shared.target).await else {
        return;
    };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = copy(client_read, server_write);
    let down = filter(server_read, client_write, &shared);
    tokio::select! {
        () = end.cancelled() => {}
        _ = generation.changed() => {}
        () = async { tokio::join!(up, down); } => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    drop(tokio::io::copy(&mut from, &mut to).await);
    drop(to.shutdown().await);
}

/// Passes whole backend messages (a type byte and a length), leaving out `A`, NotificationResponse.
async fn filter(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    // The answer to a request for TLS is one bare byte; later bytes are messages. The harness's
    // URLs say sslmode=disable, so that byte never comes.
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        buffer.extend_from_slice(&chunk[..read]);
        let mut passed = Vec::with_capacity(buffer.len());
        let mut at = 0;
        while let Some(head) = buffer.get(at..at + 5) {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(message) = buffer.get(at..at + 1 + length) else {
                break;
            };
            if head[0] == b'A' && shared.swallow.load(Ordering::SeqCst) {
                shared.swallowed.fetch_add(1, Ordering::SeqCst);
            } else {
                passed.extend_from_slice(message);
            }
            at += 1 + length;
        }
        buffer.drain(..at);
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}
