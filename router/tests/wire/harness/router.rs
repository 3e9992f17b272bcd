//! A router in static mode.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use cardea_router::{AccessLog, Config, Limits, Router, Source, start};

use super::{Message, PATIENCE, Upstream, Wire, until};

/// Longer than any test.
const AGES: Duration = Duration::from_mins(10);

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
    /// One worker; one service with these peers, on every host and path. How slow somebody may be is
    /// for the tests of just that to say: a busy machine makes all the others' clients slow.
    pub(crate) fn new(peers: &[&Upstream]) -> Self {
        let config = Config {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            admin: "127.0.0.1:0".parse().unwrap(),
            threads: 1,
            limits: Limits {
                header_timeout: AGES,
                idle_timeout: AGES,
                keepalive: AGES,
                rate_window: AGES,
                ..Limits::default()
            },
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

    /// Another peer at this address, with these lines in its table.
    pub(crate) fn labelled_at(mut self, address: SocketAddr, lines: &'static str) -> Self {
        self.peers.push((address, lines));
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
            address: router.traffic_address().or(router.tls_address()).unwrap(),
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

    /// The access log's lines, once there are at least so many whole ones: the file may be read
    /// in the middle of a write.
    pub(crate) fn log(&self, lines: usize) -> Vec<serde_json::Value> {
        let mut log = Vec::new();
        until("access log", || {
            let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap();
            log = text
                .split_inclusive('\n')
                .filter(|l| l.ends_with('\n'))
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

    /// What the router says about its table and what it knows.
    pub(crate) fn table(&self) -> String {
        self.admin("/v1/table")
    }

    /// The value of the metric whose line begins so.
    pub(crate) fn metric(&self, beginning: &str) -> Option<f64> {
        let metrics = self.metrics();
        let line = metrics.lines().find(|line| line.starts_with(beginning))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until a metric has the value: what counts an answer is later than the answer.
    #[track_caller]
    pub(crate) fn comes_to(&self, beginning: &str, value: f64) {
        let mut last = None;
        let deadline = Instant::now() + PATIENCE;
        while last != Some(value) {
            assert!(
                Instant::now() < deadline,
                "{beginning} is {last:?}, not {value}"
            );
            last = self.metric(beginning);
        }
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
