//! Sends in a row. A worker that has much to do sends as many requests and answers as are ready one after
//! another, instead of one after each read: what the system needs for sending is in the caches then, and what
//! is read meanwhile does not drive it out.

use std::{cell::Cell, future::poll_fn, task::Poll, time::Instant};

/// The most that wait for others, with some microseconds for each. It is more than come with one look at the
/// event loop, as a rule: with 16 there was no gain, since those beyond sent in between.
const MOST: u32 = 64;

/// Those of a worker that are about to send.
#[derive(Debug, Default)]
pub(crate) struct Row {
    waiting: Cell<u32>,
    /// How often somebody has come, or gone on, over all.
    moves: Cell<u64>,
    /// When the sends that go on began.
    began: Cell<Option<Instant>>,
}

impl Row {
    /// Lets everybody else who is ready come as far. Gives the time, where somebody did.
    pub(crate) async fn join(&self) -> Option<Instant> {
        let before = self.moved();
        self.began.set(None);
        if self.waiting.get() >= MOST {
            return None;
        }
        let waits = Waits::new(self);
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            // Whoever is woken comes after all that were before.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        drop(waits);
        (self.moved() != before.wrapping_add(1)).then(|| self.now())
    }

    fn moved(&self) -> u64 {
        let moves = self.moves.get().wrapping_add(1);
        self.moves.set(moves);
        moves
    }

    /// One look at the clock is enough for a row.
    fn now(&self) -> Instant {
        let now = self.began.get().unwrap_or_else(Instant::now);
        self.began.set(Some(now));
        now
    }
}

/// One that waits; it may be dropped meanwhile.
#[derive(Debug)]
struct Waits<'r>(&'r Row);

impl<'r> Waits<'r> {
    fn new(row: &'r Row) -> Self {
        row.waiting.set(row.waiting.get() + 1);
        Self(row)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let waiting = self.0.waiting.get();
        self.0.waiting.set(waiting.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    use futures_util::FutureExt as _;
    use tokio::task::LocalSet;

    /// What so many tasks did, in order, `(who, sent)`; and what each was told.
    async fn run(tasks: u32) -> (Vec<(u32, bool)>, Vec<Option<Instant>>) {
        let row = Rc::new(Row::default());
        let seen = Rc::new(RefCell::new((Vec::new(), Vec::new())));
        let local = LocalSet::new();
        for who in 0..tasks {
            let (row, seen) = (Rc::clone(&row), Rc::clone(&seen));
            local.spawn_local(async move {
                seen.borrow_mut().0.push((who, false));
                let time = row.join().await;
                let mut seen = seen.borrow_mut();
                seen.0.push((who, true));
                seen.1.push(time);
            });
        }
        local.await;
        assert_eq!(row.waiting.get(), 0);
        seen.take()
    }

    #[tokio::test]
    async fn all_that_are_ready_send_in_a_row() {
        let (seen, times) = run(5).await;
        let sent: Vec<_> = seen.iter().map(|(_, sent)| *sent).collect();
        assert_eq!(sent, [[false; 5], [true; 5]].concat(), "{seen:?}");
        assert!(times[0].is_some() && times.iter().all(|time| *time == times[0]));
    }

    #[tokio::test]
    async fn nobody_waits_for_many() {
        let mut waiting = 0;
        for (who, sent) in run(100).await.0 {
            waiting = if sent { waiting - 1 } else { waiting + 1 };
            // And the one who goes on at once.
            assert!(waiting <= MOST + 1, "{who}: {waiting}");
        }
    }

    #[tokio::test]
    async fn whoever_is_alone_goes_on() {
        assert_eq!(run(1).await, (vec![(0, false), (0, true)], vec![None]));
    }

    #[test]
    fn whoever_is_gone_waits_no_more() {
        let row = Row::default();
        {
            let mut gone = Box::pin(row.join());
            assert!(gone.as_mut().now_or_never().is_none());
            assert_eq!(row.waiting.get(), 1);
        }
        assert_eq!(row.waiting.get(), 0);
    }
}
