//! Forward: one try on one peer, up to the head of its answer.

use std::{
    future::poll_fn,
    io,
    task::Poll,
    time::{Duration, Instant},
};

use crate::{
    exchange::Exchange,
    grpc,
    http1::{
        body::{Broken, Keep, Means, Patience, Side},
        render,
    },
    metrics::Slow,
    peer::{Failure, Picked},
    pipeline::{
        self, Connection,
        connect::{connect_surely, may_tunnel, place, stream},
        refuse,
        retry::Sent,
    },
    refusal::{self, Refusal},
    timer::{Timer, millis},
    upstream::Policy,
    wire::{self, StreamReset, Unprocessed, Wire},
    worker::Worker,
};

/// The most interim answers before the final one. Each begins the wait for it anew: without an end to
/// them a peer could keep a request for ever, and fill the memory for a client that does not read. A
/// service that says `102 Processing` every twenty seconds has half an hour.
const MAX_INTERIMS: u16 = 100;

/// A peer's answer: its head is in the exchange, the rest is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Until it goes back to the pool or into a tunnel.
    pub(crate) upstream: Option<Wire>,
    pub(crate) asked_at: Instant,
    pub(crate) took: Duration,
    /// It is a `101` to a request that asked for it.
    pub(crate) upgraded: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The peer failed.
    Peer {
        /// How.
        failure: Failure,
        /// Whether it may have seen the request.
        sent: Sent,
    },
    /// This machine is out of ports or descriptors: nobody's fault.
    Local(io::Error),
    /// The client's request cannot go on.
    Refused(Refusal),
    /// The client went away.
    ClientGone,
}

/// Asks one peer. `kept` says whether the request is still at hand as a whole, and is cleared when
/// its body grows too large to be kept.
pub(crate) async fn attempt<'w>(
    worker: &'w Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    body: &mut Option<Means<'w>>,
    picked: &Picked,
    kept: &mut bool,
    asked_at: Instant,
) -> Result<Answer, Trouble> {
    let policy = picked.upstream().policy();
    let number = picked.number();
    let idempotent = x.request.method.idempotent();
    let terms = picked.upstream().security().number();
    let http2 = policy.protocol.is_http2();
    let pooled = if http2 {
        match worker.links.take(number, terms) {
            Some(place) => {
                if x.request.upgrade {
                    Box::pin(may_tunnel(&conn.timer, &place, policy)).await?;
                }
                Some(stream(place, &x.outbound, picked)?)
            }
            None => None,
        }
    } else {
        worker
            .pool
            .take(number, terms, worker.timers.now(), !idempotent)
    };
    if let Some(mut upstream) = pooled {
        let heard = converse(worker, conn, x, body, &mut upstream, policy, kept).await;
        match heard {
            Ok(upgraded) => return Ok(answer(upstream, asked_at, upgraded)),
            // The peer may close an idle connection at any time. That says nothing about it, and
            // it is asked again when that cannot do any harm.
            Err(Trouble::Peer {
                failure: Failure::Reset,
                sent,
            }) if x.upstream.is_empty() && *kept && is_stale(sent, idempotent) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    let mut upstream = if http2 {
        let (links, timers) = (&worker.links, &worker.timers);
        let place = place(links, timers, &conn.timer, picked, policy).await?;
        if x.request.upgrade {
            Box::pin(may_tunnel(&conn.timer, &place, policy)).await?;
        }
        stream(place, &x.outbound, picked)?
    } else {
        connect_surely(worker, &conn.timer, picked, policy).await?
    };
    let upgraded = converse(worker, conn, x, body, &mut upstream, policy, kept).await?;
    Ok(answer(upstream, asked_at, upgraded))
}

/// Whether a used connection may have been at its end before it was used, and another may be asked instead
/// without harm.
const fn is_stale(sent: Sent, idempotent: bool) -> bool {
    match sent {
        Sent::Nothing => true,
        Sent::Something => idempotent,
        Sent::Ended => false,
    }
}

fn answer(upstream: Wire, asked_at: Instant, upgraded: bool) -> Answer {
    Answer {
        upstream: Some(upstream),
        asked_at,
        took: Duration::ZERO,
        upgraded,
    }
}

/// Sends the request and reads the head of its answer; `true`: it is the upgrade that was asked for.
async fn converse<'w>(
    worker: &'w Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    body: &mut Option<Means<'w>>,
    upstream: &mut Wire,
    policy: &Policy,
    kept: &mut bool,
) -> Result<bool, Trouble> {
    x.upstream.clear();
    x.upload.begin_again();
    conn.timer.set(policy.timeouts.idle.duration());
    let (written, result) = upstream.write_all(&conn.timer, &x.outbound).await;
    let mut uploading = !x.upload.done();
    if let Err(error) = result {
        let failure = match error.kind() {
            io::ErrorKind::TimedOut => Failure::IdleTimeout,
            _ => Failure::Reset,
        };
        if written == 0 || failure == Failure::IdleTimeout {
            let sent = if written == 0 {
                Sent::Nothing
            } else {
                Sent::Something
            };
            return Err(Trouble::Peer { failure, sent });
        }
        // It will take no more, but may have answered before it closed.
        uploading = false;
    }
    if uploading && body.is_none() {
        *body = Some(Means::new(&worker.large, &worker.pipes));
    }
    let wait = Wait::of(conn, x, policy);
    conn.timer.set(wait.time);
    let mut interims = 0;
    loop {
        let n = if uploading && let Some(body) = body {
            let step = read_while_uploading(worker, conn, x, body, upstream, policy, kept).await?;
            match step {
                Step::Read(n) => n,
                Step::Uploaded => {
                    uploading = false;
                    conn.timer.set(wait.time);
                    continue;
                }
            }
        } else {
            read_answer(conn, upstream, x.upstream.space(), wait).await?
        };
        if n == 0 {
            return Err(lost(Failure::Reset));
        }
        x.upstream.filled(n);
        if let Some(upgraded) = parse(conn, x, policy, &mut interims).await? {
            return Ok(upgraded);
        }
    }
}

/// How long an answer may take to begin.
#[derive(Debug, Clone, Copy)]
struct Wait {
    time: Duration,
    /// It is the caller's own deadline: nothing against the peer.
    callers: bool,
}

impl Wait {
    fn of(conn: &Connection, x: &Exchange, policy: &Policy) -> Self {
        let ours = policy.timeouts.first_byte.duration();
        let theirs = conn
            .wire
            .is_http2()
            .then(|| x.request.field(x.inbound.raw(), "grpc-timeout"))
            .flatten()
            .and_then(grpc::timeout);
        Self {
            time: theirs.map_or(ours, |theirs| theirs.min(ours)),
            callers: theirs.is_some_and(|theirs| theirs < ours),
        }
    }
}

/// Reads once, for as long as there is a client to read for.
async fn read_answer(
    conn: &mut Connection,
    upstream: &mut Wire,
    space: &mut [u8],
    wait: Wait,
) -> Result<usize, Trouble> {
    let (mut from_peer, _) = upstream.split();
    let (from_client, _) = conn.wire.split();
    let mut watched = true;
    poll_fn(|cx| {
        if let Poll::Ready(read) = from_peer.poll_read(cx, space) {
            return Poll::Ready(read.map_err(|error| read_failed(&error)));
        }
        if conn.timer.fired() {
            return Poll::Ready(Err(if wait.callers {
                Trouble::Refused(refusal::TIMED_OUT)
            } else {
                read_failed(&io::ErrorKind::TimedOut.into())
            }));
        }
        if watched && let Poll::Ready(gone) = from_client.poll_gone(cx) {
            if gone {
                return Poll::Ready(Err(Trouble::ClientGone));
            }
            watched = false;
        }
        Poll::Pending
    })
    .await
}

const fn lost(failure: Failure) -> Trouble {
    Trouble::Peer {
        failure,
        sent: Sent::Something,
    }
}

fn read_failed(error: &io::Error) -> Trouble {
    if wire::is::<Unprocessed>(error) {
        return Trouble::Peer {
            failure: Failure::Reset,
            sent: Sent::Nothing,
        };
    }
    if wire::is::<StreamReset>(error) {
        return Trouble::Peer {
            failure: Failure::Reset,
            sent: Sent::Ended,
        };
    }
    lost(match error.kind() {
        io::ErrorKind::TimedOut => Failure::FirstByteTimeout,
        _ => Failure::Reset,
    })
}

/// Parses what has been read of the answer; none: more is needed. Interim answers are passed on.
async fn parse(
    conn: &mut Connection,
    x: &mut Exchange,
    policy: &Policy,
    interims: &mut u16,
) -> Result<Option<bool>, Trouble> {
    loop {
        let start = x.upstream.start();
        let end = start + x.upstream.len();
        let raw = x.upstream.raw();
        let complete = x.response.parse(raw, start, end, x.request.method);
        if !complete.map_err(|_| lost(Failure::Protocol))? {
            return if Exchange::make_room(&mut x.upstream) {
                Ok(None)
            } else {
                Err(lost(Failure::Protocol))
            };
        }
        x.upstream.consume(x.response.len);
        if x.response.status == 101 {
            let fine = x.request.upgrade
                && x.response
                    .upgrade
                    .is_some_and(|to| x.request.asks_for(x.inbound.raw(), to.of(x.upstream.raw())));
            return if fine {
                Ok(Some(true))
            } else {
                Err(lost(Failure::Protocol))
            };
        }
        if !x.response.interim() {
            return Ok(Some(false));
        }
        *interims += 1;
        if *interims > MAX_INTERIMS {
            return Err(lost(Failure::Protocol));
        }
        if x.request.http11 {
            x.reply.clear();
            render::interim(&mut x.reply, x.upstream.raw(), &x.response, x.id.as_bytes());
            let (_, result) = conn.wire.write_all(&conn.timer, &x.reply).await;
            result.map_err(|_| Trouble::ClientGone)?;
        }
        conn.timer.set(policy.timeouts.first_byte.duration());
        if x.upstream.is_empty() {
            return Ok(None);
        }
    }
}

enum Step {
    /// So many bytes of the answer were read.
    Read(usize),
    /// The request is out, or the peer takes no more of it.
    Uploaded,
}

/// Moves the request's body on while listening for the answer, which may come before its end.
async fn read_while_uploading(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    body: &mut Means<'_>,
    upstream: &mut Wire,
    policy: &Policy,
    kept: &mut bool,
) -> Result<Step, Trouble> {
    let limit = x.outbound.len().max(policy.retries.body_limit as usize);
    let patience = Patience {
        from: millis(worker.config.limits.idle_timeout),
        to: policy.timeouts.idle.as_millis(),
        client: Side::From,
        rate: pipeline::rate(x, worker.rates.inward),
        invited: !x.request.expects_continue,
        beside: 0,
    };
    let timer: &Timer = &conn.timer;
    let (mut from_client, _) = conn.wire.split();
    let (mut from_peer, mut to_peer) = upstream.split();
    let mut keep = Keep {
        bytes: (*kept && x.request.method.idempotent()).then_some(&mut x.outbound),
        limit,
    };
    let (upload, space) = (&mut x.upload, x.upstream.space());
    let step = poll_fn(|cx| {
        if let Poll::Ready(read) = from_peer.poll_read(cx, space) {
            return Poll::Ready(match read {
                Ok(n) => Ok(Step::Read(n)),
                Err(error) => Err(read_failed(&error)),
            });
        }
        if from_client.gave_up(cx) {
            return Poll::Ready(Err(Trouble::ClientGone));
        }
        let (from, to) = (&mut from_client, &mut to_peer);
        let moved = upload.poll_move(cx, from, to, body, &mut keep, timer, patience);
        moved.map(|moved| match moved {
            // Whoever takes no more may have answered: listen.
            Ok(()) | Err(Broken::To) => Ok(Step::Uploaded),
            Err(Broken::Idle(Side::To)) => Err(lost(Failure::IdleTimeout)),
            Err(broken @ (Broken::Slow | Broken::Idle(Side::From))) => {
                worker.metrics.share.slow(Slow::Body).add(1);
                Err(Trouble::Refused(refuse::body_refusal(&broken)))
            }
            Err(Broken::From) => Err(Trouble::ClientGone),
            Err(broken) => Err(Trouble::Refused(refuse::body_refusal(&broken))),
        })
    })
    .await;
    *kept &= keep.bytes.is_some();
    step
}
