//! Buffers and the pool they are lent from. A buffer is lent only while a request is active, so that
//! an idle connection holds none.

use std::{
    cell::{Cell, RefCell},
    ops::{Deref, DerefMut},
};

/// What a head is read into: nearly every message fits as a whole.
pub(crate) const SMALL: usize = 16 << 10;
/// What bodies and oversized heads are read into.
pub(crate) const LARGE: usize = 64 << 10;
/// Room before body data, for the head of a chunk.
pub(crate) const HEADROOM: usize = 18;
/// Room behind body data, for the end of a chunk.
pub(crate) const TAILROOM: usize = 16;

/// Bytes that were read and not used up yet.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer that reads up to `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; HEADROOM + size + TAILROOM].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
        }
    }

    /// How many bytes it can hold.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len() - HEADROOM - TAILROOM
    }

    /// What was read and not used up.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be changed in place.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How many bytes were read and not used up.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether everything is used up.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where the next read goes; may be empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let limit = self.bytes.len() - TAILROOM;
        &mut self.bytes[self.end..limit]
    }

    /// `n` bytes were read into [`Buffer::space`].
    pub(crate) fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len() - TAILROOM);
    }

    /// The first `n` bytes are used up.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Everything is used up.
    pub(crate) fn clear(&mut self) {
        self.start = HEADROOM;
        self.end = HEADROOM;
    }

    /// Moves what is left to the front, so that there is as much space as possible.
    pub(crate) fn compact(&mut self) {
        if self.start > HEADROOM {
            self.bytes.copy_within(self.start..self.end, HEADROOM);
            self.end = HEADROOM + self.len();
            self.start = HEADROOM;
        }
    }

    /// Takes over what is left in another buffer; what this one held is forgotten.
    pub(crate) fn take_from(&mut self, other: &mut Self) {
        self.clear();
        let n = other.len().min(self.capacity());
        self.bytes[HEADROOM..HEADROOM + n].copy_from_slice(&other.data()[..n]);
        self.end = HEADROOM + n;
        other.consume(n);
    }

    /// Index of the data within [`Buffer::raw`].
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// All bytes, with the rooms around the data.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes, with the rooms around the data, to be changed in place.
    pub(crate) fn raw_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Things that are lent and come back. It remembers how many were out at
/// once, and lets go of more than that from time to time.
#[derive(Debug)]
pub(crate) struct Lender<T> {
    free: RefCell<Vec<T>>,
    out: Cell<usize>,
    most: Cell<usize>,
    make: fn() -> T,
    clean: fn(&mut T),
}

impl<T> Lender<T> {
    /// An empty pool of what `make` makes and `clean` makes fit to be lent again.
    pub(crate) fn new(make: fn() -> T, clean: fn(&mut T)) -> Self {
        Self {
            free: RefCell::new(Vec::new()),
            out: Cell::new(0),
            most: Cell::new(0),
            make,
            clean,
        }
    }

    /// Lends one; it comes back by itself.
    pub(crate) fn lend(&self) -> Lent<'_, T> {
        Lent {
            lender: self,
            thing: Some(self.take()),
        }
    }

    fn take(&self) -> T {
        let out = self.out.get() + 1;
        self.out.set(out);
        self.most.set(self.most.get().max(out));
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(self.make)
    }

    fn give_back(&self, mut thing: T) {
        self.out.set(self.out.get().saturating_sub(1));
        (self.clean)(&mut thing);
        self.free.borrow_mut().push(thing);
    }

    /// Frees what was not needed since the last call.
    pub(crate) fn trim(&self) {
        let keep = self.most.get().saturating_sub(self.out.get());
        self.most.set(self.out.get());
        let mut free = self.free.borrow_mut();
        free.truncate(keep);
        if free.capacity() > 4 * (keep + 16) {
            free.shrink_to(keep + 16);
        }
    }

    /// Frees all that are not lent.
    pub(crate) fn clear(&self) {
        self.free.borrow_mut().clear();
    }

    /// Whether some wait to be lent, or are out.
    pub(crate) fn holds_some(&self) -> bool {
        self.out.get() > 0 || !self.free.borrow().is_empty()
    }

    /// How many are lent.
    pub(crate) fn out(&self) -> usize {
        self.out.get()
    }

    /// How many wait to be lent.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.free.borrow().len()
    }
}

/// A lent thing; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lent<'l, T> {
    lender: &'l Lender<T>,
    thing: Option<T>,
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing
            .as_ref()
            .unwrap_or_else(|| unreachable!("it is given back only when dropped"))
    }
}

impl<T> DerefMut for Lent<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing
            .as_mut()
            .unwrap_or_else(|| unreachable!("it is given back only when dropped"))
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        if let Some(thing) = self.thing.take() {
            self.lender.give_back(thing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_moves_what_is_left_to_the_front() {
        let mut buffer = Buffer::new(8);
        buffer.space()[..6].copy_from_slice(b"abcdef");
        buffer.filled(6);
        buffer.consume(4);
        assert_eq!(buffer.space().len(), 2);
        buffer.compact();
        assert_eq!(buffer.data(), b"ef");
        assert_eq!(buffer.space().len(), 6);
        buffer.consume(2);
        assert_eq!(buffer.space().len(), buffer.capacity());
    }

    #[test]
    fn a_lender_keeps_what_was_needed_at_once() {
        let lender = Lender::new(|| Buffer::new(SMALL), Buffer::clear);
        let lent: Vec<_> = (0..10).map(|_| lender.lend()).collect();
        drop(lent);
        lender.trim();
        assert_eq!(lender.waiting(), 10);
        drop(lender.lend());
        lender.trim();
        assert_eq!(lender.waiting(), 1);
    }
}
