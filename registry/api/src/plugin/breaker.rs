//! Circuit breakers: a service in trouble is left alone for a while.

use serde::{Deserialize, Serialize};

use super::when::Percent;
use crate::{Invalid, Span, invalid::Check};

/// Refuses a service's requests (503) while too many of them fail or are slow, and tries again with a
/// few. Reckoned by each router for itself, for each service that the plugin reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Break {
    /// The window that is looked back on. Default 10s.
    pub window: Span,
    /// Fewer requests in it say nothing. Default 20.
    pub min_requests: u32,
    /// This share of failed ones opens it, in percent. Default 50.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub errors: Percent,
    /// Statuses that are failures, besides no answer at all. Default 500, 502, 503, 504.
    pub statuses: Vec<u16>,
    /// Statuses of gRPC that are failures, such as 14 (UNAVAILABLE). Default: none: they come from the
    /// application, which may say so about what is behind it.
    pub grpc_statuses: Vec<u8>,
    /// From here on an answer is slow, counted to its head. Default: none is.
    pub slow: Option<Span>,
    /// This share of slow ones opens it, in percent. Default 100.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub slow_calls: Percent,
    /// How long it stays open before it tries again. Default 5s.
    pub open: Span,
    /// So many requests are tried then; when all of them go well, it closes. Default 3.
    pub probes: u32,
    /// Bounds the requests at a time by what latency says. Default: not.
    pub adaptive: Option<Adaptive>,
}

/// A bound on the requests at a time that finds itself: it falls while answers take longer than they
/// did in the long run, and grows while they do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Adaptive {
    /// Where it begins. Default 20.
    pub initial: u32,
    /// It never falls below. Default 10.
    pub min: u32,
    /// It never grows beyond. Default 1000.
    pub max: u32,
    /// How often it is reckoned anew. Default 1s.
    pub every: Span,
    /// In percent of the latency in the long run: slower than that, it falls. Default 150.
    pub tolerance: u32,
}

impl Default for Break {
    fn default() -> Self {
        let percent = |n: u16| Percent::from_hundredths(n * 100).unwrap_or_default();
        Self {
            window: Span::secs(10),
            min_requests: 20,
            errors: percent(50),
            statuses: vec![500, 502, 503, 504],
            grpc_statuses: Vec::new(),
            slow: None,
            slow_calls: percent(100),
            open: Span::secs(5),
            probes: 3,
            adaptive: None,
        }
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 10,
            max: 1000,
            every: Span::secs(1),
            tolerance: 150,
        }
    }
}

impl Break {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let within = |span: Span, from: Span, to: Span| (from..=to).contains(&span);
        check.ensure(
            within(self.window, Span::secs(1), Span::secs(600)),
            "window",
            "between 1s and 10m",
        );
        check.ensure(
            (1..=1_000_000).contains(&self.min_requests),
            "min_requests",
            "1 to 1,000,000",
        );
        for (field, share) in [("errors", self.errors), ("slow_calls", self.slow_calls)] {
            check.ensure(share.hundredths() > 0, field, "more than 0");
        }
        check.ensure(
            self.statuses.len() <= 64 && self.statuses.iter().all(|s| (200..=599).contains(s)),
            "statuses",
            "at most 64 HTTP statuses, 200 to 599",
        );
        check.ensure(
            self.grpc_statuses.len() <= 16
                && self.grpc_statuses.iter().all(|s| (1..=16).contains(s)),
            "grpc_statuses",
            "at most 16 gRPC statuses, 1 to 16",
        );
        let hour = Span::secs(3600);
        check.ensure(
            self.slow
                .is_none_or(|slow| within(slow, Span::millis(1), hour)),
            "slow",
            "between 1ms and 1h",
        );
        check.ensure(
            within(self.open, Span::millis(100), hour),
            "open",
            "between 100ms and 1h",
        );
        check.ensure((1..=255).contains(&self.probes), "probes", "1 to 255");
        if let Some(adaptive) = &self.adaptive {
            check.merge("adaptive", adaptive.check());
        }
        check.finish()
    }
}

impl Adaptive {
    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(self.min >= 1, "min", "at least 1");
        check.ensure(
            (self.min..=1_000_000).contains(&self.max),
            "max",
            "`min` to 1,000,000",
        );
        check.ensure(
            (self.min..=self.max).contains(&self.initial),
            "initial",
            "between `min` and `max`",
        );
        check.ensure(
            (Span::millis(100)..=Span::secs(60)).contains(&self.every),
            "every",
            "between 100ms and 60s",
        );
        check.ensure(
            (101..=1000).contains(&self.tolerance),
            "tolerance",
            "101 to 1000 percent",
        );
        check.finish()
    }
}
