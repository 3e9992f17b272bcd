//! What became of copies, by plugin: counted by all workers, seldom enough to be shared.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::metrics::BOUNDS_US;

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    /// It was answered.
    Answered,
    /// It could not be sent, or the answer was none.
    Failed,
    /// It took too long.
    Timeout,
    /// Its target has not answered for a while.
    Silent,
    /// More copies waited than may.
    Queue,
    /// Copies held more memory than they may.
    Memory,
    /// The request's body was too large.
    Body,
    /// The request's body never came as a whole.
    Incomplete,
    /// There is nobody to send it to.
    NoInstance,
    /// The router's configuration does not allow the address.
    NotAllowed,
    /// The router stopped.
    Stopping,
}

impl Result {
    /// Every one, in the order of its number.
    pub(crate) const ALL: [(Self, &'static str); 11] = [
        (Self::Answered, "answered"),
        (Self::Failed, "failed"),
        (Self::Timeout, "timeout"),
        (Self::Silent, "dropped_silent"),
        (Self::Queue, "dropped_queue"),
        (Self::Memory, "dropped_memory"),
        (Self::Body, "dropped_body"),
        (Self::Incomplete, "dropped_incomplete"),
        (Self::NoInstance, "dropped_no_instance"),
        (Self::NotAllowed, "dropped_not_allowed"),
        (Self::Stopping, "dropped_stopping"),
    ];
}

/// What a comparison with the original says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Status and length are the same.
    Same,
    /// Another status.
    Status,
    /// The same status, another length.
    Length,
}

impl Compared {
    /// Every one, in the order of its number.
    pub(crate) const ALL: [(Self, &'static str); 3] = [
        (Self::Same, "none"),
        (Self::Status, "status"),
        (Self::Length, "length"),
    ];
}

/// Durations in buckets.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    pub(crate) buckets: [AtomicU64; BOUNDS_US.len() + 1],
    pub(crate) sum_us: AtomicU64,
}

impl Durations {
    pub(crate) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS_US.len())].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }
}

/// What became of a plugin's copies.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    results: [AtomicU64; Result::ALL.len()],
    compared: [AtomicU64; Compared::ALL.len()],
    /// From sending to the answer's head: of copies, and of their originals.
    pub(crate) durations: [Durations; 2],
}

impl Counts {
    /// Counts so many copies.
    pub(crate) fn add(&self, result: Result, copies: u64) {
        self.results[result as usize].fetch_add(copies, Relaxed);
    }

    /// Counts a comparison.
    pub(crate) fn compared(&self, compared: Compared) {
        self.compared[compared as usize].fetch_add(1, Relaxed);
    }

    /// Results and how often they were.
    pub(crate) fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Result::ALL
            .map(|(result, name)| (name, self.results[result as usize].load(Relaxed)))
            .into_iter()
    }

    /// Comparisons and how often they were.
    pub(crate) fn comparisons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Compared::ALL
            .map(|(compared, name)| (name, self.compared[compared as usize].load(Relaxed)))
            .into_iter()
    }
}
