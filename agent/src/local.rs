//! The local socket: how `cardea agent deregister` and `status`, preStop hooks and traps talk with a
//! running agent. One line of JSON asks, one line answers.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use cardea_registry_api::{Address, InstanceId, InstanceState, Name, Span};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

/// The environment variable that names the socket. A wrapped process finds it set.
pub const SOCKET_ENV: &str = "CARDEA_AGENT_SOCKET";
/// The longest line, in bytes.
pub(crate) const MAX_LINE: u64 = 1 << 20;

/// Where the socket is when nobody says: `/run/cardea/agent.sock` if that directory can be written
/// to, else `agent.sock` under `$XDG_RUNTIME_DIR/cardea`, else under `./data`. An agent that cannot
/// make it there runs without one; a socket that was asked for must be possible.
pub fn default_socket() -> PathBuf {
    use nix::unistd::{AccessFlags, access};
    let writable = |dir: &str| access(dir, AccessFlags::W_OK).is_ok();
    let dir = if writable("/run/cardea") || writable("/run") {
        PathBuf::from("/run/cardea")
    } else if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        PathBuf::from(dir).join("cardea")
    } else {
        PathBuf::from("data")
    };
    dir.join("agent.sock")
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// Deregister, and wait for the routers.
    Deregister {
        /// At most so long; none: the services' own ceilings.
        #[serde(default)]
        wait: Option<Span>,
        /// Only this service; none: all.
        #[serde(default)]
        service: Option<Name>,
    },
    /// Tell how it stands.
    Status {},
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Response {
    Deregistered(Vec<Left>),
    Status(AgentStatus),
    Error(String),
}

/// How one instance's deregistration went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its service.
    pub service: Name,
    /// Its id.
    pub id: InstanceId,
    /// How it went.
    pub outcome: LeaveOutcome,
}

/// How a deregistration went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveOutcome {
    /// It was not registered.
    WasAbsent,
    /// Every live router has let go of it.
    LetGo {
        /// The routers that confirmed.
        acknowledged: Vec<String>,
    },
    /// It is deregistered; these routers had not confirmed when the time was up.
    Pending {
        /// The routers that had not.
        pending: Vec<String>,
    },
    /// It is deregistered; whether the routers have let go is not known.
    Unconfirmed,
    /// The registry refuses.
    Refused {
        /// Its words.
        reason: String,
    },
    /// No registry answered in time; its lease will lapse.
    Unreachable {
        /// What was tried.
        reason: String,
    },
}

/// How an agent stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The program's version.
    pub version: String,
    /// The agent's process id.
    pub pid: u32,
    /// The wrapped process's id.
    pub child: Option<u32>,
    /// The registry that answered last.
    pub registry: String,
    /// The cluster.
    pub cluster: Name,
    /// Its services.
    pub services: Vec<ServiceStatus>,
}

/// How one service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: Name,
    /// Its instance's id.
    pub id: InstanceId,
    /// Where others reach it.
    pub address: Address,
    /// Where it is in its life.
    pub phase: Phase,
    /// What the registry was told and confirmed; none: not registered.
    pub registered: Option<InstanceState>,
    /// How long ago the registry last confirmed it, in ms.
    pub confirmed_ms_ago: Option<u64>,
    /// The last probe's failure; none: it passed, or none was made yet.
    pub probe_failure: Option<String>,
    /// The last call's failure; none: it succeeded.
    pub registry_failure: Option<String>,
}

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not ready yet.
    Waiting,
    /// Ready, not warm yet.
    Warming,
    /// Ready: registered as `up`, or about to be.
    Up,
    /// Was ready, and its probe fails: registered as `draining`, or about to be.
    Draining,
    /// Being deregistered.
    Leaving,
    /// Deregistered for good.
    Gone,
}

impl Phase {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Warming => "warming",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Gone => "gone",
        }
    }
}

/// Why a running agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nobody listens.
    #[error("no agent is listening on {}: {source}", .path.display())]
    NoAgent {
        /// Where.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The agent went away, or did not answer.
    #[error("the agent on {} did not answer: {reason}", .path.display())]
    NoAnswer {
        /// Where.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// The agent refuses.
    #[error("{0}")]
    Refused(String),
}

/// Asks the agent at `socket` to deregister its services, or one of them, for good; returns when the
/// live routers have let go, at the latest after `wait` (none: each service's own ceiling).
pub async fn deregister(
    socket: &Path,
    wait: Option<Span>,
    service: Option<Name>,
) -> Result<Vec<Left>, LocalError> {
    let slack = Duration::from_secs(5);
    let limit = wait.map_or(Duration::from_mins(1), Span::duration) + slack;
    match ask(socket, &Request::Deregister { wait, service }, limit).await? {
        Response::Deregistered(left) => Ok(left),
        other => Err(unexpected(socket, &other)),
    }
}

/// Asks the agent at `socket` how it stands.
pub async fn status(socket: &Path) -> Result<AgentStatus, LocalError> {
    match ask(socket, &Request::Status {}, Duration::from_secs(5)).await? {
        Response::Status(status) => Ok(status),
        other => Err(unexpected(socket, &other)),
    }
}

fn unexpected(path: &Path, response: &Response) -> LocalError {
    match response {
        Response::Error(reason) => LocalError::Refused(reason.clone()),
        _ => LocalError::NoAnswer {
            path: path.to_owned(),
            reason: "it answered something else".to_owned(),
        },
    }
}

async fn ask(path: &Path, request: &Request, limit: Duration) -> Result<Response, LocalError> {
    let mut stream = UnixStream::connect(path)
        .await
        .map_err(|source| LocalError::NoAgent {
            path: path.to_owned(),
            source,
        })?;
    let answered = timeout(limit, exchange(&mut stream, request)).await;
    let reason = match answered {
        Ok(Ok(response)) => return Ok(response),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("nothing within {limit:?}"),
    };
    Err(LocalError::NoAnswer {
        path: path.to_owned(),
        reason,
    })
}

async fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<Response> {
    write_line(stream, request).await?;
    read_line(stream).await
}

/// Writes one line.
pub(crate) async fn write_line<T: Serialize>(stream: &mut UnixStream, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Reads one line.
pub(crate) async fn read_line<T: for<'de> Deserialize<'de>>(
    stream: &mut UnixStream,
) -> io::Result<T> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(MAX_LINE));
    reader.read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map_err(io::Error::other)
}
