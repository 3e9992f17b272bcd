//! Cardea's data plane: what stands between callers and the instances of services.
//!
//! [`start`] binds the ports and starts the threads: workers, each with its own event loop, share of
//! the listener, connection pools and balancing state; one control thread that keeps the table fresh
//! and answers on the admin port; one writer of the access log. A request's way is told in
//! `pipeline.rs`, top to bottom.

mod access_log;
mod admin;
mod ahead;
mod arrival;
mod balance;
#[cfg(feature = "bench")]
pub mod bench;
mod breather;
mod budget;
mod check;
mod client;
mod clock;
mod config;
mod control;
mod descriptors;
mod exchange;
mod explain;
mod figures;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod health;
mod http1;
mod http2;
mod listen;
mod metrics;
mod mirror;
mod peer;
mod phase;
mod pipeline;
mod plugin;
mod pool;
pub mod proxy_protocol;
mod refusal;
mod request_id;
mod resolve;
mod retired;
mod room;
mod row;
mod running;
mod seats;
mod seldom;
mod shared;
mod start;
mod static_file;
mod stopping;
mod switches;
mod sync;
mod table;
mod timer;
mod tls;
mod traffic;
mod tunnel;
mod upgrade;
mod upstream;
mod wire;
mod worker;

pub use balance::{Balancers, PickInput, Reach, key};
pub use budget::Budget;
pub use cardea_registry_api::network::{BadNetwork, Network, Networks};
pub use config::{
    AccessLog, BelieveIds, Config, Http2, Limits, Mirror, Source, TlsVersion, Upgrade,
};
pub use explain::{
    ChosenRoute, ExplainedCluster, ExplainedPeer, ExplainedTraffic, ExplainedUpstream, Explanation,
    LostRoute, Question, Refusal, explain,
};
pub use health::Trial;
pub use listen::Passed;
pub use peer::{Failure, Peer, PeerNumber, PeerReport, Picked, Standing};
pub use running::{Died, Event, Router};
pub use shared::{Concern, Readiness, Shared};
pub use start::{StartError, start, start_activated};
#[cfg(feature = "bench")]
pub use switches::switch_off;
pub use table::{BadPath, NoRoute, Origin, RouteEntry, Table};
pub use upgrade::{UpgradeError, take_over};
pub use upstream::{Member, Policy, Upstream};
