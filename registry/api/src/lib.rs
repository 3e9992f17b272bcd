//! What travels between registry, routers, agents and operators: the types, their limits, the wire
//! forms, and (feature `client`) the HTTP client.
//!
//! Every door parses bytes with [`strict`], which names unknown fields and where a value is wrong;
//! the feed is read leniently, so that an older router understands a newer registry. A value of one
//! of these types has passed its checks: after the door nobody validates again.

pub mod api;
pub mod certificate;
#[cfg(feature = "client")]
pub mod client;
pub mod cluster;
pub mod fallback;
pub mod feed;
pub mod figures;
pub mod instance;
pub mod invalid;
pub mod manifest;
pub mod name;
pub mod network;
#[cfg(feature = "openapi")]
mod openapi;
pub mod plugin;
pub mod policy;
pub mod problem;
pub mod release;
pub mod route;
pub mod service;
pub mod span;
pub mod strict;
pub mod switch;
pub mod traffic;

pub use certificate::Certificate;
pub use cluster::Cluster;
pub use fallback::Fallback;
pub use instance::{Address, Instance, InstanceId, InstanceKey, InstanceState, Source};
pub use invalid::{FieldError, Invalid};
pub use name::Name;
pub use network::Network;
pub use plugin::Plugin;
pub use problem::Problem;
pub use release::{Release, ReleasePlan};
pub use route::Route;
pub use service::Service;
pub use span::Span;
pub use switch::Switch;
pub use traffic::{Traffic, TrafficKey};
