//! Slow and greedy clients: each is answered or closed, and nobody else notices. What depends on a
//! clock here waits for a count, never for a time.

#[path = "greedy/crowds.rs"]
mod crowds;
#[path = "greedy/http2.rs"]
mod http2;
#[path = "greedy/slow.rs"]
mod slow;

use std::sync::{Arc, Condvar, Mutex};

use crate::harness::{OK, Running, Setup, Upstream, until};

/// Keeps requests at a peer until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let (open, changed) = &*self.0;
        let mut open = open.lock().unwrap();
        while !*open {
            open = changed.wait(open).unwrap();
        }
    }

    fn open(&self) {
        let (open, changed) = &*self.0;
        *open.lock().unwrap() = true;
        changed.notify_all();
    }
}

/// An upstream that answers when the gate is open, and at once what is asked for at `/now`.
fn gated(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(move |mut wire, _| {
        while wire.peek() {
            if !wire.request().head.starts_with("GET /now ") {
                gate.pass();
            }
            if wire.try_send(OK).is_err() {
                return;
            }
        }
    })
}

const NOW: &str = "GET /now HTTP/1.1\r\nHost: h\r\n\r\n";

fn counted(router: &Running, name: &str, label: &str) -> u64 {
    let beginning = if label.is_empty() {
        format!("cardea_router_{name} ")
    } else {
        format!("cardea_router_{name}{{{label}}} ")
    };
    let metrics = router.metrics();
    let line = metrics.lines().find(|line| line.starts_with(&beginning));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

fn refused(router: &Running, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    counted(router, "connections_refused_total", &label)
}

/// How many clients were too slow with something.
fn slow(router: &Running, part: &str) -> u64 {
    counted(router, "slow_clients_total", &format!("part=\"{part}\""))
}

/// Idle connections that made room.
fn made_room(router: &Running) -> u64 {
    counted(router, "idle_connections_closed_total", "reason=\"limit\"")
}

fn open(router: &Running, protocol: &str) -> u64 {
    let label = format!("protocol=\"{protocol}\"");
    counted(router, "active_connections", &label)
}

fn until_open(router: &Running, connections: u64) {
    until("so many are open", || open(router, "http1") == connections);
}

fn with_tls(setup: Setup) -> Setup {
    setup.config(|c| c.listen_tls = Some("127.0.0.1:0".parse().unwrap()))
}
