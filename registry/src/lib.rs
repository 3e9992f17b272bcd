//! The registry: who is where, kept in one database, told to routers.
//!
//! A request comes in through [`start`]'s HTTP API (`http/`), is turned into a change and handed to
//! the writer; what was written leaves through the feed.

pub mod config;

pub use config::Config;
