//! What a client makes the router do that leads to nothing: pings, settings, streams that are reset
//! as soon as they are opened. Each costs credit, answers earn it, and time gives a little back.
//! The library bounds the memory that such frames could take; this bounds the time.

use std::cell::{Cell, RefCell};

/// What comes back by itself, in a second.
const A_SECOND: u64 = 200;
/// Frames that make the router answer at once.
const ANSWERED_FRAME: u32 = 5;
/// Any other frame that carries nothing.
const EMPTY_FRAME: u32 = 1;
/// A request that was given up at once; also one of which nothing but that was ever seen.
const HASTY_RESET: u32 = 10;
/// How early that is, in milliseconds.
const HASTE: u64 = 1000;
/// A frame of an answer.
const ANSWER: u32 = 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// On DATA and HEADERS; the same bit means ACK on SETTINGS and PING.
const END_STREAM_OR_ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A client connection's meter. Times are milliseconds of the worker's clock.
#[derive(Debug)]
pub(crate) struct Meter {
    /// What it may have, and begins with.
    most: u32,
    credit: Cell<u32>,
    refilled: Cell<u64>,
    heard: Cell<u64>,
    spent: Cell<bool>,
    frames: RefCell<Frames>,
    written: Cell<u64>,
    blocked: Cell<bool>,
    nudged: Cell<bool>,
}

impl Meter {
    /// Of a client that may have so much credit.
    pub(crate) fn new(most: u32, now: u64) -> Self {
        Self {
            most,
            credit: Cell::new(most),
            refilled: Cell::new(now),
            heard: Cell::new(now),
            spent: Cell::new(false),
            frames: RefCell::new(Frames::new(now)),
            written: Cell::new(0),
            blocked: Cell::new(false),
            nudged: Cell::new(false),
        }
    }

    /// Bytes that the client sent.
    pub(crate) fn read(&self, bytes: &[u8], now: u64) {
        self.heard.set(now);
        let mut cost = 0;
        self.frames.borrow_mut().read(bytes, now, |frame| {
            cost += frame.cost();
        });
        self.spend(cost, now);
    }

    /// A stream was reset by the client so many milliseconds after it was opened: who has waited gets
    /// back what the frame has cost.
    pub(crate) fn reset(&self, age: u64) {
        if age >= HASTE {
            self.earn(HASTY_RESET - EMPTY_FRAME);
        }
    }

    /// A part of an answer went out.
    pub(crate) fn answered(&self) {
        self.earn(ANSWER);
    }

    fn earn(&self, more: u32) {
        let credit = self.credit.get().saturating_add(more).min(self.most);
        self.credit.set(credit);
    }

    fn spend(&self, cost: u32, now: u64) {
        if cost == 0 {
            return;
        }
        let credit = self.credit.get();
        if credit >= cost {
            self.credit.set(credit - cost);
            return;
        }
        let since = now.saturating_sub(self.refilled.get());
        self.refilled.set(now);
        let back = u32::try_from(since * A_SECOND / 1000).unwrap_or(self.most);
        match credit.saturating_add(back).min(self.most).checked_sub(cost) {
            Some(left) => self.credit.set(left),
            None => self.spent.set(true),
        }
    }

    /// Whether the client has asked for too much that leads to nothing.
    pub(crate) fn spent(&self) -> bool {
        self.spent.get()
    }

    /// When the client was last heard of.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.get()
    }

    /// The client's connection took so many bytes, or (none) takes no more now.
    pub(crate) fn wrote(&self, bytes: Option<usize>) {
        self.blocked.set(bytes.is_none());
        let written = self.written.get() + bytes.unwrap_or(0) as u64;
        self.written.set(written);
    }

    /// Bytes that the client's connection took.
    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Whether what was last to be written is waiting for the client to take something.
    pub(crate) fn blocked(&self) -> bool {
        self.blocked.get()
    }

    /// With the next write the system is to be asked itself whether there is room.
    pub(crate) fn nudge(&self) {
        self.nudged.set(true);
    }

    /// Whether it is, this once.
    pub(crate) fn take_nudge(&self) -> bool {
        self.nudged.take()
    }

    /// Since when a header block has been incomplete, or the client's first frame outstanding, if so.
    pub(crate) fn head_since(&self) -> Option<u64> {
        self.frames.borrow().head_since
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy)]
struct Frame {
    len: u32,
    kind: u8,
    flags: u8,
}

impl Frame {
    fn cost(self) -> u32 {
        let plain = self.flags & END_STREAM_OR_ACK == 0;
        match self.kind {
            DATA if self.len > 0 || !plain => 0,
            SETTINGS | PING if plain => ANSWERED_FRAME,
            HEADERS | SETTINGS | PING => 0,
            RST_STREAM => HASTY_RESET,
            _ => EMPTY_FRAME,
        }
    }
}

/// Finds the frames in a stream of bytes.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next frame.
    skip: usize,
    head: [u8; 9],
    have: usize,
    /// A header block is open: it ends with the frame that says so.
    open: bool,
    /// A frame has begun: the client has said more than hello.
    begun: bool,
    head_since: Option<u64>,
}

impl Frames {
    fn new(now: u64) -> Self {
        Self {
            skip: super::PREFACE.len(),
            head: [0; 9],
            have: 0,
            open: false,
            begun: false,
            head_since: Some(now),
        }
    }

    fn read(&mut self, mut bytes: &[u8], now: u64, mut each: impl FnMut(Frame)) {
        loop {
            let skip = self.skip.min(bytes.len());
            self.skip -= skip;
            bytes = &bytes[skip..];
            if self.begun && self.skip == 0 && self.have == 0 && !self.open {
                self.head_since = None;
            }
            if bytes.is_empty() {
                return;
            }
            let n = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have < self.head.len() {
                return;
            }
            self.have = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            let len = u32::from_be_bytes([0, a, b, c]);
            self.skip = len as usize;
            self.begun = true;
            if matches!(kind, HEADERS | CONTINUATION) {
                self.open = flags & END_HEADERS == 0;
                self.head_since.get_or_insert(now);
            }
            each(Frame { len, kind, flags });
        }
    }
}

#[cfg(test)]
mod tests;
