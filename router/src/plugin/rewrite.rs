//! What is changed about requests and answers.

use cardea_registry_api::{
    Invalid,
    plugin::{Rewrite, Template},
};

use super::{
    Bound,
    decision::Case,
    edit::{self, Edits, NewPath},
    said::PASSED,
};

/// What is changed about requests and answers, made ready.
#[derive(Debug)]
pub(super) struct Rewriting {
    prefix: Option<Box<str>>,
    path: Option<NewPath>,
    host: Option<Template>,
    request: Edits,
    response: Edits,
}

impl Rewriting {
    /// Makes a checked one ready.
    pub(super) fn new(rewrite: &Rewrite) -> Result<Self, Invalid> {
        Ok(Self {
            prefix: rewrite.prefix.as_ref().map(|p| p.as_str().into()),
            path: rewrite.path.as_ref().map(NewPath::new).transpose()?,
            host: rewrite.host.clone(),
            request: Edits::from(&rewrite.request),
            response: Edits::from(&rewrite.response),
        })
    }
}

impl Rewriting {
    /// Names of fields of requests that do not go on.
    pub(super) fn request_gone(&self) -> &[Box<[u8]>] {
        &self.request.gone
    }

    /// Names of fields of answers that do not go on.
    pub(super) fn reply_gone(&self) -> &[Box<[u8]>] {
        &self.response.gone
    }
}

impl Bound<Rewriting> {
    /// The stage: writes path, host and headers.
    pub(super) fn ask<'c>(&'c self, case: &mut Case<'_, 'c>) {
        case.says(&self.head, PASSED);
        if self.head.shadow {
            return;
        }
        let Case {
            about,
            scratch,
            decision,
            ..
        } = case;
        let policy = &self.policy;
        // A variant may have rewritten it.
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
        decision.request_gone[1] = &policy.request.gone;
        decision.reply_gone = &policy.response.gone;
    }
}
