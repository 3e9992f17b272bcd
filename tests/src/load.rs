//! A load over keep-alive connections that counts each failure by kind.
//!
//! At a fixed rate, requests fall due on a schedule whether or not the ones before are answered
//! (open loop), and latency counts from when a request was due. Each has a unique id; an answer is
//! right only if it names that id and method. A failed request is never sent again here.

mod report;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http1::{Connection, Dial};
pub use report::{FailureCount, Report, percentile};

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to; several are taken in turn, connection by connection.
    pub targets: Vec<SocketAddr>,
    /// The Host header.
    pub host: String,
    /// The path.
    pub path: String,
    /// Requests a second; none: each connection sends as fast as it gets answers.
    pub rate: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// Of a hundred requests, how many are POSTs.
    pub posts_percent: u64,
    /// Whether each request has a connection of its own.
    pub fresh: bool,
    /// How each connection begins.
    pub dial: Dial,
    /// Whether an answer must name the request; without it each 200 is right.
    pub echo: bool,
    /// For one exchange.
    pub timeout: Duration,
    /// Begins each request's id, so that ids are unique across loads on the same backends.
    pub label: String,
}

impl Plan {
    /// GETs and POSTs, half and half, over 32 connections.
    pub fn new(target: SocketAddr, host: &str, rate: f64) -> Self {
        Self {
            targets: vec![target],
            host: host.to_owned(),
            path: "/echo".to_owned(),
            rate: Some(rate),
            connections: 32,
            posts_percent: 50,
            fresh: false,
            dial: Dial::default(),
            echo: true,
            timeout: Duration::from_secs(10),
            label: "load".to_owned(),
        }
    }

    /// GETs only.
    #[must_use]
    pub fn gets(mut self) -> Self {
        self.posts_percent = 0;
        self
    }

    /// A connection of its own for each request.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Begins each connection in this manner.
    #[must_use]
    pub fn dial(mut self, dial: Dial) -> Self {
        self.dial = dial;
        self
    }

    /// Sets the label.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        label.clone_into(&mut self.label);
        self
    }

    /// Sets how many connections.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Begins.
    pub fn start(self) -> Load {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            ticket: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            tally: Mutex::new(report::Tally::default()),
            plan: self,
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for number in 0..shared.plan.connections {
            tasks.spawn(worker(number, shared.clone(), stop.clone()));
        }
        Load {
            shared,
            stop,
            tasks,
        }
    }
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    begun: Instant,
    ticket: AtomicU64,
    completed: AtomicU64,
    opened: AtomicU64,
    tally: Mutex<report::Tally>,
}

/// A running load; it ends when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    /// How many requests have an outcome.
    pub fn completed(&self) -> u64 {
        self.shared.completed.load(Ordering::SeqCst)
    }

    /// How many of them failed.
    pub fn failed(&self) -> u64 {
        self.report().failed
    }

    /// How many connections were opened.
    pub fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::SeqCst)
    }

    /// Waits until `more` further requests have an outcome.
    pub async fn pass(&self, more: u64, limit: Duration) {
        let goal = self.completed() + more;
        crate::wait::until_true("the load goes on", limit, || self.completed() >= goal).await;
    }

    /// What there is so far.
    pub fn report(&self) -> Report {
        let tally = self.shared.tally.lock().unwrap();
        tally.report(&self.shared.plan.label, self.shared.begun.elapsed())
    }

    /// Sends no more, waits for what is on the way, and reports.
    pub async fn stop(mut self) -> Report {
        self.stop.cancel();
        let elapsed = self.shared.begun.elapsed();
        while self.tasks.join_next().await.is_some() {}
        let tally = self.shared.tally.lock().unwrap();
        tally.report(&self.shared.plan.label, elapsed)
    }
}

async fn worker(number: usize, shared: Arc<Shared>, stop: CancellationToken) {
    let plan = &shared.plan;
    let target = plan.targets[number % plan.targets.len()];
    let mut connection: Option<Connection> = None;
    while !stop.is_cancelled() {
        let ticket = shared.ticket.fetch_add(1, Ordering::SeqCst);
        let due = match plan.rate {
            Some(rate) => shared.begun + Duration::from_secs_f64(ticket as f64 / rate),
            None => Instant::now(),
        };
        if due > Instant::now() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
        let id = format!("{}-{ticket}", plan.label);
        let post = ticket % 100 < plan.posts_percent;
        let method = if post { "POST" } else { "GET" };
        if connection.is_none() {
            shared.opened.fetch_add(1, Ordering::SeqCst);
        }
        let outcome = one(plan, target, &mut connection, method, &id).await;
        if outcome.is_err() {
            connection = None;
        }
        let mut tally = shared.tally.lock().unwrap();
        tally.add(method, id, outcome, due.elapsed(), shared.begun.elapsed());
        drop(tally);
        shared.completed.fetch_add(1, Ordering::SeqCst);
    }
}

/// One exchange: the instance that answered, or the kind of failure with an example.
async fn one(
    plan: &Plan,
    target: SocketAddr,
    kept: &mut Option<Connection>,
    method: &str,
    id: &str,
) -> Result<String, (String, String)> {
    let failed = |failure: crate::http1::Failure| (failure.kind(), format!("{failure:?}"));
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(
            Connection::dial(target, &plan.dial, plan.timeout)
                .await
                .map_err(failed)?,
        ),
    };
    let body = if method == "POST" {
        "0123456789abcdef"
    } else {
        ""
    };
    let length = if method == "POST" {
        "Content-Length: 16\r\n"
    } else {
        ""
    };
    let request = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: cardea-load\r\nAccept: */*\r\n\
         X-Test-Id: {id}\r\n{length}\r\n{body}",
        plan.path, plan.host
    );
    let response = connection
        .exchange(request.as_bytes(), plan.timeout)
        .await
        .map_err(failed)?;
    if !response.keep_alive || plan.fresh {
        *kept = None;
    }
    let text = response.text();
    if response.status != 200 {
        return Err((format!("status {}", response.status), text));
    }
    if !plan.echo {
        return Ok(String::new());
    }
    let mut words = text.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(instance), Some(seen), Some(how)) if seen == id && how == method => {
            Ok(instance.to_owned())
        }
        _ => Err(("wrong answer".to_owned(), text)),
    }
}

/// Compares what the backends recorded with what the load was told: no POST was executed twice,
/// and each answered one was executed.
///
/// # Panics
/// When that does not hold.
pub fn check_posts(report: &Report, records: &[PathBuf]) {
    use std::collections::HashMap;
    let mut executed: HashMap<String, u32> = HashMap::new();
    for record in records {
        for id in std::fs::read_to_string(record).unwrap_or_default().lines() {
            *executed.entry(id.to_owned()).or_default() += 1;
        }
    }
    let twice: Vec<&String> = executed
        .iter()
        .filter(|(_, n)| **n > 1)
        .map(|(id, _)| id)
        .collect();
    assert!(
        twice.is_empty(),
        "executed more than once: {} POSTs, such as {:?}",
        twice.len(),
        twice.first()
    );
    let lost: Vec<&String> = report
        .answered_posts
        .iter()
        .filter(|id| !executed.contains_key(*id))
        .collect();
    assert!(
        lost.is_empty(),
        "answered but not executed: {} POSTs, such as {:?}",
        lost.len(),
        lost.first()
    );
}
