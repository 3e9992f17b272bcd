//! A router that is out of file descriptors pauses, lets idle connections go, and serves again; and it
//! lets in no more clients than it has descriptors for, with one to a peer for each. The limit is a process's, so that the router has one of its own: this program again, told what to do
//! on its input.

#![allow(
    clippy::unwrap_used,
    reason = "a test: clippy knows only functions marked as one"
)]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _, stdin},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[path = "wire/harness.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "it is the wire tests'; this one needs a part"
)]
mod harness;

use harness::{GET, OK, Setup, Upstream, Wire, until};

/// Says to the program that it is the router; and at which peer.
const PEER: &str = "CARDEA_TEST_PEER";
/// The soft limit that the router is started with.
const SOFT: u64 = 80;
/// The hard one.
const HARD: u64 = 400;

/// Takes the free numbers below the highest that is in use; gives that, too.
fn fill_gaps() -> (Vec<File>, u64) {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = open.map(|entry| entry.unwrap().file_name());
    let highest: i32 = numbers
        .filter_map(|name| name.to_str()?.parse().ok())
        .max()
        .unwrap();
    let files = std::iter::repeat_with(|| File::open("/dev/null").unwrap());
    let fillers = files.take_while(|file| file.as_raw_fd() < highest);
    (fillers.collect(), u64::try_from(highest).unwrap())
}

/// The other process: a router, and what it is told.
#[test]
#[ignore = "the other test's router"]
fn router() {
    let Ok(peer) = std::env::var(PEER) else {
        return;
    };
    setrlimit(Resource::RLIMIT_NOFILE, SOFT, HARD).unwrap();
    let router = Setup::new(&[])
        .peer(peer.parse().unwrap())
        .config(|c| c.limits.header_timeout = Duration::from_mins(5))
        .start();
    let (raised, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    println!(
        "\nROUTER {} {} {raised} {hard}",
        router.address, router.admin
    );
    let mut fillers = Vec::new();
    for line in stdin().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            // So many more descriptors than are open now.
            (Some("leave"), Some(more)) => {
                let (new, highest) = fill_gaps();
                fillers.extend(new);
                let soft = highest + 1 + more.parse::<u64>().unwrap();
                setrlimit(Resource::RLIMIT_NOFILE, soft, HARD).unwrap();
            }
            // So many in all, with what is open now.
            (Some("hold"), Some(all)) => {
                let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
                let more = all.parse::<usize>().unwrap().saturating_sub(open);
                fillers.extend((0..more).map(|_| File::open("/dev/null").unwrap()));
            }
            _ => break,
        }
        println!("\nDONE");
    }
}

/// The process, seen from outside.
struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    traffic: SocketAddr,
    admin: Wire,
    limits: (u64, u64),
}

impl Other {
    fn start(peer: &Upstream) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["router", "--exact", "--ignored", "--nocapture"])
            .env(PEER, peer.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let line = line_of(&mut output, "ROUTER ");
        let words: Vec<_> = line.split(' ').collect();
        // Asked on a connection that is open while others cannot be opened.
        let admin = Wire::connect(words[1].parse().unwrap());
        Self {
            child,
            input,
            output,
            traffic: words[0].parse().unwrap(),
            admin,
            limits: (words[2].parse().unwrap(), words[3].parse().unwrap()),
        }
    }

    fn told(&mut self, what: &str, n: u64) {
        writeln!(self.input, "{what} {n}").unwrap();
        line_of(&mut self.output, "DONE");
    }

    fn client(&self) -> Wire {
        Wire::connect(self.traffic)
    }

    fn metric(&mut self, beginning: &str) -> u64 {
        self.admin.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        let metrics = String::from_utf8(self.admin.response().body).unwrap();
        let line = metrics.lines().find(|line| line.starts_with(beginning));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn pauses(&mut self) -> u64 {
        self.metric("cardea_router_accept_pauses_total ")
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_of(output: &mut impl std::io::BufRead, beginning: &str) -> String {
    let lines = output.lines().map(Result::unwrap);
    let mut found = lines.filter_map(|line| line.strip_prefix(beginning).map(str::to_owned));
    found.next().expect("the other process has ended")
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on_with_them() {
    const MORE: u64 = 10;
    let upstream = Upstream::answering(OK);
    let mut router = Other::start(&upstream);
    assert_eq!(router.limits, (HARD, HARD), "the limit is raised");
    let most = router.metric("cardea_router_connections_limit ");
    assert!(most < HARD / 2, "{most}");
    let mut idle = router.client();
    idle.send(GET);
    assert_eq!(idle.response().status(), 200);
    router.told("leave", MORE);
    // Busy ones, more than there can be: what they say has no end.
    let mut busy: Vec<_> = (0..3 * MORE)
        .map(|_| {
            let mut client = router.client();
            client.send("GET / HTTP/1.1\r\nHost: h\r\n");
            client
        })
        .collect();
    until("it cannot accept", || router.pauses() > 0);
    // Who is idle makes room.
    idle.assert_closed();
    let closed = "cardea_router_idle_connections_closed_total{reason=\"descriptors\"}";
    until("that is counted", || router.metric(closed) >= 1);
    // It waits a little longer each time: it does not spin.
    let (begun, before) = (Instant::now(), router.pauses());
    until("it tries again", || router.pauses() >= before + 3);
    let tried = router.pauses() - before;
    let least = Duration::from_millis(50 * (tried - 1));
    assert!(begun.elapsed() >= least, "{tried} in {:?}", begun.elapsed());
    // Most of them end, and leave room for the others and for new ones.
    busy.truncate(5);
    for client in &mut busy {
        client.send("\r\n");
        assert_eq!(client.response().status(), 200);
    }
    let mut client = router.client();
    client.send(GET);
    assert_eq!(client.response().status(), 200);
    assert_eq!(upstream.count("GET / "), 1 + 5 + 1);
}

/// As many clients as there may be, all of them busy, beside what is set aside for other things.
#[test]
fn every_client_that_is_let_in_finds_a_descriptor_for_its_peer() {
    let answers = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&answers);
    let upstream = Upstream::start(move |mut wire, _| {
        wire.request();
        until("it may answer", || gate.load(Ordering::SeqCst));
        wire.send(OK);
    });
    let mut router = Other::start(&upstream);
    let most = router.metric("cardea_router_connections_limit ");
    router.told("hold", HARD / 4 - 10);
    let mut clients: Vec<_> = (0..most).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    until("each is at the peer", || {
        upstream.count("GET / ") as u64 == most
    });
    answers.store(true, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(router.pauses(), 0);
}
