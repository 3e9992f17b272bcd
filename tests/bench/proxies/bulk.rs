//! Bodies one after another on a few connections, as cheap for this side as can be: what is read is
//! thrown away within the kernel. A process of its own:
//! `cardea-bench bulk ADDRESS down|up BYTES SECONDS` prints what it saw as JSON.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use cardea_tests::bulk::{read_head, send_bytes, skip};
use serde::{Deserialize, Serialize};

/// Connections at a time.
const LINES: usize = 32;

/// What it saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) failed: u64,
}

/// The process's own side.
pub(crate) fn main(address: SocketAddr, up: bool, size: usize, span: Duration) -> Seen {
    let begun = Instant::now();
    let end = begun + span;
    let lines: Vec<_> = (0..LINES)
        .map(|_| thread::spawn(move || line(address, up, size, end)))
        .collect();
    let mut seen = Seen::default();
    for line in lines {
        let (bodies, failed) = line.join().expect("a line does not panic");
        seen.bytes += bodies * size as u64;
        seen.failed += failed;
    }
    seen.seconds = begun.elapsed().as_secs_f64();
    seen
}

fn line(address: SocketAddr, up: bool, size: usize, end: Instant) -> (u64, u64) {
    let (mut bodies, mut failed) = (0, 0);
    let mut stream = open(address);
    while Instant::now() < end {
        if one(&mut stream, up, size).is_ok() {
            bodies += 1;
        } else {
            failed += 1;
            stream = open(address);
        }
    }
    (bodies, failed)
}

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("an open socket");
    stream
}

fn one(stream: &mut TcpStream, up: bool, size: usize) -> std::io::Result<()> {
    let host = "Host: h0.svc.local\r\nAccept: */*\r\n";
    // Clients send a head as one piece; `write!` alone would send its parts one by one.
    let answered = if up {
        let head = format!("POST /api/v1/bytes/2 HTTP/1.1\r\n{host}Content-Length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        send_bytes(stream, size)?;
        2
    } else {
        let head = format!("GET /api/v1/bytes/{size} HTTP/1.1\r\n{host}\r\n");
        stream.write_all(head.as_bytes())?;
        size
    };
    let (head, more) = read_head(stream)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(head));
    }
    skip(stream, answered - more)
}
