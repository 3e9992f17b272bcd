//! An open loop: requests fall due at a fixed rate, whatever the answers do, and latency counts from
//! when a request was due. A process of its own on one core, which sleeps to the microsecond:
//! `cardea-bench paced ADDRESS RATE SECONDS` prints what it saw as JSON, and `cardea-bench turns RATE
//! CONNECTIONS MILLISECONDS ROUNDS ADDRESS…` what it saw in turns of a fraction of a second at each.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use serde::{Deserialize, Serialize};

use super::stand::{CONNECTIONS, bound};

/// What it saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// p50, p99, p99.9 in µs.
    pub(crate) latency_us: [f64; 3],
}

/// Runs it on core 1.
pub(super) fn load(address: SocketAddr, rate: f64, seconds: u64) -> Seen {
    child(&[
        "paced",
        &address.to_string(),
        &rate.to_string(),
        &seconds.to_string(),
    ])
}

/// This program again, on core 1, as one of its loads.
pub(super) fn child<T: serde::de::DeserializeOwned>(args: &[&str]) -> T {
    let me = std::env::current_exe().expect("the path of this program");
    let out = bound(1).arg(me).args(args).output().expect("a load");
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr)))
}

/// What a line has read.
enum Answer {
    Partial,
    /// With its status.
    Whole(Option<u16>),
    Broken,
}

struct Line {
    stream: TcpStream,
    due: Option<Instant>,
    got: Vec<u8>,
}

/// The process's own side.
pub(crate) fn main(address: SocketAddr, rate: f64, span: Duration) -> Seen {
    run(address, &mut open(address, CONNECTIONS), rate, span)
}

/// The own side of one that turns from address to address, in another order each round: what it saw at
/// each of them, the first round left out. Connections last.
pub(crate) fn turns(
    addresses: &[SocketAddr],
    rate: f64,
    connections: usize,
    span: Duration,
    rounds: usize,
) -> Vec<Vec<Seen>> {
    let mut lines: Vec<Vec<Line>> = addresses
        .iter()
        .map(|address| open(*address, connections))
        .collect();
    let mut all = vec![Vec::new(); addresses.len()];
    for round in 0..=rounds {
        for turn in 0..addresses.len() {
            let at = (turn + round) % addresses.len();
            let seen = run(addresses[at], &mut lines[at], rate, span);
            if round > 0 {
                all[at].push(seen);
            }
        }
    }
    all
}

fn open(address: SocketAddr, connections: usize) -> Vec<Line> {
    (0..connections).map(|_| Line::open(address)).collect()
}

fn run(address: SocketAddr, lines: &mut [Line], rate: f64, span: Duration) -> Seen {
    // Without it the kernel lets timers of ordinary threads be 50 µs late.
    nix::sys::prctl::set_timerslack(1).expect("a timer slack");
    let mut free: VecDeque<usize> = (0..lines.len()).collect();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut latencies: Vec<u32> = Vec::new();
    let (begun, mut next, mut failed) = (Instant::now(), 0u64, 0u64);
    let total = (rate * span.as_secs_f64()) as u64;
    let due_at = |n: u64| begun + Duration::from_secs_f64(n as f64 / rate);
    while next < total || free.len() < lines.len() || !waiting.is_empty() {
        let now = Instant::now();
        assert!(now < begun + span * 10, "the answers do not come");
        while next < total && due_at(next) <= now {
            waiting.push_back(due_at(next));
            next += 1;
        }
        while let (false, Some(at)) = (waiting.is_empty(), free.front().copied()) {
            free.pop_front();
            lines[at].due = waiting.pop_front();
            if !lines[at].send() {
                failed += 1;
                lines[at] = Line::open(address);
                free.push_back(at);
            }
        }
        for at in ready(lines, (next < total).then(|| due_at(next))) {
            let Some(due) = lines[at].due else { continue };
            match lines[at].receive() {
                Answer::Partial => continue,
                Answer::Whole(Some(200)) => {
                    latencies.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                Answer::Whole(_) | Answer::Broken => {
                    failed += 1;
                    lines[at] = Line::open(address);
                }
            }
            lines[at].due = None;
            free.push_back(at);
        }
    }
    latencies.sort_unstable();
    let at = |permille: usize| {
        let index = (latencies.len() * permille / 1000).min(latencies.len().saturating_sub(1));
        latencies.get(index).copied().map_or(f64::NAN, f64::from)
    };
    Seen {
        sent: total,
        failed,
        latency_us: [500, 990, 999].map(at),
    }
}

/// Sleeps until a line has something to read or the time has come.
fn ready(lines: &[Line], until: Option<Instant>) -> Vec<usize> {
    let active: Vec<usize> = (0..lines.len())
        .filter(|at| lines[*at].due.is_some())
        .collect();
    let mut polled: Vec<PollFd<'_>> = active
        .iter()
        .map(|at| PollFd::new(lines[*at].stream.as_fd(), PollFlags::POLLIN))
        .collect();
    let left = until.map_or(Duration::from_secs(1), |until| {
        until.saturating_duration_since(Instant::now())
    });
    if ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None).is_err() {
        return Vec::new();
    }
    let found = active.iter().zip(&polled);
    found
        .filter(|(_, polled)| polled.revents().is_some_and(|events| !events.is_empty()))
        .map(|(at, _)| *at)
        .collect()
}

impl Line {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("an open socket");
        stream.set_nonblocking(true).expect("an open socket");
        Self {
            stream,
            due: None,
            got: Vec::with_capacity(4096),
        }
    }

    fn send(&mut self) -> bool {
        const REQUEST: &[u8] = b"GET /api/v1/x?page=2 HTTP/1.1\r\nHost: h0.svc.local\r\n\
            User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Safari/537.36\r\n\
            Accept: application/json, text/plain, */*\r\nAccept-Language: en-GB,en;q=0.9\r\n\
            Accept-Encoding: gzip, deflate, br\r\nReferer: http://www.svc.local/items\r\n\
            Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";
        matches!(self.stream.write(REQUEST), Ok(n) if n == REQUEST.len())
    }

    fn receive(&mut self) -> Answer {
        let mut space = [0; 4096];
        loop {
            match self.stream.read(&mut space) {
                Ok(0) => return Answer::Broken,
                Ok(n) => self.got.extend_from_slice(&space[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Answer::Partial,
                Err(_) => return Answer::Broken,
            }
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut fields);
            let Ok(httparse::Status::Complete(used)) = head.parse(&self.got) else {
                continue;
            };
            let length = head
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case("content-length"))
                .and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
            let Some(length) = length else {
                return Answer::Broken;
            };
            if self.got.len() >= used + length {
                let status = head.code;
                self.got.clear();
                return Answer::Whole(status);
            }
        }
    }
}
