//! Remember: an answer that passes by is kept, if the route's fallback may need it. Nothing waits for
//! that: the bytes are copied as they move.

use std::{sync::Arc, time::Instant};

use crate::{
    clock,
    exchange::Exchange,
    http1::{render, request::Method},
    pipeline::{
        Connection,
        plan::{Plan, Read},
    },
    plugin::{
        Token,
        asked::Asked,
        fallback::memory::{self, Kept, Memory},
    },
    worker::Worker,
};

/// An answer that is being kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    memory: Arc<Memory>,
    key: Box<[u8]>,
    status: u16,
    lines: Vec<u8>,
}

/// Begins to keep the answer whose head has been read; none: it is not to be kept.
pub(crate) fn begin(
    worker: &Worker,
    conn: &Connection,
    x: &Exchange,
    plan: &Plan<'_>,
) -> Option<Box<Keeping>> {
    if plan.decision.apart {
        return None;
    }
    let memory = plan.decision.fallback?.bound.policy.memory.as_ref()?;
    let raw = x.upstream.raw();
    if x.request.method != Method::Get || !memory.takes(raw, &x.response) {
        return None;
    }
    let token = Token::default();
    let asked = Read::of(x).asked(conn, worker, &token);
    if asked.header("cache-control").is_some_and(memory::forbids) {
        return None;
    }
    let key = key(memory, conn, &asked)?;
    if memory.is_young(&key, clock::nanos(Instant::now())) {
        return None;
    }
    let mut lines = Vec::with_capacity(512);
    render::kept(&mut lines, raw, &x.response, plan.decision.reply_gone);
    Some(Box::new(Keeping {
        memory: Arc::clone(memory),
        key: key.into(),
        status: x.response.status,
        lines,
    }))
}

impl Keeping {
    /// The most bytes of the body that are kept.
    pub(crate) fn limit(&self) -> usize {
        self.memory.size()
    }

    /// The whole answer has passed; none: its body was too large.
    pub(crate) fn end(self, body: Option<Vec<u8>>) {
        let Some(body) = body else { return };
        let kept = Kept {
            status: self.status,
            lines: self.lines,
            body,
            at: clock::nanos(Instant::now()),
        };
        self.memory.put(self.key, kept);
    }
}

/// What was last answered well to the request.
pub(crate) fn last_good(
    worker: &Worker,
    conn: &Connection,
    x: &Exchange,
    memory: &Memory,
) -> Option<(Arc<Kept>, u64)> {
    if !matches!(x.request.method, Method::Get | Method::Head) {
        return None;
    }
    let token = Token::default();
    let key = key(memory, conn, &Read::of(x).asked(conn, worker, &token))?;
    let now = clock::nanos(Instant::now());
    let kept = memory.get(&key, now)?;
    let age = now.saturating_sub(kept.at) / 1_000_000_000;
    Some((kept, age))
}

fn key(memory: &Memory, conn: &Connection, asked: &Asked<'_>) -> Option<Vec<u8>> {
    let facts = conn.wire.tls();
    let certificate = facts.and_then(|facts| facts.client_cert());
    let mut key = Vec::with_capacity(256);
    memory
        .key(asked, certificate.unwrap_or_default(), &mut key)
        .then_some(key)
}
