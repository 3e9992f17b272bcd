//! A worker: a thread with its own event loop, share of the listener, connection pools and balancing
//! state. Everything here belongs to one thread, so nothing is locked.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    access_log::AccessLog,
    arrival::Reason,
    balance::Balancers,
    client::Client,
    config::Config,
    exchange::Exchange,
    http1::{
        buffer::{Buffer, LARGE, Lender},
        pace::Rate,
    },
    http2::links::Links,
    metrics::{IdleClosed, LocalMetrics, WorkerShare},
    mirror::Mirrors,
    pipeline,
    pool::Pool,
    request_id::Generator,
    room::Room,
    row::Row,
    seats::Seats,
    seldom::Seldom,
    shared::Shared,
    stopping::Stopping,
    table::Table,
    timer::{Timers, millis},
    wire::pipe::Pipes,
};

mod accepting;
mod doors;
mod seat;

use doors::Doors;
pub(crate) use seat::HeldStream;

/// How often idle connections are looked through and the log is handed over.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// How often unused buffers are freed.
const TRIM_EVERY: Duration = Duration::from_secs(5);

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Gives the sockets to accept from, once it is time to accept.
    pub(crate) sockets: oneshot::Receiver<Vec<std::net::TcpListener>>,
    /// At which of their ports TLS is spoken.
    pub(crate) tls_port: Option<u16>,
    /// Its number among the workers.
    pub(crate) index: usize,
    /// Requests that its HTTP/2 connections may have at a time.
    pub(crate) most_streams: usize,
    /// Pipes that it may use.
    pub(crate) pipes: usize,
    pub(crate) seats: Arc<Seats>,
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<WorkerShare>,
    pub(crate) log: AccessLog,
    /// Random; another one for each worker.
    pub(crate) seed: u64,
}

/// A worker, as its connections see it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) config: Arc<Config>,
    /// What requests say that leave the cluster.
    pub(crate) hop: Box<[u8]>,
    tls_port: Option<u16>,
    index: usize,
    seats: Arc<Seats>,
    pub(crate) rates: Rates,
    /// Requests that one connection may make.
    pub(crate) most_requests: u32,
    shared: Arc<Shared>,
    table: RefCell<Option<Rc<HeldTable>>>,
    pub(crate) balancers: RefCell<Balancers>,
    pub(crate) pool: Pool,
    /// Who is about to send.
    pub(crate) row: Row,
    /// HTTP/2 connections to peers.
    pub(crate) links: Links,
    pub(crate) timers: Rc<Timers>,
    pub(crate) mirrors: Rc<Mirrors>,
    pub(crate) exchanges: Lender<Box<Exchange>>,
    /// For connections while they are busy.
    pub(crate) rooms: Lender<pipeline::Busy>,
    pub(crate) large: Lender<Buffer>,
    /// For bodies that nobody has to look at.
    pub(crate) pipes: Pipes,
    pub(crate) metrics: LocalMetrics,
    pub(crate) log: AccessLog,
    pub(crate) ids: Generator,
    refusals: [Seldom; Reason::ALL.len()],
    pauses: Seldom,
    time: Cell<(Instant, i64)>,
    stopping: Cell<bool>,
    hurried: Cell<bool>,
    open: Cell<usize>,
    /// Streams of HTTP/2 connections.
    streams: Cell<usize>,
    most_streams: usize,
    /// Newcomers that wait for a place.
    waiting: Cell<usize>,
    /// Newcomers that are being told that there is none.
    told: Cell<usize>,
    /// A newcomer waits no longer.
    moved_on: Notify,
}

/// How fast clients have to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// In sending.
    pub(crate) inward: Rate,
    /// In taking.
    pub(crate) outward: Rate,
}

/// A table, counted within the worker: requests come and go by the thousand, and workers should not
/// quarrel over one counter.
#[derive(Debug)]
pub(crate) struct HeldTable(pub(crate) Arc<Table>);

impl Worker {
    fn new(parts: Parts) -> (Rc<Self>, oneshot::Receiver<Vec<std::net::TcpListener>>) {
        let now = Instant::now();
        let timers = Timers::new(now);
        let mirrors = parts.config.mirror.clone();
        let mirrors = Mirrors::new(mirrors, Rc::clone(&timers), parts.seed.rotate_left(16));
        let limits = &parts.config.limits;
        let window = millis(limits.rate_window);
        let worker = Self {
            rates: Rates {
                inward: Rate::new(limits.min_rate_in, window),
                outward: Rate::new(limits.min_rate_out, window),
            },
            most_requests: limits.requests_per_connection.unwrap_or(u32::MAX),
            index: parts.index,
            seats: parts.seats,
            hop: pipeline::hop::line(&parts.config.cluster),
            config: parts.config,
            tls_port: parts.tls_port,
            shared: parts.shared,
            table: RefCell::new(None),
            balancers: RefCell::new(Balancers::new(parts.seed)),
            pool: Pool::default(),
            row: Row::default(),
            links: Links::default(),
            timers,
            mirrors,
            exchanges: Lender::new(Exchange::new, |exchange| exchange.reset()),
            rooms: Lender::new(pipeline::room, Room::clear),
            large: Lender::new(|| Buffer::new(LARGE), Buffer::clear),
            pipes: Pipes::new(parts.pipes),
            metrics: LocalMetrics::new(parts.counters),
            log: parts.log,
            ids: Generator::new(parts.seed.rotate_left(32)),
            refusals: Default::default(),
            pauses: Seldom::default(),
            time: Cell::new((now, crate::clock::unix_millis())),
            stopping: Cell::new(false),
            hurried: Cell::new(false),
            open: Cell::new(0),
            streams: Cell::new(0),
            most_streams: parts.most_streams,
            waiting: Cell::new(0),
            told: Cell::new(0),
            moved_on: Notify::new(),
        };
        (Rc::new(worker), parts.sockets)
    }

    /// The newest table, to be held from a request's start to its end.
    pub(crate) fn table(&self) -> Option<Rc<HeldTable>> {
        let newest = self.shared.table();
        let newest = newest.as_ref()?;
        let mut held = self.table.borrow_mut();
        match &*held {
            Some(held) if Arc::ptr_eq(&held.0, newest) => Some(Rc::clone(held)),
            _ => {
                self.balancers.borrow_mut().forget(newest);
                self.mirrors.forget(newest);
                Some(Rc::clone(
                    held.insert(Rc::new(HeldTable(Arc::clone(newest)))),
                ))
            }
        }
    }

    /// The table that was the newest when somebody last asked.
    pub(crate) fn with_last_table(&self, see: impl FnOnce(&Table)) {
        if let Some(held) = &*self.table.borrow() {
            see(&held.0);
        }
    }

    /// Who connects from `address`.
    pub(crate) fn client(&self, address: SocketAddr) -> Client {
        let trusted = self.config.trusted_proxies.contains(address.ip());
        Client::new(address, trusted)
    }

    /// Counts a connection that is closed before it is served, and says why now and then.
    pub(crate) fn refuse(&self, reason: Reason, peer: SocketAddr, why: &dyn fmt::Display) {
        self.metrics.share.refused(reason).add(1);
        if let Some(unsaid) = self.refusals[reason as usize].due(Instant::now()) {
            let reason = reason.as_str();
            tracing::warn!(reason, %peer, unsaid, "refused a connection: {why}");
        }
    }

    /// Whether a connection came to the port where TLS is spoken.
    fn speaks_tls(&self, stream: &tokio::net::TcpStream) -> bool {
        let at = self.tls_port.and_then(|_| stream.local_addr().ok());
        at.is_some() && at.map(|at| at.port()) == self.tls_port
    }

    /// Whether connections from there begin with a PROXY header.
    pub(crate) fn speaks_proxy_protocol(&self, address: IpAddr) -> bool {
        self.config.proxy_protocol.contains(address.to_canonical())
    }

    /// Whether a proxy of ours is there, behind which there may be any number of clients.
    fn is_proxy(&self, address: IpAddr) -> bool {
        self.config.trusted_proxies.contains(address.to_canonical())
            || self.speaks_proxy_protocol(address)
    }

    /// Lets the connection go that has been idle for the longest; `false`: none is idle.
    fn let_idle_go(&self, why: IdleClosed) -> bool {
        let gone = self.timers.evict();
        if gone {
            self.metrics.share.idle_closed(why).add(1);
        }
        gone
    }

    /// Gives back what nobody needs now: a connection to a peer could not be made for want of
    /// descriptors.
    pub(crate) fn make_do(&self) {
        self.pool.clear();
        self.pipes.clear();
        self.let_idle_go(IdleClosed::Descriptors);
    }

    /// Whether the worker is draining: connections close after the request they are at.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether idle connections are closed at once, instead of answering their next request first.
    pub(crate) fn hurried(&self) -> bool {
        self.hurried.get()
    }

    /// Unix milliseconds at `now`, without asking the system.
    pub(crate) fn unix_millis(&self, now: Instant) -> i64 {
        let (base, unix) = self.time.get();
        let since = now.saturating_duration_since(base).as_millis();
        unix.saturating_add(i64::try_from(since).unwrap_or(0))
    }
}

/// Runs a worker until it is stopped and drained.
pub(crate) fn run(parts: Parts, stopping: &Stopping) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let (worker, sockets) = Worker::new(parts);
    runtime.block_on(async {
        let sockets = tokio::select! {
            sockets = sockets => sockets.unwrap_or_default(),
            () = stopping.drain.cancelled() => return Ok(()),
        };
        let mut doors = Doors::new(sockets)?;
        let connections = TaskTracker::new();
        let mut keeper = std::pin::pin!(keep_house(&worker));
        let mut room = std::pin::pin!(accepting::make_room_for_others(&worker));
        let work = async {
            accepting::until_stopped(&worker, &mut doors, &connections, stopping).await;
            worker.stopping.set(true);
            for listener in doors.into_std() {
                accepting::take_queued(&worker, listener, &connections);
            }
            drain(&worker, &connections, stopping).await;
        };
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| {
            let _: Poll<()> = keeper.as_mut().poll(cx);
            let _: Poll<()> = room.as_mut().poll(cx);
            work.as_mut().poll(cx)
        })
        .await;
        dropped(&worker, worker.log.flush());
        Ok(())
    })
}

/// Waits until every connection has ended, for as long as a graceful stop may take.
async fn drain(worker: &Worker, connections: &TaskTracker, stopping: &Stopping) {
    connections.close();
    worker.timers.wake_all();
    let hurry = async {
        stopping.hurry.cancelled().await;
        worker.hurried.set(true);
        worker.timers.wake_all();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = connections.wait() => {}
        () = hurry => {}
        () = tokio::time::sleep(worker.config.drain) => {
            let left = connections.len();
            tracing::warn!(left, "connections were cut at the end of the drain time");
        }
        () = stopping.end.cancelled() => {}
    }
    worker.mirrors.stop().await;
    worker.pool.clear();
    worker.links.clear();
}

/// What has to be done from time to time; never ends.
async fn keep_house(worker: &Worker) {
    let (mut swept, mut trimmed) = (Instant::now(), Instant::now());
    let each_tick = |now: Instant| {
        if now.duration_since(swept) >= SWEEP_EVERY {
            swept = now;
            worker.time.set((now, crate::clock::unix_millis()));
            worker.pool.sweep(worker.timers.now());
            worker.links.sweep(worker.timers.now());
            worker.mirrors.sweep(worker.timers.now());
            dropped(worker, worker.log.flush());
        }
        if now.duration_since(trimmed) >= TRIM_EVERY {
            trimmed = now;
            worker.exchanges.trim();
            worker.rooms.trim();
            worker.large.trim();
            worker.pipes.trim();
        }
        // A worker without clients sleeps once its log is written and its pools are empty.
        !worker.pool.is_empty()
            || !worker.links.is_empty()
            || !worker.mirrors.is_idle()
            || !worker.log.is_empty()
            || worker.exchanges.holds_some()
            || worker.rooms.holds_some()
            || worker.pipes.holds_some()
    };
    worker.timers.run(each_tick).await;
}

/// Counts lines that the log could not take.
pub(crate) fn dropped(worker: &Worker, lines: u64) {
    if lines > 0 {
        worker.metrics.share.log_dropped.add(lines);
    }
}
