//! The running router's side of a hand-over.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use super::message::{self, BATCH, Message, PROTOCOL};
use crate::{
    listen::Held,
    phase::Phase,
    shared::{Shared, count},
    stopping::Stopping,
    sync::Handle,
};

/// How long a process that has connected may take to say what it wants.
const HELLO: Duration = Duration::from_secs(5);
/// After a failed accept, as when descriptors are short.
const PAUSE: Duration = Duration::from_secs(1);
/// What is added to the time that the new process takes for itself.
const GRACE: Duration = Duration::from_secs(15);
/// The longest that a hand-over may take, whatever the new process says.
const LONGEST: Duration = Duration::from_mins(10);

/// Lets other processes take over from this one.
#[derive(Debug)]
pub(crate) struct Giver {
    pub(crate) listener: std::os::unix::net::UnixListener,
    pub(crate) path: PathBuf,
    pub(crate) cluster: String,
    pub(crate) id: String,
    pub(crate) held: Arc<Held>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sync: Option<Handle>,
    pub(crate) stopping: Stopping,
    /// The process that took over.
    pub(crate) successor: watch::Sender<Option<u32>>,
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// It connected and left: somebody looked whether a router runs here.
    #[error("it asked for nothing")]
    Nothing,
    #[error("{0}")]
    Refused(String),
    #[error("the new process gave up: {0}")]
    GaveUp(String),
    #[error("the new process was not ready in time")]
    Late,
    #[error("the new process is gone: {0}")]
    Gone(#[from] io::Error),
}

impl Giver {
    /// Waits for processes that want to take over, until one has or the router stops.
    pub(crate) async fn run(self) {
        tokio::select! {
            () = self.shared.tenure.reached(Phase::Sole) => {}
            () = self.stopping.drain.cancelled() => return,
        }
        if let Err(error) = self.wait().await {
            tracing::error!(%error, "no other process can take over from this router");
            self.stopping.drain.cancelled().await;
        }
        if self.shared.tenure.phase() == Phase::Sole {
            drop(std::fs::remove_file(&self.path));
        }
    }

    async fn wait(&self) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.drain.cancelled() => return Ok(()),
            };
            match accepted {
                Ok((stream, _)) => {
                    if self.serve(stream).await {
                        return Ok(());
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot hear a process that may want to take over");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Whether the process at the other end has taken over.
    async fn serve(&self, mut stream: UnixStream) -> bool {
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let result = tokio::select! {
            result = self.hand_over(&mut stream) => result,
            () = self.stopping.drain.cancelled() => Err(Failed::Refused("this router stops".into())),
        };
        let error = match result {
            Ok(()) => {
                self.let_go(&mut stream, pid).await;
                return true;
            }
            Err(Failed::Nothing) => return false,
            Err(error) => error,
        };
        count(&self.shared.counts.upgrades_failed);
        tracing::error!(%error, pid, "the hand-over failed; this router goes on as before");
        if let Failed::Refused(_) | Failed::Late = error {
            let reason = error.to_string();
            message::refuse(&mut stream, reason).await;
        }
        drop(stream);
        if let Some(sync) = &self.sync {
            let alias = alias(&self.id);
            if *sync.id() == *alias {
                sync.rename(&self.id).await;
                sync.forget(&alias).await;
            }
        }
        false
    }

    /// Up to the moment when the new process accepts connections.
    async fn hand_over(&self, stream: &mut UnixStream) -> Result<(), Failed> {
        super::trust(stream).map_err(Failed::Refused)?;
        let hello = timeout(HELLO, message::receive(stream)).await;
        let (protocol, version, cluster, id, patience_ms, clusters) = match hello {
            Ok(Ok((
                Message::Hello {
                    protocol,
                    version,
                    cluster,
                    id,
                    patience_ms,
                    clusters,
                },
                _,
            ))) => (protocol, version, cluster, id, patience_ms, clusters),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Failed::Nothing);
            }
            _ => return Err(Failed::Refused("that is no router's hello".into())),
        };
        if protocol != PROTOCOL {
            return Err(Failed::Refused(format!(
                "the running router (version {}) hands over by protocol {PROTOCOL}, the new one \
                 (version {version}) takes over by {protocol}: restart instead",
                env!("CARGO_PKG_VERSION")
            )));
        }
        if cluster != self.cluster {
            return Err(Failed::Refused(format!(
                "it serves cluster `{}`, the new one is to serve `{cluster}`: restart instead",
                self.cluster
            )));
        }
        tracing::info!(version, "another process is about to take over");
        // Two processes of one name would prove to the registry what only one of them has applied.
        // The name goes to the new one; this one follows under another until it ends.
        if let Some(sync) = self.sync.as_ref().filter(|_| id == self.id) {
            sync.rename(&alias(&self.id)).await;
        }
        self.offer(stream, clusters).await?;
        let answer = timeout(
            (Duration::from_millis(patience_ms) + GRACE).min(LONGEST),
            message::receive(stream),
        );
        match answer.await {
            Err(_) => Err(Failed::Late),
            Ok(Ok((Message::Ready, _))) => still_there(stream),
            Ok(Ok((Message::Refused { reason }, _))) => Err(Failed::GaveUp(reason)),
            Ok(Ok(_)) => Err(Failed::Refused("this is no answer to an offer".into())),
            Ok(Err(error)) => Err(Failed::Gone(error)),
        }
    }

    async fn offer(&self, stream: &mut UnixStream, clusters: bool) -> Result<(), Failed> {
        let sockets = match self.held.copies() {
            Some(sockets) => sockets?,
            None => return Err(Failed::Refused("this router stops".into())),
        };
        let mut tables = self.sync.as_ref().map_or_else(Vec::new, Handle::tables);
        if !clusters {
            tables.truncate(1);
        }
        let counts = &self.shared.counts;
        let offer = Message::Offer {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sockets: sockets.len(),
            table: !tables.is_empty(),
            others: tables.len().saturating_sub(1),
            upgrades: (
                counts.upgrades_done.load(Ordering::Relaxed),
                counts.upgrades_failed.load(Ordering::Relaxed),
            ),
            tickets: self.shared.tickets.secrets(),
        };
        message::send(stream, &offer, &[]).await?;
        for batch in sockets.chunks(BATCH) {
            let names = batch.iter().map(|passed| passed.name.clone()).collect();
            let beside: Vec<_> = batch.iter().map(|passed| passed.socket.as_fd()).collect();
            message::send(stream, &Message::Sockets { names }, &beside).await?;
        }
        for table in tables {
            message::send_frame(stream, &table, &[]).await?;
        }
        Ok(())
    }

    /// The new process accepts: this one stops to, and drains.
    async fn let_go(&self, stream: &mut UnixStream, pid: Option<i32>) {
        self.shared.tenure.enter(Phase::Released);
        self.held.close();
        // Before the first worker ends, so that nobody takes its end for a death.
        let successor = pid.and_then(|pid| u32::try_from(pid).ok());
        self.successor.send_replace(Some(successor.unwrap_or(0)));
        self.stopping.drain.cancel();
        if let Some(sync) = &self.sync {
            sync.settle().await;
        }
        if let Err(error) = message::send(stream, &Message::Released, &[]).await {
            tracing::warn!(%error, "the new process did not hear that it is alone");
        }
        tracing::info!(
            pid,
            "another process has taken over; finishing what is open here"
        );
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        self.successor.send_replace(Some(pid.unwrap_or(0)));
    }
}

/// A process that was ready may be gone before that was heard: then nobody would serve.
fn still_there(stream: &UnixStream) -> Result<(), Failed> {
    // The system itself is asked: the event loop may not have heard yet.
    let mut byte = [std::mem::MaybeUninit::uninit()];
    match socket2::SockRef::from(stream).peek(&mut byte) {
        Ok(0) => Err(Failed::Gone(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Err(Failed::Refused("it said more than that it is ready".into())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(Failed::Gone(error)),
    }
}

/// The name of a process that hands over or has handed over: nobody else's.
fn alias(id: &str) -> String {
    let end = format!("~{}", std::process::id());
    let room = 128_usize.saturating_sub(end.len()).min(id.len());
    format!("{}{end}", &id[..room])
}

/// Binds the socket where other processes may ask; only this user may.
pub(crate) fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use socket2::{Domain, SockAddr, Socket, Type};
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let address = SockAddr::unix(path)?;
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None);
    // A socket whose router is gone stays behind as a file.
    let probe = socket()?;
    probe.set_nonblocking(true)?;
    match probe.connect(&address) {
        Ok(()) => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "a router runs with this directory already",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    let socket = socket()?;
    // The file is made with the socket's own mode: at no moment may others connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    socket.bind(&address)?;
    socket.listen(16)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_is_for_its_owner_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/upgrade.sock");
        let first = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&path).unwrap();
    }

    #[test]
    fn aliases_are_ids() {
        assert!(alias("r1").starts_with("r1~"));
        assert!(alias(&"x".repeat(128)).len() <= 128);
    }
}
