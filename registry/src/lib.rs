//! The registry: who is where, kept in one database, told to routers.
//!
//! A request comes in through [`start`]'s HTTP API (`http/`), is turned into a change and handed to
//! the writer; what was written leaves through the feed.

#![allow(
    clippy::unused_async,
    dead_code,
    reason = "the writer, which fills the bodies and uses the rest of the state, comes next"
)]

pub mod change;
pub mod config;
pub mod core;
pub(crate) mod disk;
pub(crate) mod journal;
pub(crate) mod lease;
pub mod record;
pub mod state;

pub use config::Config;
