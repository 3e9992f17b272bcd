//! A copy in the making: its head is written when the request is planned, its body is copied while it
//! passes, and it is sent when the request has been answered.

use std::{rc::Rc, sync::Arc};

use super::{Copy, Held, Mirrors, Original, Request, Turn};
use crate::{
    exchange::Exchange,
    http1::{
        body::Untapped,
        request::{Framing, Method},
    },
    plugin::{
        Bound,
        mirror::{Copying, Mirror, Result},
    },
    table::Table,
    upstream::Upstream,
};

/// A copy whose request is not done yet.
#[derive(Debug)]
pub(crate) struct Draft {
    bytes: Vec<u8>,
    method: Method,
    chunks: bool,
    has_body: bool,
    held: Held,
    to: Arc<Upstream>,
    policy: Arc<Bound<Copying>>,
    copies: u8,
    trial: bool,
}

/// What a head may take beside the bytes that came.
const ADDED: usize = 1024;

impl Mirrors {
    /// Begins a copy; `write` appends its head. None: it is dropped, and counted.
    pub(crate) fn begin(
        &self,
        mirror: &Mirror,
        table: &Table,
        x: &mut Exchange,
        write: impl FnOnce(&mut Exchange, &mut Vec<u8>),
    ) -> Option<Box<Draft>> {
        let policy = &mirror.bound.policy;
        let framing = x.request.framing;
        let body = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => usize::try_from(length).ok().filter(|n| *n <= policy.body),
            Framing::Chunked | Framing::UntilClose => Some(policy.body),
        };
        let allowed = policy.address.as_ref();
        let allowed = allowed.is_none_or(|address| self.limits.allows(address));
        let drop = |result| {
            policy.counts.add(result, policy.times.into());
            None
        };
        if !allowed {
            return drop(Result::NotAllowed);
        }
        if self.is_full() {
            return drop(Result::Queue);
        }
        let Some(body) = body else {
            return drop(Result::Body);
        };
        let Some(to) = mirror.slot.and_then(|slot| table.upstream_at(slot)) else {
            return drop(Result::NoInstance);
        };
        let Some(held) = self.hold(x.request.len + ADDED + body) else {
            return drop(Result::Memory);
        };
        let trial = match self.turn(to) {
            Turn::None => return drop(Result::Silent),
            Turn::All => false,
            Turn::One => true,
        };
        let copies = if trial { 1 } else { policy.times };
        if copies < policy.times {
            policy
                .counts
                .add(Result::Silent, (policy.times - copies).into());
        }
        let mut bytes = Vec::with_capacity(x.request.len + ADDED);
        write(x, &mut bytes);
        let has_body = framing != Framing::None;
        if has_body {
            x.upload.tap(policy.body);
        }
        Some(Box::new(Draft {
            bytes,
            method: x.request.method,
            chunks: framing == Framing::Chunked,
            has_body,
            held,
            to: Arc::clone(to),
            policy: Arc::clone(&mirror.bound),
            copies,
            trial,
        }))
    }

    /// The request has been answered: sends its copies.
    pub(crate) fn end(self: &Rc<Self>, draft: Draft, x: &mut Exchange, original: Option<Original>) {
        let Draft {
            mut bytes,
            policy,
            copies,
            trial,
            ..
        } = draft;
        let body = if draft.has_body {
            x.upload.take_tapped()
        } else {
            Ok(Vec::new())
        };
        let body = match body {
            Ok(body) => body,
            Err(untapped) => {
                let result = match untapped {
                    Untapped::TooLarge => Result::Body,
                    Untapped::Incomplete => Result::Incomplete,
                };
                policy.policy.counts.add(result, copies.into());
                return;
            }
        };
        if draft.chunks {
            crate::http1::chunked::append(&mut bytes, &body);
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&body);
        }
        let request = Rc::new(Request {
            bytes,
            method: draft.method,
            id: x.id.as_bytes().into(),
            original: original.filter(|_| policy.policy.compare),
            _held: draft.held,
        });
        for _ in 0..copies {
            self.offer(Copy {
                request: Rc::clone(&request),
                to: Arc::clone(&draft.to),
                policy: Arc::clone(&policy),
                trial,
            });
        }
    }
}
