//! Who calls: bearer tokens, what they look like, and what a role may do.
//!
//! A token's secret is never kept, only its SHA-256. Finding a caller is one look-up of that hash:
//! what an attacker could learn from its timing is a prefix of a hash, which helps nobody.

use std::{fmt, sync::Arc};

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cardea_registry_api::{Name, api::Role};
use sha2::{Digest, Sha256};

use crate::{change::TokenRecord, state::Stored};

pub(crate) mod first;
pub(crate) mod scope;

/// The SHA-256 of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a secret.
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// As the store keeps it.
    pub(crate) fn hex(self) -> HexHash {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        HexHash(hex)
    }
}

/// A hash as 64 lower-case hex digits, without an allocation: every request makes one.
#[derive(Clone, Copy)]
pub(crate) struct HexHash([u8; 64]);

impl HexHash {
    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for HexHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A role as it is written.
pub(crate) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Agent => "agent",
        Role::Router => "router",
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// Makes a new secret: `cardea_<role>_` and 256 random bits.
pub(crate) fn new_secret(role: Role) -> Result<String, getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(format!(
        "cardea_{}_{}",
        role_name(role),
        URL_SAFE_NO_PAD.encode(random)
    ))
}

/// The secret behind `Authorization: Bearer`, or what is wrong.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, &'static str> {
    const FORM: &str = "send `Authorization: Bearer TOKEN`";
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(FORM);
    };
    let value = value.to_str().map_err(|_| FORM)?;
    let (scheme, secret) = value.split_once(' ').ok_or(FORM)?;
    let secret = secret.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !secret.is_empty() {
        Ok(secret)
    } else {
        Err(FORM)
    }
}

/// A caller whose token is known.
#[derive(Debug, Clone)]
pub(crate) struct Identity(Arc<Stored<TokenRecord>>);

impl Identity {
    /// The token's name: the actor in the change log.
    pub(crate) fn name(&self) -> &Name {
        &self.0.object.name
    }

    /// What it may do.
    pub(crate) fn role(&self) -> Role {
        self.0.object.role
    }

    /// Whether instances of `service` are this caller's business.
    pub(crate) fn covers(&self, service: &Name) -> bool {
        self.covers_all() || self.0.object.services.contains(service)
    }

    /// Whether instances of every service are.
    pub(crate) fn covers_all(&self) -> bool {
        self.role() != Role::Agent || self.0.object.services.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_the_documented_form() {
        let secret = new_secret(Role::Agent).unwrap();
        let random = secret.strip_prefix("cardea_agent_").unwrap();
        assert_eq!(random.len(), 43);
        assert_ne!(secret, new_secret(Role::Agent).unwrap());
    }

    #[test]
    fn hashes_are_those_of_sha256sum() {
        assert_eq!(
            TokenHash::of("abc").hex().as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn bearer_is_read_strictly() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer x"]).unwrap(), "x");
        assert_eq!(read(&["bearer  x "]).unwrap(), "x");
        let two = ["Bearer a", "Bearer b"];
        for bad in [&[][..], &["x"], &["Basic x"], &["Bearer "], &two] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
