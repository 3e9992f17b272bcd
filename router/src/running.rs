//! A router that runs: where it listens, whether a part of it died, and how it stops.

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use crate::{access_log::Message, listen::Held, shared::Shared, stopping::Stopping};

/// What a graceful stop may take beyond the configured drain: for closing and flushing.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// A part of a running router that ended though nobody stopped it.
#[derive(Debug, thiserror::Error)]
#[error("the router's {part} ended by itself")]
pub struct Died {
    /// The thread's name.
    pub part: String,
}

/// A running router. Dropped without [`Router::stop`], it ends at once with all that is open.
#[derive(Debug)]
pub struct Router {
    pub(crate) traffic: Option<SocketAddr>,
    pub(crate) traffic_tls: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) drain: Duration,
    pub(crate) stopping: Stopping,
    pub(crate) ended: mpsc::UnboundedReceiver<String>,
    /// Workers that have not ended.
    pub(crate) workers: usize,
    /// Other threads that have not ended.
    pub(crate) others: usize,
    pub(crate) log: Option<SyncSender<Message>>,
    pub(crate) shared: Arc<Shared>,
    /// Every listening socket, for the next process.
    pub(crate) held: Arc<Held>,
    /// The process that took over from this one.
    pub(crate) successor: watch::Receiver<Option<u32>>,
}

impl Drop for Router {
    fn drop(&mut self) {
        self.held.close();
        self.stopping.cut();
    }
}

/// What may happen to a running router.
#[derive(Debug)]
pub enum Event {
    /// A part of it ended by itself.
    Died(Died),
    /// This process serves instead. Nothing is accepted here any more; [`Router::drained`] finishes
    /// what is open.
    TakenOver(u32),
}

async fn next_end(ended: &mut mpsc::UnboundedReceiver<String>) -> Died {
    let part = ended.recv().await;
    Died {
        part: part.unwrap_or_else(|| "last thread".to_owned()),
    }
}

impl Router {
    /// Where callers connect that do not speak TLS.
    pub fn traffic_address(&self) -> Option<SocketAddr> {
        self.traffic
    }

    /// Where callers connect that speak TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.traffic_tls
    }

    /// Where operators ask.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until a part dies by itself; it never does on a good day.
    pub async fn ended(&mut self) -> Died {
        next_end(&mut self.ended).await
    }

    /// Opens the access log's file again, after it was moved away (on SIGHUP). Never waits.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &self.log
            && log.try_send(Message::Reopen).is_err()
        {
            tracing::warn!("the access log is too busy to be opened again; try once more");
        }
    }

    /// Waits until another process takes over, or a part dies by itself.
    pub async fn event(&mut self) -> Event {
        let Self {
            successor, ended, ..
        } = self;
        let successor = async {
            match successor.wait_for(Option::is_some).await {
                Ok(pid) => pid.unwrap_or_default(),
                // Nobody can take over.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            pid = successor => Event::TakenOver(pid),
            died = next_end(ended) => Event::Died(died),
        }
    }

    /// Waits until everything that was open when another process took over has ended; cut off after
    /// the configured drain time. Idle connections are closed after their next answer.
    pub async fn drained(&mut self) {
        self.log = None;
        while self.workers > 0 && self.count_end().await {}
        self.stopping.end.cancel();
        let others = async { while self.others > 0 && self.count_end().await {} };
        if tokio::time::timeout(STOP_GRACE, others).await.is_err() {
            tracing::warn!("the router's threads did not end in time");
        }
    }

    /// Waits for a thread's end; `false`: all have ended.
    async fn count_end(&mut self) -> bool {
        let Some(part) = self.ended.recv().await else {
            return false;
        };
        let left = if part.starts_with("worker") {
            &mut self.workers
        } else {
            &mut self.others
        };
        *left = left.saturating_sub(1);
        true
    }

    /// Stops gracefully: accepts nothing new, finishes what is in flight, closes idle connections;
    /// cut off after the configured drain time.
    pub async fn stop(mut self) {
        // A socket that is still held would queue connections that nobody will accept.
        self.held.close();
        self.stopping.stop();
        let most = self.drain + 2 * STOP_GRACE;
        if tokio::time::timeout(most, self.drained()).await.is_err() {
            tracing::warn!("the router's workers did not end in time");
        }
    }
}
