//! The proxies under test with the upstreams behind them: proxies on core 0, everything else on
//! core 1.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use cardea_tests::{
    http1::{Connection, Dial},
    ports,
    process::{Process, Spawn},
    scratch::Scratch,
    wait,
};

use super::configs::{self, CommandLine, Work};
use crate::machine::{cpu_ns, pss_kib};

/// Keep-alive connections of a load.
pub(super) const CONNECTIONS: usize = 64;
pub(super) const SOON: Duration = Duration::from_mins(1);

/// Upstreams and what proxies of a section keep.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) scratch: Scratch,
    pub(super) upstreams: Vec<u16>,
    _responder: Process,
}

/// What the upstreams answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answers {
    /// 1 KiB, as cheaply as can be.
    Small,
    /// The same, after so many milliseconds.
    After(u64),
    /// As many bytes as the path says; bodies are read and thrown away.
    Bulk,
}

impl Answers {
    /// A responder on these ports, started by this command.
    pub(super) async fn start(
        self,
        name: &str,
        by: &Command,
        ports: &[u16],
        dir: &Path,
    ) -> Process {
        let mode = match self {
            Self::Small => None,
            Self::After(ms) => Some(format!("after={ms}")),
            Self::Bulk => Some("bulk".to_owned()),
        };
        let program = cardea_tests::binary::find("cardea-bench-upstream");
        let mut responder = under(name, by, &program)
            .args(mode.into_iter().chain(ports.iter().map(u16::to_string)))
            .start(dir);
        responder
            .wait_log("ready", SOON, |log| log.contains("ready").then_some(()))
            .await;
        responder
    }
}

/// A proxy under test.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) process: Process,
    pub(super) fresh_kib: u64,
}

/// The proxies that are compared; nginx is the measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    Haproxy,
    Envoy,
    Cardea,
}

impl Kind {
    /// All that are installed: Envoy is not in Debian.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Nginx, Self::Haproxy, Self::Envoy, Self::Cardea];
        if !configs::envoy_program().is_file() {
            all.retain(|kind| *kind != Self::Envoy);
        }
        all
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Cardea => "cardea",
        }
    }

    fn command(self, work: &Work<'_>) -> CommandLine {
        match self {
            Self::Nginx => configs::nginx(work),
            Self::Haproxy => configs::haproxy(work),
            Self::Envoy => configs::envoy(work),
            Self::Cardea => configs::cardea(work),
        }
    }
}

impl Stand {
    /// So many upstreams.
    pub(super) async fn new(name: &str, upstreams: usize, answers: Answers) -> Self {
        let scratch = Scratch::new(&format!("bench-{name}"));
        let upstreams: Vec<u16> = (0..upstreams).map(|_| ports::reserve()).collect();
        let by = bound(1);
        let responder = answers.start("upstream", &by, &upstreams, scratch.path());
        Self {
            _responder: responder.await,
            scratch,
            upstreams,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Each installed proxy with so many routes over the first so many upstreams.
    pub(super) async fn proxies(&self, routes: usize, upstreams: usize) -> Vec<Proxy> {
        let mut proxies = Vec::new();
        for kind in Kind::all() {
            proxies.push(self.proxy(kind, routes, upstreams).await);
        }
        proxies
    }

    pub(super) async fn proxy(&self, kind: Kind, routes: usize, upstreams: usize) -> Proxy {
        let file = format!("{}-{routes}-{upstreams}", kind.name());
        self.start(kind.name(), &file, routes, upstreams, |work| {
            kind.command(work)
        })
        .await
    }

    pub(super) async fn start(
        &self,
        name: &str,
        file: &str,
        routes: usize,
        upstreams: usize,
        command: impl FnOnce(&Work<'_>) -> CommandLine,
    ) -> Proxy {
        let dial = Dial::default();
        let of = (name, file);
        self.start_dialing(of, (routes, upstreams), None, &dial, command)
            .await
    }

    /// The same proxies with the certificate in this folder, for who dials so.
    pub(super) async fn secure(&self, kind: Kind, tls: &Path, dial: &Dial) -> Proxy {
        let file = format!("{}-tls", kind.name());
        let of = (kind.name(), file.as_str());
        let tls = Some(tls);
        self.start_dialing(of, (10, 4), tls, dial, |work| kind.command(work))
            .await
    }

    async fn start_dialing(
        &self,
        (name, file): (&str, &str),
        (routes, upstreams): (usize, usize),
        tls: Option<&Path>,
        dial: &Dial,
        command: impl FnOnce(&Work<'_>) -> CommandLine,
    ) -> Proxy {
        let port = ports::reserve();
        let line = command(&Work {
            dir: self.dir(),
            name: file,
            port,
            routes,
            upstreams: &self.upstreams[..upstreams],
            tls,
        });
        let mut process = pinned(file, &line.program, 0)
            .args(&line.args)
            .start(self.dir());
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until_ok(&format!("{name} routes"), SOON, || {
            let end = process.ended();
            assert!(end.is_none(), "{name} ended: {}", process.log_text());
            async {
                let get = b"GET /api/v1/bytes/2 HTTP/1.1\r\nHost: h0.svc.local\r\n\r\n";
                let asked = async {
                    let mut connection = Connection::dial(address, dial, SOON).await?;
                    connection.exchange(get, SOON).await
                };
                match asked.await {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
        let fresh_kib = pss_kib(process.pid());
        Proxy {
            name: name.to_owned(),
            address,
            process,
            fresh_kib,
        }
    }
}

/// What they are called in tables.
pub(super) fn names(proxies: &[Proxy]) -> Vec<String> {
    proxies.iter().map(|proxy| proxy.name.clone()).collect()
}

impl Proxy {
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// CPU time that it spends while `act` runs, in µs.
    pub(super) fn cpu_us<T>(&self, act: impl FnOnce() -> T) -> (f64, T) {
        let before = cpu_ns(self.pid());
        let done = act();
        ((cpu_ns(self.pid()) - before) as f64 / 1000.0, done)
    }

    /// Its memory, once it no longer changes: memory is given back in one's own time.
    pub(super) async fn settled_kib(&self) -> u64 {
        let begun = Instant::now();
        let mut held = pss_kib(self.pid());
        wait::until_true("memory has settled", SOON, || {
            let now = pss_kib(self.pid());
            let same = now == held;
            held = now;
            same && begun.elapsed() > Duration::from_secs(1)
        })
        .await;
        held
    }
}

/// A process bound to a core; as root with a high priority, so that neighbours disturb less.
fn pinned(name: &str, program: &Path, core: usize) -> Spawn {
    under(name, &bound(core), program)
}

/// A process that another command starts.
fn under(name: &str, by: &Command, program: &Path) -> Spawn {
    let args: Vec<_> = by.get_args().map(std::ffi::OsStr::to_owned).collect();
    Spawn::new(name, by.get_program())
        .args(args)
        .args([program])
}

/// A command bound to a core, as root with a high priority.
pub(super) fn bound(core: usize) -> Command {
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("nice");
        command.args(["-n", "-15", "taskset"]);
        command
    } else {
        Command::new("taskset")
    };
    command.args(["-c", &core.to_string()]);
    command
}
