//! HTTP/2 from clients.

#[path = "http2/client.rs"]
pub(crate) mod client;
#[path = "http2/frames.rs"]
pub(crate) mod frames;

#[path = "http2/attacks.rs"]
mod attacks;
#[path = "http2/beside.rs"]
mod beside;
#[path = "http2/conformance.rs"]
mod conformance;
#[path = "http2/grpc.rs"]
mod grpc;
#[path = "http2/outbound.rs"]
mod outbound;
#[path = "http2/peer.rs"]
pub(crate) mod peer;
#[path = "http2/requests.rs"]
mod requests;
#[path = "http2/secure.rs"]
mod secure;
#[path = "http2/websocket.rs"]
mod websocket;
