//! Child processes: the wrapped one, exec probes, and – as process 1 or as the subreaper – orphans
//! that others left behind.

use std::{
    collections::HashMap,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use tokio::sync::oneshot;

/// All children of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Children {
    known: Arc<Mutex<HashMap<Pid, Known>>>,
}

#[derive(Debug)]
struct Known {
    child: Child,
    ended: oneshot::Sender<i32>,
}

/// A child that was started, and its exit status once it has ended.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) ended: oneshot::Receiver<i32>,
}

impl Children {
    /// Starts a command in a process group of its own.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<Started> {
        command.process_group(0);
        // Locked from before it is started: it may have ended before it is known.
        let mut known = self.lock();
        let child = command.spawn()?;
        let pid = pid_of(&child);
        let (sender, ended) = oneshot::channel();
        known.insert(
            pid,
            Known {
                child,
                ended: sender,
            },
        );
        Ok(Started { pid, ended })
    }

    /// Takes the statuses of all that have ended: to be called when a SIGCHLD came.
    pub(crate) fn reap(&self) {
        let mut known = self.lock();
        let pids: Vec<Pid> = known.keys().copied().collect();
        for pid in pids {
            take_status(&mut known, pid);
        }
        // Orphans. Only looked at first, so as not to take a known child's status away.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) =
            waitid(Id::All, look)
        {
            if known.contains_key(&pid) {
                take_status(&mut known, pid);
            } else if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
                break;
            }
        }
    }

    /// Sends a signal to a child that has not ended, or to its group. What has ended is passed over.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal, group: bool) {
        let known = self.lock();
        if !known.contains_key(&pid) {
            return;
        }
        let sent = if group {
            killpg(pid, signal)
        } else {
            kill(pid, signal)
        };
        match sent {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%pid, %signal, %error, "a signal could not be sent"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_status(known: &mut HashMap<Pid, Known>, pid: Pid) {
    let status = match known.get_mut(&pid).map(|known| known.child.try_wait()) {
        Some(Ok(Some(status))) => exit_status(status),
        Some(Err(error)) => {
            tracing::error!(%pid, %error, "a child's exit status is lost");
            1
        }
        Some(Ok(None)) | None => return,
    };
    if let Some(known) = known.remove(&pid) {
        // Nobody may be waiting any more, as with a probe that took too long.
        let _unheard = known.ended.send(status);
    }
}

/// As shells count: the code, or 128+n when signal n ended it.
fn exit_status(status: ExitStatus) -> i32 {
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(1)
}

fn pid_of(child: &Child) -> Pid {
    // The kernel's pids fit: pid_t is an i32.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}
