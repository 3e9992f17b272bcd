//! Answers that the router gives by itself. One place turns causes into statuses; nothing in them
//! tells about the inside.

/// An answer in place of a service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// For programs; stable.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: &'static str,
}

impl Refusal {
    /// A request that cannot be understood beyond doubt.
    pub(crate) const fn bad(message: &'static str) -> Self {
        Self {
            status: 400,
            code: "bad_request",
            message,
        }
    }

    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
        }
    }
}

/// No route takes the host and path.
pub(crate) const NO_ROUTE: Refusal = Refusal::new(404, "no_route", "no route takes this request");
/// The request's head took too long.
pub(crate) const HEAD_TIMEOUT: Refusal = Refusal::new(
    408,
    "request_timeout",
    "the request took too long to arrive",
);
/// The request's body comes too slowly.
pub(crate) const BODY_TOO_SLOW: Refusal =
    Refusal::new(408, "body_too_slow", "the request body arrives too slowly");
/// There are as many connections as there may be.
pub(crate) const CROWDED: Refusal = Refusal::new(
    503,
    "too_many_connections",
    "the router has as many connections as it may have; try again shortly",
);
/// The request's body is over the limit.
pub(crate) const BODY_TOO_LARGE: Refusal =
    Refusal::new(413, "body_too_large", "the request body is too large");
/// The request's target is over the limit.
pub(crate) const TARGET_TOO_LONG: Refusal =
    Refusal::new(414, "target_too_long", "the request target is too long");
/// `Expect` asks for something else than `100-continue`.
pub(crate) const UNKNOWN_EXPECTATION: Refusal = Refusal::new(
    417,
    "unknown_expectation",
    "only 100-continue can be expected",
);
/// The host's clients have to prove who they are, on a connection of its own.
pub(crate) const MISDIRECTED: Refusal = Refusal::new(
    421,
    "misdirected",
    "this host asks its clients for certificates: connect to it by its own name, through TLS",
);
/// The request's head is over the limit.
pub(crate) const HEAD_TOO_LARGE: Refusal = Refusal::new(
    431,
    "head_too_large",
    "the request's header fields are too large",
);
/// `TRACE` and `CONNECT`.
pub(crate) const METHOD_NOT_SERVED: Refusal =
    Refusal::new(501, "method_not_served", "this method is not served here");
/// An upgrade to a service that is asked in HTTP/2 and does not take it there.
pub(crate) const UPGRADE_NOT_SERVED: Refusal = Refusal::new(
    501,
    "upgrade_not_served",
    "the service is asked in HTTP/2, where only a WebSocket can be opened, and only if the service \
     allows it (RFC 8441)",
);
/// No peer answered as it should.
pub(crate) const ALL_FAILED: Refusal = Refusal::new(
    502,
    "upstream_failed",
    "the service did not answer properly",
);
/// No table yet.
pub(crate) const NOT_READY: Refusal = Refusal::new(
    503,
    "not_ready",
    "the router has no routes yet; try again shortly",
);
/// The service has no instance that takes requests.
pub(crate) const NO_PEER: Refusal = Refusal::new(
    503,
    "no_instance",
    "no instance of the service takes requests",
);
/// A breaker gives the service a rest.
pub(crate) const CIRCUIT_OPEN: Refusal = Refusal::new(
    503,
    "circuit_open",
    "the service is in trouble and is given a rest; try again later",
);
/// The service takes no more requests at a time.
pub(crate) const OVERLOADED: Refusal = Refusal::new(
    503,
    "overloaded",
    "the service is asked for as much as it can take; try again shortly",
);
/// A peer did not answer in time.
pub(crate) const TIMED_OUT: Refusal = Refusal::new(
    504,
    "upstream_timeout",
    "the service did not answer in time",
);
/// Not HTTP/1.0 or HTTP/1.1.
pub(crate) const VERSION_NOT_SERVED: Refusal =
    Refusal::new(505, "version_not_served", "speak HTTP/1.1 or HTTP/1.0");
/// A plugin says that this client may not ask.
pub(crate) const FORBIDDEN: Refusal = Refusal::new(403, "forbidden", "you may not ask for this");
/// A plugin says that this method is not allowed here.
pub(crate) const METHOD_NOT_ALLOWED: Refusal =
    Refusal::new(405, "method_not_allowed", "this method is not allowed here");
/// A plugin does not take bodies of this media type.
pub(crate) const MEDIA_TYPE: Refusal = Refusal::new(
    415,
    "media_type",
    "bodies of this media type are not taken here",
);
/// A limit is reached.
pub(crate) const TOO_MANY_REQUESTS: Refusal = Refusal::new(
    429,
    "too_many_requests",
    "more is asked for than is allowed; try again later",
);
/// A plugin made a path or host that cannot be sent.
pub(crate) const REWRITTEN_UNFIT: Refusal = Refusal::new(
    400,
    "rewritten_unfit",
    "this request cannot be rewritten as it would have to be",
);
/// A plugin that must not be left out is not known to this program.
pub(crate) const PLUGIN_UNKNOWN: Refusal = Refusal::new(
    503,
    "plugin_unknown",
    "this router is too old for a plugin of this route",
);
