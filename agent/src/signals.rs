//! The signals that an agent takes: its own stop, its children's ends, and all that it passes on.

use std::{future::poll_fn, io, task::Poll};

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What is taken. A terminal's Ctrl-Z (TSTP) is not: it stops the agent alone, as its default says.
const TAKEN: [Signal; 10] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGALRM,
    Signal::SIGCONT,
];

/// The signals as they come.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
}

impl Signals {
    /// From now on they no longer have their default effects.
    pub(crate) fn take() -> io::Result<Self> {
        let streams = TAKEN
            .into_iter()
            .map(|name| Ok((name, signal(SignalKind::from_raw(name as i32))?)))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { streams })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (name, stream) in &mut self.streams {
                if let Poll::Ready(Some(())) = stream.poll_recv(context) {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}
