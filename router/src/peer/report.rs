//! What an operator sees of a peer.

use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::{clock, health::State, peer::Peer};

/// How a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It takes requests.
    Up,
    /// Its failures took it out.
    Down,
    /// It was down; one request is finding out.
    Probing,
    /// The router's own checks took it out.
    ChecksDown,
    /// It is known but not meant to take requests (starting, draining, disabled, weight 0, gone).
    Idle,
}

/// A peer's health with counts and reasons.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerReport {
    /// How it stands.
    pub health: Standing,
    /// Why, in words, when it is not simply up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is marked down, Unix ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_since: Option<i64>,
    /// In how many milliseconds a request may probe it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_in_ms: Option<u64>,
    /// Requests and tunnels it has from this router now.
    pub in_flight: u32,
    /// Peak EWMA in milliseconds; none before its first response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f32>,
    /// Tries sent to it since this router knows it.
    pub requests: u64,
    /// Failures among them.
    pub failures: u64,
    /// Failures since the last success that may still count.
    pub recent_failures: usize,
    /// How often it was marked down.
    pub marked: u64,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// When, Unix ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_at: Option<i64>,
}

impl Peer {
    /// What there is to say about it.
    pub fn report(&self, now: std::time::Instant) -> PeerReport {
        let now = clock::millis(now);
        let inner = self.lock();
        let last = inner.last_failure;
        let why = || last.map_or_else(String::new, |(failure, _)| format!(", last: {failure}"));
        let (health, reason) = match inner.passive.state() {
            _ if !inner.takes => (Standing::Idle, None),
            _ if inner.checks_down => (Standing::ChecksDown, inner.check_reason.clone()),
            State::Up if inner.spared => (
                Standing::Up,
                Some(format!("kept though failing: too few others{}", why())),
            ),
            State::Up => (Standing::Up, None),
            State::Down { .. } => (
                Standing::Down,
                Some(format!("marked down after failures{}", why())),
            ),
            State::Probing { .. } => (Standing::Probing, Some(format!("was down{}", why()))),
        };
        let probe_in_ms = match inner.passive.state() {
            State::Up => None,
            State::Down { until: at } | State::Probing { lease: at } => {
                Some(at.saturating_sub(now))
            }
        };
        PeerReport {
            health,
            reason,
            down_since: inner.marked_since,
            probe_in_ms,
            in_flight: self.in_flight(),
            latency_ms: self.latency.micros(now).map(|us| us / 1000.0),
            requests: self.requests.load(Ordering::Relaxed),
            failures: inner.failures,
            recent_failures: inner.passive.fails(),
            marked: inner.marked,
            last_failure: last.map(|(failure, _)| failure.to_string()),
            last_failure_at: last.map(|(_, at)| at),
        }
    }
}
