//! What protects a service: who may ask for what, and how much.

use serde::{Deserialize, Serialize};

use super::when::{self, MAX_VALUE, MAX_VALUES, When};
use crate::{Invalid, Network, invalid::Check, policy::HashKey};

/// Who may ask for what. Everything that is given has to be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Restrict {
    /// Only these methods; else 405.
    pub methods: Vec<String>,
    /// The largest request body, in bytes; else 413.
    pub body: Option<u64>,
    /// The largest request head, in bytes; else 431.
    pub head: Option<u32>,
    /// The longest target (path and query), in bytes; else 414.
    pub target: Option<u32>,
    /// Only these media types of request bodies, such as `application/json`, `text/*`; else 415.
    pub content_types: Vec<String>,
    /// Only clients in these ranges; else 403.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub allow: Vec<Network>,
    /// No clients in these ranges, also of those that are allowed; else 403.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub deny: Vec<Network>,
}

/// How much may be asked for; beyond it, 429 with `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Limit {
    /// Which requests it counts; default: all.
    pub when: When,
    /// So many requests … None: the rate is not limited.
    pub rate: Option<u32>,
    /// … in this time.
    pub per: Per,
    /// How many may come at once, ahead of the rate. Default: `rate`.
    pub burst: Option<u32>,
    /// So many requests at a time. None: not limited.
    pub concurrent: Option<u32>,
    /// Each value of this has a limit of its own; a request that lacks it is not limited. None: one
    /// limit for all.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^(client|path|(header|cookie|query|jwt):.+)$"))]
    pub key: Option<HashKey>,
    /// Other rates for single values.
    pub keys: Vec<LimitKeyRate>,
    /// Whether each router allows all of it, or its share. Default `local`.
    pub count: Count,
}

/// Who counts the requests of a [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// Each router for itself: `n` routers allow up to `n` times as much.
    #[default]
    Local,
    /// Each router of the cluster allows its share: of `n` live ones, the `n`th part.
    Divided,
}

/// A rate of one value of a [`Limit`]'s key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitKeyRate {
    /// The value.
    pub is: String,
    /// Its rate; none: it is not limited.
    #[serde(default)]
    pub rate: Option<u32>,
    /// Its burst. Default: `rate`.
    #[serde(default)]
    pub burst: Option<u32>,
}

/// The time that a rate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// A second.
    #[default]
    Second,
    /// A minute.
    Minute,
}

impl Per {
    /// In nanoseconds.
    pub const fn nanos(self) -> u64 {
        match self {
            Self::Second => 1_000_000_000,
            Self::Minute => 60_000_000_000,
        }
    }
}

/// The highest rate and burst.
const MAX_RATE: u32 = 10_000_000;

impl Restrict {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            *self != Self::default(),
            "",
            "forbids nothing: say what it should",
        );
        check.merge("methods", when::methods(&self.methods));
        check.ensure(self.head.is_none_or(|n| n > 0), "head", "at least 1");
        check.ensure(self.target.is_none_or(|n| n > 0), "target", "at least 1");
        check.ensure(
            self.content_types.len() <= 64,
            "content_types",
            "at most 64",
        );
        for (i, media) in self.content_types.iter().enumerate() {
            let sane = media.split_once('/').is_some_and(|(main, sub)| {
                super::edit::is_token(main) && super::edit::is_token(sub) && main != "*"
            });
            check.ensure(
                sane,
                &format!("content_types[{i}]"),
                "a media type such as application/json or text/*, without parameters",
            );
        }
        for (field, list) in [("allow", &self.allow), ("deny", &self.deny)] {
            check.ensure(list.len() <= 10_000, field, "at most 10,000 ranges");
        }
        check.finish()
    }
}

impl Limit {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.merge("when", self.when.check());
        check.ensure(
            self.rate.is_some() || self.concurrent.is_some(),
            "rate",
            "give a `rate`, or `concurrent`, or both",
        );
        check.ensure(
            self.burst.is_none() || self.rate.is_some(),
            "burst",
            "there is no `rate` that it could be ahead of",
        );
        let sane = |n: Option<u32>| n.is_none_or(|n| (1..=MAX_RATE).contains(&n));
        for (field, n) in [
            ("rate", self.rate),
            ("burst", self.burst),
            ("concurrent", self.concurrent),
        ] {
            check.ensure(sane(n), field, format!("1 to {MAX_RATE}"));
        }
        check.ensure(
            self.keys.is_empty() || self.key.is_some() && self.rate.is_some(),
            "keys",
            "they are values of `key` with other rates than `rate`",
        );
        check.ensure(self.keys.len() <= MAX_VALUES, "keys", "at most 100,000");
        for (i, one) in self.keys.iter().enumerate() {
            let at = format!("keys[{i}]");
            check.ensure(
                (1..=MAX_VALUE).contains(&one.is.len()),
                &format!("{at}.is"),
                format!("1 to {MAX_VALUE} bytes"),
            );
            for (field, n) in [("rate", one.rate), ("burst", one.burst)] {
                check.ensure(
                    sane(n),
                    &format!("{at}.{field}"),
                    format!("1 to {MAX_RATE}"),
                );
            }
        }
        check.finish()
    }
}
