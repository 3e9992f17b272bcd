//! Lanes: a part of a request's whole way through all services is kept to itself.

use serde::{Deserialize, Serialize};

use super::{
    choose::Missing,
    edit::{editable, is_token},
    when::When,
};
use crate::{Invalid, Name, Network, invalid::Check};

/// Requests that carry a lane's tag are answered by that lane's instances wherever a service has
/// some, and by the baseline where it has none; the tag goes on in either case. Instances of lanes get
/// no other requests. Bind it to the globe or to a cluster, so that it holds on every hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Lanes {
    /// The label whose value is an instance's lane; instances without it are the baseline. Default
    /// `lane`.
    pub label: String,
    /// The header that carries the tag. Default `x-lane`.
    pub header: String,
    /// The member of W3C `baggage` that carries it too. Default `lane`.
    pub member: String,
    /// Whose tags are believed; others are taken off. Default `trusted`.
    pub accept: Accept,
    /// Further callers that are trusted: networks that services call from.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub callers: Vec<Network>,
    /// What tags requests that come without a tag: the first rule that holds.
    pub entry: Vec<LaneRule>,
    /// What becomes of a request whose lane has instances of the service, none of which takes
    /// requests. Default `baseline`.
    pub missing: Missing,
}

/// Whose tags are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// Those of the router's trusted proxies, and of [`Lanes::callers`].
    #[default]
    Trusted,
    /// Everybody's.
    Anybody,
}

/// A rule that tags requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaneRule {
    /// When it holds.
    #[serde(default)]
    pub when: When,
    /// The lane.
    pub lane: Name,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            label: "lane".to_owned(),
            header: "x-lane".to_owned(),
            member: "lane".to_owned(),
            accept: Accept::default(),
            callers: Vec::new(),
            entry: Vec::new(),
            missing: Missing::default(),
        }
    }
}

impl Lanes {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            (1..=256).contains(&self.label.len()),
            "label",
            "a label of instances",
        );
        check.merge("header", editable(&self.header));
        check.ensure(
            !self.header.eq_ignore_ascii_case("baggage"),
            "header",
            "a header of its own: `baggage` carries the tag anyway",
        );
        check.ensure(
            is_token(&self.member),
            "member",
            "a key of W3C baggage, such as lane",
        );
        check.ensure(
            self.callers.len() <= 10_000,
            "callers",
            "at most 10,000 ranges",
        );
        check.ensure(self.entry.len() <= 10_000, "entry", "at most 10,000 rules");
        for (i, rule) in self.entry.iter().enumerate() {
            check.merge(&format!("entry[{i}].when"), rule.when.check());
        }
        check.finish()
    }
}
