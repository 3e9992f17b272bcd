//! Redirects and fixed answers.

use cardea_registry_api::{
    Invalid,
    plugin::{Redirect, Respond, Template},
};

use super::{
    Bound,
    condition::Condition,
    decision::{Case, Own},
    said::STOPPED,
};
use crate::http1::render::line;

/// A redirect or a fixed answer, made ready.
#[derive(Debug)]
pub(crate) struct Answer {
    when: Condition,
    pub(crate) status: u16,
    pub(crate) content_type: Box<str>,
    pub(crate) body: Box<[u8]>,
    lines: Box<[(Box<[u8]>, Template)]>,
}

impl TryFrom<&Redirect> for Answer {
    type Error = Invalid;

    fn try_from(redirect: &Redirect) -> Result<Self, Invalid> {
        Ok(Self {
            when: Condition::new(&redirect.when)?,
            status: redirect.status,
            content_type: Box::default(),
            body: Box::default(),
            lines: Box::new([(b"Location"[..].into(), redirect.to.clone())]),
        })
    }
}

impl TryFrom<&Respond> for Answer {
    type Error = Invalid;

    fn try_from(respond: &Respond) -> Result<Self, Invalid> {
        let line = |(name, value): (&String, &Template)| (name.as_bytes().into(), value.clone());
        Ok(Self {
            when: Condition::new(&respond.when)?,
            status: respond.status,
            content_type: respond.content_type.as_str().into(),
            body: respond.body.as_bytes().into(),
            lines: respond.headers.iter().map(line).collect(),
        })
    }
}

impl Bound<Answer> {
    /// The stage: answers those whom it is for.
    pub(super) fn ask<'c>(&'c self, case: &mut Case<'_, 'c>) {
        if !self.policy.when.holds(case.about.asked) {
            return;
        }
        case.says(&self.head, STOPPED);
        if self.head.shadow {
            return;
        }
        for (name, template) in &self.policy.lines {
            case.scratch.value.clear();
            case.about.fill(template, None, &mut case.scratch.value);
            line(&mut case.scratch.reply, name, &case.scratch.value);
        }
        case.decision.own = Some(Own::Answer(&self.policy));
    }
}
