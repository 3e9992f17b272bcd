//! Two versions of a service, of which one is live.

use serde::{Deserialize, Serialize};

use super::when::Percent;
use crate::{Invalid, Name, invalid::Check};

/// Two groups of a service, one of them live. Editing `live` moves all traffic at once, and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BlueGreen {
    /// One group. Default `blue`.
    #[serde(default = "blue")]
    pub blue: Name,
    /// The other one. Default `green`.
    #[serde(default = "green")]
    pub green: Name,
    /// Which of the two answers.
    pub live: Name,
    /// A router moves to the live side only once this share of its peers there, in percent, takes
    /// requests; until then it stays with the other side. 0, the default: it moves at once.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub require_ready: Percent,
    /// What becomes of a request when the side in use has no instance that takes requests: the other
    /// side answers (`other`, the default), or the router does, with 503 (`refuse`).
    #[serde(default)]
    pub missing: MissingSide,
}

/// What becomes of a request when a side has no instance that takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MissingSide {
    /// The other side answers.
    #[default]
    Other,
    /// The router answers 503.
    Refuse,
}

fn blue() -> Name {
    named("blue")
}

fn green() -> Name {
    named("green")
}

fn named(name: &str) -> Name {
    name.parse().unwrap_or_else(|_| unreachable!("a name"))
}

impl BlueGreen {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            self.blue != self.green,
            "green",
            "another group than `blue`",
        );
        check.ensure(
            self.live == self.blue || self.live == self.green,
            "live",
            format!("`{}` or `{}`", self.blue, self.green),
        );
        check.finish()
    }
}
