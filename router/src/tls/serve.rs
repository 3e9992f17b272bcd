//! A client's connection, from the handshake on.

use std::{cell::Cell, rc::Rc};

use tokio::net::TcpStream;

use crate::{
    client::Client,
    pipeline::{self, Stage},
    timer::Timer,
    tls::{self, Failed, Reason, Version},
    wire::Wire,
    worker::Worker,
};

/// Failed handshakes that a worker writes to its log within a second: anybody can cause them.
const LOGGED: u32 = 10;

/// Agrees with a client on how to speak, in the timer's time, and serves it.
pub(crate) async fn serve(worker: &Rc<Worker>, tcp: TcpStream, client: Client, timer: Timer) {
    let Some(certificates) = worker
        .table()
        .and_then(|table| table.0.certificates.clone())
    else {
        return failed(worker, &client, &Failed::not_ready());
    };
    // It is over soon, and its state is large.
    let accepted = Box::pin(tls::accept(tcp, &certificates, &timer)).await;
    drop(certificates);
    match accepted {
        Ok(stream) => {
            let facts = stream.facts();
            let counts = &worker.metrics.share.tls;
            counts.handshakes[facts.version.index()][usize::from(facts.resumed)].add(1);
            let wire = Wire::Other(Box::new(stream));
            pipeline::serve(worker, wire, "https", client, timer, Stage::Fresh).await;
        }
        Err(error) => failed(worker, &client, &error),
    }
}

fn failed(worker: &Worker, client: &Client, failed: &Failed) {
    worker.metrics.share.tls.failed[failed.reason.index()].add(1);
    thread_local! {
        static BUDGET: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    }
    let second = worker.timers.now() / 1000;
    let (at, used) = BUDGET.get();
    let used = if at == second { used + 1 } else { 1 };
    BUDGET.set((second, used));
    if used <= LOGGED {
        tracing::debug!(
            client = %client.address,
            reason = failed.reason.as_str(),
            error = %failed.error,
            "a TLS handshake failed"
        );
    }
}

impl Version {
    const fn index(self) -> usize {
        self as usize
    }
}

impl Reason {
    const fn index(self) -> usize {
        self as usize
    }
}
