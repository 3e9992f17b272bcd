//! One service's life, as a pure state machine: what happened and what time it is go in, what is to
//! be done comes out.
//!
//! ```text
//!            probe passes          warm                 probe fails
//!  Waiting ───────────────► Warming ────► Up (registered) ◄──────────► Draining (registered)
//!     ▲      probe fails       │           │                passes        │
//!     └────────────────────────┘           └──────────┬───────────────────┘
//!                             told to leave (from anywhere)
//!                                                     ▼
//!                                   Leaving ────► Gone
//! ```
//!
//! What the registry should hear follows from the phase; what it has confirmed is kept beside it
//! (`told`). While the two differ there is a registration to send, always with the newest state,
//! never two at a time, and after a failure not before a growing, jittered pause. Randomness is
//! handed in as `roll`, a number from 0 to 1.

use std::time::{Duration, Instant};

use cardea_registry_api::InstanceState;

use crate::local::Phase;

/// How often a service that never was ready is probed, at least.
const EAGER: Duration = Duration::from_millis(250);
/// The first pause after a failed call.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after a failed call.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a refusal: somebody has to change something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);
/// How often a registration is repeated although nothing changed, so that whatever went astray
/// between agent and registry mends itself.
const REFRESH: Duration = Duration::from_mins(10);
/// How long a deregistration waits for a registration under way: were it to arrive afterwards, it
/// would bring the instance back.
const GRACE: Duration = Duration::from_secs(1);

/// What the machine goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) interval: Duration,
    pub(crate) failures: u32,
    pub(crate) successes: u32,
    pub(crate) warm_time: Duration,
    pub(crate) warm_url: bool,
    pub(crate) lease: Duration,
}

/// What is to be done now. Each is begun once; its end is reported back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Probe readiness, then say [`Life::probed`].
    Probe,
    /// Ask the warm-up URL, then say [`Life::warmed`].
    WarmUp,
    /// Register in this state, then say [`Life::registered`] or [`Life::failed`].
    Register(InstanceState),
    /// Give up a registration that is still under way and deregister, then say [`Life::left`].
    Leave(Order),
}

/// How to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// Whether to wait for the routers.
    pub(crate) acknowledged: bool,
    /// When to give up.
    pub(crate) deadline: Instant,
}

/// One service's life.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    rules: Rules,
    phase: Phase,
    /// Probes in a row that passed, and that failed.
    passes: u32,
    fails: u32,
    probe_at: Instant,
    probing: bool,
    warm_since: Instant,
    warm_url_at: Instant,
    /// Since when the warm-up URL is being asked.
    warm_url_asked: Option<Instant>,
    warm_url_passed: bool,
    /// What the registry confirmed last.
    told: Option<InstanceState>,
    /// The registry may know the instance, as something was sent.
    perhaps_known: bool,
    calling: bool,
    call_at: Instant,
    vain_calls: u32,
    renew_at: Instant,
    refresh_at: Instant,
    confirmed_at: Option<Instant>,
    order: Option<Order>,
    leave_at: Instant,
    leaving: bool,
}

impl Life {
    pub(crate) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            phase: Phase::Waiting,
            passes: 0,
            fails: 0,
            probe_at: now,
            probing: false,
            warm_since: now,
            warm_url_at: now,
            warm_url_asked: None,
            warm_url_passed: false,
            told: None,
            perhaps_known: false,
            calling: false,
            call_at: now,
            vain_calls: 0,
            renew_at: now,
            refresh_at: now,
            confirmed_at: None,
            order: None,
            leave_at: now,
            leaving: false,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// What the registry confirmed last.
    pub(crate) fn told(&self) -> Option<InstanceState> {
        self.told
    }

    /// When the registry last confirmed it.
    pub(crate) fn confirmed_at(&self) -> Option<Instant> {
        self.confirmed_at
    }

    /// What is to be done now; ask until there is nothing.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Action> {
        match self.phase {
            Phase::Gone => None,
            Phase::Leaving => self.due_leave(now),
            _ => {
                self.warm(now);
                self.due_call(now).or_else(|| self.due_probe(now))
            }
        }
    }

    /// When there may be something to do again; none: not before something is reported.
    pub(crate) fn next(&self) -> Option<Instant> {
        match self.phase {
            Phase::Gone => None,
            Phase::Leaving => (!self.leaving).then_some(self.leave_at),
            _ => {
                let probe = (!self.probing).then_some(self.probe_at);
                let warming = self.phase == Phase::Warming;
                let warm = (warming && self.warm_by_url())
                    .then_some(self.warm_since + self.rules.warm_time);
                let url = (warming && !self.warm_by_url() && self.warm_url_asked.is_none())
                    .then_some(self.warm_url_at);
                let call = self.wanted().map(|(_, at)| at);
                [probe, warm, url, call].into_iter().flatten().min()
            }
        }
    }

    /// When its lease is to be renewed, if it is registered.
    pub(crate) fn renew_at(&self) -> Option<Instant> {
        (self.desired().is_some() && self.told.is_some()).then_some(self.renew_at)
    }

    /// A probe passed or failed.
    pub(crate) fn probed(&mut self, passed: bool, now: Instant, roll: f64) {
        self.probing = false;
        self.probe_at = now + jitter(self.probe_interval(), roll);
        if passed {
            self.passes = self.passes.saturating_add(1);
            self.fails = 0;
        } else {
            self.fails = self.fails.saturating_add(1);
            self.passes = 0;
        }
        let ready = self.passes >= self.rules.successes;
        match self.phase {
            Phase::Waiting if ready => {
                self.phase = Phase::Warming;
                self.warm_since = now;
                self.warm_url_at = now;
                self.warm_url_passed = false;
                self.warm(now);
            }
            Phase::Warming if !passed => self.phase = Phase::Waiting,
            Phase::Up if self.fails >= self.rules.failures => self.change(Phase::Draining, now),
            Phase::Draining if ready => self.change(Phase::Up, now),
            _ => {}
        }
    }

    /// The warm-up URL passed or failed.
    pub(crate) fn warmed(&mut self, passed: bool, now: Instant, roll: f64) {
        let asked = self.warm_url_asked.take();
        // An answer from before the service fell back says nothing about what runs now.
        self.warm_url_passed = passed && asked >= Some(self.warm_since);
        self.warm_url_at = now + jitter(self.rules.interval, roll);
        self.warm(now);
    }

    /// The registry confirmed a registration.
    pub(crate) fn registered(&mut self, state: InstanceState, now: Instant, roll: f64) {
        self.calling = false;
        self.told = Some(state);
        self.refresh_at = now + jitter(REFRESH, roll);
        self.confirmed(now, roll);
    }

    /// A registration failed. `after` is what the registry said about when to come again; a refusal
    /// will not go away by itself soon.
    pub(crate) fn failed(
        &mut self,
        refused: bool,
        after: Option<Duration>,
        now: Instant,
        roll: f64,
    ) {
        self.calling = false;
        self.call_at = now + self.pause(refused, after, roll);
    }

    /// The registry confirmed a renewal.
    pub(crate) fn renewed(&mut self, now: Instant, roll: f64) {
        if self.told.is_some() {
            self.confirmed(now, roll);
        }
    }

    /// The registry does not know it (any more).
    pub(crate) fn forgotten(&mut self, now: Instant) {
        self.told = None;
        self.perhaps_known = self.calling;
        self.call_at = self.call_at.min(now);
    }

    /// Whether the registry takes its word is open: it says it again.
    pub(crate) fn doubted(&mut self, now: Instant) {
        self.told = None;
        self.call_at = self.call_at.min(now);
    }

    /// A renewal failed.
    pub(crate) fn renewal_failed(&mut self, after: Option<Duration>, now: Instant, roll: f64) {
        self.renew_at = now + self.pause(false, after, roll).min(self.renew_interval());
    }

    /// It is to leave for good. Once said, a later word changes nothing but may shorten the time.
    pub(crate) fn leave(&mut self, order: Order, now: Instant) {
        match (&mut self.order, self.phase) {
            (_, Phase::Gone) => {}
            (Some(given), _) => given.deadline = given.deadline.min(order.deadline),
            (None, _) => {
                self.order = Some(order);
                self.phase = Phase::Leaving;
                let grace = if self.calling { now + GRACE } else { now };
                self.leave_at = grace.min(order.deadline);
                if !self.perhaps_known {
                    self.phase = Phase::Gone;
                }
            }
        }
    }

    /// It is deregistered, or that was given up.
    pub(crate) fn left(&mut self) {
        self.told = None;
        self.phase = Phase::Gone;
    }

    fn due_leave(&mut self, now: Instant) -> Option<Action> {
        let order = self.order?;
        if self.leaving || (self.calling && now < self.leave_at) {
            return None;
        }
        self.leaving = true;
        Some(Action::Leave(order))
    }

    fn due_probe(&mut self, now: Instant) -> Option<Action> {
        if self.phase == Phase::Warming
            && !self.warm_by_url()
            && self.warm_url_asked.is_none()
            && now >= self.warm_url_at
        {
            self.warm_url_asked = Some(now);
            return Some(Action::WarmUp);
        }
        if self.probing || now < self.probe_at {
            return None;
        }
        self.probing = true;
        Some(Action::Probe)
    }

    fn due_call(&mut self, now: Instant) -> Option<Action> {
        let (state, at) = self.wanted()?;
        if now < at {
            return None;
        }
        self.calling = true;
        self.perhaps_known = true;
        Some(Action::Register(state))
    }

    /// The registration that is to be sent, and when.
    fn wanted(&self) -> Option<(InstanceState, Instant)> {
        let desired = self.desired()?;
        if self.calling {
            return None;
        }
        if self.told == Some(desired) {
            return Some((desired, self.refresh_at.max(self.call_at)));
        }
        // Nobody needs to hear of an instance that it is not ready.
        let worth = desired == InstanceState::Up || self.perhaps_known;
        worth.then_some((desired, self.call_at))
    }

    fn desired(&self) -> Option<InstanceState> {
        match self.phase {
            Phase::Up => Some(InstanceState::Up),
            Phase::Draining => Some(InstanceState::Draining),
            _ => None,
        }
    }

    fn warm_by_url(&self) -> bool {
        !self.rules.warm_url || self.warm_url_passed
    }

    fn warm(&mut self, now: Instant) {
        let warm = self.phase == Phase::Warming
            && self.warm_by_url()
            && now >= self.warm_since + self.rules.warm_time;
        if warm {
            self.change(Phase::Up, now);
        }
    }

    /// A new state is news: it does not wait for the pause of an old one's failure.
    fn change(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.call_at = self.call_at.min(now);
    }

    fn confirmed(&mut self, now: Instant, roll: f64) {
        self.vain_calls = 0;
        self.confirmed_at = Some(now);
        self.renew_at = now + jitter(self.renew_interval(), roll);
    }

    fn renew_interval(&self) -> Duration {
        self.rules.lease / 3
    }

    fn probe_interval(&self) -> Duration {
        match self.phase {
            Phase::Waiting => self.rules.interval.min(EAGER),
            _ => self.rules.interval,
        }
    }

    fn pause(&mut self, refused: bool, after: Option<Duration>, roll: f64) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.vain_calls.min(10));
        self.vain_calls = self.vain_calls.saturating_add(1);
        let pause = if refused {
            REFUSED_PAUSE
        } else {
            doubled.min(LONGEST_PAUSE)
        };
        jitter(pause, roll).max(after.unwrap_or_default().min(REFUSED_PAUSE))
    }
}

/// Four fifths of a span to all of it.
fn jitter(span: Duration, roll: f64) -> Duration {
    span.mul_f64(0.8 + 0.2 * roll.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
