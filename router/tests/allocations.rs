//! A warm request allocates nothing: the promise is kept by counting.

#![allow(
    unsafe_code,
    reason = "an allocator can only be written with it; this one counts and passes on"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a test: clippy knows only functions marked as one"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use cardea_router::{AccessLog, Config, Network, Source, start};

struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Only a router's threads count; the test's own are marked.
    static MINE: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if COUNTING.load(Ordering::Relaxed) && !MINE.get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        MINE.set(true);
        for stream in listener.incoming() {
            thread::spawn(move || {
                MINE.set(true);
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4096];
                let mut answer =
                    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 1024\r\n\r\n".to_vec();
                answer.resize(answer.len() + 1024, b'x');
                while matches!(stream.read(&mut buffer), Ok(n) if n > 0) {
                    stream.write_all(&answer).unwrap();
                }
            });
        }
    });
    address
}

fn ask(client: &mut TcpStream, requests: usize) {
    let mut buffer = [0; 8192];
    for i in 0..requests {
        let request: &[u8] = if i % 2 == 0 {
            b"GET /a?b=c HTTP/1.1\r\nHost: h.example\r\nUser-Agent: test\r\nAccept: */*\r\n\
              X-Forwarded-For: 1.2.3.4\r\nCookie: a=b\r\n\
              Authorization: Bearer e30.eyJzdWIiOiJ1MSIsImlhdCI6MTd9.c2ln\r\n\r\n"
        } else {
            b"POST /a HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc"
        };
        client.write_all(request).unwrap();
        let mut got = 0;
        while !buffer[..got].ends_with(b"xxxx") {
            let n = client.read(&mut buffer[got..]).unwrap();
            assert!(n > 0);
            got += n;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[test]
fn a_warm_request_allocates_nothing() {
    MINE.set(true);
    let elsewhere = format!("{PLUGINS}{TRAFFIC}").replace("GATEWAY", &upstream().to_string());
    for (trusted, tables) in [
        (None, ""),
        (Some("127.0.0.0/8"), ""),
        (None, PLUGINS),
        (None, &*elsewhere),
    ] {
        requests_allocate_nothing(trusted.map(|network| network.parse().unwrap()), tables);
    }
}

/// One of each kind that a request can go through.
const PLUGINS: &str = r#"
[[plugin]]
name = "restrict"
[plugin.restrict]
methods = ["GET", "POST"]
[[plugin]]
name = "limit"
[plugin.limit]
rate = 10000000
concurrent = 1000
key = "jwt:sub"
count = "divided"
[[plugin]]
name = "break"
[plugin.break]
slow = "10s"
[plugin.break.adaptive]
[[plugin]]
name = "lanes"
[plugin.lanes]
[[plugin.lanes.entry]]
lane = "gray"
when = { key = "cookie:a", is = ["b"] }
[[plugin]]
name = "ab"
[[plugin.ab.experiments]]
name = "page"
key = "jwt:sub"
request_header = "X-Variant"
[[plugin.ab.experiments.variants]]
name = "a"
[[plugin]]
name = "gray"
[[plugin.gray.rules]]
group = "new"
when = { key = "jwt:sub", percent = 0.01 }
[[plugin]]
name = "rewrite"
[plugin.rewrite]
prefix = "/b"
[plugin.rewrite.request.set]
X-Route = "${route}"
"#;

/// Half of the requests go to another cluster's routers.
const TRAFFIC: &str = r#"
[[cluster]]
name = "b"
gateway = ["GATEWAY"]
[[traffic]]
cluster = "default"
weights = { default = 50, b = 50 }
sticky = "header:x-none"
zones = "near"
[traffic.failover]
order = ["b"]
"#;

/// With the client as a stranger, or as a proxy whose word on its clients is read.
fn requests_allocate_nothing(trusted: Option<Network>, plugins: &str) {
    const REQUESTS: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("static.toml");
    let text = format!(
        "[[service]]\nname = \"s\"\ngroups = {{ new = {{ version = \"2\" }} }}\n[[service.instance]]\naddress = \"{}\"\n\
         [[service.instance]]\naddress = \"{}\"\n\
         [[route]]\nhost = \"*\"\nservice = \"s\"\n{plugins}",
        upstream(),
        upstream()
    );
    std::fs::write(&file, text).unwrap();
    let config = Config {
        source: Source::Static { file },
        listen: Some("127.0.0.1:0".parse().unwrap()),
        admin: "127.0.0.1:0".parse().unwrap(),
        access_log: AccessLog::File(dir.path().join("access.log")),
        threads: 1,
        trusted_proxies: trusted.into_iter().collect(),
        ..Config::default()
    };
    let router = start(config).unwrap();
    let mut client = TcpStream::connect(router.traffic_address().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    ask(&mut client, 2000);
    ALLOCATIONS.store(0, Ordering::SeqCst);
    COUNTING.store(true, Ordering::SeqCst);
    ask(&mut client, REQUESTS);
    COUNTING.store(false, Ordering::SeqCst);
    let allocations = ALLOCATIONS.load(Ordering::SeqCst);
    println!("{allocations} allocations in {REQUESTS} requests, trusted: {trusted:?} {plugins:.9}");
    // What runs on a clock (the control thread's checks, the log's hand-over, the trimming of
    // buffers) may allocate a little; requests may not.
    assert!(
        allocations < (REQUESTS / 50) as u64,
        "{allocations} allocations in {REQUESTS} requests"
    );
    // What it does on a clock is not the next one's.
    drop(client);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(router.stop());
}
