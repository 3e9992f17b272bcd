//! `cardea registry` as a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use cardea_registry_api::{
    api::{Mode, Status},
    client::Client,
};

use super::{SOON, Token, client_of};
use crate::{
    binary, http1, ports,
    process::{Process, Spawn},
    wait,
};

/// How a registry is to be started.
#[derive(Debug, Clone)]
pub struct RegistrySetup {
    name: String,
    database: Option<String>,
    settings: String,
    tables: String,
    program: Option<PathBuf>,
}

impl RegistrySetup {
    /// On SQLite, or on the database of that URL. Snapshots are written each second.
    pub fn new(name: &str, database: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            database,
            settings: String::new(),
            tables: "[snapshots]\nevery = \"1s\"\n".to_owned(),
            program: None,
        }
    }

    /// On another database.
    #[must_use]
    pub fn database(mut self, url: String) -> Self {
        self.database = Some(url);
        self
    }

    /// A top-level line.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push_str(line);
        self.settings.push('\n');
        self
    }

    /// Of another build.
    #[must_use]
    pub fn program(mut self, path: PathBuf) -> Self {
        self.program = Some(path);
        self
    }

    /// Further tables, such as `[guard]`.
    #[must_use]
    pub fn tables(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self
    }
}

/// A registry, running or dead.
#[derive(Debug)]
pub struct Registry {
    name: String,
    api: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    dir: PathBuf,
    program: PathBuf,
    process: Option<Process>,
}

impl Registry {
    /// Starts one and waits until it is ready.
    pub async fn start(setup: RegistrySetup, dir: &Path) -> Self {
        let mut registry = Self::prepare(setup, dir);
        registry.resume().await;
        registry
    }

    /// Writes its file, without starting it.
    pub fn prepare(setup: RegistrySetup, dir: &Path) -> Self {
        let (api, admin) = (ports::reserve(), ports::reserve());
        let data = dir.join(&setup.name);
        let database = setup
            .database
            .as_ref()
            .map_or_else(String::new, |url| format!("database = \"{url}\"\n"));
        let text = format!(
            "listen = \"127.0.0.1:{api}\"\nadmin = \"127.0.0.1:{admin}\"\n\
             data_dir = \"{}\"\nreplica = \"{}\"\n{database}{}{}{}",
            data.display(),
            setup.name,
            setup.settings,
            setup.tables,
            Token::toml()
        );
        let config = dir.join(format!("{}.toml", setup.name));
        std::fs::write(&config, text).expect("the registry's file");
        Self {
            name: setup.name,
            api: SocketAddr::from(([127, 0, 0, 1], api)),
            admin: SocketAddr::from(([127, 0, 0, 1], admin)),
            config,
            dir: dir.to_path_buf(),
            program: setup.program.unwrap_or_else(binary::cardea),
            process: None,
        }
    }

    /// Starts it (again) and waits until it is ready.
    pub async fn resume(&mut self) {
        self.spawn();
        self.wait_ready().await;
    }

    /// Starts it (again) without waiting.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let process = Spawn::new(&self.name, &self.program)
            .args(["registry", "--config"])
            .args([&self.config])
            .start(&self.dir);
        self.process = Some(process);
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&mut self) {
        let (name, admin) = (self.name.clone(), self.admin);
        let process = self.process.as_mut().expect("a started registry");
        wait::until_ok(&format!("{name} is ready"), SOON, || {
            let end = process.ended();
            assert!(
                end.is_none(),
                "{name} ended ({end:?}):\n{}",
                process.log_text()
            );
            ready(admin)
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("a running registry").kill_now();
    }

    /// TERM, and waits for its end.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("a running registry");
        let status = process.stop(SOON).await;
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a running registry")
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Where its API is.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where health and metrics are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where it keeps its files.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// A client of this registry alone, with role `admin`.
    pub fn client(&self) -> Client {
        client_of([self.api], Token::Admin)
    }

    /// How it stands.
    pub async fn status(&self) -> Status {
        self.client().status().await.expect("a status")
    }

    /// Waits until it stands like that, with nothing left to be written if that is [`Mode::Ok`].
    pub async fn wait_mode(&self, mode: Mode, limit: std::time::Duration) -> Status {
        let client = self.client();
        wait::until_ok(
            &format!("{} is in mode {mode:?}", self.name),
            limit,
            || async {
                match client.status().await {
                    Ok(status)
                        if status.mode == mode
                            && (mode != Mode::Ok || status.pending_changes == 0) =>
                    {
                        Ok(status)
                    }
                    other => Err(format!("{other:?}")),
                }
            },
        )
        .await
    }
}

async fn ready(admin: SocketAddr) -> Result<(), String> {
    match http1::get(admin, "localhost", "/readyz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
