//! Copies of requests at work: a worker's own queue, tasks and connections for them. Nothing that
//! callers wait for ever waits for a copy: a request is answered first, and a copy that does not fit
//! into what is set aside for copies is dropped and counted.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    balance::{Balancers, PickInput, Reach},
    config,
    http1::request::Method,
    http2::links::Links,
    plugin::{
        Bound,
        mirror::{Copying, Result},
    },
    pool::Pool,
    seldom::Seldom,
    table::Table,
    timer::Timers,
    upstream::Upstream,
};

pub(crate) mod draft;
mod hearing;
mod send;

use hearing::{Hearing, Turn};

/// A worker's copies.
#[derive(Debug)]
pub(crate) struct Mirrors {
    limits: config::Mirror,
    timers: Rc<Timers>,
    pool: Pool,
    links: Links,
    balancers: RefCell<Balancers>,
    queue: RefCell<VecDeque<Copy>>,
    /// What is known of targets, by their slots, as of one version each.
    hearing: RefCell<Vec<(u64, Hearing)>>,
    /// Bytes that copies hold, those whose requests still run included.
    held: Rc<Cell<usize>>,
    running: Cell<usize>,
    tasks: TaskTracker,
    stop: CancellationToken,
    differences: Seldom,
}

/// A request that was answered, to be sent to somebody else.
#[derive(Debug, Clone)]
struct Copy {
    request: Rc<Request>,
    to: Arc<Upstream>,
    policy: Arc<Bound<Copying>>,
    /// It is to find out whether a silent target answers again.
    trial: bool,
}

/// What is sent, and what the original came to.
#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    method: Method,
    id: Box<[u8]>,
    original: Option<Original>,
    /// Its share of what copies may hold.
    _held: Held,
}

/// The original's answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Original {
    pub(crate) status: u16,
    /// Of its body.
    pub(crate) length: u64,
    /// Up to its head.
    pub(crate) took: Duration,
}

/// Bytes that are counted as long as they are held.
#[derive(Debug)]
struct Held {
    of: Rc<Cell<usize>>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.set(self.of.get().saturating_sub(self.bytes));
    }
}

/// A task that sends copies, as long as it is counted.
struct Running(Rc<Mirrors>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get().saturating_sub(1));
    }
}

impl Mirrors {
    /// Nothing to send yet.
    pub(crate) fn new(limits: config::Mirror, timers: Rc<Timers>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            limits,
            timers,
            pool: Pool::default(),
            links: Links::default(),
            balancers: RefCell::new(Balancers::new(seed)),
            queue: RefCell::default(),
            hearing: RefCell::default(),
            held: Rc::default(),
            running: Cell::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            differences: Seldom::default(),
        })
    }

    /// Sets bytes aside, if there are so many left.
    fn hold(&self, bytes: usize) -> Option<Held> {
        let held = self.held.get().checked_add(bytes)?;
        (held <= self.limits.memory).then(|| {
            self.held.set(held);
            Held {
                of: Rc::clone(&self.held),
                bytes,
            }
        })
    }

    /// Whether no copy could be taken now.
    fn is_full(&self) -> bool {
        self.running.get() >= self.limits.at_once && self.queue.borrow().len() >= self.limits.queue
    }

    /// Sends a copy, now or after others; what is too much is dropped.
    fn offer(self: &Rc<Self>, copy: Copy) {
        let counts = &copy.policy.policy.counts;
        if self.stop.is_cancelled() {
            counts.add(Result::Stopping, 1);
        } else if self.running.get() < self.limits.at_once {
            self.running.set(self.running.get() + 1);
            let running = Running(Rc::clone(self));
            self.tasks.spawn_local(async move {
                let timer = running.0.timers.timer().await;
                let mut next = Some(copy);
                while let Some(copy) = next {
                    send::send(&running.0, &timer, &copy).await;
                    drop(copy);
                    next = running.0.next();
                }
            });
        } else if self.queue.borrow().len() < self.limits.queue {
            self.queue.borrow_mut().push_back(copy);
        } else {
            counts.add(Result::Queue, 1);
        }
    }

    /// The copy that has waited for longest; those for who has become silent meanwhile are dropped.
    fn next(&self) -> Option<Copy> {
        loop {
            let copy = self.queue.borrow_mut().pop_front()?;
            if copy.trial || !self.hearing(&copy.to, |hearing| hearing.is_silent()) {
                return Some(copy);
            }
            copy.policy.policy.counts.add(Result::Silent, 1);
        }
    }

    /// Looks at what is known of a target. Another version of it may be somebody else.
    fn hearing<T>(&self, to: &Upstream, look: impl FnOnce(&mut Hearing) -> T) -> T {
        let mut all = self.hearing.borrow_mut();
        let slot = to.index() as usize;
        if all.len() <= slot {
            all.resize(slot + 1, Default::default());
        }
        let (version, hearing) = &mut all[slot];
        match to.version().cmp(version) {
            // A copy that was meant for who was there before.
            Ordering::Less => return look(&mut Hearing::default()),
            Ordering::Equal => {}
            Ordering::Greater => (*version, *hearing) = (to.version(), Hearing::default()),
        }
        look(hearing)
    }

    /// What of a request's copies may go to a target now.
    fn turn(&self, to: &Upstream) -> Turn {
        let now = self.timers.now();
        self.hearing(to, |hearing| hearing.turn(now))
    }

    /// A copy has come to this.
    fn learn(&self, to: &Upstream, result: Result) {
        let service = to.service();
        let now = self.timers.now();
        match result {
            Result::Answered if self.hearing(to, Hearing::answered) => {
                tracing::info!(%service, "copies are answered again");
            }
            Result::Timeout | Result::Failed
                if self.hearing(to, |hearing| hearing.unanswered(now)) =>
            {
                tracing::warn!(
                    %service,
                    "nobody answers copies: they are dropped, but for one from time to time"
                );
            }
            _ => {}
        }
    }

    /// Forgets what a table no longer has.
    pub(crate) fn forget(&self, table: &Table) {
        self.balancers.borrow_mut().forget(table);
    }

    /// Closes connections that are over their time.
    pub(crate) fn sweep(&self, now: u64) {
        self.pool.sweep(now);
        self.links.sweep(now);
    }

    /// Whether there is nothing to look after.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.get() == 0 && self.pool.is_empty() && self.links.is_empty()
    }

    /// Drops what waits and what is on its way, counts it, and closes every connection.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        for copy in self.queue.take() {
            copy.policy.policy.counts.add(Result::Stopping, 1);
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.pool.clear();
        self.links.clear();
    }

    fn pick(&self, to: &Arc<Upstream>) -> Option<crate::peer::Picked> {
        // Through no gateway: copies do not say that they came from here.
        let input = PickInput {
            reach: Reach::Instances,
            ..PickInput::default()
        };
        let mut balancers = self.balancers.borrow_mut();
        balancers.pick(to, &input, &[], Instant::now())
    }
}
