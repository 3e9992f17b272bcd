//! The registry: who is where, kept in one database, told to routers.
//!
//! A request comes in through [`start`]'s HTTP API (`http/`), is turned into a change and handed to
//! the writer; what was written leaves through the feed.

pub mod analysis;
mod auth;
mod background;
mod bearing;
pub mod change;
mod clock;
pub mod config;
pub mod core;
mod disk;
mod feed;
mod figures;
mod files;
mod guard;
mod http;
mod journal;
mod leases;
mod lost;
mod metrics;
pub mod record;
mod release;
mod routers;
mod server;
mod shared;
mod start;
pub mod state;
mod store;
mod switch;
#[cfg(test)]
mod testing;
mod time;
mod tls;
mod writer;

pub use auth::first::{ADMIN_FILE, FirstTokenError};
pub use config::Config;
pub use start::{Ended, Registry, StartError, start};
pub use tls::TlsError;
