//! The agent as a process, with real children and a scripted registry on real sockets.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, helpers included"
)]

mod harness;
mod probes;
mod registry;
mod renewals;
mod sockets;
mod stopping;
mod wrapping;

/// Not a test of its own: what [`harness::Agent`] starts, this same program in another role.
#[test]
fn agent_main() {
    harness::agent_main();
}
