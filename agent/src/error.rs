//! Why an agent does not start, or ends by itself.

use std::{io, path::PathBuf};

use cardea_registry_api::Invalid;

/// Why an agent does not start, or ends by itself. A registry that is away is none of these: that is
/// waited out.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(#[from] Invalid),
    /// The local socket is another agent's.
    #[error(
        "another agent is listening on {}; give this one a socket of its own (`socket`, --socket)",
        .0.display()
    )]
    SocketTaken(PathBuf),
    /// The local socket cannot be made.
    #[error("the local socket {} cannot be made: {source}", .path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The command cannot be started.
    #[error("`{command}` cannot be started: {source}")]
    Start {
        /// Which.
        command: String,
        /// The operating system's words.
        source: io::Error,
    },
    /// The operating system refuses what an agent needs.
    #[error("{what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// The operating system's words.
        source: io::Error,
    },
}

impl AgentError {
    /// The exit status that tells it: 78 for a bad configuration, 127 for a command that is not
    /// there, 126 for one that cannot be run, otherwise 1.
    pub fn exit_status(&self) -> i32 {
        match self {
            Self::Config(_) => 78,
            Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Start { .. } => 126,
            _ => 1,
        }
    }
}
