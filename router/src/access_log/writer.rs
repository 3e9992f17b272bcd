//! The thread that writes the access log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use super::Message;

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// A file, which may be moved away and opened again.
    File(PathBuf, File),
}

impl Target {
    /// Opens a file to append to.
    pub(crate) fn file(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self::File(path, file))
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File(_, file) => file.write_all(lines),
        }
    }

    fn reopen(&mut self) {
        if let Self::File(path, file) = self {
            match open(path) {
                Ok(fresh) => *file = fresh,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot reopen the access log");
                }
            }
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes until every sender is gone.
pub(crate) fn run(mut target: Target, messages: &Receiver<Message>, failed: &AtomicU64) {
    let mut broken = false;
    while let Ok(message) = messages.recv() {
        match message {
            Message::Reopen => target.reopen(),
            Message::Lines(mut lines, back) => {
                match target.write(&lines) {
                    Ok(()) => broken = false,
                    Err(error) => {
                        let count = memchr::memchr_iter(b'\n', &lines).count() as u64;
                        failed.fetch_add(count, Ordering::Relaxed);
                        // A full disk fails every time: say it once.
                        if !std::mem::replace(&mut broken, true) {
                            tracing::error!(%error, "cannot write the access log; lines are dropped");
                        }
                    }
                }
                lines.clear();
                let _ = back.try_send(lines);
            }
        }
    }
}
