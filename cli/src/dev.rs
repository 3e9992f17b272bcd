//! `cardea dev`: everything on one machine, for the first five minutes.
//!
//! One process holds the registry and a router; two demo services with two instances each are child
//! processes, started through the agent as they would be in earnest. The main thread starts and
//! watches the children (the kernel ties their lives to this very thread), takes orders and prints;
//! the registry has a runtime of its own, so that it can be stopped while the rest goes on.

pub(crate) mod control;
mod dir;
mod instances;
mod registry;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use cardea_registry_api::api::Role;
use cardea_router::{AccessLog, Router, Source};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{DevArgs, LogArgs},
    exit::{Exit, Outcome},
    http,
    roles::{router, single_thread},
    signals::{Asked, Signals},
    telemetry,
};
use control::{Answer, Control, Order, Ordered};
use dir::DataDir;
use instances::{Common, Event, Spec};
use registry::Part;
use text::{Seen, Welcome};

/// The operator's token, in the data directory.
pub(crate) const OPERATOR_TOKEN: &str = "operator.token";
/// What runs where, in the data directory.
const RUNNING: &str = "dev.json";
/// Only what a newcomer should see on the terminal: not each request that was refused.
const LOG_LEVEL: &str = "warn,cardea_registry::access=error";
/// How long all instances may take to be reached through the router.
const READY: Duration = Duration::from_secs(20);

/// What runs where: left in the data directory for `cardea ctl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The process.
    pub(crate) pid: u32,
    /// Where callers reach the router.
    pub(crate) router: String,
    /// The router's admin address.
    pub(crate) router_admin: String,
    /// The registry's API.
    pub(crate) api: String,
    /// The registry's admin address.
    pub(crate) registry_admin: String,
}

impl Running {
    /// What a `cardea dev` has left in a data directory.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        let text = fs::read(data_dir.join(RUNNING)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self, dir: &DataDir) -> Result<(), Exit> {
        let text = serde_json::to_string_pretty(self).map_err(Exit::failed)?;
        let path = dir.join(RUNNING);
        dir::write_private(&path, &(text + "\n"))
            .map_err(|e| Exit::failed(format!("{}: {e}", path.display())))
    }
}

/// Runs everything until Ctrl-C.
pub(crate) fn run(args: &DevArgs, log: &LogArgs) -> Outcome {
    let begun = Instant::now();
    telemetry::start(log, LOG_LEVEL)?;
    let dir = DataDir::open(&args.data_dir, args.fresh)?;
    check_ports(args)?;
    single_thread()?.block_on(async {
        let mut signals = Signals::listen()?;
        let mut dev = Dev::start(args, dir).await?;
        let served = dev.serve(args, begun, &mut signals).await;
        println!("Stopping …");
        let hurry = dev.hurry.clone();
        signals.unless_hurried(dev.stop()).await;
        hurry.cancel();
        dev.finish().await;
        served
    })
}

/// Names each port that is taken, and the flag that chooses another.
fn check_ports(args: &DevArgs) -> Result<(), Exit> {
    let wanted = [
        ("the router", args.listen, "--listen"),
        (
            "the router's admin port",
            args.router_admin,
            "--router-admin",
        ),
        ("the registry's API", args.api, "--api"),
        (
            "the registry's admin port",
            args.registry_admin,
            "--registry-admin",
        ),
    ];
    let mut wrong = Vec::new();
    let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for (what, address, flag) in wanted {
        let twin = (address.port() != 0)
            .then(|| taken.insert(address, flag))
            .flatten();
        if let Some(other) = twin {
            wrong.push(format!("{flag} and {other} both ask for {address}"));
        } else if let Err(error) = TcpListener::bind(address) {
            let port = address.port();
            let text = if error.kind() == std::io::ErrorKind::AddrInUse {
                format!(
                    "port {port} for {what} is taken; choose another: {flag} 127.0.0.1:PORT (0: any)"
                )
            } else {
                format!(
                    "cannot listen on {address} for {what}: {error}; choose another with {flag}"
                )
            };
            wrong.push(text);
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Exit::failed(wrong.join("\n")))
    }
}

/// All that runs.
struct Dev {
    dir: DataDir,
    registry: Part,
    router: Option<Router>,
    running: Running,
    seen: BTreeMap<&'static str, Seen>,
    events: mpsc::Receiver<(Spec, Event)>,
    children: JoinSet<()>,
    stopping: CancellationToken,
    hurry: CancellationToken,
    greeted: bool,
}

impl Dev {
    async fn start(args: &DevArgs, dir: DataDir) -> Result<Self, Exit> {
        let operator = dir.token(Role::Operator)?;
        let registry = Part::start(args, &dir).await?;
        registry::seed(registry.api(), &operator).await?;
        let api = format!("http://{}", registry.api());
        let router = cardea_router::start(cardea_router::Config {
            id: "dev".to_owned(),
            listen: Some(args.listen),
            admin: args.router_admin,
            access_log: AccessLog::File(dir.join("logs/access.log")),
            source: Source::Registry {
                addresses: vec![api.clone()],
                token: dir.token(Role::Router)?,
                ca: None,
                state_dir: Some(dir.join("router")),
            },
            drain: Duration::from_secs(5),
            ..cardea_router::Config::default()
        })
        .map_err(|e| router::failure(&e))?;
        let running = Running {
            pid: std::process::id(),
            router: format!("http://{}", router.traffic_address().unwrap_or(args.listen)),
            router_admin: format!("http://{}", router.admin_address()),
            api: api.clone(),
            registry_admin: format!("http://{}", registry.admin()),
        };
        running.write(&dir)?;
        let common = Common {
            program: std::env::current_exe().map_err(Exit::failed)?,
            data_dir: dir.path().to_owned(),
            api,
            token_file: dir.join(dir::token_file(Role::Agent)),
        };
        dir.token(Role::Agent)?;
        let (sender, events) = mpsc::channel(16);
        let mut dev = Self {
            dir,
            registry,
            router: Some(router),
            running,
            seen: BTreeMap::new(),
            events,
            children: JoinSet::new(),
            stopping: CancellationToken::new(),
            hurry: CancellationToken::new(),
            greeted: false,
        };
        for spec in instances::ALL {
            dev.children.spawn(instances::keep(
                common.clone(),
                spec,
                sender.clone(),
                dev.stopping.clone(),
                dev.hurry.clone(),
            ));
        }
        Ok(dev)
    }

    /// Until a signal, an order to quit, or the death of a part.
    async fn serve(&mut self, args: &DevArgs, begun: Instant, signals: &mut Signals) -> Outcome {
        let (orders, mut ordered) = mpsc::channel(4);
        let control = Control::listen(self.dir.path())
            .map_err(|e| Exit::failed(format!("the control socket: {e}")))?;
        let reached = reached(self.running.router.clone());
        let mut reached = std::pin::pin!(reached);
        let mut serving = std::pin::pin!(control.serve(&orders));
        loop {
            tokio::select! {
                asked = signals.next() => if asked == Asked::Stop { return Ok(()) },
                result = reached.as_mut(), if !self.greeted => {
                    result.map_err(|missing| self.not_ready(&missing))?;
                    self.greeted = true;
                    self.take_events();
                    self.greet(args, begun.elapsed())?;
                    control::read_terminal(orders.clone());
                }
                Some((spec, event)) = self.events.recv() => self.note(spec, event),
                Some(order) = ordered.recv() => if self.obey(order).await { return Ok(()) },
                () = serving.as_mut() => {}
                died = self.registry.ended() => {
                    return Err(Exit::failed(format!("the registry: {died}")));
                }
                died = died(self.router.as_mut()) => return Err(Exit::failed(died)),
            }
        }
    }

    fn greet(&self, args: &DevArgs, took: Duration) -> Outcome {
        use std::io::IsTerminal;
        let program = text::program();
        let token = self.dir.token(Role::Operator)?;
        let welcome = Welcome {
            program: &program,
            running: &self.running,
            token: &token,
            data_dir: self.dir.path(),
            database: if args.postgres.is_some() {
                "Postgres"
            } else {
                "SQLite"
            },
            instances: &self.seen,
            took,
            terminal: std::io::stdin().is_terminal(),
        };
        println!("{}", welcome.text());
        Ok(())
    }

    fn take_events(&mut self) {
        while let Ok((spec, event)) = self.events.try_recv() {
            self.note(spec, event);
        }
    }

    fn note(&mut self, spec: Spec, event: Event) {
        match event {
            Event::Up { pid, address } => {
                let seen = Seen {
                    pid: Some(pid),
                    address,
                };
                if self.seen.insert(spec.id, seen).is_some() && self.greeted {
                    println!("{} is back: pid {pid}, {address}", spec.id);
                }
            }
            Event::Gone { how, back_in } => {
                let seen = self.seen.get_mut(spec.id);
                let pid = seen.and_then(|seen| seen.pid.take());
                let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
                let log = self.dir.join(format!("logs/{}.log", spec.id));
                let log = if how.contains("failed") || how.contains("cannot") {
                    format!("; see {}", log.display())
                } else {
                    String::new()
                };
                println!(
                    "{}{pid} {how}; back in {} s{log}",
                    spec.id,
                    back_in.as_secs()
                );
            }
        }
    }

    /// Does as told; true: quit.
    async fn obey(&mut self, ordered: Ordered) -> bool {
        let order = match (ordered.order, self.registry.runs()) {
            (Order::ToggleRegistry, true) => Order::StopRegistry,
            (Order::ToggleRegistry, false) => Order::StartRegistry,
            (order, _) => order,
        };
        let (ok, text) = match order {
            Order::Quit => {
                reply(ordered, true, String::new());
                return true;
            }
            Order::StopRegistry if !self.registry.runs() => {
                (false, "The registry is stopped already.".to_owned())
            }
            Order::StopRegistry => {
                self.registry.stop().await;
                let text = format!(
                    "The registry is stopped. Traffic goes on: curl {}/hello",
                    self.running.router
                );
                (true, text)
            }
            Order::StartRegistry if self.registry.runs() => {
                (false, "The registry runs already.".to_owned())
            }
            Order::StartRegistry => match self.registry.resume().await {
                Ok(()) => (
                    true,
                    format!("The registry runs again: {}", self.running.api),
                ),
                Err(exit) => (false, format!("The registry did not start: {exit}")),
            },
            _ => (true, self.status()),
        };
        reply(ordered, ok, text);
        false
    }

    fn status(&self) -> String {
        let registry = if self.registry.runs() {
            self.running.api.as_str()
        } else {
            "stopped"
        };
        format!(
            "router    {}\nregistry  {registry}\n{}",
            self.running.router,
            text::instances(&self.seen)
        )
    }

    fn not_ready(&self, missing: &str) -> Exit {
        Exit::failed(format!(
            "not everything was reached through the router within {} s: {missing}\nsee the logs in {}",
            READY.as_secs(),
            self.dir.join("logs").display()
        ))
    }

    /// Instances first, each after its deregistration; then the router, then the registry.
    async fn stop(&mut self) {
        self.stopping.cancel();
        self.events.close();
        while self.children.join_next().await.is_some() {}
        if let Some(router) = self.router.take() {
            router.stop().await;
        }
        self.registry.stop().await;
    }

    /// Nothing is left behind: children that still run are killed.
    async fn finish(mut self) {
        let children = async { while self.children.join_next().await.is_some() {} };
        drop(timeout(Duration::from_secs(2), children).await);
        drop(fs::remove_file(self.dir.join(RUNNING)));
    }
}

fn reply(ordered: Ordered, ok: bool, text: String) {
    if !text.is_empty() {
        println!("{text}");
    }
    if let Some(answer) = ordered.answer {
        drop(answer.send(Answer { ok, text }));
    }
}

async fn died(router: Option<&mut Router>) -> String {
    match router {
        Some(router) => router.ended().await.to_string(),
        None => std::future::pending().await,
    }
}

/// Waits until every instance has answered through the router; the error names who has not.
async fn reached(router: String) -> Result<(), String> {
    let mut waiting: BTreeSet<&str> = instances::ALL.iter().map(|spec| spec.id).collect();
    let ask = async {
        while !waiting.is_empty() {
            for service in ["hello", "echo"] {
                let url = format!("{router}/{service}");
                if let Ok(answer) = http::get(&url, Duration::from_secs(2)).await
                    && answer.status == 200
                    && let Ok(said) = serde_json::from_slice::<serde_json::Value>(&answer.body)
                    && let Some(id) = said["instance"].as_str()
                {
                    waiting.remove(id);
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = timeout(READY, ask).await.is_ok();
    if in_time {
        Ok(())
    } else {
        let missing: Vec<&str> = waiting.into_iter().collect();
        Err(missing.join(", "))
    }
}
