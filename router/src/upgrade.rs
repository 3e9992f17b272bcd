//! Taking over from a running router without losing a connection.
//!
//! The new process gets the listening sockets themselves, so their queues of connections live on
//! whichever process ends. It serves all of them, opens more if it has more workers, and begins to
//! accept when it has a table as new as the old one's. Only then does the old one stop accepting. It
//! closes each connection after its next answer, and tunnels at the end of its drain time. If
//! anything goes wrong before that, the old one goes on as if nothing had happened.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::{net::UnixStream, time::timeout};

pub(crate) mod give;
mod message;

use crate::{
    config::Config,
    listen::{Inherited, Passed},
    phase::Phase,
    running::Router,
    start::{self, StartError},
    tls::Secret,
};
use message::{Message, PROTOCOL};

/// What the running router's socket is called in both lists of sockets.
pub(crate) const UPGRADE: &str = "upgrade";

/// How long the running router may take for each of its answers.
const ANSWER: Duration = Duration::from_secs(15);
/// How long to wait for the source to confirm a table that is there.
const CONFIRM: Duration = Duration::from_secs(5);

/// Why nothing was taken over. The running router goes on, unless it says that it stops.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The configuration names no socket.
    #[error("there is no upgrade socket: name the running router's")]
    NoSocket,
    /// Nobody answers.
    #[error("no router runs that could be taken over from, at {path}: {source}")]
    NoRouter {
        /// The upgrade socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The running router said no.
    #[error("the running router refused: {0}")]
    Refused(String),
    /// The running router does not answer, or says what cannot be understood.
    #[error("the running router does not answer as it should: {0}")]
    Broken(String),
    /// This process could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is nothing to serve from.
    #[error("after {0:?} there was still no table to serve from; the running router goes on")]
    NoTable(Duration),
    /// A part of this process ended.
    #[error("{0}; the running router goes on")]
    Died(String),
}

/// What the running router gave.
struct Given {
    sockets: Vec<Passed>,
    /// The own cluster's, then those of others.
    tables: Vec<Vec<u8>>,
    upgrades: (u64, u64),
    tickets: Vec<Secret>,
}

/// Takes over from the router that listens at the configured upgrade socket. Returns when this
/// process accepts connections and the running one does not. Dropped before, it changes nothing.
pub async fn take_over(config: Config) -> Result<Router, UpgradeError> {
    config.check().map_err(StartError::from)?;
    let path = config.upgrade.socket.clone();
    let path = path.ok_or(UpgradeError::NoSocket)?;
    let mut stream = connect(&path).await?;
    let result = attempt(config, &mut stream).await;
    if let Err(error) = &result {
        message::refuse(&mut stream, error.to_string()).await;
    }
    result
}

async fn connect(path: &Path) -> Result<UnixStream, UpgradeError> {
    let none = |source| UpgradeError::NoRouter {
        path: path.to_owned(),
        source,
    };
    let stream = UnixStream::connect(path).await.map_err(none)?;
    trust(&stream).map_err(UpgradeError::Refused)?;
    Ok(stream)
}

/// Whether the process at the other end is this user's, or the system's.
fn trust(stream: &UnixStream) -> Result<(), String> {
    let peer = stream.peer_cred().map_err(|error| error.to_string())?;
    let own = nix::unistd::geteuid().as_raw();
    if peer.uid() == own || peer.uid() == 0 {
        return Ok(());
    }
    Err(format!(
        "one router runs as user {}, the other as user {own}: run both as the same",
        peer.uid()
    ))
}

async fn attempt(config: Config, stream: &mut UnixStream) -> Result<Router, UpgradeError> {
    let patience = config.upgrade.patience;
    let given = given(&config, stream).await?;
    let inherited = Inherited::new(given.sockets).map_err(UpgradeError::Broken)?;
    let mut prepared = start::prepare(config, inherited, &given.tables, Phase::Preparing)?;
    let (done, failed) = given.upgrades;
    let counts = &prepared.router.shared.counts;
    counts.upgrades_done.store(done + 1, Ordering::Relaxed);
    counts.upgrades_failed.store(failed, Ordering::Relaxed);
    prepared.router.shared.tickets.take_over(given.tickets);
    ready(&mut prepared.router, stream, patience).await?;
    let router = prepared.go(Phase::Accepting)?;
    let released = async {
        message::send(stream, &Message::Ready, &[]).await?;
        message::receive(stream).await
    };
    match timeout(ANSWER, released).await {
        Ok(Ok((Message::Released, _))) => {}
        Ok(Ok((Message::Refused { reason }, _))) => {
            router.stop().await;
            return Err(UpgradeError::Refused(reason));
        }
        // It may have died; then this one must not.
        _ => {
            tracing::warn!("the router before this one did not say that it has let go; serving");
        }
    }
    router.shared.tenure.enter(Phase::Sole);
    Ok(router)
}

async fn given(config: &Config, stream: &mut UnixStream) -> Result<Given, UpgradeError> {
    let hello = Message::Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: config.cluster.to_string(),
        id: config.id.clone(),
        patience_ms: u64::try_from(config.upgrade.patience.as_millis()).unwrap_or(u64::MAX),
        clusters: true,
    };
    let talk = async {
        message::send(stream, &hello, &[]).await?;
        let (offer, _) = message::receive(stream).await?;
        let (version, count, tables, upgrades, tickets) = match offer {
            Message::Offer {
                version,
                sockets,
                table,
                others,
                upgrades,
                tickets,
            } => {
                let tables = usize::from(table) + others;
                (version, sockets, tables, upgrades, tickets)
            }
            Message::Refused { reason } => return Ok(Err(reason)),
            other => return Err(unexpected(&other)),
        };
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let (message, came) = message::receive(stream).await?;
            let Message::Sockets { names } = message else {
                return Err(unexpected(&message));
            };
            if names.len() != came.len() || names.is_empty() {
                return Err(io::Error::other("sockets were lost on the way"));
            }
            let named = names.into_iter().zip(came);
            sockets.extend(named.map(|(name, socket)| Passed { name, socket }));
        }
        let mut frames = Vec::new();
        while frames.len() < tables {
            frames.push(message::receive_frame(stream).await?.0);
        }
        tracing::info!(
            version,
            sockets = count,
            "taking over from a running router"
        );
        Ok(Ok(Given {
            sockets,
            tables: frames,
            upgrades,
            tickets,
        }))
    };
    match timeout(ANSWER, talk).await {
        Ok(Ok(Ok(given))) => Ok(given),
        Ok(Ok(Err(reason))) => Err(UpgradeError::Refused(reason)),
        Ok(Err(error)) => Err(UpgradeError::Broken(error.to_string())),
        Err(_) => Err(UpgradeError::Broken("it takes too long".to_owned())),
    }
}

fn unexpected(message: &Message) -> io::Error {
    io::Error::other(format!("it said {message:?}"))
}

/// Waits until this process can serve as well as the running one: it has a table, and its source has
/// confirmed it. From then on the registry waits for this process too before an instance is gone.
async fn ready(
    router: &mut Router,
    stream: &mut UnixStream,
    patience: Duration,
) -> Result<(), UpgradeError> {
    let shared = std::sync::Arc::clone(&router.shared);
    let table = async {
        if timeout(patience, shared.has_table()).await.is_err() {
            return Err(UpgradeError::NoTable(patience));
        }
        if timeout(CONFIRM, shared.is_confirmed()).await.is_err() {
            tracing::warn!("no registry confirms the table; serving it as it is");
        }
        Ok(())
    };
    tokio::select! {
        ready = table => ready,
        died = router.ended() => Err(UpgradeError::Died(died.to_string())),
        said = message::receive(stream) => Err(match said {
            Ok((Message::Refused { reason }, _)) => UpgradeError::Refused(reason),
            Ok((other, _)) => UpgradeError::Broken(unexpected(&other).to_string()),
            Err(error) => UpgradeError::Broken(error.to_string()),
        }),
    }
}
