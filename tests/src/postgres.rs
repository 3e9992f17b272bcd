//! A PostgreSQL server of a test's own.
//!
//! Durability is as in production: `fsync`, `synchronous_commit` and `full_page_writes` are on.
//! The data folder is made by `initdb` once and copied for each server. The server refuses to run as
//! root, so it then runs as the user `postgres` that Debian's package makes.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};
use sqlx::{Connection, PgConnection};

use crate::{
    ports,
    process::{self, Process, Spawn},
    wait,
};

/// The database that the tests use.
pub const DATABASE: &str = "cardea";

/// A server that can be stopped, frozen and started again on the same port and data.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

/// Where Debian, or the PATH, has the server's programs.
pub fn bin_dir() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    found.sort();
    if let Some(path) = std::env::var_os("PATH") {
        found.extend(std::env::split_paths(&path));
    }
    found
        .into_iter()
        .rev()
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
}

fn owner() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let user = User::from_name("postgres")
        .expect("the users")
        .expect("no user `postgres`: install Debian's package postgresql");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

fn command(program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let dir = bin_dir().expect("no PostgreSQL server found: install Debian's package postgresql");
    let mut command = Command::new(dir.join(program));
    if let Some((uid, gid)) = owner() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let out = command.output().expect("a PostgreSQL program");
    assert!(
        out.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// A folder that user `postgres` can reach, which a checkout below /root is not.
fn new_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("cardea-pg-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder for PostgreSQL");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    if let Some((uid, gid)) = owner() {
        std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).expect("its owner");
    }
    dir
}

/// The archive of a fresh data folder: made once for each version of the server, kept in the target
/// folder.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let version = command("postgres").arg("--version").output();
        let version = version.expect("PostgreSQL's version").stdout;
        let version: String = String::from_utf8_lossy(&version)
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let target = crate::binary::profile_dir().join("../e2e");
        std::fs::create_dir_all(&target).expect("a folder for the template");
        let archive = target.join(format!("{version}.tar"));
        if archive.is_file() {
            return archive;
        }
        let dir = new_dir();
        run(command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata"])
            .arg(dir.join("data")));
        let fresh = target.join(format!("{version}-{}.new", std::process::id()));
        run(Command::new("tar")
            .arg("-C")
            .arg(&dir)
            .arg("-cf")
            .arg(&fresh)
            .arg("data"));
        std::fs::rename(&fresh, &archive).expect("the template's name");
        drop(std::fs::remove_dir_all(&dir));
        archive
    })
}

impl Postgres {
    /// Starts a server with the empty database [`DATABASE`].
    pub async fn start() -> Self {
        let dir = new_dir();
        let archive = template();
        run(Command::new("tar")
            .args(["--same-owner", "-C"])
            .arg(&dir)
            .arg("-xf")
            .arg(archive));
        let mut server = Self {
            dir,
            port: ports::reserve(),
            process: None,
        };
        server.resume().await;
        server
            .admin(&format!("CREATE DATABASE {DATABASE}"))
            .await
            .expect("a database");
        server
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of [`DATABASE`].
    pub fn url(&self) -> String {
        url(self.port, DATABASE)
    }

    /// The URL of [`DATABASE`] through the server's Unix socket.
    pub fn url_of_socket(&self) -> String {
        format!("{}&host={}", self.url(), self.dir.display())
    }

    /// The URL of [`DATABASE`] through something else that listens on `port`.
    pub fn url_through(&self, port: u16) -> String {
        url(port, DATABASE)
    }

    /// Starts the server again after a stop, and waits until it answers.
    pub async fn resume(&mut self) {
        assert!(self.process.is_none(), "PostgreSQL runs already");
        let bin = bin_dir().expect("PostgreSQL's programs").join("postgres");
        let mut spawn = Spawn::new(&format!("postgres-{}", self.port), bin)
            .current_dir(Path::new("/"))
            .args(["-D"])
            .args([self.dir.join("data")])
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                &format!("unix_socket_directories={}", self.dir.display()),
            ])
            .args(["-c", "max_connections=60"])
            .args(["-c", "shared_buffers=64MB"])
            .args(["-c", "fsync=on"])
            .args(["-c", "synchronous_commit=on"])
            .args(["-c", "full_page_writes=on"]);
        if let Some((uid, gid)) = owner() {
            spawn = spawn.user(uid, gid);
        }
        self.process = Some(spawn.start(&self.dir));
        wait::until_ok("PostgreSQL answers", Duration::from_mins(1), || async {
            if let Some(status) = self.process_ended() {
                panic!("PostgreSQL ended: {status}\n{}", self.log());
            }
            match PgConnection::connect(&url(self.port, "postgres")).await {
                Ok(connection) => connection.close().await.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            }
        })
        .await;
    }

    fn process_ended(&self) -> Option<String> {
        let pid = self.process.as_ref()?.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
        matches!(state, Some(Some('Z')) | None).then(|| "see its log".to_owned())
    }

    /// What the server has written.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| {
            process::tail(&process.log_text(), 20)
        })
    }

    /// `pg_ctl stop -m immediate`: as if the power had failed.
    pub async fn stop_immediate(&mut self) {
        let mut process = self.process.take().expect("a running PostgreSQL");
        process.signal(Signal::SIGQUIT);
        process.wait_end(Duration::from_secs(30)).await;
    }

    /// SIGSTOP for the server and each of its processes: connections stay open, nothing answers.
    pub async fn freeze(&self) {
        let pid = self.process.as_ref().expect("a running PostgreSQL").pid();
        // First of all: then nobody is born while its children are gone through.
        process::freeze(pid).await;
        for child in process::children(pid) {
            process::freeze(child).await;
        }
    }

    /// SIGCONT for all of them.
    pub fn thaw(&self) {
        thaw(self.process.as_ref().expect("a running PostgreSQL").pid());
    }

    /// Runs a statement in the server's own database `postgres`.
    pub async fn admin(&self, sql: &str) -> Result<(), sqlx::Error> {
        execute(&url(self.port, "postgres"), sql).await
    }

    /// Runs a statement in [`DATABASE`].
    pub async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        execute(&self.url(), sql).await
    }

    /// Drops [`DATABASE`] under the feet of whoever is connected, and makes an empty one.
    pub async fn empty(&self) {
        let drop = format!("DROP DATABASE {DATABASE} WITH (FORCE)");
        self.admin(&drop).await.expect("the database dropped");
        let create = format!("CREATE DATABASE {DATABASE}");
        self.admin(&create).await.expect("an empty database");
    }

    /// One number out of [`DATABASE`].
    pub async fn number(&self, sql: &str) -> i64 {
        let mut connection = PgConnection::connect(&self.url())
            .await
            .expect("PostgreSQL");
        let number = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut connection)
            .await
            .expect("a number");
        connection.close().await.expect("a closed connection");
        number
    }

    /// One column of texts out of [`DATABASE`].
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let mut connection = PgConnection::connect(&self.url())
            .await
            .expect("PostgreSQL");
        let texts = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut connection)
            .await
            .expect("texts");
        connection.close().await.expect("a closed connection");
        texts
    }
}

async fn execute(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // The backends lead their own process groups: let the server end them.
            thaw(process.pid());
            process.signal(Signal::SIGQUIT);
            let end = std::time::Instant::now() + Duration::from_secs(10);
            while !process::children(process.pid()).is_empty() && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(process);
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn thaw(pid: u32) {
    for child in process::children(pid) {
        process::signal(child, Signal::SIGCONT);
    }
    process::signal(pid, Signal::SIGCONT);
}
