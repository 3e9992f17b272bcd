//! Certificates: what routers prove who they are with, by host.
//!
//! A certificate that has passed [`Certificate::check`] can be served: its chain parses and is in
//! order, its key is the one that the first certificate names, and its hosts are covered. Whether its
//! time has come or is over is asked when a chain is given ([`Facts::timely`]), and never again: an
//! old certificate that is still served is a warning, one that vanishes is an outage.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Invalid, Name, cluster::MAX_TEXT, invalid::Check, route::HostPattern};

mod pem;

pub use pem::{Chain, Facts, authorities};

/// The most bytes of a chain or of a set of authorities.
const MAX_CHAIN: usize = 64 << 10;
/// The most bytes of a key.
const MAX_KEY: usize = 16 << 10;
/// The most hosts of a certificate.
const MAX_HOSTS: usize = 100;

/// A certificate with its key, and the hosts it is for. The same in all clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Certificate {
    /// Its name, unique.
    pub name: Name,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The certificates (PEM): its own first, then those of who signed it, up to but without the
    /// root.
    pub chain: Pem,
    /// Its private key (PEM: PKCS#8, PKCS#1 or SEC1, without a passphrase). Never given back.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(write_only))]
    pub key: Key,
    /// The hosts it is served for; empty: those that it names itself.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// Served to clients that name no host, or one that no certificate is for.
    #[serde(default)]
    pub default: bool,
    /// Whether clients of these hosts prove who they are, too. Default: they are not asked.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// PEM text that everybody may see.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
pub struct Pem(Arc<str>);

/// A private key: it is not printed anywhere.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
pub struct Key(Arc<str>);

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClientAuth {
    /// What becomes of a client without a certificate. Default `required`.
    #[serde(default)]
    pub mode: ClientAuthMode,
    /// Whose signatures count: certificates (PEM).
    pub ca: Pem,
}

/// What becomes of a client without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// It is not let in.
    #[default]
    Required,
    /// It is let in, and the service is told nothing about it.
    Optional,
}

impl Certificate {
    /// Checks what the types alone cannot. The key may be missing: see [`Certificate::keyless`].
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            self.description.len() <= MAX_TEXT,
            "description",
            format!("at most {MAX_TEXT} bytes"),
        );
        let chain = check.merge("chain", self.chain.chain());
        if let Some(chain) = &chain
            && !self.keyless()
        {
            check.merge("key", chain.fits(&self.key));
        }
        if let Some(auth) = &self.client_auth {
            check.merge("client_auth.ca", authorities(&auth.ca).map(drop));
        }
        check.ensure(
            self.hosts.len() <= MAX_HOSTS,
            "hosts",
            format!("at most {MAX_HOSTS}"),
        );
        if let Some(chain) = &chain {
            for (i, host) in self.hosts.iter().enumerate() {
                let names = &chain.facts.hosts;
                check.ensure(
                    names.iter().any(|name| covers(name, host)),
                    &format!("hosts[{i}]"),
                    format!(
                        "the certificate is not for `{host}`, but for {}",
                        list(names)
                    ),
                );
            }
            check.ensure(
                self.default || !self.hosts.is_empty() || !chain.facts.hosts.is_empty(),
                "chain",
                "the certificate names no host (subjectAltName); only `default = true` can serve it",
            );
        }
        check.finish()
    }

    /// Whether it came without its key: enough where one is known already.
    pub fn keyless(&self) -> bool {
        self.key.0.is_empty()
    }

    /// What the chain says, and the hosts it is to be served for.
    pub fn read(&self) -> Result<(Chain, Vec<HostPattern>), Invalid> {
        let chain = self.chain.chain()?;
        let hosts = if self.hosts.is_empty() {
            chain.facts.hosts.clone()
        } else {
            self.hosts.clone()
        };
        Ok((chain, hosts))
    }
}

/// Whether a certificate's name stands for all that a pattern takes. In certificates, `*` is one
/// label.
fn covers(name: &HostPattern, wanted: &HostPattern) -> bool {
    match (name, wanted) {
        (HostPattern::Suffix(suffix), HostPattern::Exact(host)) => {
            host.split_once('.').is_some_and(|(_, rest)| rest == suffix)
        }
        _ => name == wanted,
    }
}

fn list(names: &[HostPattern]) -> String {
    let names: Vec<_> = names.iter().take(5).map(|n| format!("`{n}`")).collect();
    if names.is_empty() {
        "no host at all".to_owned()
    } else {
        names.join(", ")
    }
}

impl Pem {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn chain(&self) -> Result<Chain, Invalid> {
        Chain::read(self.as_str())
    }
}

impl Key {
    /// The text: for who uses it, never to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of PEM", self.0.len())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

#[cfg(test)]
mod tests;
