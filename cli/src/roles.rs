//! The roles that run until they are told to stop.

pub(crate) mod agent;
pub(crate) mod registry;
pub(crate) mod router;

use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Runtime};

use crate::exit::Exit;

/// A runtime on this thread.
pub(crate) fn single_thread() -> Result<Runtime, Exit> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Exit::failed(format!("the event loop cannot be made: {e}")))
}

/// A runtime on so many threads.
pub(crate) fn multi_thread(name: &str, threads: NonZeroUsize) -> Result<Runtime, Exit> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads.get())
        .thread_name(name)
        .enable_all()
        .build();
    runtime.map_err(|e| Exit::failed(format!("the event loop cannot be made: {e}")))
}
