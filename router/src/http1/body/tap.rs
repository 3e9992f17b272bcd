//! A copy of a body's content, taken while it moves.

/// A copy that grows up to a limit.
#[derive(Debug)]
pub(super) struct Tap {
    bytes: Vec<u8>,
    limit: usize,
    over: bool,
}

/// Why there is no copy of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untapped {
    /// It was larger than was to be copied.
    TooLarge,
    /// It did not come as a whole.
    Incomplete,
}

impl Tap {
    /// For up to `limit` bytes, of which `known` will come.
    pub(super) fn new(known: usize, limit: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(known.min(limit)),
            limit,
            over: known > limit,
        }
    }

    /// Whether there will be no copy, whatever comes.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The next bytes.
    pub(super) fn add(&mut self, piece: &[u8]) {
        if self.over || self.bytes.len() + piece.len() > self.limit {
            self.over = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// The copy of a body of which all has come, or not (`done`).
    pub(super) fn take(self, done: bool) -> Result<Vec<u8>, Untapped> {
        match self {
            Self { over: true, .. } => Err(Untapped::TooLarge),
            Self { bytes, .. } if done => Ok(bytes),
            _ => Err(Untapped::Incomplete),
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
