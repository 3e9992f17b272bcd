//! `cardea demo-service`: a small HTTP service that says who it is, for `cardea dev` and for trying
//! what happens when a service misbehaves.

mod serve;
mod websocket;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    str::FromStr,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{DemoArgs, LogArgs},
    exit::{Exit, Outcome},
    signals::Signals,
    telemetry,
};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As it should.
    Ok,
    /// Takes requests and never answers.
    Hang,
    /// Answers 500.
    Error500,
    /// Resets the connection.
    Reset,
    /// Answers late.
    Slow(Duration),
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "ok" => Ok(Self::Ok),
            "hang" => Ok(Self::Hang),
            "error500" => Ok(Self::Error500),
            "reset" => Ok(Self::Reset),
            other => other
                .strip_prefix("slow:")
                .and_then(|ms| ms.parse().ok())
                .map(|ms| Self::Slow(Duration::from_millis(ms)))
                .ok_or_else(|| {
                    format!("`{other}` is no mode: write ok, hang, error500, reset or slow:MS")
                }),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Hang => f.write_str("hang"),
            Self::Error500 => f.write_str("error500"),
            Self::Reset => f.write_str("reset"),
            Self::Slow(time) => write!(f, "slow:{}", time.as_millis()),
        }
    }
}

/// What the service is and what it has seen.
#[derive(Debug)]
struct Demo {
    service: String,
    instance: String,
    version: String,
    mode: RwLock<Mode>,
    requests: AtomicU64,
    connections: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    journal: Option<Mutex<File>>,
    /// No new connections; those that are open close after the request they have.
    stopping: CancellationToken,
}

impl Demo {
    fn new(args: &DemoArgs) -> Result<Self, Exit> {
        let journal = args.journal.as_ref().map(|path| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.map(Mutex::new)
                .map_err(|e| Exit::failed(format!("--journal {}: {e}", path.display())))
        });
        let pid = std::process::id();
        Ok(Self {
            service: args.service.clone(),
            instance: args.instance.clone().unwrap_or_else(|| pid.to_string()),
            version: args.app_version.clone(),
            mode: RwLock::new(args.mode),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            counts: Mutex::new(BTreeMap::new()),
            journal: journal.transpose()?,
            stopping: CancellationToken::new(),
        })
    }

    fn mode(&self) -> Mode {
        *self.mode.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_mode(&self, mode: Mode) {
        *self.mode.write().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Counts a body before it is answered: in memory and, to outlive a kill, in the journal.
    fn count(&self, id: &str) -> io::Result<()> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(id.to_owned()).or_insert(0) += 1;
        drop(counts);
        if let Some(journal) = &self.journal {
            let line = format!("{id} {}\n", self.instance);
            let mut file = journal.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn seen(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Runs the service until it is told to stop.
pub(crate) fn run(args: &DemoArgs, log: &LogArgs) -> Outcome {
    if args.die_with_parent {
        die_with_parent()?;
    }
    telemetry::start(log, "warn")?;
    let runtime = crate::roles::single_thread()?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let address = args
            .listen
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], args.port)));
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| Exit::failed(format!("cannot listen on {address}: {e}")))?;
        let local = listener.local_addr().map_err(Exit::failed)?;
        let demo = Demo::new(args)?;
        println!("{} {} listens on {local}", demo.service, demo.instance);
        serve::run(demo, listener, signals, args.drain.duration()).await;
        Ok(())
    })
}

/// Asks the kernel for a TERM when the process that started this one ends.
pub(crate) fn die_with_parent() -> Result<(), Exit> {
    use nix::{
        sys::{prctl, signal::Signal},
        unistd::{Pid, getppid},
    };
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|e| Exit::failed(format!("prctl: {e}")))?;
    // It may have ended before the call: then somebody else is the parent already.
    if getppid() == Pid::from_raw(1) && std::process::id() != 1 {
        return Err(Exit::failed("the process that started this one is gone"));
    }
    Ok(())
}
