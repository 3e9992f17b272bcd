//! A router in static mode, upstreams that follow a script and record, and a raw client.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

#[path = "harness/router.rs"]
mod router;
#[path = "harness/upstream.rs"]
mod upstream;
#[path = "harness/wire.rs"]
mod wire;

pub(crate) use router::{Running, Setup};
pub(crate) use upstream::{Upstream, free, refusing};
pub(crate) use wire::{Message, Wire};

/// Nothing on loopback takes this long, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Every byte that arrived.
type Record = Arc<Mutex<Vec<u8>>>;

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
