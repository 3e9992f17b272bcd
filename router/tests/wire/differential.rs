//! Differential: the same messages through nginx and through the router, in the same pieces, to peers
//! that record; they must arrive the same, there and back, apart from what is listed here:
//!
//! | what | nginx 1.22 | the router |
//! |---|---|---|
//! | `Connection`, `Keep-Alive`, `Content-Length` or `Transfer-Encoding`, chunk sizes | framing is each hop's own: bodies are compared instead | |
//! | `X-Forwarded-…`, `X-Real-IP`, `X-Request-Id` | – | added |
//! | `TE: trailers`, trailers both ways | dropped | passed on |
//! | `Date` of an answer without one, `Server` | its own | `Date` added |
//! | an answer's fields | some are moved to the front | in order |
//!
//! Seeded: a failure comes again.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::harness::{Message, Setup, Upstream, Wire, free, until};

/// A request, and the answer that the peer gives to it.
#[derive(Debug, Clone)]
struct Pair {
    method: &'static str,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<Body>,
    status: &'static str,
    answer_fields: Vec<(String, String)>,
    answer: Body,
}

#[derive(Debug, Clone)]
struct Body {
    bytes: Vec<u8>,
    /// In chunks of so many bytes.
    chunks: Option<usize>,
    trailer: bool,
}

fn body() -> impl Strategy<Value = Body> {
    let bytes = prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        1 => (1_usize..60_000).prop_map(|n| vec![b'x'; n]),
    ];
    let chunks = proptest::option::of(1_usize..3000);
    (bytes, chunks, any::<bool>()).prop_map(|(bytes, chunks, trailer)| Body {
        bytes,
        chunks,
        trailer,
    })
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = "X-[A-Za-z0-9-]{1,12}";
    let value = "[!-~]{0,3}([ \t]?[!-~]{1,12}){0,3}";
    // Names with a meaning to either do not come from chance.
    let plain = |(name, _): &(String, String)| {
        let name = name.to_ascii_lowercase();
        !["x-forwarded-", "x-accel-", "x-case", "x-real-ip", "x-pad"]
            .iter()
            .any(|taken| name.starts_with(taken))
    };
    vec(
        (name, value).prop_filter("a name with a meaning", plain),
        0..6,
    )
}

fn pair() -> impl Strategy<Value = Pair> {
    let method = prop_oneof![
        Just("GET"),
        Just("POST"),
        Just("PUT"),
        Just("DELETE"),
        Just("PATCH"),
        Just("HEAD"),
        Just("OPTIONS"),
        Just("REPORT"),
    ];
    let target = "(/[A-Za-z0-9_~!$&'()*+,:@=-]{1,8}){1,4}/?(\\?[A-Za-z0-9/?=&%._-]{0,20})?";
    let status = prop_oneof![
        Just("200 OK"),
        Just("201 Created"),
        Just("204 No Content"),
        Just("304 Not Modified"),
        Just("404 Not  Found"),
        Just("418 x"),
        Just("500 Oh"),
    ];
    (
        method,
        target,
        fields(),
        proptest::option::of(body()),
        status,
        fields(),
        body(),
    )
        .prop_map(
            |(method, target, fields, body, status, answer_fields, answer)| Pair {
                method,
                target,
                fields,
                body,
                status,
                answer_fields,
                answer,
            },
        )
}

/// How the client's bytes are cut: all at once, one by one, or in pieces.
fn cuts() -> impl Strategy<Value = usize> {
    prop_oneof![Just(usize::MAX), Just(1), 2_usize..700]
}

fn lines(fields: &[(String, String)]) -> String {
    fields
        .iter()
        .fold(String::new(), |mut text, (name, value)| {
            write!(text, "{name}: {value}\r\n").unwrap();
            text
        })
}

impl Body {
    fn append(&self, out: &mut Vec<u8>) {
        let Some(size) = self.chunks else {
            let n = self.bytes.len();
            out.extend(format!("Content-Length: {n}\r\n\r\n").bytes());
            return out.extend(&self.bytes);
        };
        out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in self.bytes.chunks(size) {
            out.extend(format!("{:x}\r\n", chunk.len()).bytes());
            out.extend(chunk);
            out.extend(b"\r\n");
        }
        let trailer = if self.trailer { "X-T: 1\r\n" } else { "" };
        out.extend(format!("0\r\n{trailer}\r\n").bytes());
    }
}

impl Pair {
    fn request(&self, number: usize) -> Vec<u8> {
        let (method, target) = (self.method, &self.target);
        let mut out = format!("{method} {target} HTTP/1.1\r\nHost: h.test\r\nX-Case: {number}\r\n")
            .into_bytes();
        out.extend(lines(&self.fields).bytes());
        match &self.body {
            Some(body) => body.append(&mut out),
            None => out.extend(b"\r\n"),
        }
        out
    }

    fn answer(&self) -> Vec<u8> {
        let mut out =
            format!("HTTP/1.1 {}\r\nDate: then\r\nServer: s\r\n", self.status).into_bytes();
        out.extend(lines(&self.answer_fields).bytes());
        if self.status.starts_with("204") || self.status.starts_with("304") {
            out.extend(b"\r\n");
        } else if self.method == "HEAD" {
            out.extend(format!("Content-Length: {}\r\n\r\n", self.answer.bytes.len()).bytes());
        } else {
            self.answer.append(&mut out);
        }
        out
    }
}

/// What is compared of a message: its first line, its own fields in order, its body.
fn essence(message: &Message, sorted: bool) -> (String, Vec<(String, String)>, Vec<u8>) {
    let mut lines = message.head.split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let mut fields: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .filter(|(name, _)| {
            !name.starts_with("x-forwarded-")
                && ![
                    "connection",
                    "keep-alive",
                    "content-length",
                    "transfer-encoding",
                    "te",
                    "x-real-ip",
                    "x-request-id",
                    "date",
                    "server",
                ]
                .contains(&name.as_str())
        })
        .collect();
    if sorted {
        fields.sort();
    }
    (first, fields, message.body.clone())
}

type Arrived = Arc<Mutex<Vec<Message>>>;

/// A peer that answers by the number of the case, and keeps what arrived.
fn peer(pairs: &Arc<Mutex<Vec<Pair>>>) -> (Upstream, Arrived) {
    let (pairs, arrived) = (Arc::clone(pairs), Arrived::default());
    let keep = Arc::clone(&arrived);
    let upstream = Upstream::start(move |mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            let number: usize = request.field("x-case").unwrap().parse().unwrap();
            let answer = pairs.lock().unwrap()[number].answer();
            keep.lock().unwrap().push(request);
            wire.send(answer);
        }
    });
    (upstream, arrived)
}

/// nginx before one peer; it ends with the test.
struct Nginx {
    process: Child,
    address: std::net::SocketAddr,
    _dir: tempfile::TempDir,
}

impl Nginx {
    fn start(upstream: &Upstream) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let address = free();
        let user = if nix::unistd::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let text = format!(
            "{user} daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
             events {{ worker_connections 256; }}
             http {{
               access_log off; keepalive_requests 1000000; client_max_body_size 0;
               client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
               uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
               underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;
               upstream u {{ server {}; keepalive 4; }}
               server {{
                 listen {address};
                 location / {{
                   proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\";
                   proxy_set_header Host $http_host; proxy_buffering off;
                   proxy_request_buffering off; proxy_pass_header Server; proxy_pass_header Date;
                 }}
               }}
             }}",
            upstream.address
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, text).unwrap();
        let sbin = Path::new("/usr/sbin/nginx");
        let program = if sbin.is_file() {
            sbin
        } else {
            Path::new("nginx")
        };
        let process = Command::new(program)
            .args(["-p".as_ref(), dir.path(), "-c".as_ref(), &file])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx (tests/setup installs it): {error}"));
        until("nginx listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Self {
            process,
            address,
            _dir: dir,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        // TERM: the master takes its workers along.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// Sends everything on one connection, in pieces; the answers in order.
fn converse(to: std::net::SocketAddr, pairs: &[Pair], step: usize) -> Vec<Message> {
    let mut client = Wire::connect(to);
    let mut sender = Wire::new(client.stream.try_clone().unwrap());
    let all: Vec<u8> = pairs
        .iter()
        .enumerate()
        .flat_map(|(number, pair)| pair.request(number))
        .collect();
    // Single bytes of a large body would only take long.
    let step = step.max(all.len() / 3000).max(1);
    std::thread::scope(|scope| {
        scope.spawn(move || all.chunks(step).for_each(|piece| sender.send(piece)));
        pairs
            .iter()
            .map(|pair| client.response_to(pair.method == "HEAD"))
            .collect()
    })
}

#[test]
fn messages_come_through_as_through_nginx() {
    let current = Arc::new(Mutex::new(Vec::new()));
    let (behind_nginx, nginx_arrived) = peer(&current);
    let (behind_router, router_arrived) = peer(&current);
    let nginx = Nginx::start(&behind_nginx);
    let router = Setup::new(&[&behind_router]).start();
    let config = Config {
        cases: 150,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    TestRunner::new_with_rng(config, rng)
        .run(&(vec(pair(), 1..4), cuts()), |(pairs, step)| {
            current.lock().unwrap().clone_from(&pairs);
            let want = converse(nginx.address, &pairs, step);
            let got = converse(router.address, &pairs, step);
            let answers = |all: &[Message]| -> Vec<_> {
                all.iter().map(|message| essence(message, true)).collect()
            };
            prop_assert_eq!(answers(&got), answers(&want));
            let take = |arrived: &Arrived| std::mem::take(&mut *arrived.lock().unwrap());
            let (want, got) = (take(&nginx_arrived), take(&router_arrived));
            let requests = |all: &[Message]| -> Vec<_> {
                all.iter().map(|message| essence(message, false)).collect()
            };
            prop_assert_eq!(requests(&got), requests(&want));
            for (message, pair) in got.iter().zip(&pairs) {
                let trailer = pair
                    .body
                    .as_ref()
                    .is_some_and(|b| b.trailer && b.chunks.is_some());
                prop_assert_eq!(&message.trailers, if trailer { "X-T: 1\r\n" } else { "" });
            }
            Ok(())
        })
        .unwrap();
}
