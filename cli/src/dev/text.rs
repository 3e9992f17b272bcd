//! What `cardea dev` prints.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Running, instances::ALL};
use crate::table;

/// What is known of an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Its process; none while it is away.
    pub(super) pid: Option<u32>,
    /// Where it was last.
    pub(super) address: SocketAddr,
}

/// How to call this program from here: by its name if the shell would find it.
pub(super) fn program() -> String {
    let Ok(exe) = std::env::current_exe() else {
        return "cardea".to_owned();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("cardea"))
        .find(|candidate| candidate.is_file());
    if found.and_then(|found| found.canonicalize().ok()) == exe.canonicalize().ok() {
        return "cardea".to_owned();
    }
    let here = std::env::current_dir().and_then(|dir| dir.canonicalize());
    shortened(&exe, here.ok().as_deref()).display().to_string()
}

fn shortened(exe: &Path, here: Option<&Path>) -> PathBuf {
    let below = here.and_then(|here| exe.strip_prefix(here).ok());
    match below {
        Some(below) if below.components().count() == 1 => Path::new(".").join(below),
        Some(below) => below.to_owned(),
        None => exe.to_owned(),
    }
}

/// The words of the start.
#[derive(Debug)]
pub(super) struct Welcome<'a> {
    /// How to call this program.
    pub(super) program: &'a str,
    /// The addresses.
    pub(super) running: &'a Running,
    /// The operator's token.
    pub(super) token: &'a str,
    /// Where everything is kept.
    pub(super) data_dir: &'a Path,
    /// The database in a word.
    pub(super) database: &'a str,
    /// The instances.
    pub(super) instances: &'a BTreeMap<&'static str, Seen>,
    /// How long it took.
    pub(super) took: Duration,
    /// Whether orders can be typed.
    pub(super) terminal: bool,
}

impl Welcome<'_> {
    /// As printed.
    pub(super) fn text(&self) -> String {
        let Self {
            program,
            running,
            token,
            ..
        } = self;
        let data = self.data_dir.display();
        let option = if self.data_dir == Path::new("data") {
            String::new()
        } else {
            format!(" --data-dir {data}")
        };
        let victim = self.instances.get("hello-1").and_then(|seen| seen.pid);
        let victim = victim.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
        let typed = if self.terminal {
            ", or type r and Enter here"
        } else {
            ""
        };
        format!(
            "\
Cardea runs: 2 services, 4 instances, all reached through the router after {took:.1} s.

  router          {router}
  router admin    {router_admin}
  registry API    {api}
  registry admin  {registry_admin}
  operator token  {token}
                  (kept in {data}/operator.token, where `cardea ctl` finds it)
  data            {data}/ ({database}), logs of the instances in {data}/logs/

{instances}

Send a request:
  curl {router}/hello

Three things to try, while this asks ten times a second in another terminal:
  while sleep 0.1; do curl -sS {router}/hello || echo FAILED; done

  1. Kill an instance: no request fails, and it comes back by itself
       kill -9 {victim}
  2. Drain one: it gets no new requests; then let it work again
       {program} ctl{option} drain hello-2
       {program} ctl{option} undrain hello-2
  3. Stop the registry: traffic goes on; then start it again{typed}
       {program} ctl{option} dev stop-registry
       {program} ctl{option} dev start-registry

Have a look:
  {program} ctl{option} get instances
  curl -H \"Authorization: Bearer $(cat {data}/operator.token)\" {api}/v1/services

Ctrl-C stops everything.",
            took = self.took.as_secs_f64(),
            api = running.api,
            router = running.router,
            router_admin = running.router_admin,
            registry_admin = running.registry_admin,
            database = self.database,
            instances = indented(&instances(self.instances)),
        )
    }
}

/// The instances as a table.
pub(super) fn instances(seen: &BTreeMap<&'static str, Seen>) -> String {
    let rows = ALL
        .iter()
        .map(|spec| {
            let seen = seen.get(spec.id);
            let pid = seen.and_then(|seen| seen.pid);
            vec![
                format!("{}/{}", spec.service, spec.id),
                seen.map_or_else(|| "–".to_owned(), |seen| seen.address.to_string()),
                pid.map_or_else(|| "–".to_owned(), |pid| pid.to_string()),
            ]
        })
        .collect();
    table::render(&["instance", "address", "pid"], rows, &["pid"])
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome() {
        let running = Running {
            pid: 1,
            router: "http://127.0.0.1:8080".to_owned(),
            router_admin: "http://127.0.0.1:8081".to_owned(),
            api: "http://127.0.0.1:7400".to_owned(),
            registry_admin: "http://127.0.0.1:7401".to_owned(),
        };
        let instances = ALL
            .iter()
            .zip(41_001..)
            .map(|(spec, port)| {
                let seen = Seen {
                    pid: Some(u32::from(port) - 40_000),
                    address: SocketAddr::from(([127, 0, 0, 1], port)),
                };
                (spec.id, seen)
            })
            .collect();
        let welcome = Welcome {
            program: "cardea",
            running: &running,
            token: "cardea_operator_x",
            data_dir: Path::new("data"),
            database: "SQLite",
            instances: &instances,
            took: Duration::from_millis(640),
            terminal: true,
        };
        insta::assert_snapshot!(welcome.text());
    }

    #[test]
    fn the_program_is_named_as_short_as_it_can_be_called() {
        let here = Path::new("/home/me/cardea");
        for (exe, shown) in [
            ("/home/me/cardea/target/debug/cardea", "target/debug/cardea"),
            ("/home/me/cardea/cardea", "./cardea"),
            ("/opt/cardea", "/opt/cardea"),
        ] {
            assert_eq!(shortened(Path::new(exe), Some(here)), Path::new(shown));
        }
    }
}
