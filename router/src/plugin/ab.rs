//! A/B tests: which variant of each experiment a caller sees.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use cardea_registry_api::{
    Invalid, Name,
    plugin::{Ab, Assign, Experiment},
    policy::HashKey,
};
use hashbrown::HashMap;

use super::{
    Bound,
    decision::{Case, Spare},
    edit,
    groups::Slots,
};
use crate::{
    balance::{
        key,
        random::{mix, unit},
    },
    http1::render::line,
    plugin::{
        asked::Asked,
        condition::{Condition, position},
    },
};

/// An experiment, made ready.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The layer's share of callers, in hundredths of a percent.
    share: (u64, u64),
    layer_seed: u64,
    seed: u64,
    when: Condition,
    key: Option<HashKey>,
    pub(crate) cookie: Option<Box<str>>,
    assign: Assign,
    turn: Arc<AtomicU64>,
    pub(crate) variants: Box<[Variant]>,
    total_weight: u64,
    whitelist: HashMap<Box<[u8]>, usize>,
    tails: Box<[(Box<[u8]>, usize)]>,
    pub(crate) response_header: Option<Box<str>>,
    pub(crate) request_header: Option<Box<str>>,
}

/// A variant, made ready.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) prefix: Option<Box<str>>,
    pub(crate) group: Option<Name>,
    /// `EXPERIMENT=VARIANT`.
    pub(crate) label: Box<str>,
    hash: u64,
    weight: u16,
}

/// What a caller sees of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Which variant.
    pub(crate) variant: usize,
    /// The cookie's value, for a caller that has to be given one.
    pub(crate) cookie: Option<u64>,
}

/// Makes a checked test ready; `turns` are the experiments' counters, which outlive it.
pub(crate) fn trials(ab: &Ab, turn: &Arc<AtomicU64>) -> Result<Box<[Trial]>, Invalid> {
    let trials = ab.experiments.iter();
    trials
        .map(|one| Trial::new(one, Arc::clone(turn)))
        .collect()
}

impl Trial {
    fn new(experiment: &Experiment, turn: Arc<AtomicU64>) -> Result<Self, Invalid> {
        let name = experiment.name.as_str();
        let layer = experiment.layer.as_ref().map_or(name, Name::as_str);
        let mut whitelist = HashMap::new();
        let mut tails = Vec::new();
        for (at, variant) in experiment.variants.iter().enumerate() {
            for value in &variant.is {
                whitelist.entry(value.as_bytes().into()).or_insert(at);
            }
            tails.extend(variant.ends_with.iter().map(|t| (t.as_bytes().into(), at)));
        }
        let variants = experiment.variants.iter().map(|variant| Variant {
            prefix: variant.prefix.as_ref().map(|p| p.as_str().into()),
            group: variant.group.clone(),
            label: format!("{name}={}", variant.name).into(),
            hash: key::hash(variant.name.as_str().as_bytes()),
            weight: variant.weight,
        });
        let (from, to) = (experiment.from.hundredths(), experiment.to.hundredths());
        Ok(Self {
            share: (from.into(), to.into()),
            layer_seed: key::hash(format!("layer {layer}").as_bytes()),
            seed: key::hash(format!("experiment {name}").as_bytes()),
            when: Condition::new(&experiment.when)?,
            key: experiment.key.clone(),
            cookie: experiment.cookie.as_deref().map(Into::into),
            assign: experiment.assign,
            turn,
            total_weight: experiment
                .variants
                .iter()
                .map(|v| u64::from(v.weight))
                .sum(),
            variants: variants.collect(),
            whitelist,
            tails: tails.into(),
            response_header: experiment.response_header.as_deref().map(Into::into),
            request_header: experiment.request_header.as_deref().map(Into::into),
        })
    }

    /// What a caller sees; none: it takes no part.
    pub(crate) fn see(&self, asked: &Asked<'_>) -> Option<Seen> {
        if !self.when.holds(asked) {
            return None;
        }
        if self.assign == Assign::RoundRobin {
            let lot = mix(asked.lot ^ self.layer_seed);
            return self.takes(lot).then(|| Seen {
                variant: self.in_turn(self.turn.fetch_add(1, Relaxed)),
                cookie: None,
            });
        }
        if let Some(value) = self.key.as_ref().and_then(|key| asked.value(key)) {
            let named = self.whitelist.get(value).copied().or_else(|| {
                let mut tails = self.tails.iter();
                tails
                    .find(|(tail, _)| value.ends_with(tail))
                    .map(|(_, at)| *at)
            });
            if let Some(variant) = named {
                return Some(Seen {
                    variant,
                    cookie: None,
                });
            }
            return self.assigned(key::hash(value), None);
        }
        if let Some(value) = asked.cookie(self.cookie.as_deref()?) {
            return self.assigned(key::hash(value), None);
        }
        let fresh = mix(asked.lot ^ self.seed);
        self.assigned(key::hash(&hex(fresh)), Some(fresh))
    }

    fn takes(&self, hash: u64) -> bool {
        let at = position(hash, self.layer_seed);
        (self.share.0..self.share.1).contains(&at)
    }

    fn assigned(&self, hash: u64, cookie: Option<u64>) -> Option<Seen> {
        self.takes(hash).then(|| Seen {
            variant: self.by_hash(hash),
            cookie,
        })
    }

    /// Weighted rendezvous: a change of one weight moves only callers from or to that variant.
    fn by_hash(&self, hash: u64) -> usize {
        let cost = |variant: &Variant| {
            let draw = unit(mix(hash ^ mix(self.seed ^ variant.hash))).max(f64::MIN_POSITIVE);
            -draw.ln() / f64::from(variant.weight)
        };
        let mut best = (f64::INFINITY, 0);
        for (at, variant) in self.variants.iter().enumerate() {
            if variant.weight > 0 {
                let cost = cost(variant);
                if cost < best.0 {
                    best = (cost, at);
                }
            }
        }
        best.1
    }

    /// The variant of a turn: spread as evenly as the golden ratio does, so that not even a few
    /// requests in a row all see the same.
    fn in_turn(&self, turn: u64) -> usize {
        let spread = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let total = u128::from(self.total_weight);
        let mut at = u64::try_from((u128::from(spread) * total) >> 64).unwrap_or(0);
        for (index, variant) in self.variants.iter().enumerate() {
            match at.checked_sub(variant.weight.into()) {
                Some(rest) => at = rest,
                None => return index,
            }
        }
        0
    }
}

/// The verdict of an experiment in which a caller takes no part; those behind are the variants.
const ASIDE: usize = 0;

impl Bound<Box<[Trial]>> {
    /// The stage: what the caller sees of each experiment, and the group of the first variant that
    /// has one.
    pub(super) fn ask(&self, case: &mut Case<'_, '_>, slots: &Slots) {
        let mut verdict = ASIDE + 1;
        let mut seen_any = false;
        let mut group = None;
        for trial in &self.policy {
            let first = verdict;
            verdict += trial.variants.len();
            let Some(seen) = trial.see(case.about.asked) else {
                continue;
            };
            seen_any = true;
            case.says(&self.head, first + seen.variant);
            if !self.head.shadow {
                trial.tell(seen, case);
                group = group.or(trial.variants[seen.variant].group.as_ref());
            }
        }
        if !seen_any {
            case.says(&self.head, ASIDE);
        }
        if let Some(group) = group.filter(|_| !case.chosen) {
            // A variant without instances is served by whoever serves the others.
            let slot = case.usable(slots.named.get(group).copied());
            case.decision.slot = slot.or_else(|| case.usable(slots.baseline));
            case.decision.spare = Spare::rest(slots);
            case.chosen = true;
        }
    }
}

impl Trial {
    /// Does what a variant is.
    fn tell(&self, seen: Seen, case: &mut Case<'_, '_>) {
        let variant = &self.variants[seen.variant];
        let scratch = &mut *case.scratch;
        if let Some(prefix) = &variant.prefix
            && scratch.path.is_empty()
        {
            edit::write_prefix(prefix, &case.about, &mut scratch.path);
        }
        let label = variant.label.as_bytes();
        if let Some(name) = &self.request_header {
            line(&mut scratch.request, name.as_bytes(), label);
        }
        if let Some(name) = &self.response_header {
            line(&mut scratch.reply, name.as_bytes(), label);
        }
        if let (Some(cookie), Some(value)) = (&self.cookie, seen.cookie) {
            set_cookie(&mut scratch.reply, cookie, value);
        }
    }
}

fn set_cookie(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b"Set-Cookie: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(&hex(value));
    out.extend_from_slice(b"; Path=/; Max-Age=31536000; SameSite=Lax\r\n");
}

/// A cookie's value as text.
pub(crate) fn hex(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (at, digit) in text.iter_mut().enumerate() {
        let nibble = (number >> (60 - 4 * at)) & 15;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)];
    }
    text
}

#[cfg(test)]
mod tests;
