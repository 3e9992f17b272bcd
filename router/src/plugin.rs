//! Plugins at work: what those bound to a route decide about a request.
//!
//! A route without plugins has no [`Chain`] and pays for nothing. A chain is made ready when the
//! table is built ([`compile`]); [`Chain::decide`] is a pure function of the request, the counters of
//! limits and the clock: it writes what is to be changed to a [`Scratch`] and says the rest in a
//! [`Decision`], which the pipeline executes.
//!
//! Each kind is a room of its own, with one stage: a new kind is a file, a [`Stage`], a line where
//! that is made ready ([`compile`]), and one where it is asked (here).

use std::sync::Arc;

use cardea_registry_api::Name;

pub(crate) mod ab;
mod answer;
pub(crate) mod asked;
mod blue_green;
pub(crate) mod breaker;
mod circuit;
pub(crate) mod compile;
mod condition;
mod decision;
mod edit;
pub(crate) mod fallback;
mod gradient;
mod groups;
mod lanes;
mod lasting;
mod limit;
pub(crate) mod mirror;
mod restrict;
mod rewrite;
mod said;
mod scratch;
mod share;
mod token;

pub(crate) use breaker::{Call, Ticket};
pub(crate) use decision::{Decision, Own};
pub(crate) use lanes::is_lane;
pub(crate) use lasting::Lasting;
pub(crate) use limit::Permit;
pub(crate) use said::{Mode, Said};
pub(crate) use scratch::Scratch;
#[cfg(test)]
pub(crate) use share::WHOLE;
pub(crate) use token::Token;

use ab::Trial;
use answer::Answer;
use asked::Asked;
use blue_green::AtService;
use breaker::Guarded;
use decision::Case;
use edit::About;
use fallback::Fallback;
use groups::{Groups, Slots};
use lanes::Tagging;
use limit::Limiter;
use mirror::Mirror;
use restrict::Restriction;
use rewrite::Rewriting;
use said::Head;

use crate::{refusal, table::Table};

/// A policy, made ready, and whose it is.
#[derive(Debug)]
pub(crate) struct Bound<T> {
    pub(crate) head: Head,
    pub(crate) policy: T,
}

/// One plugin of a route.
#[derive(Debug, Clone)]
enum Stage {
    Fallback(Fallback),
    Restrict(Arc<Bound<Restriction>>),
    Limit(Arc<Bound<Limiter>>),
    Answer(Arc<Bound<Answer>>),
    Break(Arc<Guarded>),
    Lanes(Arc<Bound<Tagging>>),
    Ab(Arc<Bound<Box<[Trial]>>>),
    BlueGreen(Arc<AtService>),
    Gray(Arc<Bound<Groups>>),
    Rewrite(Arc<Bound<Rewriting>>),
    Mirror(Mirror),
}

impl Stage {
    /// Whose it is.
    fn head(&self) -> &Head {
        match self {
            Self::Fallback(fallback) => &fallback.bound.head,
            Self::Restrict(bound) => &bound.head,
            Self::Limit(bound) => &bound.head,
            Self::Answer(bound) => &bound.head,
            Self::Break(guarded) => &guarded.bound.head,
            Self::Lanes(bound) => &bound.head,
            Self::Ab(bound) => &bound.head,
            Self::BlueGreen(at) => &at.bound.head,
            Self::Gray(bound) => &bound.head,
            Self::Rewrite(bound) => &bound.head,
            Self::Mirror(mirror) => &mirror.bound.head,
        }
    }
}

/// The plugins of a route, in the order of their stages.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// A plugin that has to be there, and that this program does not know.
    unknown: Option<Name>,
    stages: Box<[Stage]>,
    slots: Slots,
    route: Box<str>,
    service: Box<str>,
    /// How many segments the route's prefix has.
    segments: usize,
}

impl Chain {
    /// How many stages there are, and the slots of views that they choose from, by their names.
    #[cfg(test)]
    pub(crate) fn told(&self) -> (usize, Vec<usize>) {
        let mut named: Vec<_> = self.slots.named.iter().collect();
        named.sort();
        let named = named.into_iter().map(|(_, slot)| *slot);
        let slots = named.chain(self.slots.baseline).chain(self.slots.lanes);
        (self.stages.len(), slots.collect())
    }

    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.stages.iter().map(Stage::head)
    }

    /// Names of fields of answers that do not go on.
    pub(crate) fn reply_gone(&self) -> &[Box<[u8]>] {
        let rewriting = self.stages.iter().find_map(|stage| match stage {
            Stage::Rewrite(bound) if !bound.head.shadow => Some(bound),
            _ => None,
        });
        rewriting.map_or(&[], |bound| bound.policy.reply_gone())
    }

    /// Writes a request's path with another prefix than the route's.
    pub(crate) fn write_prefix(&self, prefix: &str, asked: &Asked<'_>, out: &mut Vec<u8>) {
        let about = About {
            asked,
            route: &self.route,
            service: &self.service,
            segments: self.segments,
        };
        edit::write_prefix(prefix, &about, out);
    }

    /// Decides about a request at `now`, in nanoseconds of a clock that only goes forward. `table` is
    /// the one that the chain is of.
    pub(crate) fn decide(
        &self,
        asked: &Asked<'_>,
        table: &Table,
        now: u64,
        scratch: &mut Scratch,
        mode: Mode,
    ) -> Decision<'_> {
        let mut case = Case {
            about: About {
                asked,
                route: &self.route,
                service: &self.service,
                segments: self.segments,
            },
            now,
            mode,
            table,
            scratch,
            decision: Decision::default(),
            chosen: false,
        };
        if self.unknown.is_some() {
            case.refuse(refusal::PLUGIN_UNKNOWN);
        }
        for stage in &self.stages {
            if case.decision.own.is_some() {
                return case.decision;
            }
            match stage {
                Stage::Fallback(fallback) => fallback.ask(&mut case),
                Stage::Restrict(bound) => bound.ask(&mut case),
                Stage::Limit(bound) => bound.ask(&mut case),
                Stage::Answer(bound) => bound.ask(&mut case),
                Stage::Break(guarded) => guarded.ask(&mut case),
                Stage::Lanes(bound) => bound.ask(&mut case, &self.slots),
                Stage::Ab(bound) => bound.ask(&mut case, &self.slots),
                Stage::BlueGreen(at) => at.ask(&mut case, &self.slots),
                Stage::Gray(bound) => bound.ask(&mut case, &self.slots),
                Stage::Rewrite(bound) => bound.ask(&mut case),
                Stage::Mirror(mirror) => mirror.ask(&mut case),
            }
        }
        if case.decision.own.is_none() && !edit::is_fit(case.scratch) {
            case.refuse(refusal::REWRITTEN_UNFIT);
        }
        case.decision
    }
}

#[cfg(test)]
mod tests;
