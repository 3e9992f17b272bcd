//! Settings of `cardea router`: the `[router.limits]` table.

use cardea_registry_api::Span;
use clap::Args;
use serde::{Deserialize, Serialize};

/// What a client may send, and how slowly.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// The largest message head, in bytes [default: 65536]
    #[arg(
        long = "max-head",
        env = "CARDEA_ROUTER_MAX_HEAD",
        value_name = "BYTES"
    )]
    pub(crate) head: Option<usize>,
    /// The largest request body, in bytes [default: no limit]
    #[arg(
        long = "max-body",
        env = "CARDEA_ROUTER_MAX_BODY",
        value_name = "BYTES"
    )]
    pub(crate) body: Option<u64>,
    /// For a request's head, and for a new connection up to its first byte, with its PROXY header and
    /// TLS handshake [default: 10s]
    #[arg(long, env = "CARDEA_ROUTER_HEADER_TIMEOUT", value_name = "TIME")]
    pub(crate) header_timeout: Option<Span>,
    /// Between two reads or writes of a body [default: 1m]
    #[arg(long, env = "CARDEA_ROUTER_IDLE_TIMEOUT", value_name = "TIME")]
    pub(crate) idle_timeout: Option<Span>,
    /// How long a connection may wait for its next request [default: 75s]
    #[arg(long, env = "CARDEA_ROUTER_KEEPALIVE", value_name = "TIME")]
    pub(crate) keepalive: Option<Span>,
    /// How long a WebSocket may live before its client has to connect anew [default: no limit]
    #[arg(long, env = "CARDEA_ROUTER_TUNNEL_MAX_AGE", value_name = "TIME")]
    pub(crate) tunnel_max_age: Option<Span>,
    /// The fewest bytes of a request's body that a client may send in a second while it is waited
    /// for; 0: any pace will do [default: 256]
    #[arg(long, env = "CARDEA_ROUTER_MIN_RATE_IN", value_name = "BYTES")]
    pub(crate) min_rate_in: Option<u64>,
    /// The fewest bytes of an answer that it may take in a second; 0: any [default: 256]
    #[arg(long, env = "CARDEA_ROUTER_MIN_RATE_OUT", value_name = "BYTES")]
    pub(crate) min_rate_out: Option<u64>,
    /// Over how much waiting both are judged [default: 30s]
    #[arg(long, env = "CARDEA_ROUTER_RATE_WINDOW", value_name = "TIME")]
    pub(crate) rate_window: Option<Span>,
    /// Client connections in all; fewer where the system has too few file descriptors: each takes
    /// two [default: 65536]
    #[arg(
        long = "max-connections",
        env = "CARDEA_ROUTER_MAX_CONNECTIONS",
        value_name = "N"
    )]
    pub(crate) connections: Option<usize>,
    /// Connections of one client: an IPv4 address, or an IPv6 network of 64 bits; trusted proxies have
    /// no limit [default: no limit]
    #[arg(
        long = "max-connections-per-client",
        env = "CARDEA_ROUTER_MAX_CONNECTIONS_PER_CLIENT",
        value_name = "N"
    )]
    pub(crate) connections_per_client: Option<u32>,
    /// How long a new connection waits for a place when there are as many as there may be
    /// [default: 100ms]
    #[arg(long, env = "CARDEA_ROUTER_QUEUE_TIMEOUT", value_name = "TIME")]
    pub(crate) queue_timeout: Option<Span>,
    /// Requests of one connection, after which it is closed [default: no limit]
    #[arg(
        long = "max-requests-per-connection",
        env = "CARDEA_ROUTER_MAX_REQUESTS_PER_CONNECTION",
        value_name = "N"
    )]
    pub(crate) requests_per_connection: Option<u32>,
}
