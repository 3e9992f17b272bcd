//! A terminal for a program under test: what is typed there, and what it shows.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
    sync::mpsc,
};

use crate::command::DEADLINE;

/// The end at which somebody sits.
pub(crate) struct Terminal {
    keys: File,
    program: OwnedFd,
    shown: mpsc::Receiver<String>,
    seen: String,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        let pair = nix::pty::openpty(None, None).unwrap();
        let keys = File::from(pair.master);
        let mut screen = keys.try_clone().unwrap();
        let (sender, shown) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails when the program's end is closed.
            while let Ok(n @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self {
            keys,
            program: pair.slave,
            shown,
            seen: String::new(),
        }
    }

    /// For the program's standard input or error.
    pub(crate) fn stdio(&self) -> Stdio {
        Stdio::from(self.program.try_clone().unwrap())
    }

    /// Types a line.
    pub(crate) fn enter(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until this is shown.
    pub(crate) fn shows(&mut self, part: &str) {
        while !self.seen.contains(part) {
            let Ok(text) = self.shown.recv_timeout(DEADLINE) else {
                panic!("`{part}` is not shown:\n{}", self.seen);
            };
            self.seen += &text;
        }
    }
}
