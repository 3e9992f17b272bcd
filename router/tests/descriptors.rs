//! A router that is out of file descriptors pauses, and serves again: the limit is the process's, so
//! this test has one of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a test: clippy knows only functions marked as one"
)]

use std::{
    fmt::Debug,
    fs::File,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tracing::{Event, Metadata, Subscriber, field, span};

#[path = "wire/harness.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "it is the wire tests'; this one needs a part"
)]
mod harness;

use harness::{GET, OK, Setup, Upstream, Wire, until};

static PAUSES: AtomicUsize = AtomicUsize::new(0);

/// Counts what the router says when it cannot accept.
struct Listening;

struct Message(bool);

impl field::Visit for Message {
    fn record_debug(&mut self, field: &field::Field, value: &dyn Debug) {
        self.0 |= field.name() == "message" && format!("{value:?}").contains("cannot accept");
    }
}

impl Subscriber for Listening {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(false);
        event.record(&mut message);
        PAUSES.fetch_add(usize::from(message.0), Ordering::SeqCst);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Takes the free numbers below the highest that is in use; gives that, too.
fn fill_gaps() -> (Vec<File>, i32) {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = open.map(|entry| entry.unwrap().file_name());
    let highest: i32 = numbers
        .filter_map(|name| name.to_str()?.parse().ok())
        .max()
        .unwrap();
    let files = std::iter::repeat_with(|| File::open("/dev/null").unwrap());
    let fillers = files.take_while(|file| file.as_raw_fd() < highest);
    (fillers.collect(), highest)
}

#[test]
fn accepting_pauses_without_descriptors_and_goes_on_with_them() {
    const CLIENTS: usize = 40;
    tracing::subscriber::set_global_default(Listening).unwrap();
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    assert_eq!(router.ask(GET).status(), 200);
    // The clients' own are taken before the limit comes down to a few more.
    let sockets: Vec<_> = (0..CLIENTS)
        .map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .collect();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let (_fillers, highest) = fill_gaps();
    let few = u64::try_from(highest + 5).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, few, hard).unwrap();
    let to: SocketAddr = router.address;
    let mut clients = Vec::new();
    for socket in sockets {
        socket.connect(&to.into()).unwrap();
        clients.push(Wire::new(socket.into()));
    }
    // It says so, and waits a little each time: it does not spin.
    let pauses = || PAUSES.load(Ordering::SeqCst);
    until("it cannot accept", || pauses() > 0);
    let (begun, before) = (Instant::now(), pauses());
    until("it tries again", || pauses() >= before + 6);
    let tried = pauses() - before;
    let least = Duration::from_millis(50) * u32::try_from(tried - 1).unwrap();
    assert!(begun.elapsed() >= least, "{tried} in {:?}", begun.elapsed());
    // Descriptors come free: whoever waited is served.
    drop(clients.split_off(CLIENTS / 2));
    for mut client in clients {
        client.send(GET);
        assert_eq!(client.response().status(), 200);
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert_eq!(router.ask(GET).status(), 200);
}
