//! Active checks: what the router finds out by itself about peers of services that ask for it.
//!
//! A peer that fails takes no requests until it passes again, beside and independent of what its
//! requests say about it. Checks run on the control thread, each peer on its own jittered timer, and
//! no more than a bounded number at a time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use cardea_registry_api::policy::{ActiveCheck, Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use line::Line;

use crate::{
    peer::{Peer, PeerNumber},
    shared::Shared,
    upstream::Security,
};

mod http2;
mod line;
#[cfg(test)]
mod tests;

/// Checks that run at the same time.
const AT_ONCE: usize = 64;
/// A response head longer than this fails the check.
const MAX_HEAD: usize = 16 << 10;

/// Runs the checks.
#[derive(Debug)]
pub(crate) struct Checks {
    shared: Arc<Shared>,
    watched: HashMap<PeerNumber, Watched>,
    due: BinaryHeap<Reverse<(Instant, PeerNumber)>>,
}

#[derive(Debug)]
struct Watched {
    peer: Arc<Peer>,
    check: Arc<ActiveCheck>,
    protocol: Protocol,
    security: Security,
    tally: Tally,
    running: bool,
}

/// What a peer's checks came to: pure.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    down: bool,
    /// Results in a row that speak against the present standing.
    against: u32,
}

impl Tally {
    /// Counts a result; tells whether the standing changed.
    fn count(&mut self, passed: bool, check: &ActiveCheck) -> bool {
        if passed != self.down {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if self.down { check.passes } else { check.fails };
        let changed = self.against >= needed;
        if changed {
            self.down = !self.down;
            self.against = 0;
        }
        changed
    }
}

type Outcome = (PeerNumber, Result<(), String>);

impl Checks {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            watched: HashMap::new(),
            due: BinaryHeap::new(),
        }
    }

    /// Checks until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut tables = self.shared.watch();
        let mut running: JoinSet<Outcome> = JoinSet::new();
        self.follow_table();
        loop {
            let next = self.due.peek().map(|Reverse((at, _))| *at);
            let room = running.len() < AT_ONCE;
            tokio::select! {
                changed = tables.changed() => match changed {
                    Ok(()) => self.follow_table(),
                    Err(_) => return,
                },
                Some(done) = running.join_next() => match done {
                    Ok((number, result)) => self.done(number, result),
                    Err(error) => tracing::error!(%error, "a check ended badly"),
                },
                () = sleep_until(next), if room => self.start(&mut running),
            }
        }
    }

    fn follow_table(&mut self) {
        let Some(table) = self.shared.table_full() else {
            return;
        };
        let mut before = std::mem::take(&mut self.watched);
        for upstream in table.upstreams().flat_map(|upstream| upstream.parts()) {
            let Some(active) = &upstream.policy().health.active else {
                continue;
            };
            let mut check = None;
            for member in upstream.members().iter().filter(|m| m.takes_requests()) {
                let number = member.number();
                let security = upstream.security();
                let protocol = upstream.policy().protocol;
                let known = before.remove(&number).filter(|w| {
                    *w.check == *active
                        && w.security.number() == security.number()
                        && w.protocol == protocol
                });
                let watched = known.unwrap_or_else(|| {
                    // The first check comes soon, but not for all at once.
                    let first = active
                        .interval
                        .duration()
                        .mul_f64(rand::random::<f64>() / 4.0);
                    self.due.push(Reverse((Instant::now() + first, number)));
                    Watched {
                        peer: Arc::clone(&member.peer),
                        check: Arc::clone(check.get_or_insert_with(|| Arc::new(active.clone()))),
                        security: security.clone(),
                        protocol,
                        tally: Tally {
                            down: member.peer.word().checks_down(),
                            against: 0,
                        },
                        running: false,
                    }
                });
                self.watched.insert(number, watched);
            }
        }
        for gone in before.into_values() {
            if !self.watched.contains_key(&gone.peer.number()) {
                gone.peer.set_checks(None);
            }
        }
        let watched = &self.watched;
        self.due
            .retain(|Reverse((_, number))| watched.contains_key(number));
    }

    fn start(&mut self, running: &mut JoinSet<Outcome>) {
        let now = Instant::now();
        while running.len() < AT_ONCE
            && let Some(Reverse((at, number))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(watched) = self.watched.get_mut(&number) else {
                continue;
            };
            if watched.running {
                continue;
            }
            watched.running = true;
            let (check, protocol) = (Arc::clone(&watched.check), watched.protocol);
            let (peer, security) = (Arc::clone(&watched.peer), watched.security.clone());
            running.spawn(async move {
                let target = Target {
                    address: peer.socket_addr(),
                    authority: peer.authority(),
                    host: peer.address().host(),
                    security: &security,
                    protocol,
                };
                (number, run(target, &check).await)
            });
        }
    }

    fn done(&mut self, number: PeerNumber, result: Result<(), String>) {
        let Some(watched) = self.watched.get_mut(&number) else {
            return;
        };
        watched.running = false;
        let interval = watched.check.interval.duration();
        let pause = interval.mul_f64(0.9 + rand::random::<f64>() / 5.0);
        self.due.push(Reverse((Instant::now() + pause, number)));
        if !watched.tally.count(result.is_ok(), &watched.check) {
            return;
        }
        let peer = &watched.peer;
        match result {
            Ok(()) => {
                tracing::info!(peer = %peer.key(), address = %peer.address(), "checks pass again");
                peer.set_checks(None);
            }
            Err(why) => {
                tracing::warn!(peer = %peer.key(), address = %peer.address(), why, "checks fail");
                peer.set_checks(Some(format!("check failed: {why}")));
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whom a check asks.
struct Target<'a> {
    address: Option<SocketAddr>,
    authority: &'a str,
    host: &'a str,
    security: &'a Security,
    protocol: Protocol,
}

/// One check of one peer.
async fn run(target: Target<'_>, check: &ActiveCheck) -> Result<(), String> {
    let authority = target.authority;
    let address = target
        .address
        .ok_or_else(|| format!("the name of {authority} is not resolved"))?;
    let timeout: Duration = check.timeout.duration();
    let work = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("connect: {e}"))?;
        let mut stream = Line::new(stream, target.security, target.host).await?;
        let Some(path) = &check.path else {
            return stream.end().await;
        };
        let host = check.host.as_deref().unwrap_or(authority);
        let status = if target.protocol.is_http2() {
            http2::ask(stream, path, host).await?
        } else {
            ask(&mut stream, path, host).await?
        };
        judge(check, path, status)
    };
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", check.timeout)))
}

/// What a status says about a peer.
fn judge(check: &ActiveCheck, path: &str, status: u16) -> Result<(), String> {
    let passes = if check.statuses.is_empty() {
        (200..400).contains(&status)
    } else {
        check.statuses.contains(&status)
    };
    passes
        .then_some(())
        .ok_or_else(|| format!("{path} answered {status}"))
}

async fn ask(stream: &mut Line, path: &str, host: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: cardea-check/{}\r\naccept: */*\r\nconnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| format!("write: {e}"))?;
    let mut head = Vec::with_capacity(1024);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head) {
            Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
                return response.code.ok_or_else(|| "no status".to_owned());
            }
            Ok(httparse::Status::Partial) if head.len() <= MAX_HEAD => {}
            Ok(httparse::Status::Partial) => return Err("the response head is too large".into()),
            Err(error) => return Err(format!("no HTTP: {error}")),
        }
        let mut space = [0; 1024];
        match stream.read(&mut space).await {
            Ok(0) => return Err("closed before an answer".to_owned()),
            Ok(n) => head.extend_from_slice(&space[..n]),
            Err(error) => return Err(format!("read: {error}")),
        }
    }
}
