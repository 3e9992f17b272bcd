//! Services: named backends with an owner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Instance, Invalid, Name,
    cluster::MAX_TEXT,
    invalid::Check,
    policy::{Balance, Health, Protocol, Retries, Timeouts, UpstreamTls},
};

/// A named backend, the same in all clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// Its name, unique.
    pub name: Name,
    /// Whom to ask about it.
    #[serde(default)]
    pub owner: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What its instances are asked in: `http/1.1`, `h2` (HTTP/2 within TLS) or `h2c` (HTTP/2 without).
    /// Default `http/1.1`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How a peer is picked.
    #[serde(default)]
    pub balance: Balance,
    /// How long a router waits.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When another peer is tried.
    #[serde(default)]
    pub retries: Retries,
    /// When a peer counts as down.
    #[serde(default)]
    pub health: Health,
    /// That its instances are asked through TLS. Default: they are not.
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
    /// Named parts of its instances, by labels; see [`Service::groups_of`].
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, BTreeMap<String, String>>))]
    pub groups: BTreeMap<Name, Selector>,
}

/// Labels that an instance of a group has, all of them; `version` is also the instance's version and
/// `zone` its zone.
pub type Selector = BTreeMap<String, String>;

/// The group of requests that are for no other.
pub const BASELINE: &str = "baseline";
/// The most groups of a service.
pub const MAX_GROUPS: usize = 63;

impl Service {
    /// A service with every default.
    pub fn named(name: Name) -> Self {
        Self {
            name,
            owner: String::new(),
            description: String::new(),
            protocol: Protocol::default(),
            balance: Balance::default(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            health: Health::default(),
            tls: None,
            groups: BTreeMap::new(),
        }
    }

    /// The names of its groups: those it names, and `baseline`.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        let named = self.groups.keys().map(Name::as_str);
        named.filter(|name| *name != BASELINE).chain([BASELINE])
    }

    /// Which groups an instance is in, a bit for each of [`Service::group_names`] in order. Unless the
    /// service says otherwise, `baseline` is what is in no other group.
    pub fn groups_of(&self, instance: &Instance) -> u64 {
        let takes = |selector: &Selector| {
            selector.iter().all(|(label, value)| {
                instance.labels.get(label) == Some(value)
                    || label == "version" && instance.version == *value
                    || label == "zone"
                        && instance.zone.as_ref().is_some_and(|z| z.as_str() == value)
            })
        };
        let (mut bits, mut next) = (0, 1u64);
        for (name, selector) in &self.groups {
            if name.as_str() != BASELINE {
                bits |= if takes(selector) { next } else { 0 };
                next <<= 1;
            }
        }
        let baseline = match self.groups.get(BASELINE) {
            Some(selector) => takes(selector),
            None => bits == 0,
        };
        bits | if baseline { next } else { 0 }
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for (field, text) in [("owner", &self.owner), ("description", &self.description)] {
            check.ensure(
                text.len() <= MAX_TEXT,
                field,
                format!("at most {MAX_TEXT} bytes"),
            );
        }
        check.merge("timeouts", self.timeouts.check());
        check.merge("retries", self.retries.check());
        check.merge("health", self.health.check());
        check.ensure(
            self.protocol != Protocol::H2c || self.tls.is_none(),
            "protocol",
            "`h2c` is HTTP/2 without TLS: leave out `tls`, or ask in `h2`",
        );
        check.ensure(
            self.protocol != Protocol::H2 || self.tls.is_some(),
            "protocol",
            "`h2` is HTTP/2 within TLS: say with `tls` whom to trust (`tls = {}`: the authorities of \
             the router's system), or ask in `h2c`",
        );
        if let Some(tls) = &self.tls {
            check.merge("tls", tls.check());
        }
        check.ensure(
            self.groups.len() <= MAX_GROUPS,
            "groups",
            format!("at most {MAX_GROUPS}"),
        );
        for (name, selector) in &self.groups {
            let sane = |text: &String| text.len() <= 256;
            check.ensure(
                (1..=16).contains(&selector.len())
                    && selector
                        .iter()
                        .all(|(label, value)| sane(label) && sane(value)),
                &format!("groups.{name}"),
                "1 to 16 labels with their values, such as { version = \"v2\" }",
            );
        }
        check.finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn search() -> Service {
        Service::named("search".parse().unwrap())
    }

    #[test]
    fn an_empty_table_is_complete() {
        let service: Service = serde_json::from_str(r#"{"name":"search"}"#).unwrap();
        assert_eq!(service, search());
        service.check().unwrap();
    }

    #[test]
    fn balance_forms() {
        for text in [
            r#""round-robin""#,
            r#""least-loaded""#,
            r#"{"hash":"header:x-user"}"#,
        ] {
            let balance: Balance = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&balance).unwrap(), text);
        }
        for bad in [
            r#""random""#,
            r#"{"hash":"header:"}"#,
            r#"{"hash":"x"}"#,
            r#"{"hsh":"client"}"#,
            "3",
        ] {
            assert!(serde_json::from_str::<Balance>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_name_the_field() {
        let mut service = search();
        service.health.max_ejected_percent = 101;
        service.timeouts.connect = crate::Span::secs(0);
        let fields: Vec<_> = service
            .check()
            .unwrap_err()
            .errors
            .into_iter()
            .map(|e| e.field)
            .collect();
        assert_eq!(fields, ["timeouts.connect", "health.max_ejected_percent"]);
    }
}
