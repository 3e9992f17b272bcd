//! Clusters: data centres.

use serde::{Deserialize, Serialize};

use crate::{Invalid, Name, invalid::Check};

/// A data centre: a set of instances and routers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    /// Its name, unique.
    pub name: Name,
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// The name of a site's only cluster, when nobody says another.
pub fn default_cluster() -> Name {
    "default"
        .parse()
        .unwrap_or_else(|_| unreachable!("`default` is a name"))
}

impl Cluster {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            self.description.len() <= MAX_TEXT,
            "description",
            format!("at most {MAX_TEXT} bytes"),
        );
        check.finish()
    }
}

/// The longest free text, in bytes.
pub const MAX_TEXT: usize = 1024;
