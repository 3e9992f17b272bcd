//! Traffic: to which clusters the routers of a cluster send requests, and when they leave one for
//! another.
//!
//! One object says it for all services of a cluster, another for one of them: the narrower wins, whole.
//! Without any, requests stay in their own cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Invalid, Name, Span, invalid::Check, name::parse_from_str, policy::HashKey};

/// The most clusters that one object names.
pub const MAX_CLUSTERS: usize = 16;
/// The highest weight of a cluster.
pub const MAX_WEIGHT: u8 = 100;

/// Where the routers of a cluster send requests, for all services or for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Traffic {
    /// Whose routers do so.
    pub cluster: Name,
    /// For which service; none: for every one that has no object of its own.
    #[serde(default)]
    pub service: Option<Name>,
    /// Each cluster's share, 0–100, of what the others have: `{a = 90, b = 10}`. Empty: all to the own
    /// cluster.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u8>))]
    pub weights: BTreeMap<Name, u8>,
    /// When requests leave a cluster that is not well. Default: only when it has nobody to answer.
    #[serde(default)]
    pub failover: Option<Failover>,
    /// What keeps a caller's requests in one cluster: a hash key, as `balance` has it. Default: nothing
    /// does; shares are then exact over any run of requests.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "cookie:session"))]
    pub sticky: Option<HashKey>,
    /// Whether instances in the router's own zone come first. Default `any`.
    #[serde(default)]
    pub zones: Zones,
}

/// Whether zones count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Zones {
    /// All instances of a cluster are alike.
    #[default]
    Any,
    /// Instances in the router's own zone come first; what they are too few for goes to the others.
    Near,
}

/// When and whereto requests leave a cluster. How much leaves follows Envoy's load between priority
/// levels: a cluster of which the share `h` is healthy keeps `h × overprovision`, at most all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failover {
    /// Whereto, the first that can comes first.
    pub order: Vec<Name>,
    /// Requests begin to leave when less than this much of a cluster's capacity is healthy, in percent.
    /// Default 50.
    #[serde(default = "default_threshold")]
    pub threshold: u8,
    /// How much more than their part healthy instances may take on, in percent. Default 140.
    #[serde(default = "default_overprovision")]
    pub overprovision: u16,
    /// They have all come back when the healthy part is this many points above the threshold; until then
    /// the cluster keeps what it can bear. Default 25.
    #[serde(default = "default_hysteresis")]
    pub hysteresis: u8,
    /// A cluster that was without any share gets all of it back over this time. Default 10 s; 0 s: at once.
    #[serde(default = "default_recovery")]
    pub recovery: Span,
}

const fn default_threshold() -> u8 {
    50
}

const fn default_overprovision() -> u16 {
    140
}

const fn default_hysteresis() -> u8 {
    25
}

const fn default_recovery() -> Span {
    Span::secs(10)
}

impl Failover {
    /// To these clusters, with every default.
    pub fn to(order: Vec<Name>) -> Self {
        Self {
            order,
            threshold: default_threshold(),
            overprovision: default_overprovision(),
            hysteresis: default_hysteresis(),
            recovery: default_recovery(),
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let different: BTreeSet<&Name> = self.order.iter().collect();
        check.ensure(
            (1..=MAX_CLUSTERS).contains(&self.order.len()) && different.len() == self.order.len(),
            "order",
            format!("1 to {MAX_CLUSTERS} clusters, each once"),
        );
        check.ensure(
            (1..=100).contains(&self.threshold),
            "threshold",
            "a percentage, 1 to 100",
        );
        check.ensure(
            (100..=1000).contains(&self.overprovision),
            "overprovision",
            "a percentage, 100 to 1000",
        );
        check.ensure(
            u16::from(self.threshold) + u16::from(self.hysteresis) <= 100,
            "hysteresis",
            "points above `threshold`: both together are at most 100",
        );
        check.ensure(self.recovery <= Span::secs(3600), "recovery", "at most 1h");
        check.finish()
    }
}

/// What names a [`Traffic`]. Written `cluster` or `cluster/service`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrafficKey {
    /// Whose routers.
    pub cluster: Name,
    /// For which service; none: for all.
    pub service: Option<Name>,
}

impl fmt::Display for TrafficKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            None => write!(f, "{}", self.cluster),
            Some(service) => write!(f, "{}/{service}", self.cluster),
        }
    }
}

impl FromStr for TrafficKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cluster, service) = match text.split_once('/') {
            None => (text, None),
            Some((cluster, service)) => (cluster, Some(service)),
        };
        let service = service.map(str::parse).transpose();
        Ok(Self {
            cluster: cluster.parse().map_err(|e| format!("cluster: {e}"))?,
            service: service.map_err(|e| format!("service: {e}"))?,
        })
    }
}

impl Serialize for TrafficKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TrafficKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

impl Traffic {
    /// All to the own cluster.
    pub fn of(key: TrafficKey) -> Self {
        Self {
            cluster: key.cluster,
            service: key.service,
            weights: BTreeMap::new(),
            failover: None,
            sticky: None,
            zones: Zones::Any,
        }
    }

    /// What names it.
    pub fn key(&self) -> TrafficKey {
        TrafficKey {
            cluster: self.cluster.clone(),
            service: self.service.clone(),
        }
    }

    /// Every other cluster that it names: those whose instances the routers need to know.
    pub fn others(&self) -> impl Iterator<Item = &Name> {
        let order = self.failover.iter().flat_map(|failover| &failover.order);
        let all: BTreeSet<&Name> = self.weights.keys().chain(order).collect();
        all.into_iter().filter(|name| **name != self.cluster)
    }

    /// The field in which it names a cluster.
    pub fn names_cluster(&self, name: &Name) -> Option<String> {
        if self.cluster == *name {
            return Some("cluster".to_owned());
        }
        if self.weights.contains_key(name) {
            return Some(format!("weights.{name}"));
        }
        let order = &self.failover.as_ref()?.order;
        let at = order.iter().position(|one| one == name)?;
        Some(format!("failover.order[{at}]"))
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            self.weights.len() <= MAX_CLUSTERS,
            "weights",
            format!("at most {MAX_CLUSTERS} clusters"),
        );
        for (cluster, weight) in &self.weights {
            check.ensure(
                *weight <= MAX_WEIGHT,
                &format!("weights.{cluster}"),
                format!("a cluster's weight is 0 to {MAX_WEIGHT}"),
            );
        }
        check.ensure(
            self.weights.is_empty() || self.weights.values().any(|weight| *weight > 0),
            "weights",
            "at least one above 0: requests must go somewhere",
        );
        if let Some(failover) = &self.failover {
            check.merge("failover", failover.check());
        }
        check.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    fn read(json: &str) -> Result<Traffic, Vec<String>> {
        let read = strict::from_json::<Traffic>(json.as_bytes());
        let checked = read.and_then(|traffic| traffic.check().map(|()| traffic));
        checked.map_err(|invalid| {
            let named = |e: &crate::FieldError| format!("{}: {}", e.field, e.message);
            invalid.errors.iter().map(named).collect()
        })
    }

    #[test]
    fn golden() {
        let short = read(r#"{"cluster":"a"}"#).unwrap();
        insta::assert_json_snapshot!("short", short);
        let full = read(
            r#"{"cluster":"a","service":"s","weights":{"a":0,"b":100},"sticky":"cookie:sid",
                "zones":"near","failover":{"order":["b","c"]}}"#,
        )
        .unwrap();
        insta::assert_json_snapshot!("full", full);
        let others: Vec<&str> = full.others().map(Name::as_str).collect();
        assert_eq!(others, ["b", "c"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, wrong) in [
            (
                r#"{"cluster":"a","weigths":{"b":1}}"#,
                "weigths: unknown field; did you mean `weights`?",
            ),
            (
                r#"{"cluster":"a","weights":{"b":101}}"#,
                "weights.b: a cluster's weight is 0 to 100",
            ),
            (
                r#"{"cluster":"a","weights":{"a":0,"b":0}}"#,
                "weights: at least one above 0: requests must go somewhere",
            ),
            (
                r#"{"cluster":"a","failover":{"order":["b","b"]}}"#,
                "failover.order: 1 to 16 clusters, each once",
            ),
            (
                r#"{"cluster":"a","failover":{"order":[]}}"#,
                "failover.order: 1 to 16 clusters, each once",
            ),
            (
                r#"{"cluster":"a","failover":{"order":["b"],"threshold":0}}"#,
                "failover.threshold: a percentage, 1 to 100",
            ),
            (
                r#"{"cluster":"a","failover":{"order":["b"],"overprovision":99}}"#,
                "failover.overprovision: a percentage, 100 to 1000",
            ),
            (
                r#"{"cluster":"a","failover":{"order":["b"],"threshold":80}}"#,
                "failover.hysteresis: points above `threshold`: both together are at most 100",
            ),
            (
                r#"{"cluster":"a","failover":{"order":["b"],"recovery":"2h"}}"#,
                "failover.recovery: at most 1h",
            ),
        ] {
            assert_eq!(read(json).unwrap_err(), [wrong], "{json}");
        }
        let wrong = read(r#"{"cluster":"a","sticky":"cookie:"}"#).unwrap_err();
        assert!(
            wrong[0].starts_with("sticky: `cookie:` is no hash key"),
            "{wrong:?}"
        );
        let wrong = read(r#"{"cluster":"a","zones":"far"}"#).unwrap_err();
        assert!(
            wrong[0].starts_with("zones: unknown variant `far`"),
            "{wrong:?}"
        );
    }

    #[test]
    fn keys() {
        for text in ["dc-a", "dc-a/search"] {
            let key: TrafficKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
        }
        for bad in ["", "/s", "a/", "a/b/c"] {
            assert!(bad.parse::<TrafficKey>().is_err(), "{bad}");
        }
    }
}
