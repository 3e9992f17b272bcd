//! `cardea router` as a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{CLUSTER, SOON, Token};
use crate::{
    binary,
    http1::{self, Response},
    ports,
    process::{Process, Spawn},
    wait,
};

/// How a router is to be started.
#[derive(Debug, Clone)]
pub struct RouterSetup {
    name: String,
    cluster: String,
    args: Vec<String>,
}

impl RouterSetup {
    /// With a token of role `router` for these registries.
    pub fn new(name: &str, registries: &[SocketAddr]) -> Self {
        let registries = registries.iter();
        let args = registries.flat_map(|at| ["--registry".to_owned(), format!("http://{at}")]);
        Self {
            name: name.to_owned(),
            cluster: CLUSTER.to_owned(),
            args: args.collect(),
        }
    }

    /// In another cluster.
    #[must_use]
    pub fn cluster(mut self, cluster: &str) -> Self {
        cluster.clone_into(&mut self.cluster);
        self
    }

    /// A further flag with its value.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.args.extend([flag.to_owned(), value.to_owned()]);
        self
    }
}

/// A router, running or dead.
#[derive(Debug)]
pub struct Router {
    name: String,
    traffic: SocketAddr,
    admin: SocketAddr,
    args: Vec<String>,
    dir: PathBuf,
    process: Option<Process>,
    upgrades: u32,
}

impl Router {
    /// Starts one and waits until it is ready.
    pub async fn start(setup: RouterSetup, dir: &Path) -> Self {
        let mut router = Self::prepare(setup, dir);
        router.resume().await;
        router
    }

    /// Picks its ports, without starting it.
    pub fn prepare(setup: RouterSetup, dir: &Path) -> Self {
        let traffic = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
        let admin = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
        let data = dir.join(&setup.name);
        let mut args = setup.args;
        let pairs = [
            ("--listen", traffic.to_string()),
            ("--admin", admin.to_string()),
            ("--id", setup.name.clone()),
            ("--cluster", setup.cluster),
            ("--data-dir", data.display().to_string()),
            ("--access-log", format!("{}-access.log", data.display())),
        ];
        args.extend(
            pairs
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value]),
        );
        Self {
            name: setup.name,
            traffic,
            admin,
            args,
            dir: dir.to_path_buf(),
            process: None,
            upgrades: 0,
        }
    }

    /// Starts it (again) and waits until it is ready.
    pub async fn resume(&mut self) {
        self.spawn();
        self.wait_ready(SOON).await;
    }

    /// Starts it (again) without waiting.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        self.process = Some(self.spawn_with(&self.name, &self.args));
    }

    fn spawn_with(&self, log: &str, args: &[String]) -> Process {
        Spawn::new(log, binary::cardea())
            .args(["router"])
            .args(args)
            .env("CARDEA_TOKEN", Token::Router.secret())
            .start(&self.dir)
    }

    /// Starts a process that is to take over from the running one; these flags, in pairs with their
    /// values, stand instead of its own.
    pub fn spawn_upgrade(&mut self, flags: &[&str]) -> Process {
        self.upgrades += 1;
        let log = format!("{}-upgrade-{}", self.name, self.upgrades);
        let mut args = vec!["--upgrade".to_owned()];
        for pair in self.args.chunks(2) {
            if !flags.iter().step_by(2).any(|flag| *flag == pair[0]) {
                args.extend_from_slice(pair);
            }
        }
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.spawn_with(&log, &args)
    }

    /// Lets another process take over; what is left of the one before.
    pub async fn upgrade(&mut self, flags: &[&str]) -> Process {
        let mut next = self.spawn_upgrade(flags);
        next.wait_log("that it serves", SOON, |log| {
            log.contains("the router serves").then_some(())
        })
        .await;
        let before = self.process.replace(next);
        before.expect("a running router")
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&mut self, limit: Duration) {
        let (name, admin) = (self.name.clone(), self.admin);
        let process = self.process.as_mut().expect("a started router");
        wait::until_ok(&format!("{name} is ready"), limit, || {
            let end = process.ended();
            assert!(
                end.is_none(),
                "{name} ended ({end:?}):\n{}",
                process.log_text()
            );
            async move {
                match http1::get(admin, "localhost", "/readyz").await {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("a running router").kill_now();
    }

    /// TERM, and waits for its end.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("a running router");
        let status = process.stop(SOON).await;
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a running router")
    }

    /// Its process, to be asked whether it ended.
    pub fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running router")
    }

    /// Where callers connect.
    pub fn traffic(&self) -> SocketAddr {
        self.traffic
    }

    /// Where operators ask.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it keeps its last table.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// A GET through it on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Response {
        http1::get(self.traffic, host, path)
            .await
            .expect("an answer of the router")
    }

    /// A GET of its admin port.
    pub async fn admin_get(&self, path: &str) -> Response {
        http1::get(self.admin, "localhost", path)
            .await
            .expect("an answer of the admin port")
    }

    /// The sum over all series of a metric whose labels contain `labels`; none: there is no such series.
    pub async fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let text = self.admin_get("/metrics").await.text();
        metric_in(&text, name, labels)
    }

    /// As [`Router::metric`], of several labels at one time: what is read later has counted more, and
    /// then the shares are others. 0: there is no such series.
    pub async fn metrics<const N: usize>(&self, name: &str, labels: [&str; N]) -> [f64; N] {
        let text = self.admin_get("/metrics").await.text();
        labels.map(|labels| metric_in(&text, name, labels).unwrap_or_default())
    }

    /// Waits until it has applied a revision, or a later one.
    pub async fn wait_applied(&self, revision: u64) {
        let what = format!("{} has applied revision {revision}", self.name);
        wait::until_ok(&what, SOON, || async {
            let at = self.metric("cardea_router_config_revision", "").await;
            match at {
                Some(at) if at >= revision as f64 => Ok(()),
                at => Err(format!("revision {at:?}")),
            }
        })
        .await;
    }
}

/// The sum over all series of a metric in a Prometheus text whose labels contain `labels`.
pub fn metric_in(text: &str, name: &str, labels: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (series, value) = rest.rsplit_once(' ')?;
        let whole = series.is_empty() || series.starts_with('{');
        (whole && series.contains(labels))
            .then(|| value.parse::<f64>().ok())
            .flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}
