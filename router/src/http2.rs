//! HTTP/2, by the `h2` library, which does frames, header compression and windows. This side of it
//! makes **each stream a virtual HTTP/1.1 connection** ([`crate::wire::Duplex`]), so that there is
//! one pipeline: routing, retries, health, limits, metrics and logs know nothing of streams. See
//! `docs/adr/0004-http2-streams-as-connections.md`.
//!
//! ```text
//!   client ── frames ── carrier.rs (counts by meter.rs) ── h2 ── server.rs
//!                                                                 │ a stream
//!                                              inbound.rs: request.rs → HTTP/1.1 bytes ─► pipeline
//!                                                          answer.rs  ◄─ HTTP/1.1 bytes ◄─ pipeline
//! ```
//!
//! To peers that are asked in HTTP/2 it is the other way round: [`outbound`] is a connection that the
//! pipeline writes an HTTP/1.1 request to, on a stream of a connection that [`links`] shares, within
//! TLS or without. A WebSocket's opening is translated by [`handshake`].
//!
//! Bodies pass in both directions through [`source`] (a stream's DATA as HTTP/1.1 bytes) and
//! [`sink`] (HTTP/1.1 bytes as DATA). Neither holds more than the stream's window.

use std::{io, time::Duration};

mod answer;
mod carrier;
mod handshake;
mod inbound;
pub(crate) mod links;
mod meter;
mod outbound;
mod request;
mod server;
mod sink;
mod source;

pub(crate) use outbound::{Asked, Outbound};
pub(crate) use server::serve;

use crate::pipeline::{Connection, refuse};

/// What a client that knows that HTTP/2 is spoken here begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether what is no HTTP/1 request is the beginning of HTTP/2.
pub(crate) fn is_preface(data: &[u8]) -> bool {
    // The HTTP/1 parser gives up at the version at the earliest.
    data.len() > b"PRI * HTTP/".len() && (PREFACE.starts_with(data) || data.starts_with(PREFACE))
}

/// How long a client that cannot be served may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Tells a client that there is no room for it: that no stream of its own was looked at (GOAWAY), so
/// that it may ask elsewhere.
pub(crate) async fn decline(mut conn: Connection) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ENHANCE_YOUR_CALM: u8 = 11;
    const GOAWAY: [u8; 17] = [
        0,
        0,
        8,
        7,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        ENHANCE_YOUR_CALM,
    ];
    conn.timer.set(LAST_WORDS);
    let said = [&SETTINGS[..], &GOAWAY].concat();
    if conn.wire.write_in_time(&conn.timer, &said).await.is_ok() {
        refuse::linger(&mut conn).await;
    }
}

/// An error of the library as one of a connection.
fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
