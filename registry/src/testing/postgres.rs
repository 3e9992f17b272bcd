//! A real Postgres server of its own, for one test: fsync on, trust on loopback, stopped at the end.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A server. Dropped, it is stopped and its files are removed.
#[derive(Debug)]
pub(crate) struct Postgres {
    dir: TempDir,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes and starts one.
    pub(crate) fn start() -> Self {
        let bin = binaries();
        let dir = tempfile::Builder::new()
            .prefix("cardea-postgres-")
            .tempdir()
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some((uid, gid)) = postgres_user(dir.path()) {
            chown(&data, Some(uid), Some(gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self { dir, bin, port };
        server.run(
            "initdb",
            &["-U", "cardea", "-A", "trust", "--no-sync", "-E", "UTF8"],
        );
        server.resume();
        server
    }

    /// Where it is reached.
    pub(crate) fn url(&self) -> String {
        format!("postgres://cardea@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops it like a crash.
    pub(crate) fn crash(&self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-w"]);
    }

    /// Starts it (again).
    pub(crate) fn resume(&self) {
        let options = format!(
            "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories=",
            self.port
        );
        self.run("pg_ctl", &["start", "-w", "-l", "log", "-o", &options]);
    }

    /// Freezes every process of the server, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let pid_file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let postmaster = pid_file.lines().next().unwrap().trim();
        let mut all = children(postmaster);
        all.push(postmaster.to_owned());
        let done = Command::new("kill")
            .arg(signal)
            .args(&all)
            .status()
            .unwrap();
        // A backend may have ended between listing and signalling.
        assert!(done.success() || frozen, "kill {signal} {all:?}");
    }

    /// Runs SQL through psql, as somebody else would.
    pub(crate) fn sql(&self, text: &str) -> String {
        let out = Command::new(self.bin.join("psql"))
            .args([&self.url(), "-Atqc", text])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn run(&self, program: &str, args: &[&str]) {
        let program = self.bin.join(program);
        let mut command = match postgres_user(self.dir.path()) {
            // Postgres refuses to run as root.
            Some((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={uid}"))
                    .arg(format!("--regid={gid}"))
                    .arg("--clear-groups")
                    .arg(&program);
                command
            }
            None => Command::new(&program),
        };
        let data = self.data();
        let out = command
            .args(["-D".as_ref(), data.as_os_str()])
            .args(args)
            .current_dir(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let log = fs::read_to_string(data.join("log")).unwrap_or_default();
        assert!(
            out.status.success(),
            "{}: {}\n{log}",
            program.display(),
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        if let Some(pid) = pid.lines().next() {
            let _ = Command::new("kill").args(["-CONT", pid]).status();
            let _ = Command::new("kill").args(["-QUIT", pid]).status();
            while Path::new("/proc").join(pid).exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

/// The processes that a process has started.
fn children(pid: &str) -> Vec<String> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn binaries() -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("these tests need a PostgreSQL server: apt-get install postgresql")
    })
}

/// When this runs as root: whom the server runs as.
fn postgres_user(ours: &Path) -> Option<(u32, u32)> {
    if fs::metadata(ours).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .unwrap_or_else(|| panic!("no user `postgres`: apt-get install postgresql"));
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}
