//! Clusters: data centres.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Address, Invalid, Name, invalid::Check, policy::UpstreamTls};

/// A data centre: a set of instances and routers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    /// Its name, unique.
    pub name: Name,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// How other clusters' requests reach it: through its routers, at these addresses. Empty: they go to
    /// its instances directly.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub gateway: Vec<Address>,
    /// That the gateway is asked through TLS. Default: it is not.
    #[serde(default)]
    pub gateway_tls: Option<UpstreamTls>,
}

/// The most addresses of a gateway.
pub const MAX_GATEWAY: usize = 64;

/// The name of a site's only cluster, when nobody says another.
pub fn default_cluster() -> Name {
    "default"
        .parse()
        .unwrap_or_else(|_| unreachable!("`default` is a name"))
}

impl Cluster {
    /// A cluster with every default.
    pub fn named(name: Name) -> Self {
        Self {
            name,
            description: String::new(),
            gateway: Vec::new(),
            gateway_tls: None,
        }
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            self.description.len() <= MAX_TEXT,
            "description",
            format!("at most {MAX_TEXT} bytes"),
        );
        let different: BTreeSet<&Address> = self.gateway.iter().collect();
        check.ensure(
            self.gateway.len() <= MAX_GATEWAY && different.len() == self.gateway.len(),
            "gateway",
            format!("at most {MAX_GATEWAY} addresses of its routers, each once"),
        );
        if let Some(tls) = &self.gateway_tls {
            check.ensure(
                !self.gateway.is_empty(),
                "gateway_tls",
                "without `gateway` nobody asks it: leave it out",
            );
            check.merge("gateway_tls", tls.check());
        }
        check.finish()
    }
}

/// The longest free text, in bytes.
pub const MAX_TEXT: usize = 1024;
