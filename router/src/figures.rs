//! Live figures: what the workers count goes to the registry, window by window.
//!
//! Windows begin at multiples of five seconds on the wall clock, so that those of different routers are
//! merged by adding them up. At the end of each one the control thread takes what the counters grew by
//! and queues it as a report under this process's own name; reports are sent in order, each until a
//! registry has taken it. A repeated report is recognised by process and window, so that nothing is
//! counted twice, whichever replica hears it. While no registry answers the queue grows up to
//! [`MOST_QUEUED`] reports; beyond, the oldest goes, and the next one says so.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Name,
    client::{Client, ClientError},
    figures::{Bears, Report, WINDOW_MS, window_of},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    metrics::Metrics,
    phase::Phase,
    shared::{Shared, count},
};

mod collect;

use collect::Collector;

/// Reports that wait while no registry answers: a minute's.
const MOST_QUEUED: usize = 12;
/// Routers of a cluster do not all report in the same moment.
const SPREAD_MS: u64 = 1000;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// What the last report may take when the router stops.
const LAST: Duration = Duration::from_secs(2);

/// Whom to report to, and as whom.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) client: Client,
    pub(crate) cluster: Name,
    pub(crate) router: String,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What is to be sent.
#[derive(Debug)]
struct Queue {
    process: Name,
    /// The last window that was queued.
    last: i64,
    waiting: VecDeque<Report>,
    /// Reports that had to go since the last one that was sent.
    dropped: u64,
}

impl Queue {
    fn new(process: Name, now: i64) -> Self {
        Self {
            process,
            // The window that is under way when it starts is the first.
            last: window_of(now) - WINDOW_MS,
            waiting: VecDeque::new(),
            dropped: 0,
        }
    }

    /// The window to report at `now`, if one has ended since the last; at the `end` the one that is
    /// under way. A clock that was set back makes windows longer, never repeats one.
    fn due(&self, now: i64, end: bool) -> Option<i64> {
        let window = if end {
            window_of(now)
        } else {
            window_of(now) - WINDOW_MS
        };
        (window > self.last).then_some(window)
    }

    /// Queues a report; whether an older one had to go for it.
    fn push(&mut self, mut report: Report) -> bool {
        let full = self.waiting.len() >= MOST_QUEUED;
        if full && let Some(gone) = self.waiting.pop_front() {
            self.dropped += 1 + gone.dropped;
        }
        self.last = report.at;
        report.process = self.process.clone();
        self.waiting.push_back(report);
        full
    }

    /// The oldest report, with what it has to say about those before it.
    fn next(&mut self) -> Option<Report> {
        let front = self.waiting.front_mut()?;
        front.dropped += std::mem::take(&mut self.dropped);
        Some(front.clone())
    }

    /// A report is done with. It may have had to go while it was on its way.
    fn done(&mut self, report: &Report) {
        if self
            .waiting
            .front()
            .is_some_and(|front| front.at == report.at)
        {
            self.waiting.pop_front();
        } else {
            self.dropped = self.dropped.saturating_sub(1 + report.dropped);
        }
    }
}

impl Reporter {
    /// Reports until `end`; then what is left.
    pub(crate) async fn run(self, end: CancellationToken) {
        tokio::select! {
            () = self.shared.tenure.reached(Phase::Accepting) => {}
            () = end.cancelled() => return,
        }
        let word = rand::random::<u64>();
        let Ok(process) = format!("p{word:016x}").parse() else {
            return;
        };
        let queue = RefCell::new(Queue::new(process, clock::unix_millis()));
        let mut collector = Collector::default();
        let news = Notify::new();
        let windows = async {
            loop {
                let left = WINDOW_MS - clock::unix_millis().rem_euclid(WINDOW_MS);
                tokio::time::sleep(Duration::from_millis(left.unsigned_abs())).await;
                self.collect(&mut collector, &queue, false);
                news.notify_one();
            }
        };
        let sending = async {
            loop {
                news.notified().await;
                tokio::time::sleep(Duration::from_millis(word % SPREAD_MS)).await;
                self.send_all(&queue).await;
            }
        };
        tokio::select! {
            () = windows => {}
            () = sending => {}
            () = end.cancelled() => {}
        }
        self.collect(&mut collector, &queue, true);
        if tokio::time::timeout(LAST, self.send_all(&queue))
            .await
            .is_err()
        {
            tracing::info!("no registry took the last figures in time");
        }
    }

    /// Queues the window that has ended.
    fn collect(&self, collector: &mut Collector, queue: &RefCell<Queue>, end: bool) {
        let mut queue = queue.borrow_mut();
        let Some(at) = queue.due(clock::unix_millis(), end) else {
            return;
        };
        let (series, left_out) = collector.collect(&self.metrics);
        let report = Report {
            process: queue.process.clone(),
            at,
            series,
            peers: collect::peers(self.shared.table_full().as_deref()),
            left_out,
            dropped: 0,
        };
        if queue.push(report) {
            count(&self.shared.counts.figures_dropped);
        }
    }

    /// Sends what waits, the oldest first, until nothing is left. What is cut off stays.
    async fn send_all(&self, queue: &RefCell<Queue>) {
        loop {
            let next = queue.borrow_mut().next();
            let Some(report) = next else { return };
            if self.send(&report).await {
                queue.borrow_mut().done(&report);
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Sends a report; whether it is done with.
    async fn send(&self, report: &Report) -> bool {
        let counts = &self.shared.counts;
        let sent = self
            .client
            .report_figures(&self.cluster, &self.router, report)
            .await;
        match sent {
            Ok(taken) => {
                self.tell(&taken.bears);
                count(&counts.figures_sent);
                self.refused(None);
            }
            Err(error) if is_final(&error) => {
                count(&counts.figures_refused);
                self.refused(Some(&error));
            }
            Err(error) => {
                count(&counts.figures_failed);
                tracing::debug!(%error, "no registry takes this router's figures");
                return false;
            }
        }
        true
    }

    /// Lets services know what the registry says of their instances in all clusters.
    fn tell(&self, bears: &[Bears]) {
        let table = self.shared.table_full();
        let now = clock::millis(Instant::now());
        for upstream in table.iter().flat_map(|table| table.upstreams()) {
            if let Some(ways) = upstream.ways() {
                let of = bears
                    .iter()
                    .filter(|one| one.service == *upstream.service());
                ways.flow.told(of, now);
            }
        }
    }

    fn refused(&self, error: Option<&ClientError>) {
        let alarm = error.map(|error| ("the registry".to_owned(), error.to_string()));
        self.shared.set_alarms("figures_refused", alarm);
    }
}

/// Whether it would be refused again.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::Problem { problem, .. } => {
            (400..500).contains(&problem.status) && problem.status != 429
        }
        ClientError::Transport { .. } => false,
        ClientError::Decode { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(at: i64) -> Report {
        Report {
            process: "x".parse().unwrap(),
            at,
            series: Vec::new(),
            peers: Vec::new(),
            left_out: 0,
            dropped: 0,
        }
    }

    fn queue(now: i64) -> Queue {
        Queue::new("p".parse().unwrap(), now)
    }

    #[test]
    fn each_window_is_due_once_when_it_has_ended() {
        let mut queue = queue(12_000);
        assert_eq!(queue.due(12_000, false), None, "it is under way");
        assert_eq!(queue.due(14_999, false), None);
        assert_eq!(queue.due(15_000, false), Some(10_000));
        queue.push(report(10_000));
        assert_eq!(queue.due(15_001, false), None);
        assert_eq!(queue.due(31_000, false), Some(25_000), "the clock jumped");
        queue.push(report(25_000));
        assert_eq!(queue.due(21_000, false), None, "the clock was set back");
        assert_eq!(queue.due(31_000, true), Some(30_000), "the end comes early");
    }

    #[test]
    fn the_queue_is_bounded_and_what_went_is_told() {
        let mut queue = queue(0);
        let windows = (0..).step_by(5000).take(MOST_QUEUED + 3);
        for (n, at) in windows.enumerate() {
            let went = queue.push(report(at));
            assert_eq!(went, n >= MOST_QUEUED, "{n}");
        }
        assert_eq!(queue.waiting.len(), MOST_QUEUED);
        let first = queue.next().unwrap();
        assert_eq!((first.at, first.dropped), (3 * WINDOW_MS, 3));
        assert_eq!(first.process.as_str(), "p");
        // It could not be sent, and goes as well: what it had to say goes on.
        queue.push(report(1_000_000));
        assert_eq!(queue.next().unwrap().dropped, 4);
        // It was sent after all, while its place was taken.
        let second = queue.next().unwrap();
        queue.push(report(1_005_000));
        queue.done(&second);
        assert_eq!(queue.next().unwrap().dropped, 0);
        let third = queue.next().unwrap();
        queue.done(&third);
        assert_eq!(queue.waiting.len(), MOST_QUEUED - 1);
    }
}
