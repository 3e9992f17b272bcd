//! Forward: one try on one peer, up to the head of its answer.

use std::{
    future::poll_fn,
    io,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::{
    exchange::Exchange,
    http1::{
        body::{Broken, Patience, Side},
        buffer::{Buffer, Lent},
        render,
    },
    peer::{Failure, Picked},
    pipeline::{Connection, refuse, retry::Sent},
    refusal::{self, Refusal},
    timer::Timer,
    tls::Reason,
    upstream::{Policy, Security},
    wire::Wire,
    worker::Worker,
};

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
    body: &mut Option<Lent<'w, Buffer>>,
    picked: &Picked,
    kept: &mut bool,
    asked_at: Instant,
) -> Result<Answer, Trouble> {
    let policy = picked.upstream().policy();
    let number = picked.peer().number();
    let idempotent = x.request.method.idempotent();
    let terms = picked.upstream().security().number();
    let pooled = worker
        .pool
        .take(number, terms, worker.timers.now(), !idempotent);
    if let Some(mut upstream) = pooled {
        let heard = converse(worker, conn, x, body, &mut upstream, policy, kept).await;
        match heard {
            Ok(upgraded) => return Ok(answer(upstream, asked_at, upgraded)),
            // The peer may close an idle connection at any time. That says nothing about it, and
            // it is asked again when that cannot do any harm.
            Err(Trouble::Peer {
                failure: Failure::Reset,
                sent,
            }) if x.upstream.is_empty() && *kept && (sent == Sent::Nothing || idempotent) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    let mut upstream = connect(conn, picked, policy).await?;
    let upgraded = converse(worker, conn, x, body, &mut upstream, policy, kept).await?;
    Ok(answer(upstream, asked_at, upgraded))
}

fn answer(upstream: Wire, asked_at: Instant, upgraded: bool) -> Answer {
    Answer {
        upstream: Some(upstream),
        asked_at,
        took: Duration::ZERO,
        upgraded,
    }
}

async fn connect(conn: &Connection, picked: &Picked, policy: &Policy) -> Result<Wire, Trouble> {
    let failed = |failure| Trouble::Peer {
        failure,
        sent: Sent::Nothing,
    };
    let address = picked
        .peer()
        .socket_addr()
        .ok_or(failed(Failure::Connect))?;
    conn.timer.set(policy.timeouts.connect.duration());
    // Connecting is rare, and its state would make every connection's larger.
    let mut connecting = Box::pin(TcpStream::connect(address));
    let connected = poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Pending if conn.timer.fired() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        other => other,
    })
    .await;
    match connected {
        Ok(stream) => match stream.set_nodelay(true) {
            Ok(()) => secure(conn, stream, picked).await.map_err(failed),
            Err(_) => Err(failed(Failure::Connect)),
        },
        Err(error) if is_local(&error) => Err(Trouble::Local(error)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(failed(Failure::ConnectTimeout))
        }
        Err(_) => Err(failed(Failure::Connect)),
    }
}

/// The connection as the service wants it; still within the time for connecting.
async fn secure(conn: &Connection, stream: TcpStream, picked: &Picked) -> Result<Wire, Failure> {
    let terms = match picked.upstream().security() {
        Security::Plain => return Ok(Wire::Tcp(stream)),
        Security::Broken => return Err(Failure::Tls),
        Security::Tls(terms) => terms,
    };
    let peer = picked.peer();
    let connecting = Box::pin(terms.connect(stream, peer.address().host(), &conn.timer));
    match connecting.await {
        Ok(stream) => Ok(Wire::Other(Box::new(stream))),
        Err(failed) => {
            tracing::debug!(
                peer = %peer.key(),
                address = peer.authority(),
                error = %failed.error,
                "the TLS handshake with a peer failed"
            );
            Err(match failed.reason {
                Reason::Timeout => Failure::ConnectTimeout,
                _ => Failure::Tls,
            })
        }
    }
}

/// Whether an error says more about this machine than about the peer.
fn is_local(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.raw_os_error().is_some_and(|code| {
        matches!(
            Errno::from_raw(code),
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EAGAIN
        )
    })
}

/// Sends the request and reads the head of its answer; `true`: it is the upgrade that was asked for.
async fn converse<'w>(
    worker: &'w Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    body: &mut Option<Lent<'w, Buffer>>,
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
        *body = Some(worker.large.lend());
    }
    conn.timer.set(policy.timeouts.first_byte.duration());
    loop {
        let n = if uploading && let Some(body) = body {
            let step = read_while_uploading(worker, conn, x, body, upstream, policy, kept).await?;
            match step {
                Step::Read(n) => n,
                Step::Uploaded => {
                    uploading = false;
                    conn.timer.set(policy.timeouts.first_byte.duration());
                    continue;
                }
            }
        } else {
            read_answer(conn, upstream, x.upstream.space()).await?
        };
        if n == 0 {
            return Err(lost(Failure::Reset));
        }
        x.upstream.filled(n);
        if let Some(upgraded) = parse(conn, x, policy).await? {
            return Ok(upgraded);
        }
    }
}

/// Reads once, for as long as there is a client to read for.
async fn read_answer(
    conn: &mut Connection,
    upstream: &mut Wire,
    space: &mut [u8],
) -> Result<usize, Trouble> {
    let (mut from_peer, _) = upstream.split();
    let (from_client, _) = conn.wire.split();
    let mut watched = true;
    poll_fn(|cx| {
        if let Poll::Ready(read) = from_peer.poll_read(cx, space) {
            return Poll::Ready(read.map_err(|error| read_failed(&error)));
        }
        if conn.timer.fired() {
            return Poll::Ready(Err(read_failed(&io::ErrorKind::TimedOut.into())));
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
    body: &mut Buffer,
    upstream: &mut Wire,
    policy: &Policy,
    kept: &mut bool,
) -> Result<Step, Trouble> {
    let limit = x.outbound.len().max(policy.retries.body_limit as usize);
    let patience = Patience {
        from: millis(worker.config.limits.idle_timeout),
        to: policy.timeouts.idle.as_millis(),
    };
    let timer: &Timer = &conn.timer;
    let (mut from_client, _) = conn.wire.split();
    let (mut from_peer, mut to_peer) = upstream.split();
    let mut keep = (*kept && x.request.method.idempotent()).then_some(&mut x.outbound);
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
        let moved = upload.poll_move(
            cx,
            &mut from_client,
            &mut to_peer,
            body,
            timer,
            patience,
            &mut keep,
            limit,
        );
        moved.map(|moved| match moved {
            // Whoever takes no more may have answered: listen.
            Ok(()) | Err(Broken::To) => Ok(Step::Uploaded),
            Err(Broken::Idle(Side::To)) => Err(lost(Failure::IdleTimeout)),
            Err(Broken::Idle(Side::From)) => Err(Trouble::Refused(refusal::HEAD_TIMEOUT)),
            Err(Broken::From) => Err(Trouble::ClientGone),
            Err(broken) => Err(Trouble::Refused(refuse::body_refusal(&broken))),
        })
    })
    .await;
    *kept &= keep.is_some();
    step
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
