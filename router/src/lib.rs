//! Cardea's data plane: what stands between callers and the instances of services.
//!
//! [`start`] binds the ports and starts the threads: workers, each with its own event loop, share of
//! the listener, connection pools and balancing state; one control thread that keeps the table fresh
//! and answers on the admin port; one writer of the access log. A request's way is told in
//! `pipeline.rs`, top to bottom.

#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod admin;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod balance;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod budget;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod check;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod clock;
mod config;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod control;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod explain;
#[cfg(test)]
mod fixtures;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod health;
mod listen;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod peer;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod resolve;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod shared;
mod start;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod static_file;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod sync;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod table;
#[allow(
    dead_code,
    reason = "the engine and the control thread that use it land next"
)]
mod upstream;
mod worker;

pub use balance::{Balancers, PickInput, key};
pub use budget::Budget;
pub use config::{AccessLog, Config, Limits, Source};
pub use explain::{
    ChosenRoute, ExplainedPeer, ExplainedUpstream, Explanation, LostRoute, Question, Refusal,
    explain,
};
pub use health::Trial;
pub use peer::{Failure, Peer, PeerNumber, PeerReport, Picked, Standing};
pub use shared::{Concern, Readiness, Shared};
pub use start::{Died, Router, StartError, start};
pub use table::{BadPath, NoRoute, Origin, RouteEntry, Table};
pub use upstream::{Member, Policy, Upstream};
