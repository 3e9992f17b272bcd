//! The access log: one JSON object a request. A worker writes lines to a buffer of its own and hands
//! full buffers to a writer thread; when that cannot keep up, lines are dropped and counted, and no
//! request ever waits.

use std::{
    cell::{Cell, RefCell},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

mod line;
mod writer;

pub(crate) use line::{Entry, Logged, TimeText};
pub(crate) use writer::{Target, run};

/// A buffer is handed over when it has this many bytes.
const FULL: usize = 64 << 10;
/// A buffer's size: a line more than full.
const SIZE: usize = FULL + (8 << 10);
/// Emptied buffers that may wait for a worker.
const SPARE: usize = 4;
/// Buffers that may wait for the writer.
const QUEUE: usize = 64;

/// What the writer is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Lines to write, and where the emptied buffer goes.
    Lines(Vec<u8>, SyncSender<Vec<u8>>),
    /// Open the file again: it was moved away.
    Reopen,
}

/// The ends of the writer's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// To the writer.
    pub(crate) lines: SyncSender<Message>,
    /// The writer's end.
    pub(crate) to_write: Receiver<Message>,
}

/// A queue for one writer.
pub(crate) fn queue() -> Queue {
    let (lines, to_write) = sync_channel(QUEUE);
    Queue { lines, to_write }
}

/// A worker's end of the log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    to: Option<SyncSender<Message>>,
    buffer: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    time: RefCell<TimeText>,
    emptied: Receiver<Vec<u8>>,
    back: SyncSender<Vec<u8>>,
}

impl AccessLog {
    /// Logs to a writer, or nowhere.
    pub(crate) fn new(to: Option<SyncSender<Message>>) -> Self {
        let (back, emptied) = sync_channel(SPARE);
        Self {
            buffer: RefCell::new(Vec::with_capacity(if to.is_some() { SIZE } else { 0 })),
            emptied,
            back,
            to,
            lines: Cell::new(0),
            time: RefCell::new(TimeText::default()),
        }
    }

    /// Logs one request; gives the number of lines that had to be dropped.
    pub(crate) fn write(&self, entry: &Entry<'_>) -> u64 {
        if self.to.is_none() {
            return 0;
        }
        let mut buffer = self.buffer.borrow_mut();
        entry.append(&mut buffer, &mut self.time.borrow_mut());
        self.lines.set(self.lines.get() + 1);
        let full = buffer.len() >= FULL;
        drop(buffer);
        if full { self.flush() } else { 0 }
    }

    /// Whether everything was handed over.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.borrow().is_empty()
    }

    /// Hands over what there is; gives the number of lines that had to be dropped.
    pub(crate) fn flush(&self) -> u64 {
        let mut buffer = self.buffer.borrow_mut();
        let lines = self.lines.replace(0);
        let Some(to) = &self.to else { return 0 };
        if buffer.is_empty() {
            return 0;
        }
        let empty = self.emptied.try_recv();
        let empty = empty.unwrap_or_else(|_| Vec::with_capacity(SIZE));
        let full = std::mem::replace(&mut *buffer, empty);
        match to.try_send(Message::Lines(full, self.back.clone())) {
            Ok(()) => 0,
            Err(_) => lines,
        }
    }
}

#[cfg(test)]
mod tests;
