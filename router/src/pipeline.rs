//! A request's way through the router, top to bottom:
//!
//! ```text
//!   accept     worker.rs     a connection; no buffers while it is idle
//!     │
//!   read       receive.rs    one head, framed beyond doubt, or 400 and close
//!     │
//!   match      plan.rs       host and path → route, in the one table that the request keeps
//!     │
//!   plan       plan.rs       how it is to be forwarded: a value, which plugins edit
//!     │
//!   prepare    prepare.rs    the request's head as it goes upstream
//!     │
//!   pick       forward.rs    a peer, by balance and health, none twice         ◄─┐
//!     │                                                                          │ again, if
//!   forward    attempt.rs    a connection; the request out, an answer's head in ─┘ retry.rs
//!     │                                                                            says so
//!   reply      deliver.rs    the answer's head and body to the client; 101 → tunnel.rs
//!     │        refuse.rs     or an answer of the router's own
//!     │        rescue.rs     or what the route's fallback has instead of an error, which
//!     │        remember.rs   may be what was answered well before
//!     │
//!   observe    observe.rs    metrics, access log; the peer has had its verdict on the way
//!              copy.rs       copies that plugins want go to `mirror.rs`, behind everything else
//! ```
//!
//! What happens on the wire is the engine's business ([`crate::http1`]); what is decided is decided
//! by pure functions over values (`plan`, `retry`).

use std::{convert::Infallible, future::poll_fn, rc::Rc, task::Poll, time::Instant};

use crate::{
    balance::Reach,
    client::Client,
    exchange::Exchange,
    grpc,
    http1::{body::Means, pace::Rate, request::Framing},
    http2,
    metrics::Slow,
    peer::Picked,
    plugin::{Own, Permit},
    refusal,
    room::{Desk, Room},
    table::Table,
    timer::Timer,
    tunnel,
    upstream::Upstream,
    wire::Wire,
    worker::Worker,
};

pub(crate) mod attempt;
pub(crate) mod connect;
mod copy;
mod deliver;
mod forward;
pub(crate) mod hop;
mod observe;
mod plan;
mod prepare;
mod receive;
pub(crate) mod refuse;
mod remember;
mod rescue;
mod retry;

pub(crate) use observe::Hidden;
use observe::Seen;
use plan::Plan;
use prepare::{believe, name_request, prepare};
use rescue::{Done, Rescuer};

/// How long a stopping worker waits for the first request of a new connection.
const FIRST_WORD: std::time::Duration = std::time::Duration::from_millis(500);

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    /// `http` or `https`, as the client sees it.
    pub(crate) scheme: &'static str,
    pub(crate) timer: Timer,
    pub(crate) client: Client,
    stage: Stage,
    /// Requests that have been read.
    requests: u32,
}

/// How far a client's connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No request has been read yet.
    Fresh,
    /// Nor has one here, and the answer will be that there is no room.
    Crowded,
    Used,
}

impl Connection {
    /// Whether it may make another request after this one.
    fn may_go_on(&self, worker: &Worker) -> bool {
        self.requests < worker.most_requests
    }
}

/// What becomes of a connection after a request.
#[derive(Debug)]
pub(crate) enum After {
    /// The next request.
    Keep,
    /// Closed in good order.
    Close,
    /// Closed so that the client sees that its answer is not complete.
    Cut,
    /// Something else than HTTP is spoken from now on.
    Tunnel(Box<tunnel::Ends>),
    /// HTTP/2 is spoken from the beginning on; so much of it has been read.
    Http2(Vec<u8>),
}

/// Serves a client until its connection ends. The timer has been set for what is left of the time
/// for the first byte of the first request.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    wire: Wire,
    scheme: &'static str,
    client: Client,
    timer: Timer,
    stage: Stage,
) {
    let mut conn = Connection {
        wire,
        scheme,
        timer,
        client,
        stage,
        requests: 0,
    };
    if stage == Stage::Fresh && !conn.wire.is_http2() {
        conn.timer.rest();
    }
    let mut fresh = true;
    while has_spoken(worker, &mut conn, fresh).await {
        fresh = false;
        let after;
        (conn, after) = {
            let mut room = worker.rooms.lend();
            room.begin((Rc::clone(worker), conn));
            poll_fn(|cx| room.poll(cx)).await
        };
        match after {
            After::Keep => conn.timer.set_idle(worker.config.limits.keepalive),
            After::Close => {
                conn.timer.set(worker.config.limits.idle_timeout);
                return conn.wire.farewell(&conn.timer).await;
            }
            After::Cut => {
                conn.wire.cut();
                return;
            }
            After::Tunnel(ends) => return Box::pin(tunnel::run(worker, conn, *ends)).await,
            After::Http2(_) if stage == Stage::Crowded => {
                return Box::pin(http2::decline(conn)).await;
            }
            After::Http2(first) => return http2::serve(Rc::clone(worker), conn, first).await,
        }
    }
}

/// Waits, without a buffer, until there is something to read; `false`: the time is over, or the
/// worker stops. A stopping worker closes a connection only when the kernel has nothing for it, and
/// gives one that has not spoken yet (`fresh`) a moment: its first request is on its way. While it
/// is not hurried, it waits for the next request, whose answer tells the client to connect anew.
async fn has_spoken(worker: &Worker, conn: &mut Connection, fresh: bool) -> bool {
    let mut patience = fresh;
    poll_fn(|cx| {
        if let Poll::Ready(ready) = conn.wire.poll_read_ready(cx) {
            return Poll::Ready(ready.is_ok());
        }
        if worker.stopping() {
            if conn.wire.has_bytes() {
                return Poll::Ready(true);
            }
            if !worker.hurried() {
                return if conn.timer.fired() {
                    Poll::Ready(false)
                } else {
                    Poll::Pending
                };
            }
            if !patience && (!fresh || conn.timer.fired()) {
                return Poll::Ready(false);
            }
            if patience {
                patience = false;
                conn.timer.set(FIRST_WORD);
            }
        } else if conn.timer.fired() {
            return Poll::Ready(false);
        }
        Poll::Pending
    })
    .await
}

/// Room for a connection while it is busy.
pub(crate) type Busy = Room<(Rc<Worker>, Connection), (Connection, After)>;

/// An empty one.
pub(crate) fn room() -> Busy {
    Room::new(serve_while_busy)
}

/// Serves requests for as long as there are bytes of another one, of one connection after another.
async fn serve_while_busy(desk: Desk<(Rc<Worker>, Connection), (Connection, After)>) -> Infallible {
    loop {
        let (worker, mut conn) = desk.next().await;
        let after = {
            let mut exchange = worker.exchanges.lend();
            loop {
                let after = serve_request(&worker, &mut conn, &mut exchange).await;
                if !matches!(after, After::Keep) || exchange.inbound.is_empty() {
                    break after;
                }
            }
        };
        drop(worker);
        desk.done((conn, after));
    }
}

/// One request, from its first byte to the last of its answer.
async fn serve_request(worker: &Worker, conn: &mut Connection, x: &mut Exchange) -> After {
    // Read.
    let refused = match read(worker, conn, x).await {
        Ok(refused) => refused,
        Err(after) => return after,
    };
    // One table from here to the end.
    let table = worker.table();
    if let Some(held) = table.as_deref() {
        plan::fetch_ahead(&held.0, x, worker);
    }
    let mut seen = Seen::begin(Instant::now());
    // Whoever answers, and whatever: nothing that was written about another request may join it.
    x.scratch.clear();
    believe(worker, conn, x);
    name_request(worker, x);
    if let Some(refusal) = refused {
        let after = refuse::unreadable(worker, conn, x, &mut seen, refusal).await;
        observe::request(worker, conn, x, None, &seen);
        return after;
    }
    // From here on the body is this request's, whoever answers: what is left of it must never be
    // read as another request.
    let framing = x.request.framing;
    let chunks = framing == Framing::Chunked;
    x.upload.begin(framing, chunks, worker.config.limits.body);
    x.outbound.clear();
    x.hops = false;
    // Match and plan.
    let planned = match table.as_deref() {
        Some(held) => plan::plan(&held.0, x, conn, worker).map(|plan| (plan, &*held.0)),
        None => Err(refusal::NOT_READY),
    };
    let (mut plan, table) = match planned {
        Ok(planned) => planned,
        Err(refusal) => {
            let after = refuse::answer(worker, conn, x, &mut seen, refusal).await;
            observe::request(worker, conn, x, None, &seen);
            return after;
        }
    };
    let draft = copy::begin(worker, conn, x, &plan, table);
    let prepared = match plan.decision.own.take() {
        Some(own) => Err(own),
        None => prepare(worker, conn, x, &plan.decision).map_err(Own::Refusal),
    };
    if let Err(own) = prepared {
        let (plan, seen) = (&mut plan, &mut seen);
        let (picked, after) = answer_own(worker, conn, x, table, plan, seen, &own).await;
        observe::request(worker, conn, x, Some((plan, picked.as_ref())), seen);
        copy::end(worker, x, draft, None);
        return after;
    }
    let permit = plan.decision.permit.take();
    let mut ticket = plan.decision.ticket.take();
    // Pick, forward, perhaps again; then reply.
    let mut body: Option<Means<'_>> = None;
    let end = forward::forward(worker, conn, x, &plan, &mut body, &mut seen).await;
    if let Some(ticket) = &mut ticket {
        observe::tell(ticket, &end, x, &seen);
    }
    let end = match rescue::trigger(&plan, x, &end) {
        None => Err(end),
        Some(trigger) => {
            let mut rescuer = Rescuer {
                worker,
                table,
                conn,
                x,
                plan: &mut plan,
                body: &mut body,
                seen: &mut seen,
                trigger,
            };
            Box::pin(rescuer.forwarded(end)).await
        }
    };
    let (picked, after) = match end {
        Ok(rescued) => rescued,
        Err(forward::End::Answered(mut answered)) => {
            let after =
                deliver::answer(worker, conn, x, &plan, &mut answered, &mut body, &mut seen).await;
            (Some(answered.picked), after)
        }
        Err(forward::End::Refused {
            refusal, picked, ..
        }) => {
            let after = refuse::answer(worker, conn, x, &mut seen, refusal).await;
            (picked, after)
        }
        Err(forward::End::ClientGone(picked)) => (picked, After::Close),
    };
    // Observe.
    observe::request(worker, conn, x, Some((&plan, picked.as_ref())), &seen);
    copy::end(worker, x, draft, seen.original(x.download.bytes));
    if let Some(mut ticket) = ticket {
        observe::tell_end(&mut ticket, x, &seen);
    }
    let after = tunnel_if_asked(after, (conn, x), (picked, permit), plan.upstream);
    if let Some(beyond) = body.as_mut().and_then(Means::beyond) {
        x.take_back(beyond);
    }
    after
}

/// Reads a head; why it is refused, if it is. What comes after it instead: there is no request.
async fn read(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
) -> Result<Option<refusal::Refusal>, After> {
    let stage = std::mem::replace(&mut conn.stage, Stage::Used);
    conn.requests += 1;
    let refused = match receive::head(worker, conn, x).await {
        Ok(()) => (stage == Stage::Crowded).then_some(refusal::CROWDED),
        Err(receive::End::Refused(_))
            if stage != Stage::Used
                && conn.wire.may_speak_http2()
                && http2::is_preface(x.inbound.data()) =>
        {
            return Err(After::Http2(x.inbound.data().to_vec()));
        }
        Err(receive::End::Gone) => return Err(After::Close),
        Err(receive::End::Refused(refusal)) => Some(refusal),
    };
    if refused == Some(refusal::HEAD_TIMEOUT) {
        worker.metrics.share.slow(Slow::Head).add(1);
    }
    Ok(refused)
}

/// Answers what a plugin answers or refuses, or as the route's fallback does instead.
async fn answer_own<'t>(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    table: &'t Table,
    plan: &mut Plan<'t>,
    seen: &mut Seen,
    own: &Own<'_>,
) -> Done {
    if let Some(trigger) = rescue::trigger_of_own(plan, own) {
        let mut rescuer = Rescuer {
            worker,
            table,
            conn,
            x,
            plan,
            body: &mut None,
            seen,
            trigger,
        };
        if let Some(done) = Box::pin(rescuer.refused(own)).await {
            return done;
        }
    }
    (None, refuse::own(worker, conn, x, seen, own).await)
}

/// Whether it is a call of gRPC. Their streams may be silent, and pause, for as long as their service
/// allows.
fn is_call(x: &Exchange) -> bool {
    let content_type = x.request.field(x.inbound.raw(), "content-type");
    content_type.is_some_and(grpc::is_grpc)
}

/// The pace that a client has to keep with its request.
fn rate(x: &Exchange, rate: Rate) -> Rate {
    if is_call(x) { Rate::ANY } else { rate }
}

/// Writes to the client, as long as its pace allows; `true`: without having to wait for it.
async fn write(worker: &Worker, conn: &mut Connection, data: &[u8]) -> std::io::Result<bool> {
    let rate = worker.rates.outward;
    if rate.least == 0 {
        conn.timer.set(worker.config.limits.idle_timeout);
        return conn
            .wire
            .write_all(&conn.timer, data)
            .await
            .1
            .map(|()| false);
    }
    conn.timer.set_millis(rate.time_for(data.len()));
    conn.wire.write_in_time(&conn.timer, data).await
}

/// What is said of a client to which not all could be written.
fn unwritten(worker: &Worker, error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::TimedOut {
        worker.metrics.share.slow(Slow::Answer).add(1);
        return CLIENT_SLOW;
    }
    "client_gone"
}

/// What the access log says of a client that was too slow.
const CLIENT_SLOW: &str = "client_slow";

/// A tunnel takes its peer and its permit along: both count until the tunnel ends.
fn tunnel_if_asked(
    after: After,
    (conn, x): (&Connection, &Exchange),
    (picked, permit): (Option<Picked>, Option<Permit>),
    upstream: &Upstream,
) -> After {
    let After::Tunnel(mut ends) = after else {
        return after;
    };
    let cluster = picked.as_ref().map(|picked| &picked.peer().key().cluster);
    // Over what came from another cluster's router that one decides.
    let free = hop::reach(&x.request, conn.client.trusted) != Reach::Home;
    ends.choice = cluster
        .filter(|_| free)
        .map(|cluster| tunnel::Choice::new(upstream, cluster));
    ends.picked = picked;
    ends.permit = permit;
    After::Tunnel(ends)
}
