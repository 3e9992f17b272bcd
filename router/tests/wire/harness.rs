//! A router in static mode, upstreams that follow a script and record, and a raw client.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cardea_router::{AccessLog, Config, Router, Source, start};

/// Nothing on loopback takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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

/// One side of a connection, read by messages.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    /// TLS, if it is spoken.
    pub(crate) session: Option<Box<rustls::Connection>>,
    buffer: Vec<u8>,
    record: Option<Record>,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub(crate) trailers: String,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(crate) fn field<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.fields(name);
        let first = values.next();
        assert!(
            values.next().is_none(),
            "more than one {name}: {}",
            self.head
        );
        first
    }

    pub(crate) fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.split("\r\n").skip(1).filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            session: None,
            buffer: Vec::new(),
            record: None,
        }
    }

    /// Reads once.
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.session {
            None => self.stream.read(piece),
            Some(session) => loop {
                match session.reader().read(piece) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
                session.read_tls(&mut self.stream)?;
                let processed = session.process_new_packets();
                while session.wants_write() {
                    session.write_tls(&mut self.stream)?;
                }
                processed.map_err(std::io::Error::other)?;
            },
        }
    }

    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).unwrap())
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// As [`Wire::send`], to somebody who may have closed already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        match &mut self.session {
            None => self.stream.write_all(bytes),
            Some(session) => {
                while session.is_handshaking() {
                    session.complete_io(&mut self.stream)?;
                }
                for piece in bytes.chunks(32 << 10) {
                    session.writer().write_all(piece)?;
                    while session.wants_write() {
                        session.write_tls(&mut self.stream)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// As [`Wire::send_slowly`], to somebody who may have closed already.
    pub(crate) fn try_send_slowly(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            if self.try_send([*byte]).is_err() {
                return;
            }
            thread::yield_now();
        }
    }

    /// As [`Wire::send`], one byte a segment.
    pub(crate) fn send_slowly(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            thread::yield_now();
        }
    }

    /// Reads once; `false` at the end.
    pub(crate) fn fill(&mut self) -> bool {
        let mut piece = vec![0; 65_536];
        let n = self
            .read(&mut piece)
            .unwrap_or_else(|e| panic!("read: {e}"));
        if let Some(record) = &self.record {
            record.lock().unwrap().extend_from_slice(&piece[..n]);
        }
        self.buffer.extend_from_slice(&piece[..n]);
        n > 0
    }

    pub(crate) fn take(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            assert!(
                self.fill(),
                "ended after {:?}",
                self.buffer.escape_ascii().to_string()
            );
        }
        self.buffer.drain(..n).collect()
    }

    /// So many bytes; none if the connection ends before, however it does.
    pub(crate) fn try_take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < n {
            let mut piece = vec![0; 65_536];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(error) => {
                    let late = error.kind() == std::io::ErrorKind::WouldBlock;
                    assert!(!late, "nothing came");
                    return None;
                }
            }
        }
        Some(self.buffer.drain(..n).collect())
    }

    pub(crate) fn take_until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .buffer
                .windows(end.len())
                .position(|w| w == end.as_bytes());
            if let Some(at) = found {
                return String::from_utf8(self.take(at + end.len())).unwrap();
            }
            assert!(
                self.fill(),
                "ended after {:?}",
                self.buffer.escape_ascii().to_string()
            );
        }
    }

    /// Everything up to the end; an error such as a reset is the end too, and is told.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, std::io::Result<()>) {
        let mut rest = std::mem::take(&mut self.buffer);
        let mut piece = vec![0; 65_536];
        loop {
            match self.read(&mut piece) {
                Ok(0) => return (rest, Ok(())),
                Ok(n) => rest.extend_from_slice(&piece[..n]),
                Err(error) => return (rest, Err(error)),
            }
        }
    }

    /// The connection was closed in good order, with nothing more said.
    pub(crate) fn assert_closed(&mut self) {
        let (rest, result) = self.rest();
        result.unwrap();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    pub(crate) fn head(&mut self) -> String {
        self.take_until("\r\n\r\n")
    }

    /// A request with its body.
    pub(crate) fn request(&mut self) -> Message {
        let head = self.head();
        self.body(head, false)
    }

    /// A response with its body; `bodiless`: to HEAD.
    pub(crate) fn response_to(&mut self, bodiless: bool) -> Message {
        let head = self.head();
        let status: u16 = head[9..12].parse().unwrap();
        if bodiless || matches!(status, 100..=199 | 204 | 304) {
            return Message {
                head,
                body: Vec::new(),
                trailers: String::new(),
            };
        }
        self.body(head, true)
    }

    pub(crate) fn response(&mut self) -> Message {
        self.response_to(false)
    }

    pub(crate) fn body(&mut self, head: String, to_end: bool) -> Message {
        let mut message = Message {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        if message.field("transfer-encoding").is_some() {
            loop {
                let line = self.take_until("\r\n");
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                if size == 0 {
                    loop {
                        let line = self.take_until("\r\n");
                        if line == "\r\n" {
                            return message;
                        }
                        message.trailers += &line;
                    }
                }
                message.body.extend(self.take(size));
                assert_eq!(self.take(2), b"\r\n");
            }
        }
        let length = message.field("content-length").map(|n| n.parse().unwrap());
        match length {
            Some(length) => message.body = self.take(length),
            None if to_end => message.body = self.rest().0,
            None => {}
        }
        message
    }

    pub(crate) fn close_sending(&mut self) {
        if let Some(session) = &mut self.session {
            session.send_close_notify();
            while session.wants_write() {
                session.write_tls(&mut self.stream).unwrap();
            }
        }
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

/// An upstream: a script runs for each connection, and every byte that arrives is kept.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    records: Arc<Mutex<Vec<Record>>>,
    gone: Arc<AtomicBool>,
}

impl Upstream {
    /// `script` gets the connection and its number, from 0.
    pub(crate) fn start(script: impl Fn(Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            records: Arc::default(),
            gone: Arc::default(),
        };
        let (connections, records) = (upstream.connections.clone(), upstream.records.clone());
        let (gone, script) = (upstream.gone.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if gone.load(Ordering::SeqCst) {
                    return;
                }
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let record = Record::default();
                records.lock().unwrap().push(record.clone());
                let mut wire = Wire::new(stream.unwrap());
                wire.stream.set_read_timeout(None).unwrap();
                wire.record = Some(record);
                let script = script.clone();
                thread::spawn(move || script(wire, number));
            }
        });
        upstream
    }

    /// Answers every request with these bytes, on as many connections and requests as come.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |mut wire, _| {
            while wire.peek() {
                wire.request();
                wire.send(&answer);
            }
        })
    }

    /// Bytes that arrived so far, by connection.
    pub(crate) fn seen(&self) -> Vec<String> {
        let records = self.records.lock().unwrap();
        let text = |r: &Record| String::from_utf8_lossy(&r.lock().unwrap()).into();
        records.iter().map(text).collect()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The number of times that this text arrived.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.seen()
            .iter()
            .map(|seen| seen.matches(text).count())
            .sum()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Wire {
    /// Whether another message begins.
    pub(crate) fn peek(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let mut piece = vec![0; 65_536];
        let Ok(n) = self.read(&mut piece) else {
            return false;
        };
        if let Some(record) = &self.record {
            record.lock().unwrap().extend_from_slice(&piece[..n]);
        }
        self.buffer.extend_from_slice(&piece[..n]);
        n > 0
    }
}

/// A router in static mode.
pub(crate) struct Running {
    pub(crate) router: Option<Router>,
    runtime: tokio::runtime::Runtime,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) dir: tempfile::TempDir,
}

/// What a router is started with.
pub(crate) struct Setup {
    service: String,
    host: &'static str,
    path: &'static str,
    tables: String,
    files: Vec<(String, String)>,
    peers: Vec<(SocketAddr, &'static str)>,
    config: Config,
}

impl Setup {
    /// One worker; one service with these peers, on every host and path.
    pub(crate) fn new(peers: &[&Upstream]) -> Self {
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            threads: 1,
            ..Config::default()
        };
        Self {
            service: String::new(),
            path: "/",
            host: "*",
            tables: String::new(),
            files: Vec::new(),
            peers: peers.iter().map(|u| (u.address, "")).collect(),
            config,
        }
    }

    /// Another peer at this address.
    pub(crate) fn peer(mut self, address: SocketAddr) -> Self {
        self.peers.push((address, ""));
        self
    }

    /// Another peer with these lines in its table.
    pub(crate) fn labelled(mut self, upstream: &Upstream, lines: &'static str) -> Self {
        self.peers.push((upstream.address, lines));
        self
    }

    /// The only host that the route takes.
    pub(crate) fn host(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// Lines within the service's table.
    pub(crate) fn service(mut self, lines: &str) -> Self {
        self.service += lines;
        self.service.push('\n');
        self
    }

    /// The only path that the route takes.
    pub(crate) fn path(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    /// Further tables of the file.
    pub(crate) fn tables(mut self, lines: &str) -> Self {
        self.tables += lines;
        self.tables.push('\n');
        self
    }

    /// A file beside it.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Changes the configuration.
    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    fn manifest(&self, peers: &[(SocketAddr, &str)]) -> String {
        let mut text = format!("[[service]]\nname = \"s\"\n{}", self.service);
        for (peer, lines) in peers {
            let table = "[[service.instance]]";
            write!(text, "{table}\naddress = \"{peer}\"\n{lines}\n").unwrap();
        }
        let Self { host, path, .. } = self;
        write!(
            text,
            "[[route]]\nid = \"r\"\nhost = \"{host}\"\nprefix = \"{path}\"\nservice = \"s\"\n"
        )
        .unwrap();
        text += &self.tables;
        text
    }

    /// As [`Setup::start`]; what it gives besides takes a peer out of the router's file.
    pub(crate) fn start_with_removal(self) -> (Running, impl Fn(SocketAddr)) {
        let without = |gone| {
            let left: Vec<_> = self.peers.iter().copied().filter(|p| p.0 != gone).collect();
            (gone, self.manifest(&left))
        };
        let manifests: Vec<_> = self.peers.iter().map(|p| without(p.0)).collect();
        let running = self.start();
        let file = running.dir.path().join("static.toml");
        let remove = move |gone| {
            let (_, text) = manifests.iter().find(|(peer, _)| *peer == gone).unwrap();
            std::fs::write(&file, text).unwrap();
        };
        (running, remove)
    }

    pub(crate) fn start(self) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("static.toml");
        for (name, text) in &self.files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        std::fs::write(&file, self.manifest(&self.peers)).unwrap();
        let config = Config {
            source: Source::Static { file },
            access_log: AccessLog::File(dir.path().join("access.log")),
            ..self.config
        };
        let router = start(config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Running {
            address: router.traffic_address(),
            admin: router.admin_address(),
            tls: router.tls_address(),
            router: Some(router),
            runtime,
            dir,
        }
    }
}

impl Running {
    pub(crate) fn client(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        let mut client = self.client();
        client.send(request);
        client.response()
    }

    /// The access log's lines, once there are at least so many.
    pub(crate) fn log(&self, lines: usize) -> Vec<serde_json::Value> {
        let mut log = Vec::new();
        until("access log", || {
            let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap();
            log = text
                .lines()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect();
            log.len() >= lines
        });
        log
    }

    /// Whether the access log's file is there.
    pub(crate) fn log_exists(&self) -> bool {
        self.dir.path().join("access.log").exists()
    }

    /// Moves the access log away, has it opened again, and gives its new place.
    pub(crate) fn rotate_log(&self) -> std::path::PathBuf {
        let log = self.dir.path().join("access.log");
        let moved = self.dir.path().join("access.log.1");
        std::fs::rename(log, &moved).unwrap();
        self.router.as_ref().unwrap().reopen_access_log();
        moved
    }

    pub(crate) fn metrics(&self) -> String {
        self.admin("/metrics")
    }

    fn admin(&self, path: &str) -> String {
        let mut client = Wire::connect(self.admin);
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        String::from_utf8(client.response().body).unwrap()
    }

    fn write(&self, change: impl FnOnce(String) -> String) {
        let file = self.dir.path().join("static.toml");
        let new = self.dir.path().join("new.toml");
        let text = change(std::fs::read_to_string(&file).unwrap());
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    }

    /// Edits the static file, and waits until the router serves from it.
    pub(crate) fn edit(&self, change: impl FnOnce(String) -> String) {
        let revision = || self.metric("cardea_router_config_revision ");
        let before = revision();
        self.write(change);
        until("the edited file is served", || revision() > before);
    }

    /// Makes a bad edit, and waits until the router says so with this text.
    pub(crate) fn edit_badly(&self, change: impl FnOnce(String) -> String, says: &str) {
        self.write(change);
        until(says, || self.admin("/v1/table").contains(says));
    }

    /// The value of the metric whose line begins so.
    pub(crate) fn metric(&self, beginning: &str) -> Option<f64> {
        let metrics = self.metrics();
        let line = metrics.lines().find(|line| line.starts_with(beginning))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Begins a graceful stop in the background.
    pub(crate) fn stop(mut self) -> thread::JoinHandle<Duration> {
        let router = self.router.take().unwrap();
        thread::spawn(move || {
            let begun = Instant::now();
            self.runtime.block_on(router.stop());
            begun.elapsed()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(router) = self.router.take() {
            // Connections of a test may still be open: don't wait for them.
            drop(router);
        }
    }
}

/// An address that refuses connections.
pub(crate) fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
