//! Reply: the peer's answer to the client, as it comes.

use std::{future::poll_fn, task::Poll, time::Instant};

use crate::{
    exchange::Exchange,
    grpc,
    http1::{
        body::{Broken, Keep, Means, Patience, Side},
        pace::Rate,
        render::{self, Delivery, ReplyEdits},
        request::Framing,
    },
    metrics::Slow,
    peer::{Failure, Picked},
    pipeline::{
        self, After, CLIENT_SLOW, Connection,
        forward::Answered,
        observe::{self, Seen},
        plan::Plan,
        refuse, remember,
    },
    refusal,
    switches::{Feature, on},
    timer::millis,
    tunnel,
    upstream::Policy,
    worker::Worker,
};

/// Passes the answer on.
pub(crate) async fn answer<'w>(
    worker: &'w Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    plan: &Plan<'_>,
    answered: &mut Answered,
    body: &mut Option<Means<'w>>,
    seen: &mut Seen,
) -> After {
    if answered.answer.upgraded {
        return upgrade(worker, conn, x, answered, seen).await;
    }
    let framing = x.response.framing;
    let unsized_body = matches!(framing, Framing::Chunked | Framing::UntilClose);
    let chunks = unsized_body && x.request.http11;
    let uploaded = x.upload.done();
    let keep = x.request.keeps_alive()
        && uploaded
        && conn.may_go_on(worker)
        && !worker.stopping()
        && (!unsized_body || x.request.http11);
    let delivery = Delivery {
        chunks,
        close: !keep,
        say_keep_alive: keep && !x.request.http11,
    };
    let edits = if plan.route.chain.is_some() {
        ReplyEdits {
            gone: plan.decision.reply_gone,
            lines: &x.scratch.reply,
        }
    } else {
        ReplyEdits::default()
    };
    observe::fetch_ahead(worker, plan);
    x.reply.clear();
    render::response(
        &mut x.reply,
        x.upstream.raw(),
        &x.response,
        delivery,
        x.id.as_bytes(),
        edits,
    );
    x.download.begin(framing, chunks, None);
    let keeping = match plan.decision.fallback {
        Some(_) if !answered.counted_as_failure => remember::begin(worker, conn, x, plan),
        _ => None,
    };
    if let Some(keeping) = &keeping {
        x.download.tap(keeping.limit());
    }
    if x.download
        .take_buffered(&mut x.upstream, &mut x.reply)
        .is_err()
    {
        failed(worker, plan, answered, seen, Failure::Protocol);
        return refuse::answer(worker, conn, x, seen, refusal::ALL_FAILED).await;
    }
    seen.status = x.response.status;
    if x.download.done() {
        let exact = x.upstream.is_empty();
        settle(worker, x, answered, uploaded && exact);
        if let Some(keeping) = keeping {
            keeping.end(x.download.take_tapped().ok());
        }
        // Nothing but the write lies behind it; a look at the clock costs more than it is off by.
        let read = answered.answer.asked_at + answered.answer.took;
        let sent = worker.row.join().await.unwrap_or(read);
        let written = pipeline::write(worker, conn, &x.reply).await;
        seen.bytes_out = x.download.bytes;
        if !is_sent(worker, seen, sent, written) {
            return After::Cut;
        }
        return finish(conn, x, keep, uploaded).await;
    }
    let moved = match pipeline::write(worker, conn, &x.reply).await {
        Ok(_) => relay(worker, conn, x, answered, body).await,
        Err(error) if pipeline::unwritten(worker, &error) == CLIENT_SLOW => Err(Broken::Slow),
        Err(_) => Err(Broken::To),
    };
    seen.bytes_out = x.download.bytes;
    match moved {
        Ok(exact) => {
            settle(worker, x, answered, uploaded && exact);
            if let Some(keeping) = keeping {
                keeping.end(x.download.take_tapped().ok());
            }
            finish(conn, x, keep, uploaded).await
        }
        Err(Broken::To | Broken::Idle(Side::To)) => {
            seen.error = Some("client_gone");
            After::Cut
        }
        Err(Broken::Slow) => {
            seen.error = Some(CLIENT_SLOW);
            After::Cut
        }
        Err(broken) => {
            let failure = match broken {
                Broken::Idle(_) => Failure::IdleTimeout,
                Broken::Malformed | Broken::TooLarge => Failure::Protocol,
                Broken::From | Broken::To | Broken::Slow => Failure::Reset,
            };
            failed(worker, plan, answered, seen, failure);
            After::Cut
        }
    }
}

/// Whether an answer that was here as a whole is with the client.
fn is_sent(
    worker: &Worker,
    seen: &mut Seen,
    sent: Instant,
    written: std::io::Result<bool>,
) -> bool {
    match written {
        Ok(true) => seen.ended = Some(sent),
        Ok(false) => {}
        Err(error) => {
            seen.error = Some(pipeline::unwritten(worker, &error));
            return false;
        }
    }
    true
}

/// The rest of the body, as fast as the slower side; beside it, the rest of the request, if the
/// peer answered before its end. `false`: the peer said more than its answer.
async fn relay<'w>(
    worker: &'w Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    answered: &mut Answered,
    body: &mut Option<Means<'w>>,
) -> Result<bool, Broken> {
    let (up, down) = patience(worker, x, answered.picked.upstream().policy());
    let Some(peer_stream) = answered.answer.upstream.as_mut() else {
        return Err(Broken::From);
    };
    let mut means = Means::new(&worker.large, &worker.pipes);
    let Exchange {
        upload, download, ..
    } = x;
    let timer = &conn.timer;
    let (mut from_client, mut to_client) = conn.wire.split();
    let (mut from_peer, mut to_peer) = peer_stream.split();
    let mut uploading = body.as_mut().filter(|_| !upload.done());
    let mut watched = true;
    let mut slow = Slow::Answer;
    let mut exact = true;
    let moved = poll_fn(|cx| {
        if let Some(body) = &mut uploading {
            // The answer has begun. Both sides may take turns, so that what is taken of it counts for
            // the request's pace.
            let patience = Patience {
                beside: download.written(),
                ..up
            };
            let before = upload.moved();
            let (from, to) = (&mut from_client, &mut to_peer);
            let keep = &mut Keep::default();
            let moved = upload.poll_move(cx, from, to, body, keep, timer, patience);
            if upload.moved() != before {
                download.not_alone();
            }
            match moved {
                // The peer may be waiting for the rest: that it does not go on is not its fault.
                Poll::Ready(Err(Broken::Slow | Broken::Idle(Side::From))) => {
                    slow = Slow::Body;
                    return Poll::Ready(Err(Broken::Slow));
                }
                // However else it ended: the answer is what counts now.
                Poll::Ready(_) => uploading = None,
                Poll::Pending => {}
            }
        }
        if from_client.gave_up(cx) {
            return Poll::Ready(Err(Broken::To));
        }
        let before = download.moved();
        let (from, to) = (&mut from_peer, &mut to_client);
        let keep = &mut Keep::default();
        let moved = download.poll_move(cx, from, to, &mut means, keep, timer, down);
        exact = means.beyond().is_none();
        if download.moved() != before {
            upload.not_alone();
        }
        // A peer may be silent for long (server-sent events): don't wait for it for nobody.
        if moved.is_pending()
            && uploading.is_none()
            && watched
            && let Poll::Ready(gone) = from_client.poll_gone(cx)
        {
            if gone {
                return Poll::Ready(Err(Broken::To));
            }
            watched = false;
        }
        moved
    })
    .await;
    if matches!(moved, Err(Broken::Slow)) {
        worker.metrics.share.slow(slow).add(1);
    }
    moved.map(|()| exact)
}

/// How much time the rest of the request has, and the answer.
fn patience(worker: &Worker, x: &Exchange, policy: &Policy) -> (Patience, Patience) {
    let client = millis(worker.config.limits.idle_timeout);
    let peer = policy.timeouts.idle.as_millis();
    let calls = pipeline::is_call(x);
    let rate = |rate| if calls { Rate::ANY } else { rate };
    let up = Patience {
        from: if calls { u64::MAX } else { client },
        to: peer,
        client: Side::From,
        rate: rate(worker.rates.inward),
        invited: !x.request.expects_continue,
        beside: 0,
    };
    let down = Patience {
        from: peer,
        to: client,
        client: Side::To,
        rate: rate(worker.rates.outward),
        invited: true,
        beside: 0,
    };
    (up, down)
}

/// The answer is complete: the peer did well, and its connection may be used again if the request
/// went out as a whole and nothing came beyond the answer (`exact`).
fn settle(worker: &Worker, x: &Exchange, answered: &mut Answered, exact: bool) {
    if !answered.counted_as_failure && on(Feature::Health) {
        let policy = answered.picked.upstream().policy();
        match grpc::status_in(x.download.trailer()) {
            Some(status) if policy.is_grpc_failure(status) => {
                let failure = Failure::GrpcStatus(status);
                answered.picked.failed(failure, Instant::now());
            }
            _ => answered.picked.finished(),
        }
    }
    if x.response.keep_alive && exact {
        keep_connection(worker, answered);
    }
}

/// The connection goes back to the pool.
fn keep_connection(worker: &Worker, answered: &mut Answered) {
    if let Some(upstream) = answered.answer.upstream.take() {
        let keep = answered.picked.upstream().policy().timeouts.keepalive;
        let number = answered.picked.number();
        let terms = answered.picked.upstream().security().number();
        worker.pool.put(
            number,
            terms,
            upstream,
            worker.timers.now(),
            keep.duration(),
        );
    }
}

/// An answer that is not passed on. Its connection can be used again if the answer is here as a
/// whole; else it is closed.
pub(crate) fn discard(worker: &Worker, x: &mut Exchange, mut answered: Answered) -> Picked {
    x.reply.clear();
    x.download.begin(x.response.framing, false, None);
    let taken = x.download.take_buffered(&mut x.upstream, &mut x.reply);
    let exact = taken.is_ok() && x.download.done() && x.upstream.is_empty();
    let uploaded = x.upload.done();
    settle(worker, x, &mut answered, uploaded && exact);
    answered.picked
}

fn failed(
    worker: &Worker,
    plan: &Plan<'_>,
    answered: &mut Answered,
    seen: &mut Seen,
    failure: Failure,
) {
    if !answered.counted_as_failure {
        answered.picked.failed(failure, Instant::now());
    }
    worker.metrics.upstream_error(plan.labels(), failure.kind());
    seen.error = Some(failure.kind());
}

async fn finish(conn: &mut Connection, x: &Exchange, keep: bool, uploaded: bool) -> After {
    if keep {
        return After::Keep;
    }
    // A client that did not ask for the end may be sending already: closing at once would reset
    // the connection before it has read its answer.
    if !uploaded || x.request.keeps_alive() || !x.inbound.is_empty() {
        refuse::linger(conn).await;
    }
    After::Close
}

/// Passes the `101` on and hands both connections to a tunnel, with what has been read already.
async fn upgrade(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    answered: &mut Answered,
    seen: &mut Seen,
) -> After {
    x.reply.clear();
    render::interim(&mut x.reply, x.upstream.raw(), &x.response, x.id.as_bytes());
    seen.status = x.response.status;
    seen.tunnel = true;
    let written = pipeline::write(worker, conn, &x.reply).await;
    let (Ok(_), Some(upstream)) = (written, answered.answer.upstream.take()) else {
        seen.error = Some("client_gone");
        return After::Close;
    };
    answered.picked.finished();
    After::Tunnel(Box::new(tunnel::Ends::new(upstream, x)))
}
