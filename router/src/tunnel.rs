//! Tunnels: connections that speak something else than HTTP from the peer's `101` on (WebSocket and
//! the like). Bytes are copied both ways until both sides have said all. Tunnels have no idle limit;
//! updates of the table do not touch them; when their peer drains or is gone, they may go on up to a
//! ceiling, and nearly as long when their cluster gets no more of the service's requests. Where a greatest
//! age is set, each ends a little before it, so that those that began together do not come back together.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use cardea_registry_api::Name;

use crate::{
    clock,
    exchange::Exchange,
    http1::buffer::{Buffer, Lender},
    peer::Picked,
    pipeline::Connection,
    plugin::Permit,
    table::Table,
    traffic::Ways,
    upstream::Upstream,
    wire::{ReadHalf, Wire, WriteHalf},
    worker::Worker,
};

/// How often a tunnel looks whether its peer is still wanted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a tunnel begins with.
#[derive(Debug)]
pub(crate) struct Ends {
    upstream: Wire,
    to_peer: Vec<u8>,
    to_client: Vec<u8>,
    /// Counts as in flight while the tunnel lives.
    pub(crate) picked: Option<Picked>,
    /// Counts as running while the tunnel lives.
    pub(crate) permit: Option<Permit>,
    /// Where the service's traffic decides over it; none: it does not.
    pub(crate) choice: Option<Choice>,
}

/// A tunnel that could have gone to another cluster.
#[derive(Debug)]
pub(crate) struct Choice {
    slot: usize,
    service: Name,
    cluster: Name,
}

impl Choice {
    /// Of a request to `upstream`, which went to a peer of `cluster`.
    pub(crate) fn new(upstream: &Upstream, cluster: &Name) -> Self {
        Self {
            slot: upstream.index() as usize,
            service: upstream.service().clone(),
            cluster: cluster.clone(),
        }
    }

    /// Whether the cluster still gets requests of the service.
    fn holds(&self, table: &Table) -> bool {
        let front = table.upstream_at(self.slot);
        let front = front.filter(|front| *front.service() == self.service);
        // Where there are none any more, the peers of other clusters are gone themselves.
        front.is_none_or(|front| {
            let now = clock::millis(Instant::now());
            let uses = |ways: &Ways| ways.uses(&self.cluster, front.version(), now);
            front.ways().is_none_or(uses)
        })
    }
}

impl Ends {
    /// The peer's connection, and what has been read of both sides beyond the upgrade.
    pub(crate) fn new(upstream: Wire, x: &mut Exchange) -> Self {
        let ends = Self {
            upstream,
            to_peer: x.inbound.data().to_vec(),
            to_client: x.upstream.data().to_vec(),
            picked: None,
            permit: None,
            choice: None,
        };
        x.inbound.clear();
        x.upstream.clear();
        ends
    }
}

/// Copies until both sides are done, one fails, or the time of a peer that leaves is over.
pub(crate) async fn run(worker: &Worker, mut conn: Connection, mut ends: Ends) {
    worker.metrics.share.tunnels.add(1);
    // A stream is no connection of its own.
    let whole = !conn.wire.is_http2();
    if whole {
        worker.metrics.share.connections.sub(1);
    }
    let _counted = Counted { worker, whole };
    let mut leaving: Option<Instant> = None;
    let mut moving: Option<Instant> = None;
    // All of a cluster's tunnels are to move at once: they come back spread over half of the time.
    let patience = worker.config.tunnel_ceiling;
    let patience = patience.mul_f64(1.0 - 0.5 * worker.ids.fraction());
    // A side that is told that the other has ended, and neither ends nor says anything, is gone.
    let half_open = worker.config.limits.idle_timeout;
    let end = worker
        .config
        .limits
        .tunnel_max_age
        .map(|age| Instant::now() + age.mul_f64(1.0 - 0.1 * worker.ids.fraction()));
    let (mut last_moved, mut still_since) = (0, None::<Instant>);
    let (mut from_client, mut to_client) = conn.wire.split();
    let (mut from_peer, mut to_peer) = ends.upstream.split();
    let mut up = Way::new(std::mem::take(&mut ends.to_peer));
    let mut down = Way::new(std::mem::take(&mut ends.to_client));
    conn.timer.set(LOOK_EVERY);
    let result: io::Result<()> = poll_fn(|cx| {
        if conn.timer.fired() {
            conn.timer.set(LOOK_EVERY);
            if end.is_some_and(|end| Instant::now() >= end) {
                return Poll::Ready(Ok(()));
            }
            let moved = up.moved + down.moved;
            if moved != last_moved || !(up.closed || down.closed) {
                (last_moved, still_since) = (moved, None);
            } else if still_since.get_or_insert_with(Instant::now).elapsed() >= half_open {
                return Poll::Ready(Ok(()));
            }
            let wanted = ends
                .picked
                .as_ref()
                .is_none_or(|p| p.peer().takes_requests());
            if wanted {
                leaving = None;
            } else if leaving.get_or_insert_with(Instant::now).elapsed()
                >= worker.config.tunnel_ceiling
            {
                return Poll::Ready(Ok(()));
            }
            let holds = ends.choice.as_ref().is_none_or(|choice| {
                let table = worker.table();
                table.is_none_or(|table| choice.holds(&table.0))
            });
            if holds {
                moving = None;
            } else if moving.get_or_insert_with(Instant::now).elapsed() >= patience {
                return Poll::Ready(Ok(()));
            }
        }
        let above = up.poll(cx, &mut from_client, &mut to_peer, &worker.large)?;
        let below = down.poll(cx, &mut from_peer, &mut to_client, &worker.large)?;
        if above.is_ready() && below.is_ready() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, "a tunnel broke");
    }
}

struct Counted<'w> {
    worker: &'w Worker,
    whole: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.worker.metrics.share.tunnels.sub(1);
        if self.whole {
            self.worker.metrics.share.connections.add(1);
        }
    }
}

/// One direction.
struct Way<'w> {
    first: Vec<u8>,
    first_sent: usize,
    buffer: Option<crate::http1::buffer::Lent<'w, Buffer>>,
    ended: bool,
    closed: bool,
    /// The side it goes to takes no more.
    refused: bool,
    /// Bytes that got through.
    moved: u64,
}

/// What ended a way before its end.
enum Failed {
    /// The side it comes from: it is gone, and so is what was on its way to it.
    Source(io::Error),
    /// The side it goes to. What that one said before may still be on its way.
    Target(io::Error),
}

impl<'w> Way<'w> {
    fn new(first: Vec<u8>) -> Self {
        Self {
            first,
            first_sent: 0,
            buffer: None,
            ended: false,
            closed: false,
            refused: false,
            moved: 0,
        }
    }

    /// As [`Way::poll_copy`]. Where only the target fails, this way is over and the other one is not:
    /// a service that closes in the midst of what it is sent has often said why.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        lender: &'w Lender<Buffer>,
    ) -> Result<Poll<()>, io::Error> {
        if self.refused {
            return Ok(Poll::Ready(()));
        }
        match self.poll_copy(cx, from, to, lender) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(Failed::Source(error))) => Err(error),
            Poll::Ready(Err(Failed::Target(error))) => {
                tracing::debug!(%error, "a tunnel's end takes no more");
                self.buffer = None;
                (self.refused, self.closed) = (true, true);
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Copies as far as both sides let it; ready when the side it comes from has ended and the other
    /// has been told. It holds a buffer only while there is something in it.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        lender: &'w Lender<Buffer>,
    ) -> Poll<Result<(), Failed>> {
        while self.first_sent < self.first.len() {
            self.first_sent += ready!(to.poll_write(cx, &self.first[self.first_sent..]))
                .map_err(Failed::Target)?;
        }
        self.first = Vec::new();
        self.first_sent = 0;
        loop {
            if let Some(buffer) = &mut self.buffer {
                while !buffer.is_empty() {
                    let n = ready!(to.poll_write(cx, buffer.data())).map_err(Failed::Target)?;
                    buffer.consume(n);
                    self.moved += n as u64;
                }
            }
            if self.ended {
                self.buffer = None;
                if !self.closed {
                    ready!(to.poll_shutdown(cx)).map_err(Failed::Target)?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let buffer = self.buffer.get_or_insert_with(|| lender.lend());
            match from.poll_read(cx, buffer.space()) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(n)) => buffer.filled(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Source(error))),
                Poll::Pending => {
                    self.buffer = None;
                    return Poll::Pending;
                }
            }
        }
    }
}
