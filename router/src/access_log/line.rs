//! One line of the log.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::{
    pipeline::Hidden,
    plugin::{Chain, Said},
};

/// A finished request.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// When it ended, Unix ms.
    pub(crate) at: i64,
    pub(crate) request_id: &'a [u8],
    /// The `traceparent` field, if it came with one.
    pub(crate) traceparent: Option<&'a [u8]>,
    /// Whose request it was.
    pub(crate) client: Logged<'a>,
    /// The connection's own other end, if that is another one.
    pub(crate) via: Option<&'a SocketAddr>,
    pub(crate) method: &'a [u8],
    pub(crate) host: &'a [u8],
    /// Without the query, which may hold secrets.
    pub(crate) path: &'a [u8],
    pub(crate) protocol: &'static str,
    /// The version of TLS that it came through.
    pub(crate) tls: Option<&'static str>,
    pub(crate) route: &'a [u8],
    pub(crate) service: &'a str,
    pub(crate) peer: Option<&'a str>,
    /// The peer's cluster, where requests may leave the router's own.
    pub(crate) cluster: Option<&'a str>,
    /// What the route's plugins said.
    pub(crate) plugins: Option<(&'a Chain, Said)>,
    pub(crate) status: u16,
    pub(crate) upstream_status: u16,
    pub(crate) took: Duration,
    pub(crate) upstream_took: Option<Duration>,
    pub(crate) retries: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Why it ended otherwise than with the whole answer.
    pub(crate) error: Option<&'static str>,
    /// The failure that a fallback's answer hides.
    pub(crate) hidden: Option<Hidden>,
}

/// A client as it is logged.
#[derive(Debug)]
pub(crate) enum Logged<'a> {
    /// It connected by itself, or the PROXY protocol says from where.
    Socket(&'a SocketAddr),
    /// A proxy says its address.
    Address(&'a [u8]),
}

/// The time as text; most of it changes once a second.
#[derive(Debug, Default)]
pub(crate) struct TimeText {
    of: Option<i64>,
    text: String,
}

impl TimeText {
    /// The beginning of a line of this Unix second: `{"time":"2026-01-02T03:04:05.`
    fn second(&mut self, second: i64) -> &str {
        if self.of != Some(second) {
            self.of = Some(second);
            self.text.clear();
            let time = jiff::Timestamp::from_second(second).unwrap_or_default();
            let _ = write!(
                self.text,
                "{}",
                time.strftime("{\"time\":\"%Y-%m-%dT%H:%M:%S.")
            );
        }
        &self.text
    }
}

impl Entry<'_> {
    /// Appends the line. Only what a client wrote freely can need escaping: ids have been checked, and
    /// names are made of letters, digits and a few marks.
    pub(crate) fn append(&self, out: &mut Vec<u8>, time: &mut TimeText) {
        out.extend_from_slice(time.second(self.at.div_euclid(1000)).as_bytes());
        digits3(out, self.at.rem_euclid(1000).unsigned_abs());
        out.extend_from_slice(b"Z\",\"request_id\":\"");
        out.extend_from_slice(self.request_id);
        if let Some(trace) = self.traceparent.and_then(trace_id) {
            out.extend_from_slice(b"\",\"trace_id\":\"");
            out.extend_from_slice(trace);
        }
        out.extend_from_slice(b"\",\"client\":\"");
        match self.client {
            Logged::Socket(client) => address(out, client),
            Logged::Address(client) => out.extend_from_slice(client),
        }
        if let Some(via) = self.via {
            out.extend_from_slice(b"\",\"via\":\"");
            address(out, via);
        }
        out.extend_from_slice(b"\",\"method\":\"");
        escape(out, self.method);
        out.extend_from_slice(b"\",\"host\":\"");
        escape(out, self.host);
        out.extend_from_slice(b"\",\"path\":\"");
        escape(out, self.path);
        out.extend_from_slice(b"\",\"protocol\":\"");
        out.extend_from_slice(self.protocol.as_bytes());
        if let Some(version) = self.tls {
            out.extend_from_slice(b"\",\"tls\":\"");
            out.extend_from_slice(version.as_bytes());
        }
        out.extend_from_slice(b"\",\"route\":\"");
        out.extend_from_slice(self.route);
        out.extend_from_slice(b"\",\"service\":\"");
        out.extend_from_slice(self.service.as_bytes());
        if let Some(peer) = self.peer {
            out.extend_from_slice(b"\",\"peer\":\"");
            out.extend_from_slice(peer.as_bytes());
        }
        if let Some(cluster) = self.cluster {
            out.extend_from_slice(b"\",\"cluster\":\"");
            out.extend_from_slice(cluster.as_bytes());
        }
        if let Some((chain, said)) = self.plugins {
            out.extend_from_slice(b"\",\"plugins\":\"");
            for (i, (head, verdict)) in said.each(chain).enumerate() {
                let parts: [&[u8]; 4] = [
                    if i > 0 { b" " } else { b"" },
                    head.name.as_str().as_bytes(),
                    if head.shadow { b"~" } else { b"=" },
                    verdict.as_bytes(),
                ];
                parts.iter().for_each(|part| out.extend_from_slice(part));
            }
        }
        if let Some(error) = self.error {
            out.extend_from_slice(b"\",\"error\":\"");
            out.extend_from_slice(error.as_bytes());
        }
        if let Some(hidden) = self.hidden {
            out.extend_from_slice(b"\",\"fallback\":\"");
            out.extend_from_slice(hidden.way.as_bytes());
            out.extend_from_slice(b"\",\"fallback_for\":\"");
            out.extend_from_slice(hidden.trigger.as_bytes());
            out.extend_from_slice(b"\",\"hidden_status\":");
            number(out, u64::from(hidden.status));
            out.extend_from_slice(b",\"status\":");
        } else {
            out.extend_from_slice(b"\",\"status\":");
        }
        number(out, u64::from(self.status));
        if self.upstream_status > 0 {
            out.extend_from_slice(b",\"upstream_status\":");
            number(out, u64::from(self.upstream_status));
        }
        out.extend_from_slice(b",\"duration_ms\":");
        millis(out, self.took);
        if let Some(took) = self.upstream_took {
            out.extend_from_slice(b",\"upstream_duration_ms\":");
            millis(out, took);
        }
        if self.retries == 0 && self.bytes_in == 0 {
            out.extend_from_slice(b",\"retries\":0,\"bytes_in\":0,\"bytes_out\":");
        } else {
            out.extend_from_slice(b",\"retries\":");
            number(out, self.retries);
            out.extend_from_slice(b",\"bytes_in\":");
            number(out, self.bytes_in);
            out.extend_from_slice(b",\"bytes_out\":");
        }
        number(out, self.bytes_out);
        out.extend_from_slice(b"}\n");
    }
}

fn number(out: &mut Vec<u8>, n: u64) {
    match u8::try_from(n) {
        Ok(digit @ 0..10) => out.push(b'0' + digit),
        _ => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
    }
}

/// Milliseconds with three decimals.
fn millis(out: &mut Vec<u8>, took: Duration) {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    number(out, us / 1000);
    out.push(b'.');
    digits3(out, us % 1000);
}

fn digits3(out: &mut Vec<u8>, n: u64) {
    let digit = |n: u64| b"0123456789"[usize::try_from(n % 10).unwrap_or(0)];
    out.extend_from_slice(&[digit(n / 100), digit(n / 10), digit(n)]);
}

fn address(out: &mut Vec<u8>, address: &SocketAddr) {
    use std::io::Write as _;
    if let SocketAddr::V4(v4) = address {
        for (i, part) in v4.ip().octets().into_iter().enumerate() {
            if i > 0 {
                out.push(b'.');
            }
            number(out, u64::from(part));
        }
        out.push(b':');
        number(out, u64::from(v4.port()));
    } else {
        let _ = write!(out, "{address}");
    }
}

/// The trace id of a well-formed `traceparent`.
fn trace_id(parent: &[u8]) -> Option<&[u8]> {
    let id = parent.get(3..35)?;
    let hex = |b: &u8| b.is_ascii_hexdigit();
    (parent.get(2) == Some(&b'-') && parent.get(35) == Some(&b'-') && id.iter().all(hex))
        .then_some(id)
}

/// Not 0: it cannot stand in a JSON string as it is.
const SPECIAL: [u8; 256] = {
    let mut special = [1; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        special[byte] = (byte == b'"' as usize || byte == b'\\' as usize) as u8;
        byte += 1;
    }
    special
};

/// Appends text as it stands within a JSON string. What is not ASCII was sent by a client, perhaps
/// in no known encoding: each such byte becomes one character.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    // Nearly everything is plain, and that is known soonest without a way out of the loop.
    let any = |any, b: &u8| any | SPECIAL[usize::from(*b)];
    if text.iter().fold(0, any) == 0 {
        out.extend_from_slice(text);
        return;
    }
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| SPECIAL[usize::from(*b)] != 0) {
        out.extend_from_slice(&rest[..at]);
        let hex = |n: u8| b"0123456789abcdef"[usize::from(n & 15)];
        let byte = rest[at];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)]),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
