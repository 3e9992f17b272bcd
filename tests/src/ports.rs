//! Ports for processes that must be told one.

use std::{collections::BTreeSet, net::TcpListener, sync::Mutex};

use rand::RngExt as _;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A free loopback port below the range from which the kernel picks ports for outgoing connections
/// and for port 0, so that nothing takes it before the process it is meant for. Given once only.
pub fn reserve() -> u16 {
    let mut given = GIVEN.lock().expect("no panic while it is held");
    for _ in 0..10_000 {
        let port = rand::rng().random_range(12_000..32_000);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port between 12000 and 32000");
}
