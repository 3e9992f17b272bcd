//! The registry: who is where, kept in one database, told to routers.
//!
//! A request comes in through [`start`]'s HTTP API (`http/`), is turned into a change and handed to
//! the writer; what was written leaves through the feed.

#![allow(
    clippy::unused_async,
    dead_code,
    reason = "the writer, which fills the bodies and uses the rest of the state, comes next"
)]

mod auth;
pub mod change;
pub mod config;
pub mod core;
mod http;
mod metrics;
pub mod record;
mod server;
mod start;
pub mod state;
mod time;
mod tls;

pub use auth::first::{ADMIN_FILE, FirstTokenError};
pub use config::Config;
pub use start::{Ended, Registry, StartError, start};
pub use tls::TlsError;
