//! Conditions, made ready to be asked.

use cardea_registry_api::{
    Invalid,
    network::Networks,
    plugin::{When, when},
    policy::HashKey,
};
use hashbrown::HashSet;

use crate::{
    balance::{key, random::mix},
    plugin::asked::Asked,
};

/// A condition, made ready.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    all: Box<[Condition]>,
    any: Box<[Condition]>,
    not: Option<Box<Condition>>,
    key: Option<HashKey>,
    is: Option<HashSet<Box<[u8]>>>,
    starts_with: Box<[Box<[u8]>]>,
    ends_with: Box<[Box<[u8]>]>,
    matches: Option<regex::bytes::Regex>,
    present: Option<bool>,
    modulo: Option<(u64, u64)>,
    share: Option<Share>,
    clients: Option<Networks>,
    methods: Box<[Box<[u8]>]>,
}

/// A share of values, by a stable hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    seed: u64,
    hundredths: u64,
}

/// Positions that a hash may have: hundredths of a percent.
pub(crate) const POSITIONS: u64 = 10_000;

impl Share {
    fn new(salt: &str, hundredths: u16) -> Self {
        Self {
            seed: key::hash(salt.as_bytes()),
            hundredths: hundredths.into(),
        }
    }

    fn takes(self, hash: u64) -> bool {
        position(hash, self.seed) < self.hundredths
    }
}

/// Where a hash lies among [`POSITIONS`], with a salt's seed.
pub(crate) fn position(hash: u64, seed: u64) -> u64 {
    let spread = mix(hash ^ mix(seed));
    // The upper half of the product is below POSITIONS.
    u64::try_from((u128::from(spread) * u128::from(POSITIONS)) >> 64).unwrap_or(0)
}

impl Condition {
    /// Makes a checked condition ready.
    pub(crate) fn new(when: &When) -> Result<Self, Invalid> {
        let list = |list: &[When]| list.iter().map(Self::new).collect::<Result<Box<[_]>, _>>();
        let values = |list: &[String]| list.iter().map(|v| v.as_bytes().into()).collect();
        Ok(Self {
            all: list(&when.all)?,
            any: list(&when.any)?,
            not: when
                .not
                .as_deref()
                .map(Self::new)
                .transpose()?
                .map(Box::new),
            key: when.key.clone(),
            is: (!when.is.is_empty())
                .then(|| when.is.iter().map(|v| v.as_bytes().into()).collect()),
            starts_with: values(&when.starts_with),
            ends_with: values(&when.ends_with),
            matches: when.matches.as_deref().map(when::regex).transpose()?,
            present: when.present,
            modulo: when.modulo.map(u64::from).zip(when.below.map(u64::from)),
            share: when.percent.map(|p| Share::new(&when.salt, p.hundredths())),
            clients: (!when.clients.is_empty()).then(|| when.clients.iter().copied().collect()),
            methods: values(&when.methods),
        })
    }

    /// Whether it holds.
    pub(crate) fn holds(&self, asked: &Asked<'_>) -> bool {
        self.methods_hold(asked)
            && self
                .clients
                .as_ref()
                .is_none_or(|c| c.contains(asked.client))
            && self.value_holds(asked)
            && self.all.iter().all(|one| one.holds(asked))
            && (self.any.is_empty() || self.any.iter().any(|one| one.holds(asked)))
            && self.not.as_ref().is_none_or(|one| !one.holds(asked))
    }

    fn methods_hold(&self, asked: &Asked<'_>) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|m| **m == *asked.method)
    }

    fn value_holds(&self, asked: &Asked<'_>) -> bool {
        let Some(key) = &self.key else {
            return self.share.is_none_or(|share| share.takes(asked.lot));
        };
        let value = asked.value(key);
        if let Some(wanted) = self.present {
            if value.is_some() != wanted {
                return false;
            }
            if !wanted {
                return true;
            }
        }
        let Some(value) = value else { return false };
        let fits = |list: &[Box<[u8]>], fit: fn(&[u8], &[u8]) -> bool| {
            list.is_empty() || list.iter().any(|one| fit(value, one))
        };
        self.is.as_ref().is_none_or(|set| set.contains(value))
            && fits(&self.starts_with, <[u8]>::starts_with)
            && fits(&self.ends_with, <[u8]>::ends_with)
            && self.matches.as_ref().is_none_or(|r| r.is_match(value))
            && self.modulo.is_none_or(|(modulo, below)| {
                digits_at_the_end(value).is_some_and(|n| n % modulo < below)
            })
            && self.share.is_none_or(|share| share.takes(key::hash(value)))
    }
}

/// The number that a value ends with; of a very long one the last 18 digits.
fn digits_at_the_end(value: &[u8]) -> Option<u64> {
    let digits = value.iter().rev().take_while(|b| b.is_ascii_digit());
    let count = digits.take(18).count();
    let tail = &value[value.len() - count..];
    (count > 0).then(|| tail.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
}

#[cfg(test)]
mod tests;
