//! Settings of `cardea router`: the `[router.http2]` table.

use cardea_registry_api::Span;
use clap::Args;
use serde::{Deserialize, Serialize};

/// How HTTP/2 is spoken with clients.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "HTTP/2")]
pub(crate) struct Http2 {
    /// Requests that one connection may have open at a time [default: 128]
    #[arg(
        long = "http2-streams",
        env = "CARDEA_ROUTER_HTTP2_STREAMS",
        value_name = "N"
    )]
    pub(crate) streams: Option<u32>,
    /// How far a request's body may be sent ahead of the service, in bytes [default: 262144]
    #[arg(
        long = "http2-window",
        env = "CARDEA_ROUTER_HTTP2_WINDOW",
        value_name = "BYTES"
    )]
    pub(crate) window: Option<u32>,
    /// The most bytes of one answer that wait for the connection to take them [default: 65536]
    #[arg(
        long = "http2-send-buffer",
        env = "CARDEA_ROUTER_HTTP2_SEND_BUFFER",
        value_name = "BYTES"
    )]
    pub(crate) send_buffer: Option<usize>,
    /// After how long a silent client is asked whether it is there [default: 30s]
    #[arg(
        long = "http2-ping-interval",
        env = "CARDEA_ROUTER_HTTP2_PING_INTERVAL",
        value_name = "TIME"
    )]
    pub(crate) ping_interval: Option<Span>,
    /// How long it has to answer [default: 20s]
    #[arg(
        long = "http2-ping-timeout",
        env = "CARDEA_ROUTER_HTTP2_PING_TIMEOUT",
        value_name = "TIME"
    )]
    pub(crate) ping_timeout: Option<Span>,
    /// What a client may do in one go that leads to nothing: 10 for a request given up within a second,
    /// 5 for a PING, 1 for an empty frame [default: 4000]
    #[arg(
        long = "http2-credit",
        env = "CARDEA_ROUTER_HTTP2_CREDIT",
        value_name = "N"
    )]
    pub(crate) credit: Option<u32>,
}
