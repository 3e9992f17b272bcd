//! `cardea router --upgrade --detach`: the router runs as a process of its own, and this one ends when
//! it has taken over, or failed to. The two share a socket, the router's standard input: a byte on
//! it says that the router serves, its end that it will not.

use std::{
    ffi::OsString,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
};

use crate::exit::{Exit, Outcome};

/// Tells a router that its starter waits. Not for people.
const ANNOUNCE: &str = "--announce";

/// Starts the router and waits until it serves.
pub(super) fn run() -> Outcome {
    let failed = |error| Exit::failed(format!("the new process cannot be started: {error}"));
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut child = start(theirs.into()).map_err(failed)?;
    if matches!(ours.read(&mut [0]), Ok(1)) {
        eprintln!("cardea: process {} has taken over", child.id());
        return Ok(());
    }
    // It has said why on the standard error that it shares with this process.
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match code {
        Some(code) if code != 0 => Err(Exit::Status(code)),
        _ => Err(Exit::failed(format!("the new process ended: {status}"))),
    }
}

/// The same command line without `--detach`.
fn start(announce_to: OwnedFd) -> std::io::Result<Child> {
    let words = std::env::args_os().skip(1);
    let words: Vec<OsString> = words.filter(|word| word != "--detach").collect();
    Command::new(std::env::current_exe()?)
        .args(words)
        .arg(ANNOUNCE)
        .stdin(Stdio::from(announce_to))
        .spawn()
}

/// The router's word to its starter.
pub(super) fn announce() {
    let said = nix::unistd::write(std::io::stdin().as_fd(), b"1");
    if let Err(error) = said {
        tracing::debug!(%error, "nobody waits for this router to serve");
    }
}
