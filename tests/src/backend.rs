//! A service instance for tests: echoes who it is and which request it saw, can be told to misbehave,
//! and records each POST before it answers.
//!
//! Runs inside a test ([`Backend`]) or as a process of its own (`cardea-test-backend`), for tests that
//! kill it. Paths below `/__` are for the test: `/__mode?set=hang`, `/__stats`; `/healthz` is for
//! probes; `/slow?ms=N`, `/big?bytes=N` and `/chunked?bytes=N` answer like that; anything else answers
//! `NAME ID METHOD`, where ID is the request's `x-test-id`.

mod http2;
mod serve;
mod websocket;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use serve::serve;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As it should.
    Ok,
    /// Reads requests and never answers.
    Hang,
    /// Answers each request with this status.
    Status(u16),
    /// Resets the connection once it has a request.
    Reset,
    /// Answers after so many milliseconds.
    Slow(u64),
    /// Of a thousand requests answers so many with 500, evenly spaced.
    Failing(u64),
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Hang => f.write_str("hang"),
            Self::Status(status) => write!(f, "status-{status}"),
            Self::Reset => f.write_str("reset"),
            Self::Slow(ms) => write!(f, "slow-{ms}"),
            Self::Failing(share) => write!(f, "failing-{share}"),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
        match text.split_once('-') {
            None if text == "ok" => Ok(Self::Ok),
            None if text == "hang" => Ok(Self::Hang),
            None if text == "reset" => Ok(Self::Reset),
            Some(("status", status)) => Ok(Self::Status(
                status
                    .parse()
                    .map_err(|_| format!("`{status}` is no status"))?,
            )),
            Some(("slow", ms)) => Ok(Self::Slow(number(ms)?)),
            Some(("failing", share)) => Ok(Self::Failing(number(share)?)),
            _ => Err(format!("`{text}` is no mode")),
        }
    }
}

/// What it has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests, those below `/__` and to `/healthz` left out.
    pub requests: u64,
    /// Of them, POSTs.
    pub posts: u64,
    /// Requests to `/healthz`.
    pub probes: u64,
    /// Open WebSockets.
    pub websockets: u64,
    /// Milliseconds since the last of `requests` came; none: there was none.
    pub idle_ms: Option<u64>,
}

/// Shared by all connections of one backend.
#[derive(Debug)]
pub struct State {
    name: String,
    mode: Mutex<Mode>,
    ready_at: Instant,
    record: Option<File>,
    requests: AtomicU64,
    posts: AtomicU64,
    probes: AtomicU64,
    websockets: AtomicU64,
    begun: Instant,
    first_us: AtomicU64,
    last_us: AtomicU64,
}

impl State {
    /// A backend called `name`, with a file for POSTs, unhealthy for `warm_up`.
    pub fn new(name: &str, record: Option<&Path>, warm_up: Duration) -> Self {
        let record = record.map(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        });
        let begun = Instant::now();
        Self {
            name: name.to_owned(),
            mode: Mutex::new(Mode::Ok),
            ready_at: begun + warm_up,
            record,
            requests: AtomicU64::new(0),
            posts: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            websockets: AtomicU64::new(0),
            begun,
            first_us: AtomicU64::new(0),
            last_us: AtomicU64::new(0),
        }
    }

    /// Whether the request that was counted last is one of so many of a thousand that fail.
    fn is_to_fail(&self, per_thousand: u64) -> bool {
        let nth = self.requests.load(Ordering::SeqCst);
        nth * per_thousand / 1000 > nth.saturating_sub(1) * per_thousand / 1000
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it behaves now.
    pub fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    /// Makes it behave like that from the next request on.
    pub fn set_mode(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// What it has seen.
    pub fn stats(&self) -> Stats {
        let requests = self.requests.load(Ordering::SeqCst);
        let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap();
        let last = self.last_us.load(Ordering::SeqCst);
        Stats {
            requests,
            posts: self.posts.load(Ordering::SeqCst),
            probes: self.probes.load(Ordering::SeqCst),
            websockets: self.websockets.load(Ordering::SeqCst),
            idle_ms: (requests > 0).then(|| now.saturating_sub(last) / 1000),
        }
    }

    /// When the first and the last request came.
    pub fn seen(&self) -> Option<(Instant, Instant)> {
        (self.requests.load(Ordering::SeqCst) > 0).then(|| {
            let at =
                |cell: &AtomicU64| self.begun + Duration::from_micros(cell.load(Ordering::SeqCst));
            (at(&self.first_us), at(&self.last_us))
        })
    }

    fn count(&self, method: &str, id: &str) {
        let now = u64::try_from(self.begun.elapsed().as_micros())
            .unwrap()
            .max(1);
        let _ = self
            .first_us
            .compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
        self.last_us.fetch_max(now, Ordering::SeqCst);
        self.requests.fetch_add(1, Ordering::SeqCst);
        if method == "POST" {
            self.posts.fetch_add(1, Ordering::SeqCst);
            if let Some(mut file) = self.record.as_ref() {
                // One append of one line: whole even when the process is killed right after.
                file.write_all(format!("{id}\n").as_bytes())
                    .expect("the record of a POST");
            }
        }
    }
}

/// A backend inside the test; it ends when dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    end: CancellationToken,
    record: Option<PathBuf>,
}

impl Backend {
    /// Starts one.
    pub async fn start(name: &str) -> Self {
        Self::with_record(name, None).await
    }

    /// Starts one that records POSTs in `record`.
    pub async fn with_record(name: &str, record: Option<&Path>) -> Self {
        let (listener, backend) = Self::bind(name, record).await;
        let (state, end) = (backend.state.clone(), backend.end.clone());
        tokio::spawn(serve(listener, state, end));
        backend
    }

    /// Starts one that speaks nothing but HTTP/2, within TLS or without. It answers probes and echoes;
    /// of the modes it knows statuses.
    pub async fn speaking_http2(name: &str, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let (listener, backend) = Self::bind(name, None).await;
        let (state, end) = (backend.state.clone(), backend.end.clone());
        tokio::spawn(http2::serve(listener, tls, state, end));
        backend
    }

    async fn bind(name: &str, record: Option<&Path>) -> (TcpListener, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let backend = Self {
            address: listener.local_addr().expect("its address"),
            state: Arc::new(State::new(name, record, Duration::ZERO)),
            end: CancellationToken::new(),
            record: record.map(Path::to_path_buf),
        };
        (listener, backend)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where it records POSTs.
    pub fn record(&self) -> Option<&Path> {
        self.record.as_deref()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
