//! The agent's side of the local socket.

use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, umask},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    error::AgentError,
    local::{Request, Response, read_line, write_line},
};

/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last answers may take to be written.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// The most callers at a time.
const MOST: usize = 32;

/// What a caller wants, and where it waits for the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Response>,
}

/// The socket, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    socket: UnixListener,
    callers: JoinSet<()>,
    /// Tells the living from the dead: the kernel lets go of it when its holder dies.
    _lock: Flock<File>,
}

impl Listener {
    /// Takes the socket. One that a dead agent left behind is replaced; a live one's is an error.
    pub(crate) fn bind(path: &Path) -> Result<Self, AgentError> {
        let failed = |source: io::Error| AgentError::Socket {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let mut lock_name = path.as_os_str().to_owned();
        lock_name.push(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(PathBuf::from(lock_name))
            .map_err(failed)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            if error == nix::errno::Errno::EWOULDBLOCK {
                AgentError::SocketTaken(path.to_owned())
            } else {
                failed(error.into())
            }
        })?;
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => {
                let what = "something else than a socket is there; move it away";
                return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, what)));
            }
            Err(_) => {}
        }
        // For its owner alone from the first moment.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        Ok(Self {
            path: path.to_owned(),
            socket: bound.map_err(failed)?,
            callers: JoinSet::new(),
            _lock: lock,
        })
    }

    /// Passes on what callers ask, for as long as it is polled.
    pub(crate) async fn serve(&mut self, asked: &mpsc::Sender<Asked>) -> Infallible {
        loop {
            tokio::select! {
                accepted = self.socket.accept(), if self.callers.len() < MOST => match accepted {
                    Ok((stream, _)) => {
                        self.callers.spawn(answer(stream, asked.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the local socket");
                        // Out of file descriptors, most likely: not again at once.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
                Some(_) = self.callers.join_next() => {}
            }
        }
    }

    /// Writes the answers that were given; to be called when there will be no more.
    pub(crate) async fn finish(mut self) {
        let written = async { while self.callers.join_next().await.is_some() {} };
        // Who does not read is not waited for.
        drop(timeout(LAST_ANSWERS, written).await);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

async fn answer(mut stream: UnixStream, asked: mpsc::Sender<Asked>) {
    let response = match timeout(PATIENCE, read_line::<Request>(&mut stream)).await {
        Ok(Ok(request)) => {
            let (answer, answered) = oneshot::channel();
            if asked.send(Asked { request, answer }).await.is_err() {
                return;
            }
            let Ok(response) = answered.await else { return };
            response
        }
        Ok(Err(error)) => Response::Error(format!("not understood: {error}")),
        Err(_) => return,
    };
    if let Err(error) = write_line(&mut stream, &response).await {
        tracing::debug!(%error, "a caller on the local socket went away");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener as StdListener};

    use super::*;

    #[tokio::test]
    async fn is_for_its_owner_alone_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/agent.sock");
        let listener = Listener::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn replaces_the_dead_and_refuses_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        // What a killed agent leaves behind.
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        let alive = Listener::bind(&path).unwrap();
        let refused = Listener::bind(&path).unwrap_err();
        assert!(matches!(refused, AgentError::SocketTaken(_)), "{refused}");
        drop(alive);
        Listener::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn never_removes_what_is_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        let refused = Listener::bind(&path).unwrap_err();
        assert!(refused.to_string().contains("move it away"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
