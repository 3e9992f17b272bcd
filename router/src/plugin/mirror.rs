//! Copies of requests: of which, how many, and to whom. Sending them is the executor's business
//! (`mirror.rs`).

use std::{sync::Arc, time::Duration};

use cardea_registry_api::{Address, Invalid, Name, plugin};

use super::{
    Bound,
    condition::{Condition, position},
    decision::Case,
};
use crate::{balance::key, plugin::asked::Asked};

mod counts;

pub(crate) use counts::{Compared, Counts, Durations, Result};

/// The header of a copy. A request that has it is never copied again.
pub(crate) const HEADER: &str = "X-Cardea-Mirror";

/// A policy, made ready.
#[derive(Debug)]
pub(crate) struct Copying {
    when: Condition,
    methods: Box<[Box<[u8]>]>,
    /// In hundredths of a percent.
    share: u64,
    /// Makes the lot another one than other plugins draw.
    seed: u64,
    pub(crate) times: u8,
    /// The largest body.
    pub(crate) body: usize,
    /// For a copy as a whole.
    pub(crate) timeout: Duration,
    pub(crate) compare: bool,
    /// Fields that do not go along.
    pub(crate) gone: Box<[Box<[u8]>]>,
    pub(crate) service: Option<Name>,
    pub(crate) group: Option<Name>,
    pub(crate) address: Option<Address>,
    pub(crate) counts: Arc<Counts>,
}

impl Copying {
    /// Makes a checked one ready.
    pub(crate) fn new(
        name: &Name,
        policy: &plugin::Mirror,
        counts: Arc<Counts>,
    ) -> std::result::Result<Self, Invalid> {
        let secret: &[&str] = if policy.credentials {
            &[]
        } else {
            &["authorization", "cookie"]
        };
        Ok(Self {
            when: Condition::new(&policy.when)?,
            methods: policy.methods.iter().map(|m| m.as_bytes().into()).collect(),
            share: policy.percent.hundredths().into(),
            seed: key::hash(name.as_str().as_bytes()),
            times: policy.times,
            body: policy.body as usize,
            timeout: policy.timeout.duration(),
            compare: policy.compare,
            gone: secret.iter().map(|name| name.as_bytes().into()).collect(),
            service: policy.service.clone(),
            group: policy.group.clone(),
            address: policy.address.clone(),
            counts,
        })
    }

    /// Whether a request is copied.
    pub(crate) fn takes(&self, asked: &Asked<'_>) -> bool {
        self.methods.iter().any(|m| **m == *asked.method)
            && position(asked.lot, self.seed) < self.share
            // What becomes another protocol cannot be copied, and a copy is not.
            && asked.header("upgrade").is_none()
            && asked.header("x-cardea-mirror").is_none()
            && self.when.holds(asked)
    }
}

/// A route's mirror: its policy, and the slot of whom the copies go to.
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    pub(crate) bound: Arc<Bound<Copying>>,
    pub(crate) slot: Option<usize>,
    /// Fields that do not go along: the policy's, and those that the route's rewriting takes out.
    pub(crate) gone: Box<[Box<[u8]>]>,
}

impl Mirror {
    /// A policy whose target has not been looked up yet.
    pub(super) fn new(bound: Arc<Bound<Copying>>) -> Self {
        Self {
            bound,
            slot: None,
            gone: Box::default(),
        }
    }

    /// Takes the target's slot; `gone` are fields that never go on.
    pub(super) fn find(&mut self, slot: usize, gone: &[Box<[u8]>]) {
        self.slot = Some(slot);
        self.gone = self.bound.policy.gone.iter().chain(gone).cloned().collect();
    }

    /// The stage: draws whether a request is copied.
    pub(super) fn ask<'c>(&'c self, case: &mut Case<'_, 'c>) {
        if !self.bound.policy.takes(case.about.asked) {
            return;
        }
        case.says(&self.bound.head, COPIED);
        if !self.bound.head.shadow {
            case.decision.mirror = Some(self);
        }
    }
}

/// The one verdict.
const COPIED: usize = 0;

#[cfg(test)]
mod tests;
