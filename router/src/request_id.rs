//! Request ids: the caller's, if it is fit to be kept, or a random one.

use std::cell::Cell;

/// A request's id.
#[derive(Debug)]
pub(crate) struct RequestId {
    bytes: [u8; 128],
    len: usize,
}

impl Default for RequestId {
    fn default() -> Self {
        Self {
            bytes: [0; 128],
            len: 0,
        }
    }
}

impl RequestId {
    /// The id as text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Keeps a caller's id, which has been checked.
    pub(crate) fn keep(&mut self, id: &[u8]) {
        self.len = id.len().min(self.bytes.len());
        self.bytes[..self.len].copy_from_slice(&id[..self.len]);
    }

    /// Writes 128 random bits as 32 hexadecimal digits.
    pub(crate) fn generate(&mut self, from: &Generator) {
        self.len = 32;
        for half in 0..2 {
            let bits = from.next().to_be_bytes();
            for (i, byte) in bits.into_iter().enumerate() {
                let at = half * 16 + i * 2;
                self.bytes[at] = DIGITS[usize::from(byte >> 4)];
                self.bytes[at + 1] = DIGITS[usize::from(byte & 15)];
            }
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A worker's source of ids: SplitMix64 from a random seed. Ids are for finding requests in logs,
/// not for keeping secrets.
#[derive(Debug)]
pub(crate) struct Generator(Cell<u64>);

impl Generator {
    /// From a random seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// A number from 0 up to, but not, 1.
    pub(crate) fn fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A random number, for lots.
    pub(crate) fn draw(&self) -> u64 {
        self.next()
    }

    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let generator = Generator::new(1);
        let mut seen = std::collections::BTreeSet::new();
        let mut id = RequestId::default();
        for _ in 0..1000 {
            id.generate(&generator);
            assert!(id.as_bytes().len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit));
            assert!(seen.insert(id.as_bytes().to_vec()));
        }
        id.keep(b"abc");
        assert_eq!(id.as_bytes(), b"abc");
    }
}
