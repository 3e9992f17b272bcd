//! Read: one request head, in as few reads as it arrives in.

use crate::{
    exchange::Exchange,
    http1::request::too_large,
    pipeline::{Connection, plan},
    refusal::{self, Refusal},
    worker::Worker,
};

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum End {
    /// The client closed its side, or there is nobody to answer.
    Gone,
    /// What came is no request that can be served.
    Refused(Refusal),
}

/// Reads and parses one head into the exchange; what follows it stays in the buffer.
pub(crate) async fn head(
    worker: &Worker,
    conn: &mut Connection,
    x: &mut Exchange,
) -> Result<(), End> {
    x.request.forget();
    let limit = worker.config.limits.head;
    let mut look = !x.inbound.is_empty();
    let mut waited = false;
    loop {
        // A head can be complete, or clearly wrong, only when another line is.
        if look {
            let start = x.inbound.start();
            let end = start + x.inbound.len();
            let told = |host: &[u8]| plan::seek(worker, host, &mut x.sought);
            let raw = x.inbound.raw();
            match x.request.parse_telling(raw, start, end, told) {
                Ok(true) if x.request.len > limit => return Err(refused_for_size(x, limit)),
                Ok(true) => {
                    x.inbound.consume(x.request.len);
                    return Ok(());
                }
                Ok(false) => {}
                Err(refusal) => return Err(refused(x, refusal)),
            }
        }
        let full = x.inbound.len() >= limit || !Exchange::make_room(&mut x.inbound);
        if full {
            return Err(refused_for_size(x, limit));
        }
        if !x.inbound.is_empty() && !std::mem::replace(&mut waited, true) {
            conn.timer.set(worker.config.limits.header_timeout);
        }
        let before = x.inbound.len();
        match conn.wire.read(&conn.timer, x.inbound.space()).await {
            Ok(0) => return Err(End::Gone),
            Ok(n) => x.inbound.filled(n),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut && before > 0 => {
                return Err(refused(x, refusal::HEAD_TIMEOUT));
            }
            Err(_) => return Err(End::Gone),
        }
        look = before == 0 || memchr::memchr(b'\n', &x.inbound.data()[before..]).is_some();
    }
}

/// However much of it has come: what counts is what does not fit.
fn refused_for_size(x: &mut Exchange, limit: usize) -> End {
    let data = x.inbound.data();
    let refusal = too_large(data.get(..limit).unwrap_or(data));
    refused(x, refusal)
}

/// Nothing of a refused head is to be believed.
fn refused(x: &mut Exchange, refusal: Refusal) -> End {
    x.request.forget();
    End::Refused(refusal)
}
