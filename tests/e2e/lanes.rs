//! A lane over five services in a chain, gray at hops 2 and 4: nothing leaks between the lane and the
//! baseline, whichever router a hop goes through and whichever header a service passes on.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cardea_tests::{
    binary, http1, ports,
    process::{Process, Spawn},
    scratch::Scratch,
    site::SOON,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::gate;

const HOPS: usize = 5;
const GRAY: [usize; 2] = [2, 4];
/// Callers at a time.
const CALLERS: usize = 32;
/// Requests into the chain, each of five hops; `CARDEA_LANE_REQUESTS` asks for more: 100,000 take
/// minutes.
const REQUESTS: usize = 5_000;

fn host(hop: usize) -> String {
    format!("s{hop}.svc.local")
}

/// What is read of a message: its head, and its body if it has a length.
struct Message {
    head: String,
    body: String,
}

impl Message {
    fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.split("\r\n").skip(1).filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The next message of a connection; none at its end.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Message> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let mut message = Message {
        head,
        body: String::new(),
    };
    let length = message
        .fields("content-length")
        .next()
        .map(|n| n.parse::<usize>().unwrap());
    let length = length.unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    message.body = String::from_utf8(buffer.drain(..length).collect()).unwrap();
    Some(message)
}

/// An instance of a service: says its name and the tag it was called with, and what those behind it
/// say.
#[derive(Clone)]
struct Instance {
    name: String,
    /// The router that it calls the next service through.
    next: Option<(SocketAddr, String)>,
    /// The header that it passes on, as its tracing library would.
    carries: &'static str,
}

impl Instance {
    async fn start(self, tasks: &mut JoinSet<()>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                served.spawn(self.clone().serve(stream));
            }
        });
        address
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        let mut next: Option<(TcpStream, Vec<u8>)> = None;
        while let Some(request) = read(&mut stream, &mut buffer).await {
            let tag = request.fields("x-lane").collect::<Vec<_>>().join("+");
            let mut body = format!("{}[{tag}]", self.name);
            if let Some((router, host)) = &self.next {
                let (calls, answers) = match &mut next {
                    Some(open) => open,
                    closed => {
                        let stream = TcpStream::connect(router).await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        closed.insert((stream, Vec::new()))
                    }
                };
                let mut call = format!("GET / HTTP/1.1\r\nHost: {host}\r\n");
                for value in request.fields(self.carries) {
                    write!(call, "{}: {value}\r\n", self.carries).unwrap();
                }
                calls.write_all((call + "\r\n").as_bytes()).await.unwrap();
                match read(calls, answers).await {
                    Some(answer) => write!(body, " {}", answer.body).unwrap(),
                    None => body += " nobody",
                }
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all((head + &body).as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn router(name: &str, address: SocketAddr, scratch: &Scratch, file: &std::path::Path) -> Process {
    let admin = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
    Spawn::new(name, binary::cardea())
        .args(["router", "--static"])
        .args([file])
        .args([
            "--listen",
            &address.to_string(),
            "--admin",
            &admin.to_string(),
        ])
        .args(["--access-log", "off", "--threads", "1"])
        .start(scratch.path())
}

/// How a request enters, and what the five say to it.
fn kinds() -> [(&'static str, String); 4] {
    let chain = |tag: &str| {
        let hop = |hop: usize| {
            let gray = tag == "gray" && GRAY.contains(&hop);
            format!("{hop}-{}[{tag}]", if gray { "gray" } else { "base" })
        };
        (1..=HOPS).map(hop).collect::<Vec<_>>().join(" ")
    };
    [
        ("", chain("")),
        // Tagged at the entry, by a rule.
        ("Cookie: user=u7\r\n", chain("gray")),
        ("Baggage: k=v,lane=gray\r\n", chain("gray")),
        // A lane that nobody has: its tag arrives at the end as well.
        ("X-Lane: other\r\n", chain("other")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_over_five_services_leaks_nothing() {
    let _machine = gate::shared().await;
    let scratch = Scratch::new("lanes");
    let routers = [0; 2].map(|_| SocketAddr::from(([127, 0, 0, 1], ports::reserve())));
    let mut tasks = JoinSet::new();
    let mut text = "[[plugin]]\nname = \"lanes\"\n[plugin.lanes]\ncallers = [\"127.0.0.0/8\"]\n\
                    [[plugin.lanes.entry]]\nlane = \"gray\"\n\
                    when = { key = \"cookie:user\", ends_with = [\"7\"] }\n"
        .to_owned();
    for hop in 1..=HOPS {
        let host = host(hop);
        write!(
            text,
            "[[route]]\nhost = \"{host}\"\nservice = \"s{hop}\"\n[[service]]\nname = \"s{hop}\"\n"
        )
        .unwrap();
        let next = (hop < HOPS).then(|| (routers[hop % 2], self::host(hop + 1)));
        let lanes: &[&str] = if GRAY.contains(&hop) {
            &["base", "gray"]
        } else {
            &["base", "base"]
        };
        for lane in lanes {
            let instance = Instance {
                name: format!("{hop}-{lane}"),
                next: next.clone(),
                carries: ["x-lane", "baggage"][hop % 2],
            };
            let address = instance.start(&mut tasks).await;
            write!(text, "[[service.instance]]\naddress = \"{address}\"\n").unwrap();
            if *lane == "gray" {
                text += "labels = { lane = \"gray\" }\n";
            }
        }
    }
    let file = scratch.write("services.toml", &text);
    let running: Vec<Process> = (0..2)
        .map(|at| router(&format!("router-{at}"), routers[at], &scratch, &file))
        .collect();
    for address in routers {
        wait::until("a router serves the file", SOON, || async {
            let answer = http1::get(address, &host(HOPS), "/").await.ok();
            answer.filter(|answer| answer.status == 200)
        })
        .await;
    }
    let total = std::env::var("CARDEA_LANE_REQUESTS").map_or(REQUESTS, |n| n.parse().unwrap());
    let left = Arc::new(AtomicUsize::new(total));
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let left = Arc::clone(&left);
        let kinds = kinds();
        let entry = routers[caller % 2];
        callers.spawn(async move {
            let mut stream = TcpStream::connect(entry).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut buffer, mut seen) = (Vec::new(), BTreeMap::<String, usize>::new());
            let take = || left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
            while let Ok(number) = take() {
                let (headers, wanted) = &kinds[number % kinds.len()];
                let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", host(1));
                stream.write_all(request.as_bytes()).await.unwrap();
                let answer = read(&mut stream, &mut buffer).await.expect("an answer");
                let ok = answer.head.starts_with("HTTP/1.1 200") && answer.body == *wanted;
                let what = if ok {
                    format!("as wanted {}", number % kinds.len())
                } else {
                    format!("{headers:?} gave {}{}", answer.head, answer.body)
                };
                *seen.entry(what).or_default() += 1;
            }
            seen
        });
    }
    let limit = Duration::from_mins(1) + Duration::from_millis(20) * u32::try_from(total).unwrap();
    let all = tokio::time::timeout(limit, callers.join_all())
        .await
        .expect("in time");
    let mut seen = BTreeMap::<String, usize>::new();
    for (what, count) in all.into_iter().flatten() {
        *seen.entry(what).or_default() += count;
    }
    println!(
        "{total} requests over {HOPS} hops in {:?}: {seen:#?}",
        began.elapsed()
    );
    let good = seen
        .iter()
        .filter(|(what, _)| what.starts_with("as wanted"));
    assert_eq!(
        good.map(|(_, count)| count).sum::<usize>(),
        total,
        "leaks: {seen:#?}"
    );
    assert_eq!(seen.len(), kinds().len(), "{seen:#?}");
    drop(running);
}
