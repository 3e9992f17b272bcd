//! What a body moves through: a buffer, where somebody looks at it, else a pipe. Both are lent only
//! while there are bytes in them, so that a side that is silent for long holds none, and those that
//! are not share the few that are warm.

use crate::{
    http1::buffer::{Buffer, Lender, Lent},
    wire::pipe::{Conduit, Pipes},
};

/// One body's means.
#[derive(Debug)]
pub(crate) struct Means<'w> {
    buffers: &'w Lender<Buffer>,
    input: Option<Lent<'w, Buffer>>,
    pub(super) pipe: Conduit<'w>,
}

/// Where what is written is also appended, while it is there, for another try.
#[derive(Debug, Default)]
pub(crate) struct Keep<'k> {
    /// What is kept; none: nothing, or no more.
    pub(crate) bytes: Option<&'k mut Vec<u8>>,
    /// The most bytes.
    pub(crate) limit: usize,
}

impl<'w> Means<'w> {
    pub(crate) fn new(buffers: &'w Lender<Buffer>, pipes: &'w Pipes) -> Self {
        Self {
            buffers,
            input: None,
            pipe: Conduit::new(pipes),
        }
    }

    /// What was read and not used up: after the body's end, what lies beyond it.
    pub(crate) fn beyond(&mut self) -> Option<&mut Buffer> {
        self.input.as_deref_mut().filter(|input| !input.is_empty())
    }

    /// The buffer, lent if need be.
    pub(super) fn input(&mut self) -> &mut Buffer {
        self.input.get_or_insert_with(|| self.buffers.lend())
    }

    /// Gives the buffer back.
    pub(super) fn rest(&mut self) {
        self.input = None;
    }
}

impl Keep<'_> {
    /// Keeps what is about to be written; once that is too much, nothing is kept any more.
    pub(super) fn add(&mut self, piece: &[u8], tail: &[u8]) {
        match &mut self.bytes {
            Some(kept) if kept.len() + piece.len() + tail.len() <= self.limit => {
                kept.extend_from_slice(piece);
                kept.extend_from_slice(tail);
            }
            _ => self.bytes = None,
        }
    }
}
