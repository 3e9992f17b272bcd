//! Two versions of a service, of which one is live: which of them answers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use cardea_registry_api::{
    InstanceState, Name,
    plugin::{BlueGreen, blue_green::MissingSide},
};

use super::{Bound, decision::Case, groups::Slots, said::Mode};
use crate::{balance::key, refusal, table::Table};

/// Two sides, made ready.
#[derive(Debug)]
pub(super) struct Sides {
    /// The live one first.
    pub(super) groups: [Name; 2],
    /// What tells the sides from others, and from themselves the other way round.
    marks: [u64; 2],
    /// In hundredths of a percent.
    require_ready: u64,
    missing: MissingSide,
}

/// The side that is in use at one service: the mark of its group; 0: none yet. It outlives tables.
#[derive(Debug, Default)]
pub(super) struct InUse(AtomicU64);

/// Two sides at one service.
#[derive(Debug)]
pub(super) struct AtService {
    pub(super) bound: Arc<Bound<Sides>>,
    pub(super) in_use: Arc<InUse>,
}

/// How a side stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ready {
    /// Peers that requests can go to …
    usable: u64,
    /// … of so many that are meant to take some.
    of: u64,
}

/// What comes out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The live side, from now on.
    Live,
    /// The live side is not ready: the other one stays in use.
    Held,
    /// The live side, though it is not ready: the other one has nobody.
    Early,
    /// The live side has nobody: the other one helps out.
    Instead,
    /// Neither has anybody.
    Nobody,
}

/// The verdicts behind the live side's name.
const HELD: usize = 1;
const MISSING: usize = 2;

impl From<&BlueGreen> for Sides {
    fn from(policy: &BlueGreen) -> Self {
        let other = if policy.live == policy.blue {
            &policy.green
        } else {
            &policy.blue
        };
        let groups = [policy.live.clone(), other.clone()];
        Self {
            marks: [0, 1].map(|at: usize| key::hash(groups[at].as_str().as_bytes()).max(1)),
            groups,
            require_ready: policy.require_ready.hundredths().into(),
            missing: policy.missing,
        }
    }
}

impl Sides {
    /// What it may say.
    pub(super) fn verdicts(&self) -> [&str; 3] {
        [self.groups[0].as_str(), "held", "missing"]
    }

    /// Pure: which side answers. `moved`: this router has moved to the live side before. How the
    /// sides stand is asked only where it matters.
    fn choose(
        &self,
        moved: bool,
        ready: impl Fn(usize) -> Ready,
        any: impl Fn(usize) -> bool,
    ) -> Choice {
        let holds = !moved && self.require_ready > 0 && {
            let live = ready(0);
            live.usable == 0 || live.usable * 10_000 < live.of * self.require_ready
        };
        if holds {
            return match (any(1), any(0)) {
                (true, _) => Choice::Held,
                // Fewer than wanted are better than nobody.
                (false, true) => Choice::Early,
                (false, false) => Choice::Nobody,
            };
        }
        match (any(0), self.missing) {
            (true, _) => Choice::Live,
            (false, MissingSide::Other) if any(1) => Choice::Instead,
            (false, _) => Choice::Nobody,
        }
    }
}

impl AtService {
    /// The stage: chooses the side that answers, unless another plugin has chosen.
    pub(super) fn ask(&self, case: &mut Case<'_, '_>, slots: &Slots) {
        if case.chosen {
            return;
        }
        let sides = &self.bound.policy;
        let slot = |side: usize| slots.named.get(&sides.groups[side]).copied();
        let in_use = self.in_use.0.load(Relaxed);
        let table = case.table;
        let choice = sides.choose(
            in_use == sides.marks[0],
            |side| ready(table, slot(side)),
            |side| case.usable(slot(side)).is_some(),
        );
        if case.mode == Mode::Real && choice == Choice::Live && in_use != sides.marks[0] {
            self.in_use.0.store(sides.marks[0], Relaxed);
        }
        let (verdict, side) = match choice {
            Choice::Live | Choice::Early => (0, Some(0)),
            Choice::Held => (HELD, Some(1)),
            Choice::Instead => (MISSING, Some(1)),
            Choice::Nobody => (MISSING, None),
        };
        case.says(&self.bound.head, verdict);
        if self.bound.head.shadow {
            return;
        }
        case.chosen = true;
        match side {
            Some(side) => {
                case.decision.slot = slot(side);
                if sides.missing == MissingSide::Other {
                    case.decision.spare.slot = slot(1 - side);
                }
            }
            // Those of neither side are not asked instead.
            None => case.refuse(refusal::NO_PEER),
        }
    }
}

fn ready(table: &Table, slot: Option<usize>) -> Ready {
    let upstream = slot.and_then(|slot| table.upstream_at(slot));
    upstream.map_or(Ready { usable: 0, of: 0 }, |upstream| {
        let mut ready = Ready { usable: 0, of: 0 };
        for member in upstream.everybody() {
            // Those that still start are meant to take requests as well.
            let meant = matches!(member.state, InstanceState::Up | InstanceState::Starting);
            ready.of += u64::from(meant);
            ready.usable += u64::from(member.is_usable());
        }
        ready
    })
}

#[cfg(test)]
mod tests;
