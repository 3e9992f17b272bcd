//! One client's HTTP/2 connection: its frames, its streams, its end. All of it is one task, so that
//! what many streams write leaves together.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream::FuturesUnordered};
use h2::{Ping, PingPong, Reason, RecvStream, server::SendResponse};
use http::Request;

use crate::{
    client::Client,
    config::Http2,
    http1::pace::{Pace, Verdict},
    http2::{LAST_WORDS, carrier::Carrier, inbound::Inbound, meter::Meter},
    metrics::{Http2Refusal, Slow},
    pipeline::{self, Connection, Stage},
    timer::{TICK, Timer, millis},
    tls,
    wire::Wire,
    worker::{HeldStream, Worker},
};

/// How often a connection looks at the clock while something is going on.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Streams that were reset and are remembered, so that late frames for them are no error.
const RESET_REMEMBERED: usize = 64;
/// Streams that a client may have reset before they were looked at.
const RESET_UNSEEN: usize = 64;
/// Errors of a client's streams, after which its connection is closed.
const STREAM_ERRORS: usize = 256;
/// What a field counts beside its bytes (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;

type Frames = h2::server::Connection<Carrier, Bytes>;
type Served = Pin<Box<dyn Future<Output = ()>>>;

/// Serves a client's HTTP/2 connection, of which `first` has been read already, until it ends.
///
/// Boxed: a stream is served by [`pipeline::serve`], from where this is called.
pub(crate) fn serve(worker: Rc<Worker>, conn: Connection, first: Vec<u8>) -> Served {
    Box::pin(async move {
        worker.metrics.share.connections.sub(1);
        worker.metrics.share.http2_connections.add(1);
        let counted = Counted(Rc::clone(&worker));
        let meter = Rc::new(Meter::new(worker.config.http2.credit, worker.timers.now()));
        let metered = (Rc::clone(&meter), Rc::clone(&worker.timers));
        let tls = conn.wire.tls().cloned();
        let carrier = Carrier::new(conn.wire, first, Some(metered));
        if let Some(frames) = shake_hands(&worker, &conn.timer, carrier).await {
            let mut server =
                Server::new(&worker, frames, meter, conn.timer, conn.scheme, conn.client);
            server.tls = tls;
            server.run().await;
        }
        drop(counted);
    })
}

struct Counted(Rc<Worker>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.share.http2_connections.sub(1);
        self.0.metrics.share.connections.add(1);
    }
}

async fn shake_hands(worker: &Worker, timer: &Timer, carrier: Carrier) -> Option<Frames> {
    let limits = &worker.config.limits;
    let Http2 {
        streams, window, ..
    } = worker.config.http2;
    let fields = crate::http1::head::MAX_FIELDS * FIELD_OVERHEAD;
    // A connection's window that is as large as all of its streams' cannot be used up by some of
    // them: who does not read makes only itself wait.
    let all = window.saturating_mul(streams).min(i32::MAX.unsigned_abs());
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(streams)
        .initial_window_size(window)
        .initial_connection_window_size(all)
        .max_header_list_size(u32::try_from(limits.head + fields).unwrap_or(u32::MAX))
        .max_send_buffer_size(worker.config.http2.send_buffer)
        .max_concurrent_reset_streams(RESET_REMEMBERED)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(Some(STREAM_ERRORS))
        .enable_connect_protocol();
    timer.set(limits.header_timeout);
    let mut handshake = Box::pin(builder.handshake(carrier));
    let shaken = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Pending if timer.fired() => Poll::Ready(None),
        other => other.map(Result::ok),
    });
    shaken.await
}

struct Server<'w> {
    worker: &'w Rc<Worker>,
    frames: Frames,
    streams: FuturesUnordered<Served>,
    meter: Rc<Meter>,
    timer: Timer,
    scheme: &'static str,
    client: Client,
    tls: Option<Arc<tls::Facts>>,
    pings: Option<PingPong>,
    /// When a ping was sent that has not been answered.
    pinged: Option<u64>,
    idle_since: Option<u64>,
    /// Requests that have been admitted.
    requests: u32,
    /// How fast the client takes what is written, all streams together.
    pace: Pace,
    /// It seems to be too slow: the system has been asked whether it is.
    doubted: bool,
    leaving: bool,
    /// Closed with this reason; the client is told, and then it ends.
    closing: Option<Reason>,
}

impl<'w> Server<'w> {
    fn new(
        worker: &'w Rc<Worker>,
        mut frames: Frames,
        meter: Rc<Meter>,
        timer: Timer,
        scheme: &'static str,
        client: Client,
    ) -> Self {
        Self {
            pings: frames.ping_pong(),
            worker,
            frames,
            streams: FuturesUnordered::new(),
            meter,
            timer,
            scheme,
            client,
            tls: None,
            pinged: None,
            idle_since: Some(worker.timers.now()),
            requests: 0,
            pace: Pace::default(),
            doubted: false,
            leaving: false,
            closing: None,
        }
    }

    async fn run(mut self) {
        self.timer.set(LOOK_EVERY);
        self.timer.rest();
        poll_fn(|cx| self.poll(cx)).await;
        let Self {
            frames,
            mut streams,
            ..
        } = self;
        // Streams that are left find that their client is gone.
        drop(frames);
        poll_fn(|cx| {
            while let Poll::Ready(Some(())) = Pin::new(&mut streams).poll_next(cx) {}
            if streams.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Ready when there is no connection any more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.is_none() && self.worker.stopping() && !self.leaving {
            self.leaving = true;
            self.frames.graceful_shutdown();
        }
        if self.timer.fired() && self.look(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            if self.poll_frames(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut moved = false;
            while let Poll::Ready(Some(())) = Pin::new(&mut self.streams).poll_next(cx) {
                moved = true;
            }
            // What the last streams wrote goes out before the task sleeps.
            if !moved {
                break;
            }
        }
        if self.streams.is_empty() && self.idle_since.is_none() {
            self.idle_since = Some(self.worker.timers.now());
            self.timer.rest();
        }
        Poll::Pending
    }

    /// Reads and writes frames; ready at the connection's end.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.meter.spent() && self.closing.is_none() {
                self.close(Reason::ENHANCE_YOUR_CALM, Http2Refusal::Flood);
            }
            match self.frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.admit(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    self.failed(&error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if self.meter.spent() && self.closing.is_none() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn failed(&self, error: &h2::Error) {
        if self.closing.is_some() || error.is_io() {
            return;
        }
        tracing::debug!(%error, client = %self.client.address, "an HTTP/2 connection was closed");
        self.count(match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) => Http2Refusal::Flood,
            _ => Http2Refusal::Malformed,
        });
    }

    fn count(&self, refusal: Http2Refusal) {
        self.worker.metrics.share.http2_refused[refusal as usize].add(1);
    }

    fn admit(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if self.idle_since.take().is_some() {
            self.timer.work();
        }
        let worker = self.worker;
        self.requests += 1;
        if self.requests >= worker.most_requests && !self.leaving {
            self.leaving = true;
            self.frames.graceful_shutdown();
        }
        let Some(held) = HeldStream::take(worker) else {
            self.count(Http2Refusal::Overload);
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        };
        let (meter, timers) = (Rc::clone(&self.meter), Rc::clone(&worker.timers));
        match Inbound::new(request, respond, meter, timers, self.tls.clone()) {
            Ok(inbound) => {
                let (scheme, client) = (self.scheme, self.client.clone());
                self.streams.push(Box::pin(async move {
                    let wire = Wire::Other(Box::new(inbound));
                    let worker = &held.0;
                    let timer = worker.timers.timer().await;
                    timer.set(worker.config.limits.header_timeout);
                    pipeline::serve(worker, wire, scheme, client, timer, Stage::Fresh).await;
                }));
            }
            Err(unfit) => {
                tracing::debug!(%unfit, client = %self.client.address, "a stream was reset");
                self.count(Http2Refusal::Malformed);
            }
        }
    }

    /// Tells the client why, and ends.
    fn close(&mut self, reason: Reason, refusal: Http2Refusal) {
        self.count(refusal);
        self.end(reason);
    }

    fn end(&mut self, reason: Reason) {
        tracing::debug!(%reason, client = %self.client.address, "an HTTP/2 connection is closed");
        self.closing = Some(reason);
        self.frames.abrupt_shutdown(reason);
        self.timer.set(LAST_WORDS);
    }

    /// Looks at the clock; ready when the connection is to be dropped.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.is_some() {
            return Poll::Ready(());
        }
        if self.timer.evicted() && self.streams.is_empty() {
            // A request that is on its way is above the last one that is named: it may be sent anew.
            self.end(Reason::NO_ERROR);
            return Poll::Pending;
        }
        let now = self.worker.timers.now();
        // Its turn to make room stays what it is.
        self.timer.by(now + millis(LOOK_EVERY + TICK));
        let limits = &self.worker.config.limits;
        let over = |since: u64, time: Duration| now.saturating_sub(since) >= millis(time);
        if self
            .meter
            .head_since()
            .is_some_and(|since| over(since, limits.header_timeout))
        {
            self.worker.metrics.share.slow(Slow::Head).add(1);
            self.close(Reason::ENHANCE_YOUR_CALM, Http2Refusal::SlowHead);
            return Poll::Pending;
        }
        if self.takes_nothing(now) {
            self.worker.metrics.share.slow(Slow::Answer).add(1);
            self.count(Http2Refusal::SlowReader);
            return Poll::Ready(());
        }
        if let Some(since) = self.idle_since {
            if over(since, limits.keepalive) && !self.leaving {
                self.leaving = true;
                self.frames.graceful_shutdown();
            }
            // It was told to leave, and has neither streams nor anything to say.
            if over(since, limits.keepalive + LAST_WORDS) {
                return Poll::Ready(());
            }
        }
        self.ping(cx, now)
    }

    /// Whether the client takes less of what is written than it may, all streams together.
    fn takes_nothing(&mut self, now: u64) -> bool {
        let rate = self.worker.rates.outward;
        if rate.least == 0 || !self.meter.blocked() {
            self.pace.stop(now);
            return false;
        }
        match self.pace.waits(now, self.meter.written(), rate) {
            Verdict::Until(_) => {
                self.doubted = false;
                false
            }
            Verdict::TooSlow if self.doubted => true,
            Verdict::TooSlow => {
                self.doubted = true;
                self.meter.nudge();
                false
            }
        }
    }

    /// A client that says nothing is asked whether it is still there.
    fn ping(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<()> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        if self.pinged.is_some() && pings.poll_pong(cx).is_ready() {
            self.pinged = None;
        }
        let http2 = &self.worker.config.http2;
        let silent = now.saturating_sub(self.meter.heard());
        match self.pinged {
            Some(at) if self.meter.heard() > at => self.pinged = None,
            Some(at) if now.saturating_sub(at) >= millis(http2.ping_timeout) => {
                self.count(Http2Refusal::Silent);
                return Poll::Ready(());
            }
            None if silent >= millis(http2.ping_interval)
                && pings.send_ping(Ping::opaque()).is_ok() =>
            {
                self.pinged = Some(now);
            }
            Some(_) | None => {}
        }
        Poll::Pending
    }
}
