//! Limits of what clients may do.

use std::time::Duration;

/// What a client may send, and how slowly.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest message head, in bytes (431, 414).
    pub head: usize,
    /// The largest request body, in bytes (413); none: no limit.
    pub body: Option<u64>,
    /// For a request head, from its first byte to its last; and for a new connection up to its first
    /// byte, with what comes before: a PROXY header, a TLS handshake.
    pub header_timeout: Duration,
    /// Between two reads or writes of a body on the client's side.
    pub idle_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keepalive: Duration,
    /// How long a tunnel (WebSocket) may live, so that clients spread over newer routers and
    /// instances; each ends at a random time within the last tenth. None: no limit.
    pub tunnel_max_age: Option<Duration>,
    /// The fewest bytes of a request's body that a client may send in a second, while it is waited
    /// for (408); 0: any pace will do.
    pub min_rate_in: u64,
    /// The fewest bytes of an answer that it may take in a second, while it is waited for; 0: any.
    pub min_rate_out: u64,
    /// Over how much waiting both are judged.
    pub rate_window: Duration,
    /// Client connections in all. Where the system has too few file descriptors, they are fewer.
    pub connections: usize,
    /// Connections of one client: an IPv4 address, or an IPv6 network of 64 bits; none: no limit.
    /// Trusted proxies have no limit.
    pub connections_per_client: Option<u32>,
    /// How long a new connection waits for a place when there are as many as there may be.
    pub queue_timeout: Duration,
    /// Requests of one connection, after which it is closed; none: no limit.
    pub requests_per_connection: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 << 10,
            body: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            keepalive: Duration::from_secs(75),
            tunnel_max_age: None,
            min_rate_in: 256,
            min_rate_out: 256,
            rate_window: Duration::from_secs(30),
            connections: 65_536,
            connections_per_client: None,
            queue_timeout: Duration::from_millis(100),
            requests_per_connection: None,
        }
    }
}

/// The least and the most that a message head may be limited to.
const HEAD_LIMITS: std::ops::RangeInclusive<usize> = 4096..=64 << 10;

/// The most that a client's pace may have to be, in bytes a second.
const MOST_RATE: u64 = 1 << 20;
/// The longest that a new connection may wait for a place.
const LONGEST_QUEUE: Duration = Duration::from_mins(1);

/// Tunnels are looked at once a second.
const SHORTEST_AGE: Duration = Duration::from_secs(1);

impl Limits {
    /// Checks what the types alone cannot.
    pub(super) fn check(&self, mut ensure: impl FnMut(bool, &str, &str)) {
        ensure(
            HEAD_LIMITS.contains(&self.head),
            "limits.head",
            "between 4096 and 65536 bytes",
        );
        ensure(self.connections > 0, "limits.connections", "at least 1");
        for (field, most) in [
            ("limits.connections_per_client", self.connections_per_client),
            (
                "limits.requests_per_connection",
                self.requests_per_connection,
            ),
        ] {
            ensure(
                most != Some(0),
                field,
                "at least 1; leave it out for no limit",
            );
        }
        for (field, rate) in [
            ("limits.min_rate_in", self.min_rate_in),
            ("limits.min_rate_out", self.min_rate_out),
        ] {
            ensure(
                rate <= MOST_RATE,
                field,
                "at most 1048576 bytes a second; 0 for any pace",
            );
        }
        ensure(
            self.queue_timeout <= LONGEST_QUEUE,
            "limits.queue_timeout",
            "at most 1m: clients give up before",
        );
        for (field, time) in [
            ("limits.header_timeout", self.header_timeout),
            ("limits.idle_timeout", self.idle_timeout),
            ("limits.keepalive", self.keepalive),
            ("limits.rate_window", self.rate_window),
        ] {
            ensure(!time.is_zero(), field, "longer than nothing");
        }
        ensure(
            self.tunnel_max_age.is_none_or(|age| age >= SHORTEST_AGE),
            "limits.tunnel_max_age",
            "at least 1s; leave it out for no limit",
        );
    }
}
