//! A worker: a thread with its own event loop, share of the listener, connection pools and balancing
//! state. Everything here belongs to one thread, so nothing is locked.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    access_log::AccessLog,
    arrival::{self, Reason},
    balance::Balancers,
    client::Client,
    config::Config,
    exchange::Exchange,
    http1::buffer::{Buffer, LARGE, Lender},
    http2::links::Links,
    metrics::LocalMetrics,
    mirror::Mirrors,
    pipeline,
    pool::Pool,
    request_id::Generator,
    seldom::Seldom,
    shared::Shared,
    stopping::Stopping,
    table::Table,
    timer::Timers,
    tls,
    wire::Wire,
};

mod doors;

use doors::Doors;

/// How long accepting pauses when the system is out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
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
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: LocalMetrics,
    pub(crate) log: AccessLog,
    /// Random; another one for each worker.
    pub(crate) seed: u64,
}

/// A worker, as its connections see it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) config: Arc<Config>,
    tls_port: Option<u16>,
    shared: Arc<Shared>,
    table: RefCell<Option<Rc<HeldTable>>>,
    pub(crate) balancers: RefCell<Balancers>,
    pub(crate) pool: Pool,
    /// HTTP/2 connections to peers.
    pub(crate) links: Links,
    pub(crate) timers: Rc<Timers>,
    pub(crate) mirrors: Rc<Mirrors>,
    pub(crate) exchanges: Lender<Box<Exchange>>,
    pub(crate) large: Lender<Buffer>,
    pub(crate) metrics: LocalMetrics,
    pub(crate) log: AccessLog,
    pub(crate) ids: Generator,
    refusals: [Seldom; Reason::ALL.len()],
    time: Cell<(Instant, i64)>,
    stopping: Cell<bool>,
    hurried: Cell<bool>,
    open: Cell<usize>,
    /// Streams of HTTP/2 connections.
    streams: Cell<usize>,
    closed: Notify,
}

/// A table, counted within the worker: requests come and go by the thousand, and workers should not
/// quarrel over one counter.
#[derive(Debug)]
pub(crate) struct HeldTable(pub(crate) Arc<Table>);

impl Worker {
    fn new(parts: Parts) -> (Rc<Self>, oneshot::Receiver<Vec<std::net::TcpListener>>) {
        let now = Instant::now();
        let timers = Timers::new(now);
        let limits = parts.config.mirror.clone();
        let mirrors = Mirrors::new(limits, Rc::clone(&timers), parts.seed.rotate_left(16));
        let worker = Self {
            config: parts.config,
            tls_port: parts.tls_port,
            shared: parts.shared,
            table: RefCell::new(None),
            balancers: RefCell::new(Balancers::new(parts.seed)),
            pool: Pool::default(),
            links: Links::default(),
            timers,
            mirrors,
            exchanges: Lender::new(Exchange::new, |exchange| exchange.reset()),
            large: Lender::new(|| Buffer::new(LARGE), Buffer::clear),
            metrics: parts.metrics,
            log: parts.log,
            ids: Generator::new(parts.seed.rotate_left(32)),
            refusals: Default::default(),
            time: Cell::new((now, crate::clock::unix_millis())),
            stopping: Cell::new(false),
            hurried: Cell::new(false),
            open: Cell::new(0),
            streams: Cell::new(0),
            closed: Notify::new(),
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

    /// Takes a place for a request of an HTTP/2 connection, unless there are as many as there may
    /// be connections: each of them needs what a busy connection does.
    pub(crate) fn hold_stream(self: &Rc<Self>) -> Option<HeldStream> {
        let streams = self.streams.get();
        (streams < self.config.limits.connections).then(|| {
            self.streams.set(streams + 1);
            HeldStream(Rc::clone(self))
        })
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
        let work = async {
            accept_until(&worker, &mut doors, &connections, stopping).await;
            worker.stopping.set(true);
            for listener in doors.into_std() {
                take_queued(&worker, listener, &connections);
            }
            drain(&worker, &connections, stopping).await;
        };
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| {
            let _: Poll<()> = keeper.as_mut().poll(cx);
            work.as_mut().poll(cx)
        })
        .await;
        dropped(&worker, worker.log.flush());
        Ok(())
    })
}

/// Accepts connections until the worker is told to stop.
async fn accept_until(
    worker: &Rc<Worker>,
    doors: &mut Doors,
    connections: &TaskTracker,
    stopping: &Stopping,
) {
    let mut stopped = std::pin::pin!(stopping.drain.cancelled());
    loop {
        let accepted = poll_fn(|cx| {
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            doors.poll_accept(cx).map(Some)
        })
        .await;
        match accepted {
            None => break,
            Some(Ok((stream, client))) => open(worker, connections, stream, client),
            Some(Err(error)) => pause(worker, &error).await,
        }
        while worker.open.get() >= worker.config.limits.connections
            && !stopping.drain.is_cancelled()
        {
            tokio::select! {
                () = worker.closed.notified() => {}
                () = stopping.drain.cancelled() => {}
            }
        }
    }
}

/// Takes what the kernel has accepted already, and closes the listener: closing it would reset the
/// connections in its queue. The kernel is asked itself, because the event loop may not have heard
/// of the newest yet, or grants a task only so many answers at a time.
fn take_queued(
    worker: &Rc<Worker>,
    listener: io::Result<std::net::TcpListener>,
    connections: &TaskTracker,
) {
    let queued = listener.and_then(|listener| {
        loop {
            let (stream, client) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            open(
                worker,
                connections,
                tokio::net::TcpStream::from_std(stream)?,
                client,
            );
        }
    });
    if let Err(error) = queued {
        tracing::warn!(%error, "connections that waited to be accepted were lost at the stop");
    }
}

fn open(
    worker: &Rc<Worker>,
    connections: &TaskTracker,
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client was gone before it was served");
        return;
    }
    let guard = Open::new(worker);
    if worker.speaks_tls(&stream) {
        connections.spawn_local(async move {
            if let Some(client) = arrival::client(&guard.0, &stream, peer).await {
                tls::serve(&guard.0, stream, client).await;
            }
        });
        return;
    }
    connections.spawn_local(async move {
        if let Some(client) = arrival::client(&guard.0, &stream, peer).await {
            pipeline::serve(&guard.0, Wire::Tcp(stream), "http", client).await;
        }
    });
}

/// A place for a request of an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct HeldStream(pub(crate) Rc<Worker>);

impl Drop for HeldStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}

/// An open client connection, counted.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        worker.metrics.share.connections.add(1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.metrics.share.connections.sub(1);
        self.0.closed.notify_one();
    }
}

/// Accepting failed: a client that went away in the queue costs nothing; being out of descriptors
/// needs a moment, in which connections of ours end.
async fn pause(worker: &Worker, error: &io::Error) {
    if is_the_clients(error) {
        return;
    }
    tracing::warn!(%error, open = worker.open.get(), "cannot accept connections for a moment");
    worker.pool.clear();
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
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
            worker.large.trim();
        }
        // A worker without clients sleeps once its log is written and its pools are empty.
        !worker.pool.is_empty()
            || !worker.links.is_empty()
            || !worker.mirrors.is_idle()
            || !worker.log.is_empty()
            || worker.exchanges.holds_some()
    };
    worker.timers.run(each_tick).await;
}

/// Counts lines that the log could not take.
pub(crate) fn dropped(worker: &Worker, lines: u64) {
    if lines > 0 {
        worker.metrics.share.log_dropped.add(lines);
    }
}
