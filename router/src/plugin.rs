//! Plugins at work: what those bound to a route decide about a request.
//!
//! A route without plugins has no [`Chain`] and pays for nothing. A chain is made ready when the
//! table is built ([`compile`]); [`Chain::decide`] is a pure function of the request, the counters of
//! limits and the clock: it writes what is to be changed to a [`Scratch`] and says the rest in a
//! [`Decision`], which the pipeline executes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use cardea_registry_api::{
    Name,
    plugin::{Kind, Missing, Template},
};
use hashbrown::HashMap;

pub(crate) mod ab;
pub(crate) mod asked;
pub(crate) mod compile;
mod condition;
mod edit;
mod limit;
mod restrict;

use ab::Trial;
use asked::Asked;
use condition::Condition;
use edit::{About, Edits, NewPath};
use limit::{Limiter, Verdict};
pub(crate) use limit::{Permit, TooMuch};
use restrict::Restriction;

use crate::{
    http1::render::line,
    refusal::{self, Refusal},
};

/// A policy, made ready, and whose it is.
#[derive(Debug)]
pub(crate) struct Bound<T> {
    pub(crate) head: Head,
    policy: T,
}

/// Whose a policy is.
#[derive(Debug)]
pub(crate) struct Head {
    /// The plugin.
    pub(crate) name: Name,
    /// Its kind.
    pub(crate) kind: Kind,
    /// It decides, but does nothing.
    pub(crate) shadow: bool,
    tallies: Box<[Tally]>,
}

/// What a plugin may say, and how often it did.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) verdict: Box<str>,
    pub(crate) count: Arc<AtomicU64>,
}

/// A redirect or a fixed answer, made ready.
#[derive(Debug)]
pub(crate) struct Answer {
    when: Condition,
    pub(crate) status: u16,
    pub(crate) content_type: Box<str>,
    pub(crate) body: Box<[u8]>,
    lines: Box<[(Box<[u8]>, Template)]>,
}

/// Rules to groups, made ready.
#[derive(Debug)]
pub(crate) struct Groups {
    rules: Box<[(Condition, Name, usize)]>,
    missing: Missing,
}

/// What is changed about requests and answers, made ready.
#[derive(Debug)]
pub(crate) struct Rewriting {
    prefix: Option<Box<str>>,
    path: Option<NewPath>,
    host: Option<Template>,
    request: Edits,
    response: Edits,
}

/// The plugins of a route, in the order of their stages.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// A plugin that has to be there, and that this program does not know.
    unknown: Option<Name>,
    restrict: Option<Arc<Bound<Restriction>>>,
    limit: Option<Arc<Bound<Limiter>>>,
    redirect: Option<Arc<Bound<Answer>>>,
    respond: Option<Arc<Bound<Answer>>>,
    ab: Option<Arc<Bound<Box<[Trial]>>>>,
    gray: Option<Arc<Bound<Groups>>>,
    rewrite: Option<Arc<Bound<Rewriting>>>,
    /// The slots of the service's groups in the table.
    slots: HashMap<Name, usize>,
    /// The slot of what is in no group.
    baseline: Option<usize>,
    route: Box<str>,
    service: Box<str>,
    /// How many segments the route's prefix has.
    segments: usize,
}

/// What is to be written about a request. It belongs to the exchange, so that a warm one allocates
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The path that the service sees; empty: as it came.
    pub(crate) path: Vec<u8>,
    /// The `Host` that the service sees; empty: as it came.
    pub(crate) host: Vec<u8>,
    /// Lines put in to the request.
    pub(crate) request: Vec<u8>,
    /// Lines put in to the answer.
    pub(crate) reply: Vec<u8>,
    value: Vec<u8>,
}

impl Scratch {
    pub(crate) fn clear(&mut self) {
        for text in self.texts() {
            text.clear();
        }
    }

    /// Forgets everything, and keeps no more than `most` bytes of room for each text.
    pub(crate) fn reset(&mut self, most: usize) {
        self.clear();
        for text in self.texts() {
            text.shrink_to(most);
        }
    }

    fn texts(&mut self) -> [&mut Vec<u8>; 5] {
        [
            &mut self.path,
            &mut self.host,
            &mut self.request,
            &mut self.reply,
            &mut self.value,
        ]
    }
}

/// What plugins decided.
#[derive(Debug, Default)]
pub(crate) struct Decision<'c> {
    /// The router answers by itself.
    pub(crate) own: Option<Own<'c>>,
    /// The slot of the group that answers.
    pub(crate) slot: Option<usize>,
    /// The largest request body.
    pub(crate) body: Option<u64>,
    /// Has to live as long as the request.
    pub(crate) permit: Option<Permit>,
    /// Request headers that do not go on.
    pub(crate) request_gone: &'c [Box<[u8]>],
    /// Headers of the answer that do not go on.
    pub(crate) reply_gone: &'c [Box<[u8]>],
    /// What each of them said.
    pub(crate) said: Said,
}

/// An answer of the router's own.
#[derive(Debug)]
pub(crate) enum Own<'c> {
    /// An error; further lines are in [`Scratch::reply`].
    Refusal(Refusal),
    /// What somebody configured; its further lines are in [`Scratch::reply`].
    Answer(&'c Answer),
}

/// The most that can be said about one request: by seven stages, one of which speaks up to eight
/// times.
const MOST_SAID: usize = 14;

/// What was said, by stage and by the index of the tally.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    all: [(u8, u16); MOST_SAID],
    count: u8,
}

/// Whether a request is there, or somebody asks what would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It counts.
    Real,
    /// Nothing is counted, and nothing used up.
    Asking,
}

impl Said {
    fn add(&mut self, head: &Head, verdict: usize, mode: Mode) {
        if mode == Mode::Real
            && let Some(tally) = head.tallies.get(verdict)
        {
            tally.count.fetch_add(1, Relaxed);
        }
        let place = self.all.get_mut(usize::from(self.count));
        if let (Some(place), Ok(verdict)) = (place, u16::try_from(verdict)) {
            *place = (head.kind as u8, verdict);
            self.count += 1;
        }
    }

    /// Whether nothing was.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Plugin and verdict, in order.
    pub(crate) fn each<'c>(&self, chain: &'c Chain) -> impl Iterator<Item = (&'c Head, &'c str)> {
        let all = self.all.into_iter().take(usize::from(self.count));
        all.filter_map(|(kind, verdict)| {
            let head = chain.heads().find(|head| head.kind as u8 == kind)?;
            let tally = head.tallies.get(usize::from(verdict))?;
            Some((head, &*tally.verdict))
        })
    }
}

/// The verdicts of restrictions, limits and edits, by their index.
const PASSED: usize = 0;
const STOPPED: usize = 1;
/// The verdicts of rules to groups; those behind are the groups.
const MISSING: usize = 0;
const BASELINE: usize = 1;
/// The verdict of an experiment in which a caller takes no part; those behind are the variants.
const ASIDE: usize = 0;

impl Chain {
    fn heads(&self) -> impl Iterator<Item = &Head> {
        [
            self.restrict.as_ref().map(|bound| &bound.head),
            self.limit.as_ref().map(|bound| &bound.head),
            self.redirect.as_ref().map(|bound| &bound.head),
            self.respond.as_ref().map(|bound| &bound.head),
            self.ab.as_ref().map(|bound| &bound.head),
            self.gray.as_ref().map(|bound| &bound.head),
            self.rewrite.as_ref().map(|bound| &bound.head),
        ]
        .into_iter()
        .flatten()
    }

    /// Decides about a request at `now`, in nanoseconds of a clock that only goes forward. `usable`
    /// says whether a slot's upstream has a peer that requests can go to.
    pub(crate) fn decide(
        &self,
        asked: &Asked<'_>,
        usable: impl Fn(usize) -> bool,
        now: u64,
        scratch: &mut Scratch,
        mode: Mode,
    ) -> Decision<'_> {
        let mut decision = Decision::default();
        if self.unknown.is_some() {
            decision.own = Some(Own::Refusal(refusal::PLUGIN_UNKNOWN));
            return decision;
        }
        let about = About {
            asked,
            route: &self.route,
            service: &self.service,
            segments: self.segments,
        };
        self.restrict(&mut decision, asked, scratch, mode);
        if decision.own.is_none() {
            self.limit(&mut decision, asked, now, scratch, mode);
        }
        for bound in [&self.redirect, &self.respond].into_iter().flatten() {
            if decision.own.is_none() {
                bound.answer(&mut decision, &about, scratch, mode);
            }
        }
        if decision.own.is_some() {
            return decision;
        }
        let chosen = self.choose_variants(&mut decision, &about, scratch, mode);
        self.choose_group(&mut decision, asked, chosen, usable, mode);
        if decision.own.is_none() {
            self.rewrite(&mut decision, &about, scratch, mode);
        }
        decision
    }

    fn restrict(
        &self,
        decision: &mut Decision<'_>,
        asked: &Asked<'_>,
        scratch: &mut Scratch,
        mode: Mode,
    ) {
        let Some(bound) = &self.restrict else { return };
        let refusal = bound.policy.refuses(asked);
        let verdict = if refusal.is_some() { STOPPED } else { PASSED };
        decision.said.add(&bound.head, verdict, mode);
        if bound.head.shadow {
            return;
        }
        decision.body = bound.policy.body();
        if let Some(refusal) = refusal {
            if refusal == refusal::METHOD_NOT_ALLOWED {
                line(&mut scratch.reply, b"Allow", &bound.policy.allow_methods);
            }
            decision.own = Some(Own::Refusal(refusal));
        }
    }

    fn limit(
        &self,
        decision: &mut Decision<'_>,
        asked: &Asked<'_>,
        now: u64,
        scratch: &mut Scratch,
        mode: Mode,
    ) {
        let Some(bound) = &self.limit else { return };
        match bound.policy.ask(asked, now, mode == Mode::Real) {
            Verdict::Aside => {}
            Verdict::Fine(permit) => {
                decision.said.add(&bound.head, PASSED, mode);
                decision.permit = permit;
            }
            Verdict::TooMuch(much) => {
                decision.said.add(&bound.head, STOPPED, mode);
                if !bound.head.shadow {
                    too_much(much, &mut scratch.reply);
                    decision.own = Some(Own::Refusal(refusal::TOO_MANY_REQUESTS));
                }
            }
        }
    }

    /// What the caller sees of each experiment; the group of the first variant that has one.
    fn choose_variants(
        &self,
        decision: &mut Decision<'_>,
        about: &About<'_>,
        scratch: &mut Scratch,
        mode: Mode,
    ) -> Option<&Name> {
        let bound = self.ab.as_ref()?;
        let mut group = None;
        let mut verdict = ASIDE + 1;
        for trial in &bound.policy {
            let first = verdict;
            verdict += trial.variants.len();
            let Some(seen) = trial.see(about.asked) else {
                continue;
            };
            decision.said.add(&bound.head, first + seen.variant, mode);
            if bound.head.shadow {
                continue;
            }
            let variant = &trial.variants[seen.variant];
            if let Some(prefix) = &variant.prefix
                && scratch.path.is_empty()
            {
                edit::write_prefix(prefix, about, &mut scratch.path);
            }
            group = group.or(variant.group.as_ref());
            if let Some(name) = &trial.request_header {
                line(
                    &mut scratch.request,
                    name.as_bytes(),
                    variant.label.as_bytes(),
                );
            }
            if let Some(name) = &trial.response_header {
                line(
                    &mut scratch.reply,
                    name.as_bytes(),
                    variant.label.as_bytes(),
                );
            }
            if let (Some(cookie), Some(value)) = (&trial.cookie, seen.cookie) {
                set_cookie(&mut scratch.reply, cookie, value);
            }
        }
        if decision.said.is_empty() {
            decision.said.add(&bound.head, ASIDE, mode);
        }
        group
    }

    fn choose_group(
        &self,
        decision: &mut Decision<'_>,
        asked: &Asked<'_>,
        chosen: Option<&Name>,
        usable: impl Fn(usize) -> bool,
        mode: Mode,
    ) {
        let slot_of = |group: &Name| self.slots.get(group).copied().filter(|slot| usable(*slot));
        let baseline = || self.baseline.filter(|slot| usable(*slot));
        if let Some(group) = chosen {
            // A variant without instances is served by whoever serves the others.
            decision.slot = slot_of(group).or_else(baseline);
            return;
        }
        let Some(bound) = &self.gray else { return };
        let rules = &bound.policy.rules;
        let rule = rules
            .iter()
            .find(|(condition, _, _)| condition.holds(asked));
        let (verdict, slot) = match rule {
            None => (BASELINE, baseline()),
            Some((_, group, verdict)) => match slot_of(group) {
                Some(slot) => (*verdict, Some(slot)),
                None => (MISSING, baseline()),
            },
        };
        decision.said.add(&bound.head, verdict, mode);
        if bound.head.shadow {
            return;
        }
        if verdict == MISSING && bound.policy.missing == Missing::Refuse {
            decision.own = Some(Own::Refusal(refusal::NO_PEER));
        }
        decision.slot = slot;
    }

    fn rewrite<'c>(
        &'c self,
        decision: &mut Decision<'c>,
        about: &About<'_>,
        scratch: &mut Scratch,
        mode: Mode,
    ) {
        if let Some(bound) = &self.rewrite {
            let policy = &bound.policy;
            if !bound.head.shadow {
                if scratch.path.is_empty() {
                    if let Some(prefix) = &policy.prefix {
                        edit::write_prefix(prefix, about, &mut scratch.path);
                    } else if let Some(path) = &policy.path {
                        path.write(about, &mut scratch.path);
                    }
                }
                if let Some(host) = &policy.host {
                    about.fill(host, None, &mut scratch.host);
                }
                let value = &mut scratch.value;
                policy.request.lines(about, value, &mut scratch.request);
                policy.response.lines(about, value, &mut scratch.reply);
                decision.request_gone = &policy.request.gone;
                decision.reply_gone = &policy.response.gone;
            }
            decision.said.add(&bound.head, PASSED, mode);
        }
        let path_fits = scratch.path.is_empty() || edit::is_path(&scratch.path);
        let host_fits = scratch.host.is_empty() || is_host(&scratch.host);
        if !path_fits || !host_fits {
            decision.own = Some(Own::Refusal(refusal::REWRITTEN_UNFIT));
        }
    }
}

impl Bound<Answer> {
    fn answer<'c>(
        &'c self,
        decision: &mut Decision<'c>,
        about: &About<'_>,
        scratch: &mut Scratch,
        mode: Mode,
    ) {
        if !self.policy.when.holds(about.asked) {
            return;
        }
        decision.said.add(&self.head, STOPPED, mode);
        if self.head.shadow {
            return;
        }
        for (name, template) in &self.policy.lines {
            scratch.value.clear();
            about.fill(template, None, &mut scratch.value);
            line(&mut scratch.reply, name, &scratch.value);
        }
        decision.own = Some(Own::Answer(&self.policy));
    }
}

/// Headers of a refused request (the draft "RateLimit header fields for HTTP", 03).
fn too_much(much: TooMuch, out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    line(
        out,
        b"Retry-After",
        number.format(much.retry_after).as_bytes(),
    );
    line(
        out,
        b"RateLimit-Limit",
        number.format(much.limit).as_bytes(),
    );
    line(out, b"RateLimit-Remaining", b"0");
    line(
        out,
        b"RateLimit-Reset",
        number.format(much.retry_after).as_bytes(),
    );
}

fn set_cookie(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b"Set-Cookie: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(&ab::hex(value));
    out.extend_from_slice(b"; Path=/; Max-Age=31536000; SameSite=Lax\r\n");
}

fn is_host(host: &[u8]) -> bool {
    crate::http1::request::host_name(host).is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
