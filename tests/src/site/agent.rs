//! `cardea agent run` around a `cardea-test-backend`, as processes.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use cardea_registry_api::{InstanceKey, InstanceState, client::Client};

use super::{CLUSTER, SOON, Token, key};
use crate::{
    binary, ports,
    process::{self, Process, Spawn},
    wait,
};

/// How an instance behind an agent is to be started.
#[derive(Debug, Clone)]
pub struct AgentSetup {
    name: String,
    service: String,
    cluster: String,
    registries: Vec<SocketAddr>,
    token: Token,
    lines: String,
    warm_up: Duration,
    probe_interval: String,
    command: Option<Vec<String>>,
}

impl AgentSetup {
    /// Probed by HTTP, with a lease of 3 s.
    pub fn new(name: &str, service: &str, registries: &[SocketAddr]) -> Self {
        Self {
            name: name.to_owned(),
            service: service.to_owned(),
            cluster: CLUSTER.to_owned(),
            registries: registries.to_vec(),
            token: Token::Agent,
            lines: "lease = \"3s\"\n".to_owned(),
            warm_up: Duration::ZERO,
            probe_interval: "200ms".to_owned(),
            command: None,
        }
    }

    /// In another cluster.
    #[must_use]
    pub fn cluster(mut self, cluster: &str) -> Self {
        cluster.clone_into(&mut self.cluster);
        self
    }

    /// With another token.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = token;
        self
    }

    /// Replaces the lines of the service's table (the lease is among them).
    #[must_use]
    pub fn lines(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.lines);
        self
    }

    /// The instance's health check fails that long after its start.
    #[must_use]
    pub fn warm_up(mut self, span: Duration) -> Self {
        self.warm_up = span;
        self
    }

    /// How often the instance is probed.
    #[must_use]
    pub fn probe_interval(mut self, interval: &str) -> Self {
        interval.clone_into(&mut self.probe_interval);
        self
    }

    /// Wraps this command instead of a backend.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = Some(command.iter().map(|&word| word.to_owned()).collect());
        self
    }
}

/// An agent with its instance, running or dead.
#[derive(Debug)]
pub struct Agent {
    setup: AgentSetup,
    address: SocketAddr,
    config: PathBuf,
    record: PathBuf,
    socket: PathBuf,
    dir: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// Starts it without waiting for anything.
    pub fn start(setup: AgentSetup, dir: &Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
        let file = |suffix: &str| dir.join(format!("{}{suffix}", setup.name));
        let registries: Vec<String> = setup
            .registries
            .iter()
            .map(|at| format!("\"http://{at}\""))
            .collect();
        // Socket names are short: a checkout may be deep.
        let socket = std::env::temp_dir().join(format!("cardea-{}.sock", address.port()));
        let text = format!(
            "registries = [{}]\ntoken = \"{}\"\ncluster = \"{}\"\nsocket = \"{}\"\n\
             [[service]]\nname = \"{}\"\nid = \"{}\"\naddress = \"{address}\"\n{}\
             [service.probe]\nhttp = \"/healthz\"\ninterval = \"{}\"\n",
            registries.join(", "),
            setup.token.secret(),
            setup.cluster,
            socket.display(),
            setup.service,
            setup.name,
            setup.lines,
            setup.probe_interval,
        );
        let config = file(".toml");
        std::fs::write(&config, text).expect("the agent's file");
        let mut agent = Self {
            address,
            config,
            record: file(".posts"),
            socket,
            dir: dir.to_path_buf(),
            process: None,
            setup,
        };
        agent.resume();
        agent
    }

    /// Starts it (again), on the same address, without waiting for anything.
    pub fn resume(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.setup.name);
        let mut spawn = Spawn::new(&self.setup.name, binary::cardea())
            .args(["agent", "run", "--config"])
            .args([&self.config])
            .args(["--"]);
        spawn = match &self.setup.command {
            Some(command) => spawn.args(command),
            None => spawn
                .args([binary::find("cardea-test-backend")])
                .args([
                    "--listen",
                    &self.address.to_string(),
                    "--name",
                    &self.setup.name,
                ])
                .args([
                    "--warm-up",
                    &self.setup.warm_up.as_millis().to_string(),
                    "--record",
                ])
                .args([&self.record]),
        };
        self.process = Some(spawn.start(&self.dir));
    }

    /// Its name, which is the instance's id too.
    pub fn name(&self) -> &str {
        &self.setup.name
    }

    /// The instance's key.
    pub fn key(&self) -> InstanceKey {
        key(&self.setup.cluster, &self.setup.service, &self.setup.name)
    }

    /// Where the instance listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the instance records POSTs.
    pub fn record(&self) -> &Path {
        &self.record
    }

    /// The agent's settings file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The agent's process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running agent")
    }

    /// The instance's process id.
    pub fn instance_pid(&self) -> u32 {
        let agent = self.process.as_ref().expect("a running agent");
        let children = process::children(agent.pid());
        *children.first().expect("the instance behind the agent")
    }

    /// Waits until the instance is registered and `up`.
    pub async fn wait_registered(&mut self, client: &Client) {
        let key = self.key();
        let process = self.process.as_mut().expect("a running agent");
        wait::until_ok(&format!("{key} is registered"), SOON, || {
            let end = process.ended();
            assert!(
                end.is_none(),
                "the agent of {key} ended:\n{}",
                process.log_text()
            );
            let key = &key;
            async move {
                match client.instance(key).await {
                    Ok(found) if found.object.effective_state() == InstanceState::Up => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
    }

    /// # Panics
    /// When the agent's log does not say, in this order, that every router has let go and that the
    /// process has ended.
    pub fn assert_left_before_its_process_ended(&self) {
        let log = self.log_text();
        let at = |words: &str| log.find(words).unwrap_or(usize::MAX);
        let (let_go, ended) = (at("every router has let go"), at("the process has ended"));
        assert!(
            let_go < ended && ended < usize::MAX,
            "{} did not wait for the routers:\n{log}",
            self.name()
        );
    }

    /// What the agent and its instance have written so far.
    pub fn log_text(&self) -> String {
        let log = self.dir.join(format!("{}.log", self.setup.name));
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// TERM, as a redeploy does it, and waits until agent and instance have ended.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("a running agent");
        process.stop(SOON).await
    }

    /// `kill -9` of agent and instance at once, as when their machine dies.
    pub fn kill(&mut self) {
        self.process.take().expect("a running agent").kill_group();
    }

    /// Whether it was stopped or killed.
    pub fn is_down(&self) -> bool {
        self.process.is_none()
    }

    /// `cardea agent COMMAND…` for this agent's socket.
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary::cardea());
        command
            .arg("agent")
            .args(args)
            .arg("--socket")
            .arg(&self.socket);
        process::output(&mut command, SOON)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A killed agent leaves its socket behind.
        drop(std::fs::remove_file(&self.socket));
    }
}
