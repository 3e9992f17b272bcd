//! How an agent ends, as a pure state machine: deregister, then stop the process, then end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// How long the registry may take to hear that the process has ended by itself.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(3);
/// The same, when somebody is in a hurry.
const HURRIED: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Deregister everything and wait for the routers.
    Leave,
    /// Deregister everything; there is nothing left to wait for.
    LeaveAtOnce,
    /// Send this to the process.
    Signal(Signal),
    /// Kill the process and its group.
    Kill,
    /// End with this status.
    End(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// Everything is being deregistered; then the process gets the signal.
    Leaving(Signal),
    /// The process has been told.
    Told {
        kill_at: Instant,
    },
    Killed,
    /// The process has ended; what is still being deregistered has until then.
    Ending {
        status: i32,
        until: Instant,
    },
}

/// How an agent ends.
#[derive(Debug)]
pub(crate) struct Stop {
    kill_timeout: Duration,
    wraps: bool,
    hurried: bool,
    state: State,
}

impl Stop {
    /// `wraps`: whether there is a process to stop.
    pub(crate) fn new(kill_timeout: Duration, wraps: bool) -> Self {
        Self {
            kill_timeout,
            wraps,
            hurried: false,
            state: State::Running,
        }
    }

    /// A signal came.
    pub(crate) fn signalled(&mut self, signal: Signal, now: Instant) -> Option<Step> {
        let stop = matches!(signal, Signal::SIGTERM | Signal::SIGINT);
        match self.state {
            State::Running if stop => {
                self.state = State::Leaving(signal);
                Some(Step::Leave)
            }
            State::Leaving(first) if stop => {
                self.hurried = true;
                self.tell(first, now)
            }
            State::Ending { .. } => None,
            _ => self.wraps.then_some(Step::Signal(signal)),
        }
    }

    /// The process ended by itself, or as it was told.
    pub(crate) fn ended(&mut self, status: i32, now: Instant) -> Option<Step> {
        let time = if self.hurried { HURRIED } else { LAST_WORD };
        let before = self.state;
        self.state = State::Ending {
            status,
            until: now + time,
        };
        (before == State::Running).then_some(Step::LeaveAtOnce)
    }

    /// What the time, or that everything has left, brings about; ask until there is nothing.
    pub(crate) fn poll(&mut self, all_gone: bool, now: Instant) -> Option<Step> {
        match self.state {
            State::Leaving(signal) if all_gone => self.tell(signal, now),
            State::Told { kill_at } if now >= kill_at => {
                self.state = State::Killed;
                Some(Step::Kill)
            }
            State::Ending { status, until } if all_gone || now >= until => Some(Step::End(status)),
            _ => None,
        }
    }

    /// When time alone may bring something about.
    pub(crate) fn next(&self) -> Option<Instant> {
        match self.state {
            State::Told { kill_at } => Some(kill_at),
            State::Ending { until, .. } => Some(until),
            _ => None,
        }
    }

    fn tell(&mut self, signal: Signal, now: Instant) -> Option<Step> {
        if self.wraps {
            self.state = State::Told {
                kill_at: now + self.kill_timeout,
            };
            return Some(Step::Signal(signal));
        }
        self.state = State::Ending {
            status: 0,
            until: now + HURRIED,
        };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: Duration = Duration::from_secs(10);
    const TERM: Signal = Signal::SIGTERM;
    const INT: Signal = Signal::SIGINT;

    #[test]
    fn deregisters_then_tells_then_kills() {
        let t = Instant::now();
        let mut stop = Stop::new(KILL, true);
        assert_eq!(stop.poll(false, t), None);
        assert_eq!(stop.signalled(INT, t), Some(Step::Leave));
        assert_eq!(
            stop.poll(false, t + KILL * 9),
            None,
            "only deregistering has begun"
        );
        assert_eq!(stop.poll(true, t), Some(Step::Signal(INT)));
        assert_eq!(stop.poll(true, t), None);
        assert_eq!(stop.next(), Some(t + KILL));
        assert_eq!(stop.poll(true, t + KILL), Some(Step::Kill));
        assert_eq!(stop.poll(true, t + KILL * 2), None);
        assert_eq!(stop.ended(137, t), None);
        assert_eq!(stop.poll(true, t), Some(Step::End(137)));
    }

    #[test]
    fn a_second_signal_hurries_on() {
        let t = Instant::now();
        let mut stop = Stop::new(KILL, true);
        stop.signalled(TERM, t);
        assert_eq!(stop.signalled(INT, t), Some(Step::Signal(TERM)));
        assert_eq!(stop.signalled(INT, t), Some(Step::Signal(INT)));
        assert_eq!(stop.ended(0, t), None);
        assert_eq!(stop.poll(false, t), None, "the registry has not heard yet");
        assert_eq!(stop.poll(false, t + HURRIED), Some(Step::End(0)));

        let mut stop = Stop::new(KILL, false);
        stop.signalled(TERM, t);
        assert_eq!(stop.signalled(TERM, t), None);
        assert_eq!(stop.poll(false, t + HURRIED), Some(Step::End(0)));
    }

    #[test]
    fn a_process_that_ends_by_itself_is_deregistered_at_once() {
        let t = Instant::now();
        let mut stop = Stop::new(KILL, true);
        assert_eq!(stop.ended(3, t), Some(Step::LeaveAtOnce));
        assert_eq!(stop.signalled(TERM, t), None, "nobody is there to be told");
        assert_eq!(stop.poll(false, t), None);
        assert_eq!(stop.next(), Some(t + LAST_WORD));
        assert_eq!(stop.poll(false, t + LAST_WORD), Some(Step::End(3)));
    }

    #[test]
    fn other_signals_are_passed_on_at_any_time() {
        let t = Instant::now();
        let mut stop = Stop::new(KILL, true);
        for _ in 0..2 {
            assert_eq!(
                stop.signalled(Signal::SIGHUP, t),
                Some(Step::Signal(Signal::SIGHUP))
            );
            stop.signalled(TERM, t);
        }
        let mut stop = Stop::new(KILL, false);
        assert_eq!(stop.signalled(Signal::SIGHUP, t), None);
    }

    #[test]
    fn without_a_process_it_ends_when_everything_has_left() {
        let t = Instant::now();
        let mut stop = Stop::new(KILL, false);
        assert_eq!(stop.signalled(TERM, t), Some(Step::Leave));
        assert_eq!(stop.poll(false, t), None);
        assert_eq!(stop.poll(true, t), None);
        assert_eq!(stop.poll(true, t), Some(Step::End(0)));
    }
}
