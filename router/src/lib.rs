//! Cardea's data plane: what stands between callers and the instances of services.
//!
//! [`start`] binds the ports and starts the threads: workers, each with its own event loop, share of
//! the listener, connection pools and balancing state; one control thread that keeps the table fresh
//! and answers on the admin port; one writer of the access log. A request's way is told in
//! `pipeline.rs`, top to bottom.

mod config;
mod listen;
mod start;
mod worker;

pub use config::{AccessLog, Config, Limits, Source};
pub use start::{Died, Router, StartError, start};
