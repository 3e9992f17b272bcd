//! Groups of a service: which slot of the table each is in, and the rules that choose one.

use cardea_registry_api::{
    Invalid, Name,
    plugin::{Gray, Missing},
    service::BASELINE,
};
use hashbrown::HashMap;

use super::{
    Bound,
    condition::Condition,
    decision::{Case, Spare},
};
use crate::{refusal, table::Table};

/// The groups that a route's plugins may choose from.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) named: HashMap<Name, usize>,
    /// Of what is in no group; none: no plugin asks for groups.
    pub(super) baseline: Option<usize>,
    /// Of what is in no lane, which knows the lanes; none: no plugin asks for lanes.
    pub(super) lanes: Option<usize>,
}

impl Slots {
    /// The slot of a lane's instances, if the service has some.
    pub(super) fn lane(&self, table: &Table, lane: &[u8]) -> Option<usize> {
        table.upstream_at(self.lanes?)?.lane(lane)
    }
}

/// Rules to groups, made ready.
#[derive(Debug)]
pub(super) struct Groups {
    /// Condition, group and verdict.
    pub(super) rules: Box<[(Condition, Name, usize)]>,
    missing: Missing,
}

/// The verdicts of rules to groups; those behind are the groups.
const MISSING: usize = 0;
const AT_BASELINE: usize = 1;

impl Groups {
    /// Makes checked rules ready; with what they may say.
    pub(super) fn new(gray: &Gray) -> Result<(Self, Vec<&str>), Invalid> {
        let mut verdicts = vec!["missing", BASELINE];
        let mut known: HashMap<&str, usize> = HashMap::from([(BASELINE, AT_BASELINE)]);
        let mut rules = Vec::with_capacity(gray.rules.len());
        for rule in &gray.rules {
            let group = rule.group.as_str();
            let verdict = *known.entry(group).or_insert_with(|| {
                verdicts.push(group);
                verdicts.len() - 1
            });
            rules.push((Condition::new(&rule.when)?, rule.group.clone(), verdict));
        }
        let groups = Self {
            rules: rules.into(),
            missing: gray.missing,
        };
        Ok((groups, verdicts))
    }
}

impl Bound<Groups> {
    /// The stage: chooses the group that answers, unless another plugin has.
    pub(super) fn ask(&self, case: &mut Case<'_, '_>, slots: &Slots) {
        if case.chosen {
            return;
        }
        let mut rules = self.policy.rules.iter();
        let rule = rules.find(|(condition, _, _)| condition.holds(case.about.asked));
        let baseline = || case.usable(slots.baseline);
        let (verdict, slot) = match rule {
            None => (AT_BASELINE, baseline()),
            Some((_, group, verdict)) => match case.usable(slots.named.get(group).copied()) {
                Some(slot) => (*verdict, Some(slot)),
                None => (MISSING, baseline()),
            },
        };
        case.says(&self.head, verdict);
        if self.head.shadow {
            return;
        }
        if self.policy.missing == Missing::Refuse {
            if verdict == MISSING {
                case.refuse(refusal::NO_PEER);
            }
        } else if verdict > AT_BASELINE {
            case.decision.spare = Spare::rest(slots);
        }
        case.decision.slot = slot;
    }
}

#[cfg(test)]
mod tests;
