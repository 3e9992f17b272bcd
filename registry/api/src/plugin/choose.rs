//! Which instances, or which variant, a request is for: gray releases and A/B tests.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::when::{MAX_VALUE, Percent, When};
use crate::{Invalid, Name, invalid::Check, policy::HashKey, route::PathPrefix};

/// Ordered rules: the first that holds names the group of instances that answers; requests for which
/// none holds are for the group `baseline`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gray {
    /// The rules, 1 to 10,000.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000))]
    pub rules: Vec<GrayRule>,
    /// What becomes of a request whose group has no instance that takes requests. Default
    /// `baseline`.
    #[serde(default)]
    pub missing: Missing,
}

/// One rule of [`Gray`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrayRule {
    /// When it holds.
    #[serde(default)]
    pub when: When,
    /// The group, as the service names it.
    pub group: Name,
}

/// What becomes of a request whose group has no instance that takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// The baseline answers.
    #[default]
    Baseline,
    /// The router answers 503.
    Refuse,
}

/// A/B tests of one URI. Experiments are independent of each other; where two would rewrite the URI
/// or choose a group, the first one does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ab {
    /// The experiments, 1 to 8.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 8))]
    pub experiments: Vec<Experiment>,
}

/// One experiment of [`Ab`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Experiment {
    /// Its name: in logs, metrics and headers.
    pub name: Name,
    /// Experiments of a layer share its callers out among them, by `from` and `to`; experiments of
    /// different layers know nothing of each other. Default: a layer of its own.
    #[serde(default)]
    pub layer: Option<Name>,
    /// Where in the layer its share of the callers begins, in percent. Default 0.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = f64, minimum = 0, maximum = 100))]
    pub from: Percent,
    /// Where it ends. Default 100.
    #[serde(default = "whole")]
    #[cfg_attr(feature = "openapi", schema(value_type = f64, minimum = 0, maximum = 100))]
    pub to: Percent,
    /// Who takes part; others are served as if there were no experiment. Default: all.
    #[serde(default)]
    pub when: When,
    /// What a caller is known by: the same value sees the same variant.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^(client|path|(header|cookie|query|jwt):.+)$"))]
    pub key: Option<HashKey>,
    /// The cookie that a caller without the key is given, so that it sees the same variant again.
    /// Default: none; such a caller takes no part.
    #[serde(default)]
    pub cookie: Option<String>,
    /// How callers are shared out. Default `hash`.
    #[serde(default)]
    pub assign: Assign,
    /// Its variants, 1 to 100.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 100))]
    pub variants: Vec<AbVariant>,
    /// A header of the answer that names the variant, as `EXPERIMENT=VARIANT`.
    #[serde(default)]
    pub response_header: Option<String>,
    /// A header that tells the service, likewise.
    #[serde(default)]
    pub request_header: Option<String>,
}

fn whole() -> Percent {
    Percent::from_hundredths(10_000).unwrap_or_default()
}

/// How callers are shared out over variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Assign {
    /// By a weighted consistent hash of the key: a change of weights moves as few callers as can be.
    #[default]
    Hash,
    /// In turn, by weight, whoever the caller is.
    RoundRobin,
}

/// One variant of an [`Experiment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AbVariant {
    /// Its name.
    pub name: Name,
    /// Its share among the variants: 0 to 1000. Default 100.
    #[serde(default = "even")]
    #[cfg_attr(feature = "openapi", schema(maximum = 1000))]
    pub weight: u16,
    /// The URI prefix that stands in for the route's; none: the URI stays.
    #[serde(default)]
    pub prefix: Option<PathPrefix>,
    /// The group of instances that answers; none: whichever would.
    #[serde(default)]
    pub group: Option<Name>,
    /// Callers whose key is one of these see this variant, whatever the weights: a whitelist.
    #[serde(default)]
    pub is: Vec<String>,
    /// So do callers whose key ends with one of these: tail numbers.
    #[serde(default)]
    pub ends_with: Vec<String>,
}

fn even() -> u16 {
    100
}

impl Gray {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            (1..=10_000).contains(&self.rules.len()),
            "rules",
            "1 to 10,000 rules: [[plugin.gray.rules]]",
        );
        for (i, rule) in self.rules.iter().enumerate() {
            check.merge(&format!("rules[{i}].when"), rule.when.check());
        }
        check.finish()
    }
}

impl Ab {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            (1..=8).contains(&self.experiments.len()),
            "experiments",
            "1 to 8 experiments: [[plugin.ab.experiments]]",
        );
        let mut names = BTreeSet::new();
        for (i, experiment) in self.experiments.iter().enumerate() {
            let at = format!("experiments[{i}]");
            check.ensure(
                names.insert(&experiment.name),
                &format!("{at}.name"),
                format!("`{}` stands twice", experiment.name),
            );
            check.merge(&at, experiment.check());
        }
        for (i, one) in self.experiments.iter().enumerate() {
            let clash = self.experiments[..i].iter().find(|other| {
                one.layer.is_some()
                    && one.layer == other.layer
                    && one.from < other.to
                    && other.from < one.to
            });
            if let Some(other) = clash {
                check.ensure(
                    false,
                    &format!("experiments[{i}].from"),
                    format!("overlaps experiment `{}` of the same layer", other.name),
                );
            }
        }
        check.finish()
    }
}

impl Experiment {
    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(self.from < self.to, "to", "more than `from`");
        check.merge("when", self.when.check());
        let named = |name: &Option<String>| name.as_deref().is_none_or(super::edit::is_token);
        check.ensure(named(&self.cookie), "cookie", "a cookie's name");
        for (field, header) in [
            ("response_header", &self.response_header),
            ("request_header", &self.request_header),
        ] {
            if let Some(name) = header {
                check.merge(field, super::edit::editable(name));
            }
        }
        let by_lot = self.assign == Assign::RoundRobin;
        check.ensure(
            self.key.is_some() || self.cookie.is_some() || by_lot,
            "key",
            "say what callers are known by (header:NAME, cookie:NAME, query:NAME, client, path), \
             give a `cookie`, or set assign = \"round-robin\"",
        );
        check.ensure(
            !by_lot || self.key.is_none() && self.cookie.is_none(),
            "assign",
            "in turn, nobody is known: leave out `key` and `cookie`",
        );
        check.ensure(
            (1..=100).contains(&self.variants.len()),
            "variants",
            "1 to 100 variants",
        );
        let mut names = BTreeSet::new();
        for (i, variant) in self.variants.iter().enumerate() {
            let at = format!("variants[{i}]");
            check.ensure(
                names.insert(&variant.name),
                &format!("{at}.name"),
                format!("`{}` stands twice", variant.name),
            );
            check.ensure(
                variant.weight <= 1000,
                &format!("{at}.weight"),
                "a weight is 0 to 1000",
            );
            for (field, list) in [("is", &variant.is), ("ends_with", &variant.ends_with)] {
                let sane = |value: &String| (1..=MAX_VALUE).contains(&value.len());
                check.ensure(
                    list.len() <= super::when::MAX_VALUES && list.iter().all(sane),
                    &format!("{at}.{field}"),
                    format!("at most 100,000 values of 1 to {MAX_VALUE} bytes"),
                );
            }
        }
        check.ensure(
            self.variants.iter().any(|variant| variant.weight > 0),
            "variants",
            "one variant at least needs a weight above 0",
        );
        check.finish()
    }
}
