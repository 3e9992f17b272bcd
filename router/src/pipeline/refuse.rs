//! Answers of the router's own: small JSON bodies with the request's id, and nothing of the inside.

use std::time::Duration;

use crate::{
    exchange::Exchange,
    http1::{
        body::Broken,
        render::{self, Delivery, date, line},
        request::Method,
    },
    pipeline::{After, Connection, observe::Seen},
    refusal::{self, Refusal},
    worker::Worker,
};

/// How long, and for how many bytes, a client that is still sending is listened to after its answer;
/// closing at once would reset the connection before it has read it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Why a request's body cannot be taken.
pub(crate) fn body_refusal(broken: &Broken) -> Refusal {
    match broken {
        Broken::TooLarge => refusal::BODY_TOO_LARGE,
        _ => Refusal::bad("the request body is malformed"),
    }
}

/// Answers a request that was understood.
pub(crate) async fn answer(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    seen: &mut Seen,
    refusal: Refusal,
) -> After {
    let broken = matches!(refusal.status, 400 | 408 | 413);
    let mut complete = x.upload.done();
    if !broken && !complete && x.outbound.is_empty() {
        // Refused before the request was taken over; a body that has arrived as a whole is skipped.
        complete = x
            .upload
            .take_buffered(&mut x.inbound, &mut x.outbound)
            .is_ok()
            && x.upload.done();
    }
    let keep = !broken && complete && x.request.keeps_alive() && !worker.stopping();
    send(worker, conn, x, seen, refusal, keep).await;
    if keep && seen.error != Some("client_gone") {
        return After::Keep;
    }
    linger(conn).await;
    After::Close
}

/// Answers what cannot be read as a request; nothing after it is believed.
pub(crate) async fn unreadable(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    seen: &mut Seen,
    refusal: Refusal,
) -> After {
    send(worker, conn, x, seen, refusal, false).await;
    linger(conn).await;
    After::Close
}

async fn send(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    seen: &mut Seen,
    refusal: Refusal,
    keep: bool,
) {
    seen.status = refusal.status;
    seen.error = seen.error.or(Some(refusal.code));
    let delivery = Delivery {
        chunks: false,
        close: !keep,
        say_keep_alive: keep && !x.request.http11,
    };
    x.reply.clear();
    head_and_body(
        &mut x.reply,
        refusal,
        delivery,
        x.id.as_bytes(),
        x.request.method,
    );
    conn.timer.set(worker.config.limits.idle_timeout);
    let (_, written) = conn.wire.write_all(&conn.timer, &x.reply).await;
    if written.is_err() {
        seen.error = Some("client_gone");
    }
}

fn head_and_body(
    out: &mut Vec<u8>,
    refusal: Refusal,
    delivery: Delivery,
    id: &[u8],
    method: Method,
) {
    let parts: [&[u8]; 7] = [
        b"{\"error\":{\"code\":\"",
        refusal.code.as_bytes(),
        b"\",\"message\":\"",
        refusal.message.as_bytes(),
        b"\",\"request_id\":\"",
        id,
        b"\"}}\n",
    ];
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(refusal.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(refusal.status).as_bytes());
    out.extend_from_slice(b"\r\nContent-Type: application/json\r\n");
    date(out);
    if refusal.status == 503 {
        line(out, b"Retry-After", b"1");
    }
    line(
        out,
        b"Content-Length",
        itoa::Buffer::new().format(length).as_bytes(),
    );
    render::connection(out, delivery);
    line(out, b"X-Request-Id", id);
    out.extend_from_slice(b"\r\n");
    if method != Method::Head {
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// Closes the sending side, and waits for the client to notice.
pub(crate) async fn linger(conn: &mut Connection) {
    if conn.wire.shutdown().await.is_err() {
        return;
    }
    conn.timer.set(LINGER);
    // Small on purpose: it is part of every connection's state.
    let mut skipped = [0; 256];
    let mut left = LINGER_BYTES;
    while let Ok(n) = conn.wire.read(&conn.timer, &mut skipped).await {
        left = left.saturating_sub(n);
        if n == 0 || left == 0 {
            return;
        }
    }
}
