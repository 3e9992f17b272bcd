//! A worker's HTTP/2 connections to peers: shared by requests, where HTTP/1.1 connections are lent
//! to one at a time.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, client::SendRequest};
use hashbrown::HashMap;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::{
    http2::{broken, carrier::Carrier},
    peer::PeerNumber,
    timer::Timers,
    wire::Wire,
};

/// How many bytes of an answer may come ahead of the client, for each stream.
const WINDOW: u32 = 256 << 10;
/// The same for a connection: some that stand still do not use it up.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// The most requests on one connection, whatever the peer allows.
const MOST_STREAMS: usize = 256;
/// The most bytes of a request's body that wait for the connection to take them.
const SEND_BUFFER: usize = 64 << 10;
/// The largest header block of an answer.
const HEAD: u32 = 64 << 10;
/// How long a peer has to answer a ping.
const PONG: u64 = 5_000;
/// How often a peer is asked at most whether its connection still works, in milliseconds.
const DOUBT_EVERY: u64 = 10_000;

/// The connections, by the peers' numbers. Times are milliseconds of the worker's clock.
#[derive(Debug, Default)]
pub(crate) struct Links {
    peers: RefCell<HashMap<PeerNumber, Peer>>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Peer {
    links: Vec<Rc<Link>>,
    /// Somebody is connecting; others wait for it.
    connecting: Option<Rc<Notify>>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    send: SendRequest<Bytes>,
    /// On which terms it was made; see [`crate::upstream::Security::number`].
    terms: u64,
    timers: Rc<Timers>,
    active: Cell<usize>,
    /// When the last stream ended, and for how long it is kept.
    idle_since: Cell<u64>,
    keep: u64,
    /// A request got no answer: the peer may be gone without a word.
    doubted: Cell<bool>,
    asked: Cell<Option<u64>>,
    /// Whether it is known what the peer allows, which it says first of all.
    known: Cell<bool>,
    /// Requests wait to know that.
    wanted: Cell<bool>,
    heard: Notify,
    /// Wakes what drives it.
    driver: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

/// A stream's place on a connection.
#[derive(Debug)]
pub(crate) struct Place {
    link: Rc<Link>,
    opened: u64,
}

impl Place {
    /// What a request is sent with.
    pub(crate) fn send(&self) -> SendRequest<Bytes> {
        self.link.send.clone()
    }

    /// Whether the peer takes WebSockets (RFC 8441); none: the connection broke before it said so.
    pub(crate) async fn takes_websockets(&self) -> Option<bool> {
        let link = &self.link;
        let mut heard = pin!(link.heard.notified());
        heard.as_mut().enable();
        if !link.known.get() && !link.closed.get() {
            link.wanted.set(true);
            link.wake();
            heard.await;
        }
        let takes = || link.send.is_extended_connect_protocol_enabled();
        (!link.closed.get()).then(takes)
    }

    /// The request was not answered for a while.
    pub(crate) fn unanswered(&self) {
        let link = &self.link;
        let now = link.timers.now();
        let asked_lately = link
            .asked
            .get()
            .is_some_and(|asked| now.saturating_sub(asked) <= DOUBT_EVERY);
        if now.saturating_sub(self.opened) > 1000 && !asked_lately {
            link.asked.set(Some(now));
            link.doubted.set(true);
            link.wake();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.active.set(self.link.active.get() - 1);
        self.link.idle_since.set(self.link.timers.now());
    }
}

impl Link {
    fn wake(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }

    fn close(&self) {
        self.closed.set(true);
        self.heard.notify_waiters();
    }

    fn place(self: &Rc<Self>) -> Option<Place> {
        let most = self.send.current_max_send_streams().min(MOST_STREAMS);
        if self.closed.get() || self.doubted.get() || self.active.get() >= most {
            return None;
        }
        // A peer that says goodbye takes no more streams.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let ready = self.send.clone().poll_ready(&mut cx);
        match ready {
            Poll::Ready(Ok(())) => {
                self.active.set(self.active.get() + 1);
                let opened = self.timers.now();
                Some(Place {
                    link: Rc::clone(self),
                    opened,
                })
            }
            Poll::Ready(Err(_)) => {
                self.close();
                None
            }
            Poll::Pending => None,
        }
    }
}

/// What a request that needs a connection does next.
pub(crate) enum Turn<'l> {
    /// Here is a place.
    Take(Place),
    /// Connect; others wait until this is dropped.
    Connect(Connecting<'l>),
    /// Somebody else connects.
    Wait(Rc<Notify>),
}

/// Somebody is connecting to a peer.
#[derive(Debug)]
pub(crate) struct Connecting<'l> {
    links: &'l Links,
    peer: PeerNumber,
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.links.peers.borrow_mut().get_mut(&self.peer)
            && let Some(waiting) = peer.connecting.take()
        {
            waiting.notify_waiters();
        }
    }
}

impl Links {
    /// A place on a connection that is there. One that was made on other terms is let go: it ends
    /// with its last stream.
    pub(crate) fn take(&self, peer: PeerNumber, terms: u64) -> Option<Place> {
        let mut peers = self.peers.borrow_mut();
        let links = &mut peers.get_mut(&peer)?.links;
        let place = links
            .iter()
            .filter(|link| link.terms == terms)
            .find_map(Link::place);
        links.retain(|link| link.terms == terms && !link.closed.get());
        place
    }

    /// A place, or the task of making one: one connection is made at a time, however many requests
    /// wait for it.
    pub(crate) fn turn(&self, peer: PeerNumber, terms: u64) -> Turn<'_> {
        if let Some(place) = self.take(peer, terms) {
            return Turn::Take(place);
        }
        let mut peers = self.peers.borrow_mut();
        let connecting = &mut peers.entry(peer).or_default().connecting;
        if let Some(waiting) = connecting {
            return Turn::Wait(Rc::clone(waiting));
        }
        *connecting = Some(Rc::default());
        Turn::Connect(Connecting { links: self, peer })
    }

    /// Begins HTTP/2 on a fresh connection, and gives the first place on it.
    pub(crate) async fn begin(
        &self,
        (peer, terms): (PeerNumber, u64),
        wire: Wire,
        timers: &Rc<Timers>,
        keep: Duration,
    ) -> io::Result<Place> {
        let (send, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(Carrier::new(wire, Vec::new(), None))
            .await
            .map_err(broken)?;
        let link = Rc::new(Link {
            send,
            terms,
            timers: Rc::clone(timers),
            active: Cell::new(0),
            idle_since: Cell::new(timers.now()),
            keep: u64::try_from(keep.as_millis()).unwrap_or(u64::MAX),
            doubted: Cell::new(false),
            asked: Cell::new(None),
            known: Cell::new(false),
            wanted: Cell::new(false),
            heard: Notify::new(),
            driver: RefCell::default(),
            closed: Cell::new(false),
        });
        let weak = Rc::downgrade(&link);
        let watching = Watch {
            link: weak,
            timers: Rc::clone(timers),
        };
        self.tasks.spawn_local(watching.drive(connection));
        let place = link.place().ok_or(io::ErrorKind::ConnectionReset)?;
        let mut peers = self.peers.borrow_mut();
        peers.entry(peer).or_default().links.push(link);
        Ok(place)
    }

    /// Lets go of connections that nobody has used for their time.
    pub(crate) fn sweep(&self, now: u64) {
        self.peers.borrow_mut().retain(|_, peer| {
            peer.links.retain(|link| {
                let idle = link.active.get() == 0
                    && now.saturating_sub(link.idle_since.get()) >= link.keep;
                !idle && !link.closed.get()
            });
            !peer.links.is_empty() || peer.connecting.is_some()
        });
    }

    /// Whether there are no connections.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.borrow().is_empty()
    }

    /// Lets go of all of them: each ends with its last stream.
    pub(crate) fn clear(&self) {
        self.peers.borrow_mut().clear();
    }
}

/// What drives a connection. It does not hold it: the connection ends when the pool and the streams
/// have let go of it.
struct Watch {
    link: std::rc::Weak<Link>,
    timers: Rc<Timers>,
}

impl Watch {
    async fn drive(self, mut connection: h2::client::Connection<Carrier, Bytes>) {
        let timer = self.timers.timer().await;
        let mut pings = connection.ping_pong();
        let mut asked = false;
        let ended = poll_fn(|cx| {
            if let Poll::Ready(ended) = pin!(&mut connection).poll(cx) {
                return Poll::Ready(ended.map_err(broken));
            }
            let (Some(link), Some(pings)) = (self.link.upgrade(), &mut pings) else {
                return Poll::Pending;
            };
            if asked && pings.poll_pong(cx).is_ready() {
                asked = false;
                link.doubted.set(false);
                // Its settings came before.
                link.known.set(true);
                link.heard.notify_waiters();
            }
            if asked && timer.fired() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let curious = link.wanted.get() && !link.known.get();
            if !asked && (link.doubted.get() || curious) {
                asked = pings.send_ping(Ping::opaque()).is_ok();
                timer.set_millis(PONG);
            }
            link.driver
                .borrow_mut()
                .get_or_insert_with(|| cx.waker().clone());
            Poll::Pending
        })
        .await;
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP/2 connection to a peer ended");
        }
        if let Some(link) = self.link.upgrade() {
            link.close();
        }
    }
}
