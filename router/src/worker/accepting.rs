//! How connections come in: each takes a place ([`crate::seats`]); where there is none, an idle one
//! makes room, or the newcomer waits a moment and is told that there is no room.

use std::{future::poll_fn, io, net::SocketAddr, pin::pin, rc::Rc, task::Poll, time::Duration};

use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::{
    Worker,
    doors::Doors,
    seat::{Seat, Waits},
};
use crate::{
    arrival::{self, Reason},
    client::Client,
    descriptors::CROWD,
    metrics::IdleClosed,
    pipeline::{self, Stage},
    stopping::Stopping,
    timer::{Timer, millis},
    tls,
    wire::Wire,
};

/// How long accepting pauses at first when the system is out of file descriptors or memory; each time
/// that it is so again, twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many idle connections are closed then.
const CLOSED_AT_A_PAUSE: usize = 16;
/// How long a newcomer that finds no room may take to ask for something.
const CROWDED_PATIENCE: Duration = Duration::from_secs(1);

/// Accepts connections until the worker is told to stop.
pub(super) async fn until_stopped(
    worker: &Rc<Worker>,
    doors: &mut Doors,
    connections: &TaskTracker,
    stopping: &Stopping,
) {
    let mut stopped = pin!(stopping.drain.cancelled());
    let mut pause = SHORTEST_PAUSE;
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
            Some(Ok((stream, client))) => {
                pause = SHORTEST_PAUSE;
                open(worker, connections, stream, client);
            }
            Some(Err(error)) if is_the_clients(&error) => {}
            Some(Err(error)) => {
                run_short(worker, &error);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stopping.drain.cancelled() => {}
                }
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
        // Who comes next stays with the kernel for a moment.
        while worker.waiting.get() >= CROWD && !stopping.drain.is_cancelled() {
            tokio::select! {
                () = worker.moved_on.notified() => {}
                () = stopping.drain.cancelled() => {}
            }
        }
    }
}

/// Takes what the kernel has accepted already, and closes the listener: closing it would reset the
/// connections in its queue. The kernel is asked itself, because the event loop may not have heard
/// of the newest yet, or grants a task only so many answers at a time.
pub(super) fn take_queued(
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
            open(worker, connections, TcpStream::from_std(stream)?, client);
        }
    });
    if let Err(error) = queued {
        tracing::warn!(%error, "connections that waited to be accepted were lost at the stop");
    }
}

/// Lets idle connections go when other workers' newcomers need their places; never ends.
pub(super) async fn make_room_for_others(worker: &Worker) {
    loop {
        worker.seats.asked(worker.index).await;
        while worker.seats.take_wish() {
            if !worker.let_idle_go(IdleClosed::Limit) {
                worker.seats.return_wish();
                break;
            }
        }
    }
}

fn open(worker: &Rc<Worker>, connections: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
    let seat = Seat::new(worker);
    // Behind a proxy it is not known yet whose it is.
    let proxied = worker.speaks_proxy_protocol(peer.ip());
    if !proxied && !seat.take_for(peer.ip()) {
        return turn_away(worker, &stream, peer);
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client was gone before it was served");
        return;
    }
    let tls = worker.speaks_tls(&stream);
    if !seat.take() {
        let waits = worker.begin_waiting();
        connections.spawn_local(wait(seat, waits, stream, peer, tls));
        return;
    }
    if tls {
        connections.spawn_local(async move {
            if let Some((client, timer)) = arrive(&seat, &stream, peer).await {
                tls::serve(seat.worker(), stream, client, timer).await;
            }
        });
        return;
    }
    connections.spawn_local(async move {
        if let Some((client, timer)) = arrive(&seat, &stream, peer).await {
            let wire = Wire::Tcp(stream);
            pipeline::serve(seat.worker(), wire, "http", client, timer, Stage::Fresh).await;
        }
    });
}

/// Closes the connection of a client that has as many as it may have. Nothing is said: whoever opens
/// so many is not to cost more than that.
fn turn_away(worker: &Worker, stream: &TcpStream, client: SocketAddr) {
    let why = "its client has as many as limits.connections_per_client allows";
    worker.refuse(Reason::ClientLimit, client, &why);
    cut(stream);
}

/// Makes the close a reset, which leaves nothing behind in the kernel.
fn cut(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Whose connection it is, and the timer that has run since it was accepted; none: it is to be closed.
async fn arrive(seat: &Seat, stream: &TcpStream, peer: SocketAddr) -> Option<(Client, Timer)> {
    let worker = seat.worker();
    let timer = worker.timers.timer().await;
    timer.set(worker.config.limits.header_timeout);
    let client = arrival::client(worker, stream, peer, &timer).await?;
    if client.via.is_some() && !seat.take_for(client.address.ip()) {
        turn_away(worker, stream, client.address);
        return None;
    }
    Some((client, timer))
}

/// A newcomer for which there is no place: it waits for one a little, and is told if there is none.
async fn wait(seat: Seat, waits: Waits, stream: TcpStream, peer: SocketAddr, tls: bool) {
    let worker = seat.worker();
    let found = wait_for_place(&seat).await;
    drop(waits);
    if !found {
        let why = "there are as many as limits.connections allows, and none is idle";
        worker.refuse(Reason::Limit, peer, &why);
        // To agree on keys only to refuse would cost more than to serve.
        let Some(_told) = worker.tell_crowded().filter(|_| !tls) else {
            return cut(&stream);
        };
        return tell(&seat, stream, peer).await;
    }
    let Some((client, timer)) = Box::pin(arrive(&seat, &stream, peer)).await else {
        return;
    };
    if tls {
        Box::pin(tls::serve(worker, stream, client, timer)).await;
    } else {
        let wire = Wire::Tcp(stream);
        let served = pipeline::serve(worker, wire, "http", client, timer, Stage::Fresh);
        Box::pin(served).await;
    }
}

/// Answers the first request with 503.
async fn tell(seat: &Seat, stream: TcpStream, peer: SocketAddr) {
    let arrived = Box::pin(arrive(seat, &stream, peer)).await;
    if let Some((client, timer)) = arrived {
        timer.set(CROWDED_PATIENCE.min(seat.worker().config.limits.header_timeout));
        let wire = Wire::Tcp(stream);
        let served = pipeline::serve(seat.worker(), wire, "http", client, timer, Stage::Crowded);
        Box::pin(served).await;
    }
}

/// Waits for a place, and has idle connections make room; `false`: there is none.
async fn wait_for_place(seat: &Seat) -> bool {
    let worker = seat.worker();
    let timer = worker.timers.timer().await;
    let until = timer.now() + millis(worker.config.limits.queue_timeout);
    loop {
        let mut freed = pin!(worker.seats.freed().notified());
        if freed.as_mut().enable() {
            // That was before anybody waited.
            continue;
        }
        if seat.take() {
            return true;
        }
        if !worker.let_idle_go(IdleClosed::Limit) {
            worker.seats.wish(worker.index);
        }
        // Somebody may become idle at any time: look again.
        timer.set(Duration::ZERO);
        let looks_again = poll_fn(|cx| {
            if freed.as_mut().poll(cx).is_ready() || worker.stopping() {
                return Poll::Ready(true);
            }
            if timer.fired() {
                return Poll::Ready(timer.now() < until);
            }
            Poll::Pending
        });
        if !looks_again.await {
            return seat.take();
        }
    }
}

/// The system has no descriptors or memory for another connection: gives back what nobody needs now.
fn run_short(worker: &Worker, error: &io::Error) {
    worker.metrics.share.accept_pauses.add(1);
    if let Some(unsaid) = worker.pauses.due(std::time::Instant::now()) {
        let open = worker.open.get();
        tracing::warn!(%error, open, unsaid, "cannot accept connections for a moment");
    }
    worker.pool.clear();
    for _ in 0..CLOSED_AT_A_PAUSE {
        if !worker.let_idle_go(IdleClosed::Descriptors) {
            break;
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}
