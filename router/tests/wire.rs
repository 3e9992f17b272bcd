//! The engine on the wire: raw sockets on both sides, and upstreams that keep every byte.

#![allow(
    clippy::unwrap_used,
    reason = "a test: clippy knows only functions marked as one"
)]

#[path = "wire/answers.rs"]
mod answers;
#[path = "wire/bodies.rs"]
mod bodies;
#[path = "wire/clusters.rs"]
mod clusters;
#[path = "wire/differential.rs"]
mod differential;
#[path = "wire/early.rs"]
mod early;
#[path = "wire/edges.rs"]
mod edges;
#[path = "wire/failures.rs"]
mod failures;
#[path = "wire/fallback.rs"]
mod fallback;
#[path = "wire/greedy.rs"]
mod greedy;
#[path = "wire/harness.rs"]
mod harness;
#[path = "wire/heads.rs"]
mod heads;
#[path = "wire/http2.rs"]
mod http2;
#[path = "wire/lifecycle.rs"]
mod lifecycle;
#[path = "wire/mirror.rs"]
mod mirror;
#[path = "wire/peers.rs"]
mod peers;
#[path = "wire/piped.rs"]
mod piped;
#[path = "wire/plugins.rs"]
mod plugins;
#[path = "wire/proxies.rs"]
mod proxies;
#[path = "wire/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "wire/refused.rs"]
mod refused;
#[path = "wire/retries.rs"]
mod retries;
#[path = "wire/tls.rs"]
mod tls;
#[path = "wire/tunnels.rs"]
mod tunnels;
#[path = "wire/upstream_tls.rs"]
mod upstream_tls;
#[path = "wire/websocket.rs"]
mod websocket;
