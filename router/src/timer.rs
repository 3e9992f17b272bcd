//! Time-outs of a worker's connections. A request sets several of them and nearly none ever goes
//! off, so setting one is a store: one ticker looks at all of them a few times a second. A time-out
//! is never early, and late by up to two ticks.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use slab::Slab;
use tokio::sync::Notify;

mod idle;

use idle::Idle;

/// How often time-outs are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(25);
const NEVER: u64 = u64::MAX;

/// All time-outs of a worker.
#[derive(Debug)]
pub(crate) struct Timers {
    started: Instant,
    now: Cell<u64>,
    slots: RefCell<Slab<Slot>>,
    idle: Idle,
    work: Notify,
}

#[derive(Debug)]
struct Slot {
    deadline: u64,
    after: u64,
    fired: bool,
    /// It was the oldest idle one when another connection needed its place.
    evicted: bool,
    /// Its turn among the idle ones; [`BUSY`]: it is none of them.
    turn: u64,
    waker: Waker,
}

/// No idle connection has this turn.
const BUSY: u64 = 0;

impl Timers {
    /// No time-outs yet.
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            started: now,
            now: Cell::new(0),
            slots: RefCell::new(Slab::new()),
            idle: Idle::default(),
            work: Notify::new(),
        })
    }

    /// A timer for the task that calls this; it must stay in this task.
    pub(crate) async fn timer(self: &Rc<Self>) -> Timer {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        self.advance(Instant::now());
        let mut slots = self.slots.borrow_mut();
        let key = slots.insert(Slot {
            deadline: NEVER,
            after: NEVER,
            fired: false,
            evicted: false,
            turn: BUSY,
            waker,
        });
        if slots.len() == 1 {
            self.work.notify_one();
        }
        Timer {
            timers: Rc::clone(self),
            key,
        }
    }

    /// Runs for ever: lets time-outs go off. `each_tick` says whether it must be called again even
    /// when there are no timers; else a worker without connections sleeps.
    pub(crate) async fn run(&self, mut each_tick: impl FnMut(Instant) -> bool) {
        let mut busy = false;
        loop {
            if !busy && self.slots.borrow().is_empty() {
                self.work.notified().await;
            }
            tokio::time::sleep(TICK).await;
            let now = Instant::now();
            self.tick(now);
            busy = each_tick(now);
        }
    }

    /// Lets time-outs go off that are due at `now`.
    pub(crate) fn tick(&self, now: Instant) {
        self.advance(now);
        let now = self.now.get();
        for (_, slot) in self.slots.borrow_mut().iter_mut() {
            if slot.deadline <= now {
                slot.deadline = NEVER;
                slot.fired = true;
                slot.waker.wake_by_ref();
            }
        }
    }

    /// Milliseconds of the worker's clock, a tick old at most while there are connections.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Wakes every connection, so that it looks at the worker's state.
    pub(crate) fn wake_all(&self) {
        for (_, slot) in self.slots.borrow().iter() {
            slot.waker.wake_by_ref();
        }
    }

    fn advance(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.started).as_millis();
        self.now.set(u64::try_from(ms).unwrap_or(NEVER - 1));
    }
}

/// A time in milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER)
}

/// A connection's timer: one deadline at a time.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Rc<Timers>,
    key: usize,
}

impl Timer {
    /// Goes off after `time` from now, unless it is set anew.
    pub(crate) fn set(&self, time: Duration) {
        self.set_millis(millis(time));
    }

    /// The same, in milliseconds.
    pub(crate) fn set_millis(&self, after: u64) {
        self.arm(after, BUSY);
    }

    /// The same for a connection that waits for its next request: it may be asked to make room.
    pub(crate) fn set_idle(&self, time: Duration) {
        self.arm(millis(time), self.timers.idle.turn());
    }

    /// From here on the connection may be asked to make room; the time goes on.
    pub(crate) fn rest(&self) {
        if let Some(slot) = self.timers.slots.borrow_mut().get_mut(self.key) {
            slot.turn = self.timers.idle.turn();
        }
    }

    /// The opposite.
    pub(crate) fn work(&self) {
        if let Some(slot) = self.timers.slots.borrow_mut().get_mut(self.key) {
            slot.evicted = false;
            slot.turn = BUSY;
        }
    }

    fn arm(&self, after: u64, turn: u64) {
        if let Some(slot) = self.timers.slots.borrow_mut().get_mut(self.key) {
            slot.after = after;
            slot.fired = false;
            slot.evicted = false;
            slot.turn = turn;
            // `now` is up to a tick old.
            let tick = u64::try_from(TICK.as_millis()).unwrap_or(0);
            slot.deadline = self
                .timers
                .now
                .get()
                .saturating_add(after)
                .saturating_add(tick);
        }
    }

    /// Starts the same time again: there was progress.
    pub(crate) fn again(&self) {
        let after = self
            .timers
            .slots
            .borrow()
            .get(self.key)
            .map(|slot| slot.after);
        if let Some(after) = after.filter(|after| *after != NEVER) {
            self.set_millis(after);
        }
    }

    /// Goes off at `deadline` on the worker's clock at the latest.
    pub(crate) fn by(&self, deadline: u64) {
        if let Some(slot) = self.timers.slots.borrow_mut().get_mut(self.key) {
            slot.fired = false;
            slot.deadline = slot.deadline.min(deadline);
        }
    }

    /// Milliseconds of the worker's clock.
    pub(crate) fn now(&self) -> u64 {
        self.timers.now()
    }

    /// Whether it went off because the connection is asked to make room.
    pub(crate) fn evicted(&self) -> bool {
        (self.timers.slots.borrow().get(self.key)).is_some_and(|slot| slot.evicted)
    }

    /// Whether it went off.
    pub(crate) fn fired(&self) -> bool {
        self.timers
            .slots
            .borrow()
            .get(self.key)
            .is_some_and(|slot| slot.fired)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.timers.slots.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn timer(timers: &Rc<Timers>) -> Timer {
        let mut future = std::pin::pin!(timers.timer());
        let mut cx = std::task::Context::from_waker(Waker::noop());
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(timer) => timer,
            Poll::Pending => panic!("a timer is there at once"),
        }
    }

    #[test]
    fn goes_off_in_time_and_only_once_set() {
        let start = Instant::now();
        let timers = Timers::new(start);
        let timer = timer(&timers);
        let base = Instant::now();
        timer.set(Duration::from_millis(100));
        timers.tick(base + Duration::from_millis(100));
        assert!(!timer.fired());
        timers.tick(base + Duration::from_millis(200));
        assert!(timer.fired());
        timers.tick(base + Duration::from_hours(10));
        timer.again();
        assert!(!timer.fired());
    }
}
