//! Prepare: who asks and under which id, and the request as it goes upstream.

use crate::{
    config::BelieveIds,
    exchange::Exchange,
    http1::{forwarded::Believed, render, request::Framing},
    pipeline::{Connection, refuse},
    plugin::Decision,
    refusal,
    switches::{Feature, on},
    worker::Worker,
};

/// Takes what is said about the request's way, if it is a trusted proxy that says it.
pub(super) fn believe(worker: &Worker, conn: &Connection, x: &mut Exchange) {
    let config = &worker.config;
    x.believed = if conn.client.trusted {
        Believed::read(&x.request, x.inbound.raw(), &config.trusted_proxies)
    } else {
        Believed::default()
    };
    if !conn.client.trusted && config.believe_ids == BelieveIds::Trusted {
        x.request.forget_ids();
    }
}

/// Gives the request its id: the caller's if it is sane.
pub(super) fn name_request(worker: &Worker, x: &mut Exchange) {
    match x.request.request_id {
        Some(id) => x.id.keep(id.of(x.inbound.raw())),
        None if on(Feature::RequestId) => x.id.generate(&worker.ids),
        None => {}
    }
}

/// Makes the request as it goes upstream: its head, and what has arrived of its body.
pub(super) fn prepare(
    worker: &Worker,
    conn: &Connection,
    x: &mut Exchange,
    decision: &Decision<'_>,
) -> Result<(), refusal::Refusal> {
    if let (Framing::Length(length), Some(limit)) = (x.request.framing, worker.config.limits.body)
        && length > limit
    {
        return Err(refusal::BODY_TOO_LARGE);
    }
    if let Some(limit) = decision.body {
        x.upload.limit_to(limit);
    }
    write_head(worker, conn, x, decision);
    x.upload
        .take_buffered(&mut x.inbound, &mut x.outbound)
        .map_err(|broken| refuse::body_refusal(&broken))
}

/// Writes the head of the request as it goes upstream.
pub(super) fn write_head(
    worker: &Worker,
    conn: &Connection,
    x: &mut Exchange,
    decision: &Decision<'_>,
) {
    let mut out = std::mem::take(&mut x.outbound);
    out.clear();
    x.hops = false;
    render_head(&mut out, worker, conn, x, decision.request_gone, false);
    x.outbound = out;
}

/// Appends the head of the request as plugins have left it; `at_once`: its body follows at once.
pub(super) fn render_head(
    out: &mut Vec<u8>,
    worker: &Worker,
    conn: &Connection,
    x: &Exchange,
    gone: [&[Box<[u8]>]; 2],
    at_once: bool,
) {
    let add = render::Additions {
        client: conn.client.text.as_bytes(),
        believed: conn.client.trusted.then_some(&x.believed),
        scheme: conn.scheme,
        request_id: x.id.as_bytes(),
        client_cert: conn.wire.tls().and_then(|facts| facts.client_cert()),
        drop_underscores: worker.config.drop_underscores,
        path: &x.scratch.path,
        host: &x.scratch.host,
        gone,
        lines: &x.scratch.request,
        at_once,
    };
    render::request(out, x.inbound.raw(), &x.request, add);
}
