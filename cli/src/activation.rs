//! Listening sockets from a service manager (`LISTEN_FDS`): it opens them before the router starts and
//! keeps them when it is gone, so that connections wait in the queue meanwhile.

use std::os::fd::{FromRawFd, OwnedFd};

use cardea_router::Passed;

use crate::exit::Exit;

/// Takes the sockets that were passed to this process. Called once, first of all.
pub(crate) fn passed() -> Result<Vec<Passed>, Exit> {
    let wrong = |error| Exit::failed(format!("socket activation (LISTEN_FDS): {error}"));
    let passed = sd_notify::listen_fds_with_names().map_err(wrong)?;
    Ok(passed
        .map(|(descriptor, name)| Passed {
            name,
            socket: own(descriptor),
        })
        .collect())
}

#[expect(
    unsafe_code,
    reason = "there is no safe way to own a descriptor that a number names"
)]
fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: LISTEN_PID names this process, so descriptors 3 to 3+LISTEN_FDS were opened for it
    // before it began; `listen_fds_with_names` has just set a flag on each of them, so each is open.
    // `passed` runs once and before anything of this program opens a file that it keeps: no other
    // value owns these numbers.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
