//! One copy on its way: a connection of the copies' own, the request out, the answer in and away.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{Copy, Mirrors, Original, Request};
use crate::{
    http1::{
        body::Body,
        buffer::{Buffer, SMALL},
        request::Framing,
        response::ResponseHead,
    },
    peer::{Failure, Picked},
    pipeline::{attempt::Trouble, connect},
    plugin::mirror::{Compared, Result},
    timer::Timer,
    wire::Wire,
};

/// The most bytes of an answer that nobody wants that are read for its connection's sake.
const MOST_SKIPPED: u64 = 1 << 20;

/// What came back.
#[derive(Debug, Clone, Copy)]
struct Answer {
    status: u16,
    length: u64,
    took: Duration,
}

/// Sends a copy, and counts what became of it.
pub(super) async fn send(mirrors: &Mirrors, timer: &Timer, copy: &Copy) {
    let policy = &copy.policy.policy;
    timer.set(policy.timeout);
    let asked = tokio::time::timeout(policy.timeout, ask(mirrors, timer, copy));
    let result = tokio::select! {
        biased;
        () = mirrors.stop.cancelled() => Err(Result::Stopping),
        asked = asked => asked.unwrap_or(Err(Result::Timeout)),
    };
    let came_to = result.err().unwrap_or(Result::Answered);
    policy.counts.add(came_to, 1);
    mirrors.learn(&copy.to, came_to);
    let Ok(answer) = result else {
        return;
    };
    if let Some(original) = copy.request.original {
        compare(mirrors, copy, original, answer);
    }
}

fn compare(mirrors: &Mirrors, copy: &Copy, original: Original, answer: Answer) {
    let counts = &copy.policy.policy.counts;
    let compared = if answer.status != original.status {
        Compared::Status
    } else if answer.length != original.length {
        Compared::Length
    } else {
        Compared::Same
    };
    counts.compared(compared);
    counts.durations[0].observe(answer.took);
    counts.durations[1].observe(original.took);
    if compared != Compared::Same
        && let Some(unsaid) = mirrors.differences.due(Instant::now())
    {
        tracing::info!(
            plugin = %copy.policy.head.name,
            request_id = %copy.request.id.escape_ascii(),
            status = original.status,
            copy_status = answer.status,
            length = original.length,
            copy_length = answer.length,
            unsaid,
            "a copy was answered otherwise than its original"
        );
    }
}

async fn ask(mirrors: &Mirrors, timer: &Timer, copy: &Copy) -> std::result::Result<Answer, Result> {
    // Dropped without a verdict: copies say nothing about their peers, which others may use.
    let picked = mirrors.pick(&copy.to).ok_or(Result::NoInstance)?;
    let (peer, security) = (picked.number(), picked.upstream().security().number());
    let began = Instant::now();
    let http2 = picked.upstream().policy().protocol.is_http2();
    if !http2
        && let Some(wire) = mirrors
            .pool
            .take(peer, security, mirrors.timers.now(), true)
    {
        match converse(mirrors, timer, copy, &picked, wire, began).await {
            Ok(answer) => return Ok(answer),
            // The peer may close an idle connection at any time.
            Err(Broken::Silent) => {}
            Err(Broken::Failed(result)) => return Err(result),
        }
    }
    let wire = match connect(mirrors, timer, &copy.request, &picked, http2).await {
        Ok(wire) => wire,
        Err(Trouble::Peer {
            failure: Failure::ConnectTimeout,
            ..
        }) => return Err(Result::Timeout),
        Err(_) => return Err(Result::Failed),
    };
    let answer = converse(mirrors, timer, copy, &picked, wire, began).await;
    answer.map_err(|broken| match broken {
        Broken::Silent => Result::Failed,
        Broken::Failed(result) => result,
    })
}

async fn connect(
    mirrors: &Mirrors,
    timer: &Timer,
    request: &Request,
    picked: &Picked,
    http2: bool,
) -> std::result::Result<Wire, Trouble> {
    let policy = picked.upstream().policy();
    if !http2 {
        return connect::connect(timer, picked, policy).await;
    }
    let (links, timers) = (&mirrors.links, &mirrors.timers);
    let place = connect::place(links, timers, timer, picked, policy).await?;
    connect::stream(place, &request.bytes, picked)
}

/// Why there is no answer.
enum Broken {
    /// The connection ended before a byte of one.
    Silent,
    Failed(Result),
}

impl Broken {
    fn of(error: &io::Error, heard: bool) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Failed(Result::Timeout),
            _ if heard => Self::Failed(Result::Failed),
            _ => Self::Silent,
        }
    }
}

/// Sends the request on a connection and reads its answer; the connection is kept if it can be.
async fn converse(
    mirrors: &Mirrors,
    timer: &Timer,
    copy: &Copy,
    picked: &Picked,
    mut wire: Wire,
    began: Instant,
) -> std::result::Result<Answer, Broken> {
    let policy = &copy.policy.policy;
    timer.set(policy.timeout);
    let (_, sent) = wire.write_all(timer, &copy.request.bytes).await;
    sent.map_err(|error| Broken::of(&error, false))?;
    let mut buffer = Buffer::new(SMALL);
    let mut head = ResponseHead::default();
    read_head(timer, copy, &mut wire, &mut buffer, &mut head).await?;
    let took = began.elapsed();
    let mut body = Body::default();
    body.begin(head.framing, false, None);
    let most = if policy.compare {
        u64::MAX
    } else {
        MOST_SKIPPED
    };
    let whole = skip(timer, &mut wire, &mut buffer, &mut body, head.framing, most).await?;
    if whole && head.keep_alive && buffer.is_empty() {
        let upstream = picked.upstream();
        let (peer, terms) = (picked.number(), upstream.security().number());
        let keep = upstream.policy().timeouts.keepalive.duration();
        mirrors
            .pool
            .put(peer, terms, wire, mirrors.timers.now(), keep);
    }
    Ok(Answer {
        status: head.status,
        length: body.bytes,
        took,
    })
}

async fn read_head(
    timer: &Timer,
    copy: &Copy,
    wire: &mut Wire,
    buffer: &mut Buffer,
    head: &mut ResponseHead,
) -> std::result::Result<(), Broken> {
    let failed = || Broken::Failed(Result::Failed);
    let mut heard = false;
    loop {
        while !buffer.is_empty() {
            let (start, end) = (buffer.start(), buffer.start() + buffer.len());
            let parsed = head.parse(buffer.raw(), start, end, copy.request.method);
            if !parsed.map_err(|_| failed())? {
                break;
            }
            buffer.consume(head.len);
            if !head.interim() {
                return if head.status == 101 {
                    Err(failed())
                } else {
                    Ok(())
                };
            }
        }
        buffer.compact();
        if buffer.space().is_empty() {
            return Err(failed());
        }
        let read = wire.read(timer, buffer.space()).await;
        let n = read.map_err(|error| Broken::of(&error, heard))?;
        if n == 0 {
            return Err(if heard { failed() } else { Broken::Silent });
        }
        heard = true;
        buffer.filled(n);
    }
}

/// Reads a body away; `false`: it was not worth reading to its end.
async fn skip(
    timer: &Timer,
    wire: &mut Wire,
    buffer: &mut Buffer,
    body: &mut Body,
    framing: Framing,
    most: u64,
) -> std::result::Result<bool, Broken> {
    let failed = || Broken::Failed(Result::Failed);
    let mut away = Vec::new();
    loop {
        while !buffer.is_empty() && !body.done() {
            let before = buffer.len();
            body.take_buffered(buffer, &mut away)
                .map_err(|_| failed())?;
            away.clear();
            if buffer.len() == before {
                break;
            }
        }
        if body.done() {
            return Ok(true);
        }
        if body.bytes > most || body.left().is_some_and(|left| left > most) {
            return Ok(false);
        }
        buffer.compact();
        let read = wire.read(timer, buffer.space()).await;
        match read.map_err(|error| Broken::of(&error, true))? {
            0 if framing == Framing::UntilClose => return Ok(false),
            0 => return Err(failed()),
            n => buffer.filled(n),
        }
    }
}
