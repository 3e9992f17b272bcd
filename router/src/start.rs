//! Starts a router's threads: first everything that may fail, then, at one moment, the accepting.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    sync::{Arc, mpsc::SyncSender},
    thread,
};

use cardea_registry_api::Invalid;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    access_log::{self, Message, Target},
    config::{AccessLog, Config},
    control::Control,
    descriptors,
    listen::{self, ADMIN, Held, Inherited, Passed, TRAFFIC, TRAFFIC_TLS},
    metrics::Metrics,
    phase::Phase,
    running::Router,
    seats::Seats,
    shared::Shared,
    stopping::Stopping,
    upgrade::{
        UPGRADE,
        give::{self, Giver},
    },
    worker,
};

/// Why a router did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// A port could not be bound.
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind {
        /// `traffic`, `traffic-tls` or `admin`.
        what: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A socket that was passed at the start cannot be used.
    #[error("socket activation: {0}")]
    Passed(String),
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

/// The control thread's name.
const CONTROL: &str = "control";
/// The name of the access log's thread.
const LOG: &str = "access-log";

/// Starts a router: binds its ports, reads what it can serve from, starts its threads.
pub fn start(config: Config) -> Result<Router, StartError> {
    start_activated(config, Vec::new())
}

/// The same with listening sockets that a service manager has opened. A port that none of them
/// listens at is bound as usual.
pub fn start_activated(config: Config, passed: Vec<Passed>) -> Result<Router, StartError> {
    config.check()?;
    let inherited = Inherited::new(passed).map_err(StartError::Passed)?;
    prepare(config, inherited, &[], Phase::Sole)?.go(Phase::Sole)
}

/// A router with all its threads, which accepts no connections yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) router: Router,
    /// All traffic sockets.
    traffic: Vec<TcpListener>,
    /// At which of their ports TLS is spoken.
    tls_port: Option<u16>,
    /// Further sockets for whoever takes over from this router.
    others: Option<Vec<Passed>>,
    /// What the workers wait for.
    waiting: Vec<oneshot::Sender<Vec<TcpListener>>>,
}

/// Does everything that may fail. `handed` are the sets of the router that is taken over from.
pub(crate) fn prepare(
    config: Config,
    mut inherited: Inherited,
    handed: &[Vec<u8>],
    phase: Phase,
) -> Result<Prepared, StartError> {
    let config = Arc::new(config);
    let mut take = |role, address| inherited.take(role, address);
    let plain = config
        .listen
        .map(|address| (address, take(TRAFFIC, address)));
    let tls = config
        .listen_tls
        .map(|address| (address, take(TRAFFIC_TLS, address)));
    let admin = inherited.take(ADMIN, config.admin).into_iter().next();
    let upgrade = inherited.take_upgrade();
    leftover(&config, &inherited, phase)?;
    let (mut traffic, traffic_address) = shares(TRAFFIC, plain, &config)?;
    let (secure, tls_address) = shares(TRAFFIC_TLS, tls, &config)?;
    let tls_port = tls_address.map(|address| address.port());
    let admin_listener = match admin {
        Some(listener) => listener,
        None => listen::single(config.admin).map_err(unbound(ADMIN, config.admin))?,
    };
    let target = log_target(&config.access_log)?;
    let admin_address = local_address(&admin_listener, config.admin);
    let (ends, ended) = mpsc::unbounded_channel();
    let (stopping, held) = (Stopping::default(), Arc::new(Held::default()));
    let (successor, taken_over) = watch::channel(None);
    let shared = Arc::new(Shared::default());
    shared.tenure.enter(phase);
    let workers = config.worker_count();
    let (seats, pipes) = places(&config);
    let metrics = Metrics::new(config.cluster.as_str(), workers, seats.most());

    let log = log_thread(target, &metrics, &ends)?;
    let mut router = Router {
        traffic: traffic_address,
        traffic_tls: tls_address,
        admin: admin_address,
        drain: config.drain,
        stopping: stopping.clone(),
        ended,
        workers: 0,
        others: usize::from(log.is_some()),
        log: log.clone(),
        shared: Arc::clone(&shared),
        held: Arc::clone(&held),
        successor: taken_over,
    };
    let admin_copy = admin_listener.try_clone();
    let parts = (Arc::clone(&shared), admin_listener, Arc::clone(&metrics));
    let mut control = Control::new(&config, parts, handed)?;
    let others = upgrade_socket(&config, upgrade, &shared).and_then(|(path, listener)| {
        let copies = (admin_copy.ok()?, listener.try_clone().ok()?);
        control.give_through(Giver {
            listener,
            path,
            cluster: config.cluster.to_string(),
            id: config.id.clone(),
            held,
            shared: Arc::clone(&shared),
            sync: control.sync(),
            stopping: stopping.clone(),
            successor,
        });
        Some(vec![passed(ADMIN, copies.0), passed(UPGRADE, copies.1)])
    });
    {
        let stopping = stopping.clone();
        spawn(CONTROL, &ends, move || control.run(&stopping))?;
        router.others += 1;
    }
    let mut waiting = Vec::with_capacity(workers);
    for index in 0..workers {
        let (sender, sockets) = oneshot::channel();
        let parts = worker::Parts {
            index,
            most_streams: seats.most().div_ceil(workers),
            pipes,
            seats: Arc::clone(&seats),
            sockets,
            tls_port,
            config: Arc::clone(&config),
            shared: Arc::clone(&shared),
            counters: metrics.of_worker(index),
            log: access_log::AccessLog::new(log.clone()),
            seed: getrandom::u64().map_err(StartError::Random)?,
        };
        let stopping = stopping.clone();
        spawn(&format!("worker-{index}"), &ends, move || {
            worker::run(parts, &stopping)
        })?;
        router.workers += 1;
        waiting.push(sender);
    }
    traffic.extend(secure);
    Ok(Prepared {
        router,
        traffic,
        tls_port,
        others,
        waiting,
    })
}

/// The places for clients' connections, as many as the system has descriptors for; and each worker's
/// pipes.
fn places(config: &Config) -> (Arc<Seats>, usize) {
    let (limits, workers) = (&config.limits, config.worker_count());
    let descriptors = descriptors::raise();
    let connections = descriptors::seats(
        limits.connections,
        descriptors,
        workers,
        config.mirror.at_once,
    );
    if connections < limits.connections {
        tracing::warn!(
            connections,
            asked = limits.connections,
            descriptors,
            "the system's limit of file descriptors allows fewer connections than limits.connections"
        );
    }
    let seats = Arc::new(Seats::new(limits, connections, workers));
    (seats, descriptors::pipes(descriptors, workers))
}

/// The sockets of a traffic port, if there is to be one: those that were taken over, or new ones. And
/// its address.
fn shares(
    what: &'static str,
    wanted: Option<(SocketAddr, Vec<TcpListener>)>,
    config: &Config,
) -> Result<(Vec<TcpListener>, Option<SocketAddr>), StartError> {
    let Some((address, mut sockets)) = wanted else {
        return Ok((Vec::new(), None));
    };
    if sockets.is_empty() {
        let opened = listen::shares(address, config.worker_count());
        sockets = opened.map_err(unbound(what, address))?;
    }
    let bound = sockets.first().map(|first| local_address(first, address));
    Ok((sockets, bound))
}

fn unbound(what: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Bind {
        what,
        address,
        source,
    }
}

impl Prepared {
    /// Accepts connections from now on.
    pub(crate) fn go(mut self, phase: Phase) -> Result<Router, StartError> {
        let workers = self.waiting.len();
        listen::top_up(&mut self.traffic, workers);
        let hands = listen::deal(&self.traffic, workers).map_err(StartError::Thread)?;
        if let Some(others) = self.others {
            let traffic = self.traffic.into_iter().map(|share| {
                let port = share.local_addr().ok().map(|at| at.port());
                let tls = port.is_some() && port == self.tls_port;
                passed(if tls { TRAFFIC_TLS } else { TRAFFIC }, share)
            });
            self.router.held.keep(traffic.chain(others).collect());
        }
        self.router.shared.tenure.enter(phase);
        for (worker, hand) in self.waiting.into_iter().zip(hands) {
            // One that has ended is reported by its end.
            drop(worker.send(hand));
        }
        Ok(self.router)
    }
}

fn passed(name: &str, socket: impl Into<std::os::fd::OwnedFd>) -> Passed {
    Passed {
        name: name.to_owned(),
        socket: socket.into(),
    }
}

/// Sockets that nobody wants: a service manager's would queue connections for ever. The router that
/// is taken over from answers what is queued at an address that has been given up.
fn leftover(config: &Config, inherited: &Inherited, phase: Phase) -> Result<(), StartError> {
    let left = inherited.left();
    if phase == Phase::Preparing || left.is_empty() {
        return Ok(());
    }
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    Err(StartError::Passed(format!(
        "the port of {} is neither that of `listen` ({}), nor of `listen_tls`, nor of `admin` ({}); \
         make the socket unit and the settings agree",
        left.join(", "),
        config.listen.map_or("off".to_owned(), |at| at.to_string()),
        config.admin
    )))
}

/// Where other processes ask to take over. A router without one serves just as well, so that it is
/// no reason not to start.
fn upgrade_socket(
    config: &Config,
    inherited: Option<UnixListener>,
    shared: &Shared,
) -> Option<(std::path::PathBuf, UnixListener)> {
    let path = config.upgrade.socket.clone()?;
    let bound = match inherited {
        Some(listener) => Ok(listener),
        None => give::bind(&path),
    };
    match bound {
        Ok(listener) => Some((path, listener)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no process can take over from this one");
            shared.set_alarms(
                "upgrade_socket",
                [(path.display().to_string(), error.to_string())],
            );
            None
        }
    }
}

fn log_thread(
    target: Option<Target>,
    metrics: &Arc<Metrics>,
    ends: &mpsc::UnboundedSender<String>,
) -> Result<Option<SyncSender<Message>>, StartError> {
    let Some(target) = target else {
        return Ok(None);
    };
    let queue = access_log::queue();
    let metrics = Arc::clone(metrics);
    spawn(LOG, ends, move || {
        access_log::run(target, &queue.to_write, &metrics.log_failed);
        Ok(())
    })?;
    Ok(Some(queue.lines))
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
