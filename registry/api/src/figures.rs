//! Live figures: what routers count, window by window, and what is told of it.
//!
//! A router reports each window of [`WINDOW_MS`] once ([`Report`]). Windows begin at multiples of that
//! on the wall clock, so that those of different routers are merged by adding them up; everything in
//! [`Figures`] is a sum. What is asked for comes as [`Told`].

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{Invalid, Name, Span, invalid::Check};

mod histogram;

pub use histogram::{BUCKETS, Histogram, LONGEST_US, begin_of, bucket_of};

/// How long a window is, in milliseconds.
pub const WINDOW_MS: i64 = 5_000;
/// How late a report may be, in milliseconds: what is older is in no window any more.
pub const LATEST_MS: i64 = 300_000;
/// How far ahead a router's clock may be, in milliseconds.
pub const AHEAD_MS: i64 = 10_000;
/// The most series of a report, and of a window.
pub const MAX_SERIES: usize = 5_000;
/// The most that one counter of one window may say.
pub const MOST: u64 = 1_000_000_000;

/// The beginning of the window that a moment (Unix ms) is in.
pub const fn window_of(ms: i64) -> i64 {
    ms - ms.rem_euclid(WINDOW_MS)
}

/// `POST /v1/clusters/{cluster}/routers/{id}/figures`: what one router process counted in one window.
///
/// A process reports each window once, in order: what is not newer than what was counted already is a
/// repetition, and is not counted again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresReport))]
pub struct Report {
    /// Which process counted, by a name that no other has: a router that is started again, or taken
    /// over from, begins at nothing.
    pub process: Name,
    /// When the window began, Unix ms; a multiple of 5000.
    pub at: i64,
    /// What was counted, by route, service and group; what had nothing to count is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
    /// How services' peers are, at the window's end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peers>,
    /// Requests of series beyond the most that a report has.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub left_out: u64,
    /// Windows before this one that could not be reported.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub dropped: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_nothing(n: &u64) -> bool {
    *n == 0
}

/// What was counted of one route, service and group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresSeries))]
pub struct Series {
    /// The route; none: no route took the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    /// The service that the route names; none: no route took them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// The group of instances that a plugin chose; none: all of the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// What was counted.
    pub figures: Figures,
}

/// What is counted. Two of them are merged by adding up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Figures {
    /// Requests by the first digit of the status that the client got: 1xx (a connection that was handed
    /// over, such as a WebSocket), 2xx, 3xx, 4xx, 5xx. 499: the client went away first.
    pub classes: [u64; 5],
    /// How long requests took, but for those whose connection was handed over.
    #[serde(default, skip_serializing_if = "Histogram::is_nothing")]
    pub latency: Histogram,
    /// Requests under way at the windows' ends, added up over windows.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub in_flight: u64,
    /// Tries after the first one.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub retries: u64,
    /// Failures that a fallback answered for.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub fallbacks: u64,
    /// Requests that a plugin refused because there were too many.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub limited: u64,
}

/// A service's peers, as routers see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresPeers))]
pub struct Peers {
    /// Whose.
    pub service: Name,
    /// In which cluster, where that is another one than the router's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Name>,
    /// Those that new requests may go to. Of several routers: as the one sees it that sees fewest.
    pub healthy: u32,
    /// All that are meant to take requests. Of several routers: as the one sees it that sees most.
    pub total: u32,
}

impl Figures {
    /// All requests.
    pub fn requests(&self) -> u64 {
        let classes = self.classes.iter();
        classes.fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Requests that were answered with 5xx.
    pub fn errors(&self) -> u64 {
        self.classes[4]
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        let others = [self.in_flight, self.retries, self.fallbacks, self.limited];
        self.requests() == 0 && others == [0; 4]
    }

    /// Adds what another one says.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            classes,
            latency,
            in_flight,
            retries,
            fallbacks,
            limited,
        } = other;
        let add = |sum: &mut u64, n: &u64| *sum = sum.saturating_add(*n);
        for (sum, n) in self.classes.iter_mut().zip(classes) {
            add(sum, n);
        }
        self.latency.merge(latency);
        add(&mut self.in_flight, in_flight);
        add(&mut self.retries, retries);
        add(&mut self.fallbacks, fallbacks);
        add(&mut self.limited, limited);
    }

    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let most = format!("at most {MOST}");
        let fine = self.classes.iter().all(|n| *n <= MOST);
        check.ensure(fine, "classes", most.clone());
        for (field, n) in [
            ("in_flight", self.in_flight),
            ("retries", self.retries),
            ("fallbacks", self.fallbacks),
            ("limited", self.limited),
        ] {
            check.ensure(n <= MOST, field, most.clone());
        }
        check.merge("latency", self.latency.check());
        check.finish()
    }
}

impl Histogram {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Peers {
    /// Adds what another router says: of both, the fewer healthy ones of the larger total.
    pub fn merge(&mut self, other: &Self) {
        self.healthy = self.healthy.min(other.healthy);
        self.total = self.total.max(other.total);
    }
}

impl Report {
    /// Checks what the types alone cannot; `now` in Unix ms.
    pub fn check(&self, now: i64) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            self.at.rem_euclid(WINDOW_MS) == 0,
            "at",
            format!("a window begins at a multiple of {WINDOW_MS} ms"),
        );
        check.ensure(
            self.at >= now.saturating_sub(LATEST_MS) && self.at <= now.saturating_add(AHEAD_MS),
            "at",
            format!(
                "windows are taken from {} s ago to {} s ahead; it is {now} here: compare the clocks",
                LATEST_MS / 1000,
                AHEAD_MS / 1000
            ),
        );
        for (field, length) in [("series", self.series.len()), ("peers", self.peers.len())] {
            check.ensure(
                length <= MAX_SERIES,
                field,
                format!("at most {MAX_SERIES}; the rest goes into `left_out`"),
            );
        }
        for (field, n) in [("left_out", self.left_out), ("dropped", self.dropped)] {
            check.ensure(n <= MOST, field, format!("at most {MOST}"));
        }
        let mut known = HashSet::new();
        for (i, series) in self.series.iter().enumerate().take(MAX_SERIES) {
            let at = format!("series[{i}]");
            check.ensure(
                series.route.is_some() == series.service.is_some(),
                &at,
                "`route` and `service` go together: give both or neither",
            );
            check.ensure(
                known.insert((&series.route, &series.service, &series.group)),
                &at,
                "the same route, service and group stand above; give them once",
            );
            check.merge(&format!("{at}.figures"), series.figures.check());
        }
        let mut known = HashSet::new();
        for (i, peers) in self.peers.iter().enumerate().take(MAX_SERIES) {
            let at = format!("peers[{i}]");
            let fine = peers.healthy <= peers.total;
            check.ensure(fine, &format!("{at}.healthy"), "at most `total`");
            let new = known.insert((&peers.service, &peers.cluster));
            check.ensure(
                new,
                &format!("{at}.service"),
                "it stands above; give it once",
            );
        }
        check.finish()
    }
}

/// The answer to a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresTaken))]
pub struct Taken {
    /// `false`: it is a repetition, and was not counted again.
    pub counted: bool,
    /// `false`: the database is away; only this replica knows of it, and it is lost when the database
    /// is back.
    pub stored: bool,
    /// Where instances cannot serve all that is meant for them, by what all of them say that they can and
    /// what all routers got lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bears: Vec<Bears>,
}

/// How much of what is meant for a service in a cluster its instances can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresBears))]
pub struct Bears {
    /// Which.
    pub service: Name,
    /// Where.
    pub cluster: Name,
    /// In thousandths.
    pub part: u16,
}

/// By what figures are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresBy))]
pub enum By {
    /// The service.
    #[default]
    Service,
    /// Service and group.
    Group,
    /// Route, service and group.
    Route,
}

impl By {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Group => "group",
            Self::Route => "route",
        }
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for By {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Service, Self::Group, Self::Route]
            .into_iter()
            .find(|by| by.as_str() == text)
            .ok_or("write service, group or route")
    }
}

/// `GET /v1/clusters/{cluster}/figures`: what the routers of a cluster counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresTold))]
pub struct Told {
    /// Whose.
    pub cluster: Name,
    /// The first moment that is told of, Unix ms.
    pub from: i64,
    /// The moment behind the last.
    pub to: i64,
    /// How long each point is.
    pub step: Span,
    /// Why these may not be all, such as that the database is away and only what this replica heard
    /// itself is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// Up to when (Unix ms) there is a report; none: nothing was reported within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<i64>,
    /// In order, without those of which nothing was reported.
    pub points: Vec<ToldPoint>,
}

/// What was counted in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresPoint))]
pub struct ToldPoint {
    /// When it began, Unix ms.
    pub at: i64,
    /// Reports that are in it: one for each router and window.
    pub reports: u64,
    /// Requests that are not in any of the series, as there were too many series.
    pub left_out: u64,
    /// Reports that routers say they could not send.
    pub dropped: u64,
    /// By service, route and group.
    pub series: Vec<ToldSeries>,
}

/// What was counted of one service, group or route in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = FiguresToldSeries))]
pub struct ToldSeries {
    /// The service; none: no route took the requests.
    pub service: Option<Name>,
    /// The route, where they are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    /// The group that a plugin chose, where they are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// All requests.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// By the first digit of their status: 1xx to 5xx.
    pub classes: [u64; 5],
    /// Requests under way, on the average over the step's windows.
    pub in_flight: f64,
    /// Tries after the first one.
    pub retries: u64,
    /// Failures that a fallback answered for.
    pub fallbacks: u64,
    /// Requests that a plugin refused because there were too many.
    pub limited: u64,
    /// How long a request took on the average, in microseconds; none: nothing was measured.
    pub mean_us: Option<u64>,
    /// Half of the requests took no longer, in microseconds; off by an eighth at most.
    pub p50_us: Option<u64>,
    /// The same of nine in ten.
    pub p90_us: Option<u64>,
    /// The same of 99 in 100.
    pub p99_us: Option<u64>,
    /// Peers that new requests may go to, as the router sees it that sees fewest; only by service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers_healthy: Option<u32>,
    /// Peers that are meant to take requests, as the router sees it that sees most; only by service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers_total: Option<u32>,
}

#[cfg(test)]
mod tests;
