//! Starts a router's threads and stops them again.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc::SyncSender},
    thread,
    time::Duration,
};

use cardea_registry_api::Invalid;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    access_log::{self, Message, Target},
    config::{AccessLog, Config},
    control::Control,
    listen,
    metrics::{LocalMetrics, Metrics},
    shared::Shared,
    worker,
};

/// What a graceful stop may take beyond the configured drain: for closing and flushing.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Why a router did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// A port could not be bound.
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind {
        /// `traffic` or `admin`.
        what: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log {path}: {source}")]
    AccessLog {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A part of a running router that ended though nobody stopped it.
#[derive(Debug, thiserror::Error)]
#[error("the router's {part} ended by itself")]
pub struct Died {
    /// The thread's name.
    pub part: String,
}

/// A running router.
#[derive(Debug)]
pub struct Router {
    traffic: SocketAddr,
    admin: SocketAddr,
    drain: Duration,
    stopping: CancellationToken,
    drained: CancellationToken,
    ended: mpsc::UnboundedReceiver<String>,
    workers: usize,
    log: Option<SyncSender<Message>>,
}

/// The control thread's name.
const CONTROL: &str = "control";
/// The name of the access log's thread.
const LOG: &str = "access-log";

/// Starts a router: binds its ports, reads what it can serve from, starts its threads.
pub fn start(config: Config) -> Result<Router, StartError> {
    config.check()?;
    let config = Arc::new(config);
    let shares = listen::shares(config.listen, config.worker_count()).map_err(|source| {
        StartError::Bind {
            what: "traffic",
            address: config.listen,
            source,
        }
    })?;
    let admin_listener = listen::single(config.admin).map_err(|source| StartError::Bind {
        what: "admin",
        address: config.admin,
        source,
    })?;
    let target = log_target(&config.access_log)?;
    let traffic = local_address(&shares[0], config.listen);
    let admin = local_address(&admin_listener, config.admin);
    let workers = shares.len();
    let (stopping, drained) = (CancellationToken::new(), CancellationToken::new());
    let (ends, ended) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let metrics = Metrics::new(config.cluster.as_str(), workers);

    let log = match target {
        Some(target) => {
            let queue = access_log::queue();
            let metrics = Arc::clone(&metrics);
            spawn(LOG, &ends, move || {
                access_log::run(target, &queue.to_write, &metrics.log_failed);
                Ok(())
            })?;
            Some(queue.lines)
        }
        None => None,
    };
    let render = {
        let metrics = Arc::clone(&metrics);
        Arc::new(move |out: &mut String| metrics.render(out))
    };
    let control = Control::new(&config, Arc::clone(&shared), admin_listener, render)?;
    let (stop_control, drained_control) = (stopping.clone(), drained.clone());
    spawn(CONTROL, &ends, move || {
        control.run(&stop_control, &drained_control)
    })?;
    for (index, share) in shares.into_iter().enumerate() {
        let parts = worker::Parts {
            share,
            config: Arc::clone(&config),
            shared: Arc::clone(&shared),
            metrics: LocalMetrics::new(metrics.of_worker(index)),
            log: access_log::AccessLog::new(log.clone()),
            seed: getrandom::u64().map_err(StartError::Random)?,
        };
        let stopping = stopping.clone();
        spawn(&format!("worker-{index}"), &ends, move || {
            worker::run(parts, &stopping)
        })?;
    }
    Ok(Router {
        traffic,
        admin,
        drain: config.drain,
        stopping,
        drained,
        ended,
        workers,
        log,
    })
}

fn log_target(log: &AccessLog) -> Result<Option<Target>, StartError> {
    match log {
        AccessLog::Off => Ok(None),
        AccessLog::Stdout => Ok(Some(Target::Stdout)),
        AccessLog::File(path) => match Target::file(path.clone()) {
            Ok(target) => Ok(Some(target)),
            Err(source) => Err(StartError::AccessLog {
                path: path.display().to_string(),
                source,
            }),
        },
    }
}

fn local_address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Reports a thread's end, whichever way it ends.
struct Report {
    part: String,
    to: mpsc::UnboundedSender<String>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = self.to.send(std::mem::take(&mut self.part));
    }
}

fn spawn(
    name: &str,
    ends: &mpsc::UnboundedSender<String>,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), StartError> {
    let report = Report {
        part: name.to_owned(),
        to: ends.clone(),
    };
    thread::Builder::new()
        .name(format!("cardea-{name}"))
        .spawn(move || {
            let report = report;
            if let Err(error) = body() {
                tracing::error!(part = report.part, %error, "a thread of the router failed");
            }
        })
        .map(drop)
        .map_err(StartError::Thread)
}

impl Router {
    /// Where callers connect.
    pub fn traffic_address(&self) -> SocketAddr {
        self.traffic
    }

    /// Where operators ask.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until a part dies by itself; it never does on a good day.
    pub async fn ended(&mut self) -> Died {
        match self.ended.recv().await {
            Some(part) => Died { part },
            None => Died {
                part: "last thread".to_owned(),
            },
        }
    }

    /// Opens the access log's file again, after it was moved away (on SIGHUP). Never waits.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &self.log
            && log.try_send(Message::Reopen).is_err()
        {
            tracing::warn!("the access log is too busy to be opened again; try once more");
        }
    }

    /// Stops gracefully: accepts nothing new, finishes what is in flight, closes idle connections;
    /// cut off after the configured drain time.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        let drain = self.drain + STOP_GRACE;
        let has_log = self.log.take().is_some();
        let (mut workers, mut others) = (self.workers, 1 + usize::from(has_log));
        let mut part_ended = |part: &str| {
            if part.starts_with("worker") {
                workers = workers.saturating_sub(1);
            } else {
                others = others.saturating_sub(1);
            }
            (workers, others)
        };
        let all = async {
            while let Some(part) = self.ended.recv().await {
                match part_ended(&part) {
                    (0, 0) => return,
                    (0, _) => self.drained.cancel(),
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(drain, all).await.is_err() {
            tracing::warn!("the router's threads did not end in time");
            self.drained.cancel();
        }
    }
}
