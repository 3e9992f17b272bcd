//! HTTP/2 from clients.

#[path = "http2/client.rs"]
pub(crate) mod client;
#[path = "http2/frames.rs"]
pub(crate) mod frames;

#[path = "http2/attacks.rs"]
mod attacks;
#[path = "http2/conformance.rs"]
mod conformance;
#[path = "http2/requests.rs"]
mod requests;
