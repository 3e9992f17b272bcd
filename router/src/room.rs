//! Memory for work that a task has only at times.
//!
//! A future is as large as the largest thing it ever does, and a task holds that memory for as long
//! as it lives. A client's connection is mostly idle, so what it does while it is busy is done in a
//! room that is lent for the time: an idle connection keeps what is its own, the few busy ones use the
//! same warm memory in turn. A room's future never ends, it waits at its [`Desk`] for the next task:
//! so it is neither allocated nor moved again.

use std::{
    cell::Cell,
    convert::Infallible,
    fmt,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// Room for work that takes an `A` and gives an `R`.
pub(crate) struct Room<A, R> {
    desk: Desk<A, R>,
    work: Box<dyn Work<A, R>>,
    busy: bool,
}

/// Where a room's work finds its next task, and leaves the result.
pub(crate) struct Desk<A, R>(Rc<Papers<A, R>>);

struct Papers<A, R> {
    task: Cell<Option<A>>,
    result: Cell<Option<R>>,
}

trait Work<A, R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Infallible>;
    fn begin_anew(&mut self, desk: Desk<A, R>);
}

struct Held<M, F> {
    make: M,
    work: Pin<Box<F>>,
}

impl<A: 'static, R: 'static> Room<A, R> {
    /// An empty room for the work that `make` makes, which goes from task to task.
    pub(crate) fn new<M, F>(make: M) -> Self
    where
        M: Fn(Desk<A, R>) -> F + 'static,
        F: Future<Output = Infallible> + 'static,
    {
        let desk = Desk(Rc::new(Papers {
            task: Cell::new(None),
            result: Cell::new(None),
        }));
        let work = Box::pin(make(desk.clone()));
        Self {
            desk,
            work: Box::new(Held { make, work }),
            busy: false,
        }
    }

    /// Gives a task to an empty room.
    pub(crate) fn begin(&mut self, task: A) {
        self.clear();
        self.desk.0.task.set(Some(task));
        self.busy = true;
    }

    /// Goes on with the task. The room is empty once it is done; never ready when it is empty.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<R> {
        if !self.busy {
            return Poll::Pending;
        }
        match self.work.poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => {}
        }
        match self.desk.0.result.take() {
            Some(result) => {
                self.busy = false;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }

    /// Drops what is in the room.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.busy) {
            self.work.begin_anew(self.desk.clone());
            drop(self.desk.0.task.take());
            drop(self.desk.0.result.take());
        }
    }
}

impl<A, R> Desk<A, R> {
    /// Waits for the next task.
    pub(crate) async fn next(&self) -> A {
        poll_fn(|_| self.0.task.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// The task is done.
    pub(crate) fn done(&self, result: R) {
        self.0.result.set(Some(result));
    }
}

impl<A, R> Clone for Desk<A, R> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<A, R, M, F> Work<A, R> for Held<M, F>
where
    M: Fn(Desk<A, R>) -> F,
    F: Future<Output = Infallible>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Infallible> {
        self.work.as_mut().poll(cx)
    }

    fn begin_anew(&mut self, desk: Desk<A, R>) {
        self.work.as_mut().set((self.make)(desk));
    }
}

impl<A, R> fmt::Debug for Room<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = f.debug_struct("Room");
        room.field("busy", &self.busy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Done at the second look, with the task's number.
    fn room() -> Room<Rc<u32>, u32> {
        Room::new(|desk: Desk<Rc<u32>, u32>| async move {
            loop {
                let number = desk.next().await;
                let mut looks = 0;
                poll_fn(|_| {
                    looks += 1;
                    if looks < 2 {
                        Poll::Pending
                    } else {
                        Poll::Ready(())
                    }
                })
                .await;
                desk.done(*number);
            }
        })
    }

    #[test]
    fn task_follows_task() {
        let mut room = room();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(room.poll(&mut cx), Poll::Pending);
        for number in [7, 8] {
            room.begin(Rc::new(number));
            assert_eq!(room.poll(&mut cx), Poll::Pending);
            assert_eq!(room.poll(&mut cx), Poll::Ready(number));
            assert_eq!(room.poll(&mut cx), Poll::Pending);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_task_that_was_given_up_or_done() {
        let mut room = room();
        let mut cx = Context::from_waker(Waker::noop());
        let [unseen, first, second, third] = [0, 1, 2, 3].map(Rc::new);
        room.begin(Rc::clone(&unseen));
        room.clear();
        assert_eq!(Rc::strong_count(&unseen), 1);
        room.begin(Rc::clone(&first));
        assert_eq!(room.poll(&mut cx), Poll::Pending);
        room.begin(Rc::clone(&second));
        assert_eq!(Rc::strong_count(&first), 1);
        assert_eq!(room.poll(&mut cx), Poll::Pending);
        room.clear();
        assert_eq!(Rc::strong_count(&second), 1);
        room.begin(Rc::clone(&third));
        assert_eq!(room.poll(&mut cx), Poll::Pending);
        assert_eq!(room.poll(&mut cx), Poll::Ready(3));
        assert_eq!(Rc::strong_count(&third), 1);
    }
}
