//! The harness of the end-to-end tests and benches: real processes, real sockets, a real PostgreSQL.
//!
//! A test starts what it needs ([`process`], [`postgres`], [`cardea`], [`backend`]), puts a load on it
//! ([`load`]), breaks something, and reads the [`load::Report`]. Nothing here sleeps to wait for
//! something: [`wait`] polls a condition up to a deadline and panics with what was last seen.
//! Everything that a test starts ends with it, also when it panics; its files stay then.
#![allow(
    clippy::unwrap_used,
    reason = "a harness that cannot go on fails the test where it stands"
)]

pub mod backend;
pub mod binary;
pub mod bulk;
pub mod http1;
pub mod load;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod scratch;
pub mod site;
pub mod tls;
pub mod wait;
