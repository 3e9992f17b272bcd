//! Starts a router's threads and stops them again.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use cardea_registry_api::Invalid;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, listen, worker};

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
    ended: mpsc::UnboundedReceiver<String>,
    workers: usize,
}

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
    let traffic = local_address(&shares[0], config.listen);
    let admin = local_address(&admin_listener, config.admin);
    let stopping = CancellationToken::new();
    let (ends, ended) = mpsc::unbounded_channel();
    let workers = shares.len();
    for (index, share) in shares.into_iter().enumerate() {
        let (config, stopping) = (Arc::clone(&config), stopping.clone());
        spawn(&format!("worker-{index}"), &ends, move || {
            worker::run(share, &config, &stopping)
        })?;
    }
    Ok(Router {
        traffic,
        admin,
        drain: config.drain,
        stopping,
        ended,
        workers,
    })
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

    /// Stops gracefully: accepts nothing new, finishes what is in flight, closes idle connections;
    /// cut off after the configured drain time.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        let all = async {
            for _ in 0..self.workers {
                if self.ended.recv().await.is_none() {
                    break;
                }
            }
        };
        if tokio::time::timeout(self.drain + STOP_GRACE, all)
            .await
            .is_err()
        {
            tracing::warn!("the router's threads did not end in time");
        }
    }
}
