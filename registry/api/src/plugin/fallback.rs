//! What is answered in place of an error.

use serde::{Deserialize, Serialize};

use super::{
    edit::is_token,
    when::{self, When},
};
use crate::{Invalid, Name, Span, invalid::Check, route::PathPrefix};

/// What is answered in place of an error: the last good answer, another service's or route's, or a stored
/// body, in this order of those that are given. Where none of them is to be had, the error goes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct FallbackPolicy {
    /// Whom; default: all.
    pub when: When,
    /// Requests with these methods. Default: GET and HEAD. What is not idempotent may have been done
    /// although its answer failed: name other methods only where the answer does not matter.
    pub methods: Vec<String>,
    /// Answers of the service with these statuses. Default: 500, 502, 503, 504.
    pub statuses: Vec<u16>,
    /// What else it answers for. Default: all of it.
    pub causes: Vec<FallbackCause>,
    /// Answer with what the service last answered well to the same request.
    pub last_good: Option<LastGood>,
    /// Answer with what this service says. It is asked once, with no plugins of its own.
    pub service: Option<Name>,
    /// The group of `service` (or of the route's own service) that is asked.
    pub group: Option<Name>,
    /// Answer as this route would: its service, its rewriting, its time-outs. It is asked once.
    pub route: Option<Name>,
    /// Stands in for the route's prefix when somebody else is asked; `/` takes it away. Default: the
    /// prefix of `route`, or none.
    pub prefix: Option<PathPrefix>,
    /// Answer with this stored body (an object of kind `fallback`).
    pub body: Option<Name>,
    /// The status of the stored body. Default: the one that is stored with it, or 200.
    pub status: Option<u16>,
    /// Calls of gRPC, too: only `service`, `group` and `route` can answer them. Default false.
    pub grpc: bool,
}

/// Why the service has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FallbackCause {
    /// No instance takes requests, none could be connected to, or the connection broke before an
    /// answer.
    Unreachable,
    /// No answer came in time.
    Timeout,
    /// A limit refused the request.
    Limit,
    /// A circuit breaker refused the request.
    Break,
}

impl FallbackCause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::Timeout, Self::Limit, Self::Break];
}

/// Which answers are remembered, and for how long. Answers to GET with a status of success are, up to
/// a size; never those that are for one caller (`private`, `Set-Cookie`, a request with
/// `Authorization`) or that may not be kept (`no-store`), unless `private` says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct LastGood {
    /// How old an answer may be. Default 10m.
    pub ttl: Span,
    /// The largest body, in bytes. Default 256 KiB.
    pub size: u32,
    /// What all of them may hold together at one router, in bytes. Default 32 MiB.
    pub memory: u64,
    /// The parameters of the query that make it another request. None: the query as it is.
    pub query: Option<Vec<String>>,
    /// The headers that make it another request, such as `accept-language`.
    pub headers: Vec<String>,
    /// Also what is for one caller, who is known by `Authorization` and `Cookie`. Default false.
    pub private: bool,
}

impl Default for FallbackPolicy {
    fn default() -> Self {
        Self {
            when: When::default(),
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            statuses: vec![500, 502, 503, 504],
            causes: FallbackCause::ALL.to_vec(),
            last_good: None,
            service: None,
            group: None,
            route: None,
            prefix: None,
            body: None,
            status: None,
            grpc: false,
        }
    }
}

impl Default for LastGood {
    fn default() -> Self {
        Self {
            ttl: Span::secs(600),
            size: 256 << 10,
            memory: 32 << 20,
            query: None,
            headers: Vec::new(),
            private: false,
        }
    }
}

impl FallbackPolicy {
    /// Whether another service or route, or another part of the same one, is asked.
    pub fn asks_elsewhere(&self) -> bool {
        self.service.is_some() || self.group.is_some() || self.route.is_some()
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.merge("when", self.when.check());
        check.merge("methods", when::methods(&self.methods));
        check.ensure(
            self.body.is_some() || self.last_good.is_some() || self.asks_elsewhere(),
            "",
            "say what is answered: `body`, `last_good`, `service`, `group` or `route`",
        );
        check.ensure(
            self.route.is_none() || (self.service.is_none() && self.group.is_none()),
            "route",
            "a route has its own service and groups: leave `service` and `group` out",
        );
        check.ensure(
            !self.statuses.is_empty() || !self.causes.is_empty(),
            "causes",
            "answers for nothing: give `statuses` or `causes`",
        );
        check.ensure(
            self.statuses.len() <= 64 && self.statuses.iter().all(|s| (400..=599).contains(s)),
            "statuses",
            "at most 64 HTTP statuses, 400 to 599",
        );
        check.ensure(
            self.grpc || !self.methods.is_empty(),
            "methods",
            "at least one method",
        );
        check.ensure(
            self.prefix.is_none() || self.asks_elsewhere(),
            "prefix",
            "only a request to a `service`, `group` or `route` has one",
        );
        check.ensure(
            self.status.is_none() || self.body.is_some(),
            "status",
            "it is the status of `body`, and there is none",
        );
        check.ensure(
            self.status
                .is_none_or(|s| (200..=599).contains(&s) && !matches!(s, 204 | 205 | 304)),
            "status",
            "a status that an answer with a body may have: 200 to 599, not 204, 205 or 304",
        );
        check.ensure(
            !self.grpc || self.asks_elsewhere(),
            "grpc",
            "a call of gRPC can only be answered by a `service`, `group` or `route`",
        );
        if let Some(last_good) = &self.last_good {
            check.merge("last_good", last_good.check());
        }
        check.finish()
    }
}

impl LastGood {
    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            (Span::secs(1)..=Span::secs(7 * 86_400)).contains(&self.ttl),
            "ttl",
            "between 1s and 168h",
        );
        check.ensure(
            (1..=4 << 20).contains(&self.size),
            "size",
            "between 1 byte and 4 MiB",
        );
        check.ensure(
            (64 << 10..=4 << 30).contains(&self.memory),
            "memory",
            "between 64 KiB and 4 GiB",
        );
        check.ensure(
            self.memory >= 2 * u64::from(self.size),
            "memory",
            "at least twice `size`",
        );
        let query = self.query.iter().flatten();
        check.ensure(
            query.clone().count() <= 16 && { query }.all(|name| (1..=128).contains(&name.len())),
            "query",
            "at most 16 names of 1 to 128 bytes",
        );
        check.ensure(
            self.headers.len() <= 16 && self.headers.iter().all(|name| is_token(name)),
            "headers",
            "at most 16 names of headers",
        );
        check.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<FallbackPolicy, String> {
        let policy: FallbackPolicy = toml::from_str(toml).map_err(|e| e.to_string())?;
        let checked = policy.check().map(|()| policy);
        checked.map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_name_is_enough() {
        let policy = read("body = \"sorry\"").unwrap();
        assert_eq!(policy.methods, ["GET", "HEAD"]);
        assert_eq!(policy.statuses, [500, 502, 503, 504]);
        assert_eq!(policy.causes, FallbackCause::ALL);
        let policy = read("causes = [\"limit\"]\nstatuses = []\n[last_good]\n").unwrap();
        assert_eq!(policy.last_good, Some(LastGood::default()));
        read("route = \"r\"\nprefix = \"/\"\ngrpc = true").unwrap();
    }

    #[test]
    fn names_what_is_wrong() {
        for (toml, want) in [
            ("", "say what is answered"),
            ("body = \"b\"\nstatuses = [200]", "statuses: at most 64"),
            (
                "body = \"b\"\nstatuses = []\ncauses = []",
                "causes: answers for nothing",
            ),
            ("body = \"b\"\nmethods = []", "methods: at least one"),
            ("body = \"b\"\nmethods = [\"get\"]", "methods[0]: a method"),
            ("body = \"b\"\nstatus = 204", "status: a status"),
            ("service = \"s\"\nstatus = 200", "status: it is the status"),
            ("body = \"b\"\nprefix = \"/x\"", "prefix: only a request"),
            ("body = \"b\"\ngrpc = true", "grpc: a call of gRPC"),
            (
                "route = \"r\"\nservice = \"s\"",
                "route: a route has its own",
            ),
            ("route = \"r\"\ngroup = \"g\"", "route: a route has its own"),
            ("[last_good]\nttl = \"0s\"", "last_good.ttl: between"),
            ("[last_good]\nsize = 0", "last_good.size: between"),
            ("[last_good]\nmemory = 1", "last_good.memory: between"),
            (
                "[last_good]\nmemory = 65536\nsize = 65536",
                "last_good.memory: at least twice",
            ),
            (
                "[last_good]\nheaders = [\"a b\"]",
                "last_good.headers: at most",
            ),
            ("[last_good]\nquery = [\"\"]", "last_good.query: at most"),
        ] {
            let said = read(toml).unwrap_err();
            assert!(said.starts_with(want), "{toml}: {said}");
        }
        assert!(read("body = \"b\"\ncauses = [\"moon\"]").is_err());
    }
}
