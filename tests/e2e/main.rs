//! End-to-end suites: real processes, real sockets, a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod dependencies;
mod harness;
