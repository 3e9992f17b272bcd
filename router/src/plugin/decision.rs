//! What comes out of a chain, and what goes through it.

use super::{
    answer::Answer,
    breaker::Ticket,
    edit::About,
    fallback::Fallback,
    groups::Slots,
    limit::Permit,
    mirror::Mirror,
    said::{Head, Mode, Said},
    scratch::Scratch,
};
use crate::{refusal::Refusal, table::Table};

/// What plugins decided.
#[derive(Debug, Default)]
pub(crate) struct Decision<'c> {
    /// The router answers by itself.
    pub(crate) own: Option<Own<'c>>,
    /// The slot of the group that answers.
    pub(crate) slot: Option<usize>,
    /// Who answers where nobody of that group does.
    pub(crate) spare: Spare,
    /// The largest request body.
    pub(crate) body: Option<u64>,
    /// Has to live as long as the request.
    pub(crate) permit: Option<Permit>,
    /// What stands in for an answer that there is not.
    pub(crate) fallback: Option<&'c Fallback>,
    /// Who gets copies.
    pub(crate) mirror: Option<&'c Mirror>,
    /// Those who answer are kept apart from others, and so is what they answer.
    pub(crate) apart: bool,
    /// Has to hear how the request went.
    pub(crate) ticket: Option<Ticket>,
    /// Request headers that do not go on: those of lanes, and of rewriting.
    pub(crate) request_gone: [&'c [Box<[u8]>]; 2],
    /// Headers of the answer that do not go on.
    pub(crate) reply_gone: &'c [Box<[u8]>],
    /// What each of them said.
    pub(crate) said: Said,
}

/// Who answers where nobody of the group that was chosen does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spare {
    /// Those in this slot of the table.
    pub(crate) slot: Option<usize>,
    /// Whoever answers where nobody chooses, if they do not either.
    pub(crate) anybody: bool,
}

impl Spare {
    /// Those of no group, or whoever is left.
    pub(super) fn rest(slots: &Slots) -> Self {
        Self {
            slot: slots.baseline,
            anybody: true,
        }
    }
}

/// An answer of the router's own.
#[derive(Debug)]
pub(crate) enum Own<'c> {
    /// An error; further lines are in [`Scratch::reply`].
    Refusal(Refusal),
    /// What somebody configured; its further lines are in [`Scratch::reply`].
    Answer(&'c Answer),
}

/// A request on its way through the stages of a chain.
#[derive(Debug)]
pub(super) struct Case<'a, 'c> {
    pub(super) about: About<'a>,
    /// In nanoseconds of a clock that only goes forward.
    pub(super) now: u64,
    pub(super) mode: Mode,
    pub(super) table: &'a Table,
    pub(super) scratch: &'a mut Scratch,
    pub(super) decision: Decision<'c>,
    /// Somebody has chosen which instances answer.
    pub(super) chosen: bool,
}

impl Case<'_, '_> {
    /// Counts and notes what a plugin says.
    pub(super) fn says(&mut self, head: &Head, verdict: usize) {
        self.decision.said.add(head, verdict, self.mode);
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.decision.own = Some(Own::Refusal(refusal));
    }

    /// The slot, if its upstream has a peer that requests can go to.
    pub(super) fn usable(&self, slot: Option<usize>) -> Option<usize> {
        let usable = |slot: &usize| self.table.upstream_at(*slot).is_some_and(|u| u.is_usable());
        slot.filter(usable)
    }
}
