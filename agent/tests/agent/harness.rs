//! Starting agents as processes: this same test program, told by its environment to be one.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::registry::{PATIENCE, Registry};

const CONFIG: &str = "CARDEA_TEST_CONFIG";
const COMMAND: &str = "CARDEA_TEST_COMMAND";

/// What the started process does; nothing when this is the test run itself.
pub(crate) fn agent_main() {
    let Some(path) = std::env::var_os(CONFIG) else {
        return;
    };
    let command = std::env::var(COMMAND).ok();
    let command = command.map(|text| serde_json::from_str::<Vec<String>>(&text).unwrap());
    let command = command.map(|words| words.into_iter().map(Into::into).collect());
    let config = cardea_agent::Config::from_toml(&fs::read_to_string(path).unwrap()).unwrap();
    let status = match cardea_agent::block_on(config, command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("agent: {error}");
            error.exit_status()
        }
    };
    std::process::exit(status);
}

/// A directory for one test: the configuration, the socket, and what scripts write.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Lets other users look at what is in it.
    pub(crate) fn open_to_all(&self) {
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// Waits until a file has this text in it.
    pub(crate) fn until_written(&self, name: &str, text: &str) {
        until(&format!("{text} in {name}"), || {
            self.read(name).contains(text).then_some(())
        });
    }

    /// A configuration with one service that is ready while the file `ready` is there.
    pub(crate) fn config(&self, registries: &[&Registry], more: &str) -> String {
        let ready = self.path("ready").display().to_string();
        format!(
            "{}\n[[service]]\nname = \"search\"\naddress = \"127.0.0.1:9001\"\nstop_ceiling = \"5s\"\n\
             probe = {{ exec = [\"test\", \"-f\", \"{ready}\"], interval = \"100ms\", failures = 2 }}\n{more}\n",
            self.head(registries)
        )
    }

    /// The part before the services.
    pub(crate) fn head(&self, registries: &[&Registry]) -> String {
        let addresses: Vec<String> = registries
            .iter()
            .map(|registry| format!("http://{}", registry.address()))
            .collect();
        format!(
            "registries = {addresses:?}\nsocket = \"{}\"\nkill_timeout = \"1s\"\n",
            self.socket().display()
        )
    }

    /// Starts an agent that runs a shell script; `$D` is the scene's directory.
    pub(crate) fn run(&self, config: &str, script: &str) -> Agent {
        self.start(config, Some(&["sh", "-c", script]), &[])
    }

    pub(crate) fn serve(&self, config: &str) -> Agent {
        self.start(config, None, &[])
    }

    /// Starts an agent, perhaps through another program.
    pub(crate) fn start(&self, config: &str, command: Option<&[&str]>, through: &[&str]) -> Agent {
        self.write("agent.toml", config);
        let program = std::env::current_exe().unwrap();
        let mut words: Vec<&str> = through.to_vec();
        words.push(program.to_str().unwrap());
        let mut starting = Command::new(words[0]);
        starting
            .args(&words[1..])
            .args(["--exact", "agent_main", "--nocapture", "--test-threads=1"])
            .env(CONFIG, self.path("agent.toml"))
            .env("D", self.dir.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.path("stdout")).unwrap())
            .stderr(fs::File::create(self.path("stderr")).unwrap());
        if let Some(command) = command {
            starting.env(COMMAND, serde_json::to_string(command).unwrap());
        }
        Agent {
            process: starting.spawn().unwrap(),
        }
    }
}

/// A running agent; killed when it is dropped.
pub(crate) struct Agent {
    process: Child,
}

impl Agent {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    /// Waits until it ends: its exit status and how long that took from now.
    pub(crate) fn ended(&mut self) -> (i32, Duration) {
        let began = Instant::now();
        let status = until("the agent's end", || self.process.try_wait().unwrap());
        let status = status.code().unwrap_or_else(|| -status.signal().unwrap());
        (status, began.elapsed())
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for child in children_of(self.pid()) {
            let _gone_already = kill(pid(child), Signal::SIGKILL);
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) fn signal_to(process: u32, signal: Signal) {
    kill(pid(process), signal).unwrap();
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// The processes whose parent this is, zombies included.
pub(crate) fn children_of(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return found;
    };
    for task in tasks.flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .map(|pid| pid.parse::<u32>().unwrap()),
        );
    }
    found
}

/// Waits for something that cannot be waited on, looking often.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks a running agent over its socket.
pub(crate) fn ask<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(call)
}

pub(crate) fn status(socket: &Path) -> cardea_agent::AgentStatus {
    ask(cardea_agent::status(socket)).unwrap()
}
