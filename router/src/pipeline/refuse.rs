//! Answers of the router's own: small JSON bodies with the request's id, and nothing of the inside.

use std::time::Duration;

use crate::{
    exchange::Exchange,
    grpc,
    http1::{
        body::Broken,
        render::{self, Delivery, date, line},
        request::Method,
    },
    pipeline::{self, After, CLIENT_SLOW, Connection, observe::Seen},
    plugin::Own,
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
        Broken::Slow | Broken::Idle(_) => refusal::BODY_TOO_SLOW,
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
    own(worker, conn, x, seen, &Own::Refusal(refusal)).await
}

/// Answers a request that was understood, as a plugin says or because it is refused. What a plugin
/// adds to the answer's head is in the scratch.
pub(crate) async fn own(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    seen: &mut Seen,
    own: &Own<'_>,
) -> After {
    let broken = matches!(own, Own::Refusal(refusal) if matches!(refusal.status, 400 | 408 | 413));
    let keep = keeps(worker, conn, x, broken);
    send(worker, conn, x, seen, own, keep).await;
    if keep && !matches!(seen.error, Some("client_gone" | CLIENT_SLOW)) {
        return After::Keep;
    }
    linger(conn).await;
    After::Close
}

/// Whether the connection can go on behind an answer of the router's own; `broken`: the request's
/// end is not known.
pub(crate) fn keeps(worker: &Worker, conn: &Connection, x: &mut Exchange, broken: bool) -> bool {
    let mut complete = x.upload.done();
    if !broken && !complete && x.outbound.is_empty() {
        // Refused before the request was taken over; a body that has arrived as a whole is skipped.
        complete = x
            .upload
            .take_buffered(&mut x.inbound, &mut x.outbound)
            .is_ok()
            && x.upload.done();
    }
    !broken && complete && x.request.keeps_alive() && conn.may_go_on(worker) && !worker.stopping()
}

/// Answers what cannot be read as a request; nothing after it is believed.
pub(crate) async fn unreadable(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    seen: &mut Seen,
    refusal: Refusal,
) -> After {
    send(worker, conn, x, seen, &Own::Refusal(refusal), false).await;
    linger(conn).await;
    After::Close
}

async fn send(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    seen: &mut Seen,
    own: &Own<'_>,
    keep: bool,
) {
    let delivery = Delivery {
        chunks: false,
        close: !keep,
        say_keep_alive: keep && !x.request.http11,
    };
    let refused = match own {
        Own::Refusal(refusal) => Some(*refusal),
        Own::Answer(_) => None,
    };
    let id = x.id.as_bytes();
    let content = match own {
        Own::Refusal(refusal) => {
            seen.error = seen.error.or(Some(refusal.code));
            Content {
                status: refusal.status,
                media_type: b"application/json",
                body: [
                    b"{\"error\":{\"code\":\"",
                    refusal.code.as_bytes(),
                    b"\",\"message\":\"",
                    refusal.message.as_bytes(),
                    b"\",\"request_id\":\"",
                    id,
                    b"\"}}\n",
                ],
            }
        }
        Own::Answer(answer) => Content {
            status: answer.status,
            media_type: answer.content_type.as_bytes(),
            body: [&answer.body, b"", b"", b"", b"", b"", b""],
        },
    };
    seen.status = content.status;
    x.reply.clear();
    let lines = &x.scratch.reply;
    let content_type = x.request.field(x.inbound.raw(), "content-type");
    match refused {
        Some(refusal) if content_type.is_some_and(grpc::is_grpc) => {
            grpc_answer(&mut x.reply, refusal, delivery, id, lines);
        }
        _ => head_and_body(
            &mut x.reply,
            &content,
            delivery,
            id,
            lines,
            x.request.method,
        ),
    }
    if let Err(error) = pipeline::write(worker, conn, &x.reply).await {
        seen.error = Some(pipeline::unwritten(worker, &error));
    }
}

/// What is answered.
#[derive(Debug)]
struct Content<'a> {
    status: u16,
    /// Empty: there is nothing that has a type.
    media_type: &'a [u8],
    body: [&'a [u8]; 7],
}

fn head_and_body(
    out: &mut Vec<u8>,
    content: &Content<'_>,
    delivery: Delivery,
    id: &[u8],
    lines: &[u8],
    method: Method,
) {
    let length: usize = content.body.iter().map(|part| part.len()).sum();
    status_line(out, content.status);
    if !content.media_type.is_empty() {
        line(out, b"Content-Type", content.media_type);
    }
    date(out);
    // A plugin may know better.
    if content.status == 503 && !lines.starts_with(b"Retry-After:") {
        line(out, b"Retry-After", b"1");
    }
    if !matches!(content.status, 204 | 304) {
        line(
            out,
            b"Content-Length",
            itoa::Buffer::new().format(length).as_bytes(),
        );
    }
    render::connection(out, delivery);
    line(out, b"X-Request-Id", id);
    out.extend_from_slice(lines);
    out.extend_from_slice(b"\r\n");
    if method != Method::Head && !matches!(content.status, 204 | 304) {
        content
            .body
            .iter()
            .for_each(|part| out.extend_from_slice(part));
    }
}

/// Appends the first line of an answer of the router's own.
pub(crate) fn status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The same for a caller of gRPC: its statuses come with 200, and with nothing behind the head.
fn grpc_answer(out: &mut Vec<u8>, refusal: Refusal, delivery: Delivery, id: &[u8], lines: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n");
    date(out);
    let status = grpc::status(&refusal);
    line(
        out,
        b"Grpc-Status",
        itoa::Buffer::new().format(status).as_bytes(),
    );
    // Messages are plain text without a percent sign: nothing of them needs to be escaped.
    line(out, b"Grpc-Message", refusal.message.as_bytes());
    line(out, b"Content-Length", b"0");
    render::connection(out, delivery);
    line(out, b"X-Request-Id", id);
    out.extend_from_slice(lines);
    out.extend_from_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Closes the sending side, and waits for the client to notice.
pub(crate) async fn linger(conn: &mut Connection) {
    // Rare, and its state would make every connection's larger.
    Box::pin(skip_rest(conn)).await;
}

async fn skip_rest(conn: &mut Connection) {
    if conn.wire.shutdown().await.is_err() {
        return;
    }
    conn.timer.set(LINGER);
    let mut skipped = [0; 4096];
    let mut left = LINGER_BYTES;
    while let Ok(n) = conn.wire.read(&conn.timer, &mut skipped).await {
        left = left.saturating_sub(n);
        if n == 0 || left == 0 {
            return;
        }
    }
}
