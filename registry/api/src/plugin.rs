//! Plugins: typed policies, and what they are bound to.
//!
//! A plugin is bound to everything, a cluster, a service or a route. Of the plugins of one kind that
//! reach a route, the narrowest binding wins; those of different kinds add up and work in a fixed
//! order of stages ([`Kind::ALL`]). One plugin holds exactly one policy: `[plugin.gray]`,
//! `[plugin.limit]` and so on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Invalid, Name, invalid::Check};
use when::Cost;

pub mod answer;
pub mod blue_green;
pub mod breaker;
pub mod choose;
pub mod edit;
pub mod fallback;
pub mod guard;
pub mod lanes;
pub mod mirror;
pub mod refers;
#[cfg(feature = "openapi")]
pub mod schema;
pub mod when;

pub use answer::{Redirect, Respond};
pub use blue_green::BlueGreen;
pub use breaker::{Adaptive, Break};
pub use choose::{Ab, AbVariant, Assign, Experiment, Gray, GrayRule, Missing};
pub use edit::{HeaderEdits, Override, Part, PathRewrite, Rewrite, Template, Variable};
pub use fallback::{FallbackCause, FallbackPolicy, LastGood};
pub use guard::{Count, Limit, LimitKeyRate, Per, Restrict};
pub use lanes::Lanes;
pub use mirror::Mirror;
pub use when::{Percent, When};

/// A typed policy and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plugin {
    /// Its name, unique: the `plugin` label of metrics.
    pub name: Name,
    /// Bound to this cluster's routers.
    #[serde(default)]
    pub cluster: Option<Name>,
    /// Bound to this service.
    #[serde(default)]
    pub service: Option<Name>,
    /// Bound to this route.
    #[serde(default)]
    pub route: Option<Name>,
    /// Switched off, it is as if it were not there. Default true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Decides, counts and logs, but does nothing. Default false.
    #[serde(default)]
    pub shadow: bool,
    /// What a router does that does not know its policy: refuse the requests it is for (true) or
    /// leave it out (false, the default).
    #[serde(default)]
    pub required: bool,
    /// What is answered in place of an error.
    #[serde(default)]
    pub fallback: Option<FallbackPolicy>,
    /// Who may ask for what.
    #[serde(default)]
    pub restrict: Option<Restrict>,
    /// How much may be asked for.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// Sends callers elsewhere.
    #[serde(default)]
    pub redirect: Option<Redirect>,
    /// A fixed answer.
    #[serde(default)]
    pub respond: Option<Respond>,
    /// A service in trouble is left alone for a while.
    #[serde(default, rename = "break")]
    pub breaker: Option<Break>,
    /// A part of requests is kept to itself on their whole way.
    #[serde(default)]
    pub lanes: Option<Lanes>,
    /// Variants of a URI, compared.
    #[serde(default)]
    pub ab: Option<Ab>,
    /// Two versions of a service, one of them live.
    #[serde(default)]
    pub blue_green: Option<BlueGreen>,
    /// Which group of instances answers.
    #[serde(default)]
    pub gray: Option<Gray>,
    /// What is changed about requests and answers.
    #[serde(default)]
    pub rewrite: Option<Rewrite>,
    /// Copies of requests, sent to somebody else.
    #[serde(default)]
    pub mirror: Option<Mirror>,
    /// Other time-outs and retries than the service's.
    #[serde(default, rename = "override")]
    pub overrides: Option<Override>,
}

fn yes() -> bool {
    true
}

/// The kinds of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`FallbackPolicy`]
    Fallback,
    /// [`Restrict`]
    Restrict,
    /// [`Limit`]
    Limit,
    /// [`Redirect`]
    Redirect,
    /// [`Respond`]
    Respond,
    /// [`Break`]
    Break,
    /// [`Lanes`]
    Lanes,
    /// [`Ab`]
    Ab,
    /// [`BlueGreen`]
    BlueGreen,
    /// [`Gray`]
    Gray,
    /// [`Rewrite`]
    Rewrite,
    /// [`Mirror`]
    Mirror,
    /// [`Override`]
    Override,
}

impl Kind {
    /// All kinds, in the order in which they look at a request. A request that one refuses or
    /// answers does not reach those behind it.
    pub const ALL: [Self; 13] = [
        Self::Fallback,
        Self::Restrict,
        Self::Limit,
        Self::Redirect,
        Self::Respond,
        Self::Break,
        Self::Lanes,
        Self::Ab,
        Self::BlueGreen,
        Self::Gray,
        Self::Rewrite,
        Self::Mirror,
        Self::Override,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::Restrict => "restrict",
            Self::Limit => "limit",
            Self::Redirect => "redirect",
            Self::Respond => "respond",
            Self::Break => "break",
            Self::Lanes => "lanes",
            Self::Ab => "ab",
            Self::BlueGreen => "blue_green",
            Self::Gray => "gray",
            Self::Rewrite => "rewrite",
            Self::Mirror => "mirror",
            Self::Override => "override",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How narrow a binding is: of two plugins of a kind, the greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breadth {
    /// Everything.
    Globe,
    /// One cluster.
    Cluster,
    /// One service.
    Service,
    /// One route.
    Route,
}

impl Plugin {
    /// The kinds of the policies in it; exactly one after [`Plugin::check`].
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        [
            (self.fallback.is_some(), Kind::Fallback),
            (self.restrict.is_some(), Kind::Restrict),
            (self.limit.is_some(), Kind::Limit),
            (self.redirect.is_some(), Kind::Redirect),
            (self.respond.is_some(), Kind::Respond),
            (self.breaker.is_some(), Kind::Break),
            (self.lanes.is_some(), Kind::Lanes),
            (self.ab.is_some(), Kind::Ab),
            (self.blue_green.is_some(), Kind::BlueGreen),
            (self.gray.is_some(), Kind::Gray),
            (self.rewrite.is_some(), Kind::Rewrite),
            (self.mirror.is_some(), Kind::Mirror),
            (self.overrides.is_some(), Kind::Override),
        ]
        .into_iter()
        .filter_map(|(there, kind)| there.then_some(kind))
    }

    /// The kind of its policy; none: a newer kind than this program knows.
    pub fn kind(&self) -> Option<Kind> {
        self.kinds().next()
    }

    /// How narrow it is bound.
    pub fn breadth(&self) -> Breadth {
        if self.route.is_some() {
            Breadth::Route
        } else if self.service.is_some() {
            Breadth::Service
        } else if self.cluster.is_some() {
            Breadth::Cluster
        } else {
            Breadth::Globe
        }
    }

    /// Whether it reaches a route in a cluster.
    pub fn reaches(&self, cluster: &Name, route: &Name, service: &Name) -> bool {
        let fits = |bound: &Option<Name>, to: &Name| bound.as_ref().is_none_or(|b| b == to);
        fits(&self.cluster, cluster) && fits(&self.route, route) && fits(&self.service, service)
    }

    /// Checks what the types alone cannot. What depends on other objects is checked by the registry.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let bounds = [&self.cluster, &self.service, &self.route];
        check.ensure(
            bounds.into_iter().flatten().count() <= 1,
            "route",
            "bind it to one of `cluster`, `service` and `route`, or to none for everything",
        );
        check.ensure(
            self.name.as_str() != "schemas",
            "name",
            "`schemas` is where the API has the schemas of plugins: choose another name",
        );
        let kinds: Vec<Kind> = self.kinds().collect();
        check.ensure(
            kinds.len() == 1,
            kinds.get(1).map_or("", |kind| kind.as_str()),
            if kinds.is_empty() {
                format!("has no policy: give it one of {}", Self::known())
            } else {
                "one policy a plugin: make another plugin of this one".to_owned()
            },
        );
        macro_rules! each {
            ($($field:ident),*) => {
                $(if let Some(policy) = &self.$field {
                    check.merge(stringify!($field), policy.check());
                })*
            };
        }
        each!(
            fallback, restrict, limit, redirect, respond, lanes, ab, blue_green, gray, rewrite,
            mirror
        );
        if let Some(policy) = &self.breaker {
            check.merge("break", policy.check());
        }
        if let Some(policy) = &self.overrides {
            check.merge("override", policy.check());
        }
        if let Some(kind) = kinds.first() {
            check.merge(kind.as_str(), self.cost().check());
        }
        check.finish()
    }

    /// What its conditions cost together.
    fn cost(&self) -> Cost {
        let mut cost = Cost::default();
        let mut conditions: Vec<&When> = Vec::new();
        conditions.extend(self.limit.iter().map(|limit| &limit.when));
        conditions.extend(self.redirect.iter().map(|redirect| &redirect.when));
        conditions.extend(self.respond.iter().map(|respond| &respond.when));
        conditions.extend(self.mirror.iter().map(|mirror| &mirror.when));
        conditions.extend(self.fallback.iter().map(|fallback| &fallback.when));
        let entry = self.lanes.iter().flat_map(|lanes| &lanes.entry);
        conditions.extend(entry.map(|rule| &rule.when));
        let experiments = || self.ab.iter().flat_map(|ab| &ab.experiments);
        conditions.extend(experiments().map(|experiment| &experiment.when));
        let rules = self.gray.iter().flat_map(|gray| &gray.rules);
        conditions.extend(rules.map(|rule| &rule.when));
        conditions.into_iter().for_each(|when| cost.add(when));
        for variant in experiments().flat_map(|experiment| &experiment.variants) {
            cost.add_values(variant.is.len() + variant.ends_with.len());
        }
        cost
    }

    fn known() -> String {
        Kind::ALL.map(|kind| format!("`{kind}`")).join(", ")
    }
}

#[cfg(test)]
mod tests;
